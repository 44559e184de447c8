//! A driver's place at one function, with RAM that the function reaches and an engine.

use super::engine::{Engine, EngineError, Way};
use super::{Booted, Kind, Place};
use crate::exit::Failure;
use peerdma::addr::{AddrRange, BusAddr, Bytes, Iova, PhysAddr};
use peerdma::chunk::Chunk;
use peerdma::dma::engine::{Context, MapRangesError, Mapping};
use peerdma::dma::reach::Peers;
use peerdma::dma::{Behind, DeviceAddress, MemAttrs, Owner, Prot, Span};
use peerdma::iova::Allocator;
use peerdma_emu::device::Shared;
use peerdma_emu::fabric::NodeId;
use peerdma_emu::host::{Buffer, Seat, Space};
use peerdma_emu::memory::Memory;
use std::cell::RefCell;
use std::error::Error;
use std::sync::Arc;

/// A queue of one function's mappings.
pub(crate) type Queue<'c> = Context<'c, Space, RefCell<Allocator>>;

/// RAM around what is used of it, on each side.
const MARGIN: u64 = 4096;

/// RAM that a function was given, with a page on each side that it was not.
#[derive(Debug)]
pub(crate) struct RamRange {
    buffer: Buffer,
    /// Where the function finds it.
    pub(crate) spans: Vec<Span>,
}

impl RamRange {
    /// The first address for the function.
    pub(crate) fn device(&self) -> BusAddr {
        self.spans.first().map_or(BusAddr::new(0), |span| BusAddr::new(span.address.as_u64()))
    }

    /// Where the processor finds it.
    pub(crate) fn cpu(&self) -> PhysAddr {
        // Inside the buffer, which does not wrap.
        PhysAddr::new(self.buffer.range().start().as_u64() + MARGIN)
    }

    /// The memory, and where in it the range begins.
    pub(crate) fn memory(&self) -> (&dyn Memory, Bytes) {
        let (memory, offset) = self.buffer.memory();
        (memory, Bytes::new(offset.as_u64() + MARGIN))
    }
}

/// An open device.
pub(crate) struct Session<'c> {
    booted: &'c Booted,
    seat: &'c Seat<'c>,
    queue: &'c Queue<'c>,
    place: Place,
    /// What was mapped, for as long as the engine may use it.
    held: Vec<Mapping<'c, 'c, Space, RefCell<Allocator>>>,
    engine: Option<Engine<'c>>,
    /// RAM that the engine works on: all of the bytes, or a piece on the way to and from VRAM.
    stage: Option<RamRange>,
}

/// Bytes that a GPU brings to where the CPU looks, at a time.
const PIECE: u64 = 1 << 20;

