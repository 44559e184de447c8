//! What an import is asked for, and how it stands.

use super::import_error::ImportError;
use peerdma::addr::{AddrRange, Iova};
use peerdma::buffer::life::{Disturbance, Generation};
use peerdma::dma::{Peers, Permit};

/// Whether those who depend on an import can do without it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Need {
    /// They cannot: it is an error where it is not mapped.
    Required,
    /// They can, more slowly: where it is not mapped is told to who asks.
    BestEffort,
}

/// Who answers for it that those who reach through an import's address space reach the memory.
#[derive(Clone, Copy, Debug)]
pub enum ImportRoute<'p> {
    /// The verdict on the declaration's device and every owner of the buffer's bytes, asked when it attaches.
    Judged(&'p Peers<'p>),
    /// A permit that the caller has: of [`Peers::permit`] for each device of the space, or its [own word](Permit::vouched). What is
    /// declared then are the tables of the space, and no device.
    Permitted(Permit),
}

/// Stops and starts what uses an import; for initiators that are to end in good order and not by a fault.
///
/// Both are called from whichever thread does something to the device, and must not wait.
pub trait Quiesce: Send + Sync {
    /// Stops the initiator, and says whether it has. Asked again and again until it has.
    fn stop(&self, cause: Disturbance) -> bool;
    /// The memory is mapped again, at the same addresses.
    fn start(&self);
}

/// Nothing to stop: a request that comes late ends in a fault of the IOMMU.
impl Quiesce for () {
    fn stop(&self, _: Disturbance) -> bool {
        true
    }

    fn start(&self) {}
}

/// How an import stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ImportState {
    /// Mapped, in this generation of the buffer.
    Mapped(Generation),
    /// Away with the memory, for this cause.
    Away(Disturbance),
    /// Told to let go and not yet out: its initiator still runs.
    Stopping(Disturbance),
    /// Told to let go and not out: the address space does not unmap.
    Stuck(ImportError),
    /// The memory is there, and it is not mapped.
    Failed(ImportError),
    /// The memory is gone for good.
    Gone,
}

/// An import and how it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ImportReport {
    /// What it is called.
    pub name: String,
    /// The buffer.
    pub buffer: String,
    /// Where it is mapped, or is to be.
    pub iova: AddrRange<Iova>,
    /// Whether it can be done without.
    pub need: Need,
    /// How it stands.
    pub state: ImportState,
}

/// What reports how it stands.
pub(super) trait Reports: Send + Sync {
    fn report(&self) -> ImportReport;
}
