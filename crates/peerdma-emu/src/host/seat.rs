//! A driver's place: one function, its address space, its registers.

use super::kernel::Kernel;
use super::space::{DomainSpace, SpaceError};
use crate::device::Mmio;
use crate::fabric::NodeId;
use crate::machine::Machine;
use crate::platform::TdiState;
use crate::wire::Pasid;
use peerdma::access::{MemAttrs, Prot};
use peerdma::addr::{AddrRange, BusAddr, Bytes, Iova, PhysAddr};
use peerdma::dma::aperture::{ApertureError, iovas_for};
use peerdma::dma::confidential::Interface;
use peerdma::dma::engine::{Context, ContextError};
use peerdma::dma::reach::Peers;
use peerdma::dma::spaces::DirectSpace;
use peerdma::dma::{Delegate, Initiator, IoSpace, MapError, Owners, Source, Span, Windows};
use peerdma::iova::{Allocator, Exhausted, Want};
use peerdma::topology::FunctionId;
use std::cell::RefCell;
use std::convert::Infallible;

/// Why a driver has no place.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SeatError {
    /// No such function was found in the machine.
    #[error("no function of the machine answers there")]
    NotFound,
    /// The function cannot send this PASID, or nothing translates.
    #[error("the function cannot use {pasid}: it has no PASIDs that wide, or nothing translates")]
    NoPasid {
        /// The PASID.
        pasid: Pasid,
    },
    /// There is no address space.
    #[error(transparent)]
    Space(#[from] SpaceError),
    /// There are no addresses in it.
    #[error(transparent)]
    Aperture(#[from] ApertureError),
}

/// Why a range could not be mapped unasked.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum UnaskedError {
    /// The range reaches past the last address.
    #[error("the range reaches past the last address")]
    Wraps,
    /// No IOVAs are left below the highest that the function can form.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// The address space refused it.
    #[error(transparent)]
    Map(#[from] MapError),
}

/// The address space that a function's requests meet.
#[derive(Debug)]
pub enum Space {
    /// Behind the IOMMU.
    Domain(DomainSpace),
    /// As the host bridge shows it.
    Direct(DirectSpace),
}

impl Delegate for Space {
    type Space = dyn IoSpace<File = Infallible>;

    fn space(&self) -> &Self::Space {
        match self {
            Self::Domain(space) => space,
            Self::Direct(space) => space,
        }
    }

    fn space_mut(&mut self) -> &mut Self::Space {
        match self {
            Self::Domain(space) => space,
            Self::Direct(space) => space,
        }
    }
}

/// A driver's place at one function of a machine.
///
/// As [`Mmio`] it is the driver's way to the function's BARs, through the CPU; a pause is a step of the machine.
#[derive(Debug)]
pub struct Seat<'k> {
    kernel: &'k Kernel,
    node: NodeId,
    function: FunctionId,
    initiator: Initiator,
    space: RefCell<Option<Space>>,
    depot: RefCell<Allocator>,
    /// Where the CPU finds each BAR.
    bars: [Option<PhysAddr>; 6],
}

impl<'k> Seat<'k> {
    pub(super) fn new(
        kernel: &'k Kernel,
        node: NodeId,
        function: FunctionId,
        initiator: Initiator,
        space: Space,
    ) -> Result<Self, SeatError> {
        let topology = kernel.topology();
        let depot = iovas_for(space.abilities(), topology, &[function], &Windows::one_to_one())?;
        let mut bars = [None; 6];
        for bar in &topology.function(function).info().bars {
            if let Some(slot) = bars.get_mut(usize::from(bar.index)) {
                *slot = bar.cpu.map(|cpu| cpu.start());
            }
        }
        let (space, depot) = (RefCell::new(Some(space)), RefCell::new(depot));
        Ok(Self { kernel, node, function, initiator, space, depot, bars })
    }

