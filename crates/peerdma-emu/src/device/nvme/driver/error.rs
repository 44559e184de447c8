//! What goes wrong for a driver.

use super::super::status::Status;
use crate::memory::Outside;
use peerdma::addr::{BusAddr, Bytes};
use peerdma::dma::consumer::nvme::{PrpError, SglError};

/// Why a drive did not do what was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DriverError {
    /// A command ended with a status.
    #[error("command {opcode:#04x} ended: {status}")]
    Status {
        /// Which command.
        opcode: u8,
        /// How.
        status: Status,
    },
    /// Something is awaited, and nothing in the machine moves any more.
    #[error("the controller has not answered, and nothing moves any more")]
    Stuck,
    /// The controller says that it cannot go on (`CSTS.CFS`); disable it by bringing it up again.
    #[error("the controller is in a fatal state; bring it up again")]
    Fatal,
    /// Registers give all ones.
    #[error("the controller's registers give all ones; it is gone, or its BAR is off")]
    Gone,
    /// Memory for queues is too short for two entries, or does not begin at a page.
    #[error("no queue fits into {len} at {at}: it takes two entries and begins at a page of 4 KiB")]
    QueueMemory {
        /// Where it is for the drive.
        at: BusAddr,
        /// How long it is.
        len: Bytes,
    },
    /// Memory for lists is too short, or does not begin at a page.
    #[error("{len} at {at} are no memory for lists, which are two pages of 4 KiB at least")]
    Scratch {
        /// Where it is for the drive.
        at: BusAddr,
        /// How long it is.
        len: Bytes,
    },
    /// One command moves less.
    #[error("one command moves at most {most}, and {len} were asked for; split it")]
    TooLong {
        /// How long it is.
        len: Bytes,
        /// The most that one moves.
        most: Bytes,
    },
    /// There is no such queue.
    #[error("queue {queue} was not created")]
    NoSuchQueue {
        /// Which.
        queue: u16,
    },
    /// The controller has no more queues.
    #[error("the controller has {most} pairs of queues, and all are in use")]
    NoMoreQueues {
        /// How many it has.
        most: u16,
    },
    /// All entries of a submission queue are in use; wait for a command to complete.
    #[error("queue {queue} is full; wait for a command to complete")]
    QueueFull {
        /// Which.
        queue: u16,
    },
    /// The data is not made of whole blocks, or is none at all.
    #[error("{len} of data are no whole number of blocks of {block}")]
    NotBlocks {
        /// Bytes of data.
        len: Bytes,
        /// Bytes of a block.
        block: Bytes,
    },
    /// The drive has no memory buffer, or not at this address.
    #[error("the drive shows no controller memory buffer at this address")]
    NoCmb,
    /// The data cannot be written as PRPs.
    #[error(transparent)]
    Prps(#[from] PrpError),
    /// The data cannot be written as an SGL.
    #[error(transparent)]
    Sgl(#[from] SglError),
    /// Memory of a queue or a list is shorter than it said.
    #[error(transparent)]
    Memory(#[from] Outside),
}