/// Opens the device of a place, starts its engine, and does something with it.
pub(crate) fn with_session<R>(
    booted: &Booted,
    place: &Place,
    then: impl FnOnce(&mut Session<'_>) -> Result<R, Failure>,
) -> Result<R, Failure> {
    with_idle(booted, place, |session| {
        let Some(at) = place.at else { return Err(Failure::usage("RAM has no driver")) };
        session.engine = Engine::open(at.model, session)?;
        let needed = match place.kind {
            Kind::Staged => Some(place.len),
            Kind::Memory { .. } if place.is_gpu_memory() => Some(Bytes::new(PIECE)),
            Kind::Memory { .. } | Kind::Medium | Kind::Ram => None,
        };
        session.stage = needed.map(|len| session.allocate(len)).transpose()?;
        then(session)
    })
}

/// Opens the device of a place, without its engine, and does something with it.
pub(crate) fn with_idle<R>(
    booted: &Booted,
    place: &Place,
    then: impl FnOnce(&mut Session<'_>) -> Result<R, Failure>,
) -> Result<R, Failure> {
    let Some(at) = place.at else { return Err(Failure::usage("RAM has no driver")) };
    let cannot = |error: &dyn std::fmt::Display| Failure::Device {
        what: format!("cannot open {}: {error}", place.name),
        source: None,
    };
    let seat = booted.kernel.seat(at.node).map_err(|error| cannot(&error))?;
    let owners = booted.kernel.owners();
    let peers = Peers::of(booted.kernel.topology());
    let queue = seat.context(&owners, &peers).map_err(|error| cannot(&error))?;
    let place = place.clone();
    let mut session =
        Session { booted, seat: &seat, queue: &queue, place, held: Vec::new(), engine: None, stage: None };
    then(&mut session)
}

impl<'c> Session<'c> {
    pub(super) fn seat(&self) -> &'c Seat<'c> {
        self.seat
    }

    /// The function in the machine.
    pub(crate) fn node(&self) -> NodeId {
        self.seat.node()
    }

    pub(crate) fn booted(&self) -> &'c Booted {
        self.booted
    }

    /// RAM that the CPU and the device both reach.
    pub(super) fn ram(&mut self, len: Bytes) -> Result<Shared, Failure> {
        let range = self.allocate(len)?;
        let shared = range.buffer.shared(BusAddr::new(range.device().as_u64().wrapping_sub(MARGIN)));
        shared.slice(Bytes::new(MARGIN), len).map_err(|error| Failure::device("cannot use RAM", error))
    }

    /// RAM that the device reaches, with a page on each side that it does not.
    pub(crate) fn allocate(&mut self, len: Bytes) -> Result<RamRange, Failure> {
        let failed = |error: Box<dyn Error + Send + Sync>| Failure::Device {
            what: format!("cannot give {} {len} of RAM", self.place.name),
            source: Some(error),
        };
        let whole = len.checked_add(Bytes::new(2 * MARGIN)).unwrap_or(Bytes::new(u64::MAX));
        let buffer = self.booted.kernel.allocate(whole).map_err(|error| failed(error.into()))?;
        let offset = Bytes::new(buffer.range().start().as_u64() + MARGIN);
        let chunk =
            Chunk::new(Owner::Ram, offset, len, MemAttrs::empty()).ok_or_else(|| failed("none at all".into()))?;
        let mapping = self.queue.map_one(chunk, Prot::ReadWrite).map_err(|error| failed(error.into()))?;
        let spans = mapping.spans().collect();
        self.held.push(mapping);
        Ok(RamRange { buffer, spans })
    }

    /// Maps another's memory for the device, as far as the route permits; the mapping lasts as long
    /// as the session.
    ///
    /// # Errors
    /// What the mapping engine refuses, with its reasons.
    pub(crate) fn map(&mut self, place: &Place, prot: Prot) -> Result<Vec<Span>, Box<MapRangesError>> {
        let (Kind::Memory { bar }, Some(at)) = (place.kind, place.at) else { return Ok(Vec::new()) };
        let owner = Owner::Bar { function: at.function, bar };
        let chunk = Chunk::new(owner, place.offset, place.len, MemAttrs::MMIO);
        let Some(chunk) = chunk else { return Err(Box::new(MapRangesError::NotPeer { owner })) };
        let mapping = self.queue.map_p2p(chunk, prot)?;
        let spans = mapping.spans().collect();
        self.held.push(mapping);
        Ok(spans)
    }

    /// What a driver programs that asks nobody whether the bytes arrive: see [`Seat::map_unasked`].
    pub(crate) fn map_unasked(&mut self, cpu: PhysAddr, len: Bytes, prot: Prot) -> Result<Vec<Span>, Failure> {
        let wraps = || Failure::usage("the range reaches past the last address");
        let range = AddrRange::new(cpu, len).ok_or_else(wraps)?;
        let unasked = self.seat.map_unasked(range, prot);
        let address = unasked.map_err(|error| Failure::device("cannot map the range unasked", error))?;
        let address = match self.seat.handle() {
            Space::Domain(_) => DeviceAddress::Iova(Iova::new(address.as_u64())),
            Space::Direct(_) => DeviceAddress::CpuPhysical(PhysAddr::new(address.as_u64())),
        };
        let behind = Behind::Mmio;
        Ok(vec![Span { at: Bytes::ZERO, address, len, behind, snooped: true, prot, bounced: false }])
    }

    /// Moves a part of the place's bytes, from `done` on, to or from the same part of `peer`.
    pub(crate) fn carry(&mut self, way: Way, peer: &[Span], done: Bytes, len: Bytes) -> Result<(), EngineError> {
        let own = Bytes::new(self.place.offset.as_u64() + done.as_u64());
        let Some(engine) = &mut self.engine else { return Err("it has no engine that moves bytes".into()) };
        engine.carry(way, own, self.stage.as_ref(), peer, done, len)
    }

    /// Writes the place's own bytes, `at` counted from their start; none that lie before it are meant.
    pub(super) fn fill(&mut self, at: i64, bytes: &[u8]) -> Result<(), Failure> {
        self.own(at, bytes.len(), Own::Fill(bytes))
    }

    /// Reads the place's own bytes; those just before and behind them can be had as well.
    pub(super) fn look(&mut self, at: i64, into: &mut [u8]) -> Result<(), Failure> {
        self.own(at, into.len(), Own::Look(into))
    }

    fn own(&mut self, at: i64, len: usize, mut does: Own<'_>) -> Result<(), Failure> {
        let outside = |error| Failure::device(format!("cannot look at {}'s own bytes", self.place.name), error);
        let first = self.place.offset.as_u64().wrapping_add_signed(at);
        if let Some(medium) = self.at_medium() {
            return does.on(&*medium, Bytes::new(first), 0..len).map_err(outside);
        }
        let Some(stage) = &self.stage else { return Ok(()) };
        let (memory, base) = stage.memory();
        if self.place.kind == Kind::Staged {
            let first = Bytes::new(base.as_u64().wrapping_add_signed(at));
            return does.on(memory, first, 0..len).map_err(outside);
        }
        // VRAM: the GPU's own engine brings it, by a way that has nothing to do with other devices.
        let mut done = 0;
        while done < len {
            let piece = (len - done).min(PIECE as usize);
            let (own, range) = (Bytes::new(first + done as u64), done..done + piece);
            let Some(engine) = &mut self.engine else { return Ok(()) };
            let mut carry = |way| engine.carry(way, own, None, &stage.spans, Bytes::ZERO, Bytes::new(piece as u64));
            let moved = match &does {
                Own::Fill(_) => does.on(memory, base, range).map_err(outside).map(|()| carry(Way::Pull))?,
                Own::Look(_) => carry(Way::Push),
            };
            moved.map_err(|error| Failure::Device {
                what: format!("{} does not bring its own memory to RAM", self.place.name),
                source: Some(error),
            })?;
            if let Own::Look(_) = &does {
                self.booted.settle()?;
                does.on(memory, base, done..done + piece).map_err(outside)?;
            }
            done += piece;
        }
        Ok(())
    }

    fn at_medium(&self) -> Option<Arc<dyn Memory>> {
        let node = self.place.at.filter(|_| self.place.kind == Kind::Medium)?.node;
        self.booted.medium(node).cloned()
    }
}

/// What is done with own bytes.
enum Own<'b> {
    Fill(&'b [u8]),
    Look(&'b mut [u8]),
}

impl Own<'_> {
    /// Does it with a range of the bytes, at an offset of a memory.
    fn on(
        &mut self,
        memory: &dyn Memory,
        at: Bytes,
        range: std::ops::Range<usize>,
    ) -> Result<(), peerdma_emu::memory::Outside> {
        match self {
            Self::Fill(bytes) => memory.write(at, bytes.get(range).unwrap_or_default()),
            Self::Look(bytes) => memory.read(at, bytes.get_mut(range).unwrap_or_default()),
        }
    }
}
