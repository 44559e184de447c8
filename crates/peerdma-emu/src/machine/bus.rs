//! The machine as one of its devices sees it.

use super::Machine;
use super::function::Function;
use super::queue::Posted;
use super::travel::Landing;
use crate::device::{Agent, Around, Behind, Bus, How, PageResponse, RegisterWrite, RelayError, Translation};
use crate::fabric::NodeId;
use crate::faults::Moment;
use crate::memory::Memory;
use crate::platform::TdiState;
use crate::wire::{AddressType, Atomic, Attributes, BOUNDARY, Failure, Head, Kind, Requester};
use peerdma::addr::{BusAddr, Bytes};

/// Writes longer than this go as one stroke but for their last packet.
const STROKE: u64 = 4096;

/// A function's way into the fabric: the machine as its device sees it.
///
/// For tools and tests that send a function's requests without its engine; they compete with the
/// engine for the writes to its registers.
#[derive(Clone, Copy, Debug)]
pub struct Port<'m> {
    pub(super) machine: &'m Machine,
    pub(super) node: NodeId,
}

impl Port<'_> {
    pub(super) fn function(&self) -> &Function {
        self.machine.function(self.node)
    }

    /// Whether it is there and sends requests at all.
    pub(super) fn can_send(&self) -> bool {
        let tree = self.machine.fabric.tree();
        tree.config(self.node).bus_master() && tree.is_present(self.node)
    }

    /// Tells the faults that a request is about to be sent; whether it still is.
    pub(super) fn goes_on(&self) -> bool {
        !self.machine.tick(Moment::Request) || self.can_send()
    }

    /// The head of a request, or that none can be sent.
    pub(super) fn head(&self, how: How, kind: Kind, at: BusAddr, len: Bytes) -> Result<Head, Failure> {
        let (function, config) = (self.function(), self.machine.fabric.tree().config(self.node));
        let id = self.machine.fabric.tree().node(self.node).address;
        // Bus Master Enable is about memory and I/O requests, and no message is one (PCIe 6.0 §7.5.1.1.3).
        let enabled = match kind {
            Kind::PageRequest => self.machine.fabric.tree().is_present(self.node),
            Kind::Write | Kind::Read | Kind::Atomic => self.can_send(),
        };
        let sends = enabled && function.can_address(at, len);
        let trusted_may = match function.tdi() {
            Some(TdiState::Error) => false,
            Some(TdiState::Run) => true,
            Some(TdiState::Unlocked | TdiState::Locked) | None => !how.trusted,
        };
        let pasid_may = how.pasid.is_none_or(|pasid| config.pasid_width().is_some_and(|bits| pasid.fits(bits)));
        let translated_may = how.at == AddressType::Untranslated || config.ats_enabled();
        let atomic_may = kind != Kind::Atomic || config.atomic_requester();
        if !(sends && trusted_may && pasid_may && translated_may && atomic_may) {
            return Err(Failure::NotSent);
        }
        let attributes = Attributes {
            relaxed: how.attributes.relaxed && config.relaxed_ordering(),
            no_snoop: how.attributes.no_snoop && config.no_snoop(),
            id_ordered: how.attributes.id_ordered,
        };
        let requester =
            Requester { id, pasid: how.pasid, privileged: how.privileged && how.pasid.is_some(), trusted: how.trusted };
        Ok(Head { kind, requester, at: how.at, attributes, address: at, len })
    }

    /// The longest packet of a kind that the function sends.
    fn packet(&self, kind: Kind) -> u64 {
        let config = self.machine.fabric.tree().config(self.node);
        let limit = match kind {
            Kind::Write => config.max_payload(),
            Kind::Read | Kind::Atomic | Kind::PageRequest => config.max_read_request(),
        };
        limit.map_or(BOUNDARY.as_u64(), Bytes::as_u64).clamp(1, BOUNDARY.as_u64())
    }

    /// Sends writes of one packet each, cut at payload size and boundaries.
    fn post(&self, head: Head, from: &[u8]) {
        for (head, range) in packets(head, self.packet(Kind::Write)) {
            if !self.goes_on() {
                break;
            }
            let number = self.machine.log.number();
            let data = from.get(range).unwrap_or_default().into();
            let first = self.machine.fabric.leave(self.node, head);
            self.machine.post(Posted { number, from: Some(self.node), head, data, way: Vec::new() }, first);
        }
    }

    /// Asks for data of one packet at a time.
    fn read_packets(&self, head: Head, into: &mut [u8]) -> Result<(), Failure> {
        for (head, range) in packets(head, self.packet(Kind::Read)) {
            if !self.goes_on() {
                return Err(Failure::NotSent);
            }
            let first = self.machine.fabric.leave(self.node, head);
            let into = into.get_mut(range).unwrap_or_default();
            self.machine.ask(Some(self.node), head, first, |machine, landing| machine.load(landing, into))?;
        }
        Ok(())
    }
}

