//! An adapter for remote direct memory access (RDMA), and the network between two of them.
//!
//! Work is posted to *queue pairs*: a ring of sends, a ring of receives, and a ring of
//! completions, all in memory. What work may touch is in *memory regions*: a key, a range of
//! addresses, the pages behind it and the rights to it, all within one *protection domain* that
//! queue pairs belong to as well. Two adapters on one [`Network`] connect their queue pairs;
//! data leaves memory at one by DMA reads and arrives at the other by DMA writes, and a remote
//! read or AtomicOp is done by the adapter where the memory is.
//!
//! What goes wrong ends as in the InfiniBand architecture: the work request completes with a
//! status, its queue pair is in error, and everything else that is posted to it is flushed.
//!
//! Where things are in BAR0:
//!
//! | offset | register |
//! |---|---|
//! | `0x000` | how many queue pairs there can be, and from bit 32 the port's number; read only |
//! | `0x040` to `0x07f` | eight arguments of a command |
//! | `0x080` | written starts a command: its number, and from bit 32 a sequence number |
//! | `0x088` | the last command's status, and from bit 32 its sequence number; read only. A command that is given before the one before was answered is refused as busy |
//! | `0x090` | its result; read only |
//! | `0x098` | the network rings here when a message came |
//! | `0x0a0` | invalidations that are done, of those begun; read only |
//! | `0x0a8` | events consumed so far |
//! | `0x1000 (n + 1)` | queue pair *n*: sends posted so far, modulo 2^32 |
//! | `+ 0x08` | receives posted so far |
//! | `+ 0x10` | completions consumed so far |
//!
//! A page of doorbells belongs to one queue pair, and can be handed to a peer.
//!
//! - `work`: what can be posted, as bytes. - `region`: keys, rights, pages. - `window`: bytes of one.
//! - `fault`: pages that the driver is asked for. - `invalidate`: pages that are taken away.
//! - `network`: messages. - `payload`: the data that they carry. - `pair`: one queue pair.
//! - `requester` and `responder`: its two sides. - `engine`: the device. - `command`: its commands.
//! - `driver`: the CPU's side.
//!
//! A region is registered with its pages or on demand. Then an access that finds no page stops, its driver
//! hears of it ([`FaultQueue`]) and writes pages, and takes them away again when the memory is to
//! move ([`Driver::invalidate`]): the adapter asks its driver and not the IOMMU, as under Linux's on-demand
//! paging (7.2, `ib_umem_odp_map_dma_and_lock`). Data moves once between adapters of one machine, from memory to memory.
//!
//! Simpler than hardware: each queue pair has a completion queue of its own; one work request of
//! a queue pair is on its way at a time; the network loses nothing, so that there are no timers,
//! and a send that finds no receive waits until one is posted, however long that takes.

mod command;
mod driver;
mod engine;
mod fault;
mod invalidate;
mod network;
mod pair;
mod payload;
mod region;
mod registering;
mod requester;
mod responder;
#[cfg(test)]
mod tests;
mod window;
mod work;

pub use command::Refused;
pub use driver::{Answer, Completed, Domain, Driver, Error, FaultQueue, Invalidation, PageFault, QueuePair, Queues};
pub use engine::{Nic, PortTaken};
pub use network::Network;
pub use region::{Key, Rights};
pub use work::{Operation, PairNumber, Source, Status, WorkRequest};

use peerdma::addr::Bytes;

/// Most queue pairs of one adapter.
pub const MOST_PAIRS: u16 = 1024;

/// Where the doorbells of the queue pair of this number are in BAR0.
pub const fn doorbell(pair: PairNumber) -> Bytes {
    page(pair.index())
}

/// Where the page of doorbells of the queue pair at `index` is.
const fn page(index: u16) -> Bytes {
    Bytes::new(0x1000 * (index as u64 + 1))
}

/// Offsets of registers.
mod register {
    use peerdma::addr::Bytes;

    pub(super) const CAPABILITY: Bytes = Bytes::ZERO;
    pub(super) const ARGUMENTS: u64 = 0x40;
    pub(super) const COMMAND: Bytes = Bytes::new(0x80);
    pub(super) const STATUS: Bytes = Bytes::new(0x88);
    pub(super) const RESULT: Bytes = Bytes::new(0x90);
    pub(super) const ARRIVED: Bytes = Bytes::new(0x98);
    pub(super) const INVALIDATED: Bytes = Bytes::new(0xa0);
    pub(super) const EVENTS_CONSUMED: Bytes = Bytes::new(0xa8);
    /// In a page of doorbells.
    pub(super) const RECEIVES: u64 = 0x08;
    pub(super) const CONSUMED: u64 = 0x10;
}