    /// The kernel.
    pub fn kernel(&self) -> &'k Kernel {
        self.kernel
    }

    /// The machine.
    pub fn machine(&self) -> &'k Machine {
        self.kernel.machine()
    }

    /// The function in the machine.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// The function in the topology.
    pub fn function(&self) -> FunctionId {
        self.function
    }

    /// What is known of the function as an initiator.
    pub fn initiator(&self) -> &Initiator {
        &self.initiator
    }

    /// A queue of the function: what mappings are made from. The first call takes the seat's
    /// address space, others get handles to the same where it is behind an IOMMU.
    ///
    /// # Errors
    /// [`ContextError`].
    pub fn context<'a>(
        &'a self,
        owners: &'a Owners<Infallible>,
        peers: &'a Peers<'a>,
    ) -> Result<Context<'a, Space, RefCell<Allocator>>, ContextError> {
        Context::new(self.initiator.clone(), self.handle(), owners, peers, &self.depot)
    }

    /// Maps a range for the function without asking whether any route carries it, and gives the
    /// number to put on the wire: an IOVA where the IOMMU translates, else the CPU's address.
    ///
    /// So does a driver that calls `dma_map_resource` on a peer's BAR (Linux, `kernel/dma/mapping.c`).
    /// What becomes of requests to that number is for the fabric to say; [`context`](Self::context)
    /// maps only what arrives. The mapping stays for as long as the seat's address space.
    ///
    /// # Errors
    /// [`UnaskedError`].
    pub fn map_unasked(&self, range: AddrRange<PhysAddr>, prot: Prot) -> Result<BusAddr, UnaskedError> {
        let mut space = match self.handle() {
            Space::Direct(_) => return Ok(BusAddr::new(range.start().as_u64())),
            Space::Domain(space) => space,
        };
        let mut depot = self.depot.borrow_mut();
        let within = depot.granule().bytes().as_u64() - 1;
        let first = range.start().as_u64() & !within;
        let len = (range.last().as_u64() | within).checked_sub(first).and_then(|less| less.checked_add(1));
        let len = Bytes::new(len.ok_or(UnaskedError::Wraps)?);
        let iova = depot.allocate(&Want::new(len).below(Iova::new(self.initiator.highest())))?;
        space.map(iova, &Source::Physical(PhysAddr::new(first)), prot, MemAttrs::MMIO)?;
        Ok(BusAddr::new(iova.start().as_u64() + (range.start().as_u64() - first)))
    }

    /// Another handle to the address space.
    pub fn handle(&self) -> Space {
        let space = self.space.borrow();
        match &*space {
            Some(Space::Domain(space)) => Space::Domain(space.clone()),
            Some(Space::Direct(space)) => Space::Direct(space.clone()),
            None => Space::Direct(DirectSpace::new(Windows::one_to_one(), Iova::new(self.initiator.highest()))),
        }
    }
}

impl Mmio for Seat<'_> {
    fn load(&self, bar: u8, offset: Bytes, len: u8) -> u64 {
        let mut bytes = [0xff; 8];
        let into = &mut bytes[..usize::from(len.min(8))];
        match self.at(bar, offset) {
            Some(at) => self.machine().cpu().load(at, into),
            None => into.fill(0xff),
        }
        bytes[usize::from(len.min(8))..].fill(0);
        u64::from_le_bytes(bytes)
    }

    fn store(&self, bar: u8, offset: Bytes, value: u64, len: u8) {
        if let Some(at) = self.at(bar, offset) {
            self.machine().cpu().store(at, &value.to_le_bytes()[..usize::from(len.min(8))]);
        }
    }

    fn pause(&self) -> bool {
        self.machine().pause()
    }
}

impl Seat<'_> {
    fn at(&self, bar: u8, offset: Bytes) -> Option<PhysAddr> {
        self.bars.get(usize::from(bar)).copied().flatten()?.checked_add(offset)
    }
}

/// The number that a device is to put on the wire for a span.
pub fn wire_address(span: &Span) -> BusAddr {
    BusAddr::new(span.address.as_u64())
}

/// The state of a trusted interface as the mapping engine asks for it.
pub(super) fn interface(state: TdiState) -> Interface {
    match state {
        TdiState::Unlocked => Interface::Unlocked,
        TdiState::Locked => Interface::Locked,
        TdiState::Run => Interface::Run,
        TdiState::Error => Interface::Error,
    }
}