/// Cuts a request at `limit` bytes and at boundaries, with the part of the data each has.
fn packets(head: Head, limit: u64) -> impl Iterator<Item = (Head, std::ops::Range<usize>)> {
    let (start, len) = (head.address.as_u64(), head.len.as_u64());
    let mut done = 0;
    std::iter::from_fn(move || {
        let left = len.checked_sub(done).filter(|left| *left > 0)?;
        let at = start.wrapping_add(done);
        let to_boundary = BOUNDARY.as_u64() - at % BOUNDARY.as_u64();
        let piece = left.min(to_boundary).min(limit);
        let range = done as usize..(done + piece) as usize;
        done += piece;
        Some((head.at(BusAddr::new(at), Bytes::new(piece)), range))
    })
}

impl Bus for Port<'_> {
    fn next_write(&mut self) -> Option<RegisterWrite> {
        self.function().layout().regions().iter().find_map(|region| {
            let Behind::Registers(registers) = &region.behind else { return None };
            let written = registers.take_write()?;
            let offset = Bytes::new(region.offset.as_u64() + written.offset);
            Some(RegisterWrite { bar: region.bar, offset, value: written.value, len: written.len })
        })
    }

    fn read(&mut self, how: How, at: BusAddr, into: &mut [u8]) -> Result<(), Failure> {
        let _moving = self.machine.moving();
        let head = self.head(how, Kind::Read, at, Bytes::new(into.len() as u64))?;
        if head.len.as_u64() <= STROKE {
            return self.read_packets(head, into);
        }
        self.machine.strokes(self.node, head, self.packet(Kind::Read), |landing, range| {
            self.machine.load(landing, into.get_mut(range).unwrap_or_default())
        })
    }

    fn write(&mut self, how: How, at: BusAddr, from: &[u8]) -> Result<(), Failure> {
        let _moving = self.machine.moving();
        let head = self.head(how, Kind::Write, at, Bytes::new(from.len() as u64))?;
        let (body, tail) = self.split(head);
        if let Some(body) = body {
            // A write that is lost on the way is nobody's failure.
            let _ = self.machine.strokes(self.node, body, self.packet(Kind::Write), |landing, range| {
                self.machine.store_at(landing, from.get(range).unwrap_or_default());
                Ok(())
            });
        }
        if let Some(tail) = tail {
            let start = tail.address.as_u64().wrapping_sub(head.address.as_u64()) as usize;
            self.post(tail, from.get(start..).unwrap_or_default());
        }
        Ok(())
    }

    fn fetch(&mut self, how: How, at: BusAddr, memory: (&dyn Memory, Bytes), len: Bytes) -> Result<(), Failure> {
        let _moving = self.machine.moving();
        let head = self.head(how, Kind::Read, at, len)?;
        let (own, start) = memory;
        self.machine.strokes(self.node, head, self.packet(Kind::Read), |landing, range| {
            let to = Bytes::new(start.as_u64().saturating_add(range.start as u64));
            self.machine.load_into(landing, (own, to), Bytes::new(range.len() as u64))
        })
    }

    fn send(&mut self, how: How, memory: (&dyn Memory, Bytes), at: BusAddr, len: Bytes) -> Result<(), Failure> {
        let _moving = self.machine.moving();
        let head = self.head(how, Kind::Write, at, len)?;
        let (own, start) = memory;
        let end = start.checked_add(len).filter(|end| *end <= own.len());
        if end.is_none() {
            return Err(Failure::NotSent);
        }
        let (body, tail) = self.split(head);
        if let Some(body) = body {
            let _ = self.machine.strokes(self.node, body, self.packet(Kind::Write), |landing, range| {
                let from = Bytes::new(start.as_u64() + range.start as u64);
                self.machine.store_from(landing, (own, from), Bytes::new(range.len() as u64));
                Ok(())
            });
        }
        if let Some(tail) = tail {
            let mut last = vec![0; tail.len.as_u64() as usize];
            let from = start.as_u64() + (len.as_u64() - tail.len.as_u64());
            own.read(Bytes::new(from), &mut last).map_err(|_| Failure::NotSent)?;
            self.post(tail, &last);
        }
        Ok(())
    }

    fn copy(&mut self, how: How, from: BusAddr, to: BusAddr, len: Bytes) -> Result<(), Failure> {
        self.carry(*self, (how, from), (how, to), len).map_err(RelayError::failure)
    }

    fn agent(&self) -> Option<Agent> {
        Some(Agent { around: Around::Machine(self.machine.number), index: self.node.index() })
    }

    fn relay(&mut self, reader: Agent, from: (How, BusAddr), to: (How, BusAddr), len: Bytes) -> Result<(), RelayError> {
        let here = reader.around == Around::Machine(self.machine.number);
        if !here || reader.index >= self.machine.functions.len() {
            return Err(RelayError::Read(Failure::NotSent));
        }
        self.carry(Port { machine: self.machine, node: NodeId::new(reader.index) }, from, to, len)
    }

    fn atomic(&mut self, how: How, at: BusAddr, atomic: Atomic) -> Result<u64, Failure> {
        let _moving = self.machine.moving();
        if !at.as_u64().is_multiple_of(atomic.len().as_u64()) {
            return Err(Failure::NotSent);
        }
        let head = self.head(how, Kind::Atomic, at, atomic.len())?;
        if !self.goes_on() {
            return Err(Failure::NotSent);
        }
        let first = self.machine.fabric.leave(self.node, head);
        self.machine.ask(Some(self.node), head, first, |machine, landing| machine.change(landing, atomic))
    }

    fn interrupt(&mut self, vector: u16) {
        let Some((at, data)) = self.machine.fabric.tree().config(self.node).message(vector) else { return };
        if let Ok(head) = self.head(How::default(), Kind::Write, at, Bytes::new(4)) {
            self.post(head, &data.to_le_bytes());
        }
    }

    fn translate(&mut self, how: How, at: BusAddr, write: bool) -> Result<Option<Translation>, Failure> {
        let _moving = self.machine.moving();
        let how = How { at: AddressType::TranslationRequest, ..how };
        // Before the enable is looked at: an answer that comes after it was cleared is not kept.
        let asking = self.function().translations.asking();
        let head = self.head(how, Kind::Read, at, Bytes::new(8))?;
        if let Some(known) = self.function().translations.find(how.pasid, at, write) {
            return Ok(Some(known));
        }
        if !self.goes_on() {
            return Err(Failure::NotSent);
        }
        // What is asked for is the page, so that the request never crosses a boundary.
        let page = BusAddr::new(at.as_u64() & !(BOUNDARY.as_u64() - 1));
        let asked = head.at(page, Bytes::new(8));
        let first = self.machine.fabric.leave(self.node, asked);
        let answer = self.machine.ask(Some(self.node), asked, first, |machine, landing| match landing {
            Landing::Translation(_) => match machine.fabric.root().iommu() {
                Some(iommu) => iommu.translation(&asked.requester, at, write),
                None => Err(Failure::UnsupportedRequest),
            },
            // Memory or a peer that the number led to knows nothing of translations.
            _ => Err(Failure::UnsupportedRequest),
        })?;
        Ok(answer.map(|(output, writable)| {
            let holds = output.holds;
            let offset = at.as_u64() - holds.start().as_u64();
            let start = BusAddr::new(output.to.as_u64().wrapping_sub(offset));
            let all = Translation { to: start, len: holds.len(), write: writable };
            self.function().translations.keep(asking, how.pasid, holds.start(), all);
            let left = Bytes::new(holds.len().as_u64() - offset);
            Translation { to: BusAddr::new(output.to.as_u64()), len: left, write: writable }
        }))
    }

    fn request_page(&mut self, how: How, at: BusAddr, write: bool, group: u16) -> Result<(), Failure> {
        self.send_page_request(how, at, write, group)
    }

    fn next_page_response(&mut self) -> Option<(u16, PageResponse)> {
        self.function().pages.next()
    }
}

impl Port<'_> {
    /// Writes what `reader`, this function or another one, reads.
    fn carry(
        &self,
        reader: Self,
        (how, from): (How, BusAddr),
        (writes, to): (How, BusAddr),
        len: Bytes,
    ) -> Result<(), RelayError> {
        let _moving = self.machine.moving();
        let reads = reader.head(how, Kind::Read, from, len).map_err(RelayError::Read)?;
        let writes = self.head(writes, Kind::Write, to, len).map_err(RelayError::Write)?;
        let (body, tail) = self.split(writes);
        if let Some(body) = body {
            let reads = reads.at(from, body.len);
            let carried = self.machine.strokes(reader.node, reads, reader.packet(Kind::Read), |source, part| {
                let at = BusAddr::new(to.as_u64().wrapping_add(part.start as u64));
                let body = body.at(at, Bytes::new(part.len() as u64));
                let packet = self.packet(Kind::Write);
                let mut failed = Ok(());
                let _ = self.machine.strokes(self.node, body, packet, |destination, range| {
                    failed = failed.and(self.machine.transfer(source, destination, &range));
                    Ok(())
                });
                failed
            });
            carried.map_err(RelayError::Read)?;
        }
        if let Some(tail) = tail {
            let start = tail.address.as_u64().wrapping_sub(to.as_u64());
            let mut last = vec![0; tail.len.as_u64() as usize];
            let at = BusAddr::new(from.as_u64().wrapping_add(start));
            reader.read_packets(reads.at(at, tail.len), &mut last).map_err(RelayError::Read)?;
            self.post(tail, &last);
        }
        Ok(())
    }

    /// A write as what goes in one stroke, and the last packet, which waits as every packet does.
    ///
    /// Delivered at once nothing waits, and all of it goes in one stroke.
    fn split(&self, head: Head) -> (Option<Head>, Option<Head>) {
        let len = head.len.as_u64();
        if self.machine.delivers_at_once() {
            return (Some(head), None);
        }
        if len <= STROKE {
            return (None, Some(head));
        }
        let end = head.address.as_u64().wrapping_add(len);
        let packet = self.packet(Kind::Write);
        let tail = match end % packet {
            0 => packet,
            rest => rest,
        };
        let at = BusAddr::new(end.wrapping_sub(tail));
        (Some(head.at(head.address, Bytes::new(len - tail))), Some(head.at(at, Bytes::new(tail))))
    }
}
