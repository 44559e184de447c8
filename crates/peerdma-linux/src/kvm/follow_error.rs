//! Why a slot does not follow a buffer, or is not there again.

use super::error::SlotError;
use peerdma::addr::Bytes;
use peerdma::buffer::fence::FenceName;
use peerdma::buffer::shared::{AccessError, AttachError, MapRefused};
use peerdma::dma::{Errno, ResolveError};
use std::time::Duration;

/// Why no slot follows a buffer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FollowError {
    /// There is no such slot.
    #[error(transparent)]
    Slot(#[from] SlotError),
    /// The buffer's exporter and the guest do not agree.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// No room was reserved in this process.
    #[error("no {len} of addresses could be reserved: {errno}")]
    NoAddresses {
        /// How much.
        len: Bytes,
        /// The kernel's answer.
        errno: Errno,
    },
}

/// Why a guest does not see a buffer again.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotRestored {
    /// The buffer is out of reach, and was so all the time.
    #[error("the buffer is still out of reach after {waited:?}: {why}")]
    OutOfReach {
        /// For how long it was waited.
        waited: Duration,
        /// What the exporter said last.
        why: MapRefused,
    },
    /// The kernel does something with the memory first, such as filling it after a move.
    #[error("{fence} has not retired after {waited:?}, which fills the memory")]
    Busy {
        /// What is under way.
        fence: FenceName,
        /// For how long it was waited.
        waited: Duration,
    },
    /// The buffer is gone for good; delete the slot, or end the guest.
    #[error("the buffer is gone for good; drop the slot, and the guest finds nothing there")]
    Gone,
    /// The exporter does not permit it any more, or has the buffer where the guest does not reach it.
    #[error(transparent)]
    Refused(MapRefused),
    /// The buffer cannot be reached by the CPU.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// A range of it is not known as a file.
    #[error(transparent)]
    Unknown(#[from] ResolveError),
    /// A range of it was not mapped.
    #[error("{len} at byte {at:#x} of the buffer could not be mapped: {errno}", at = .at.as_u64())]
    NotMapped {
        /// Where in the buffer.
        at: Bytes,
        /// How much.
        len: Bytes,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The slot was deleted, since its memory could not be taken away otherwise.
    #[error("the slot was deleted when its memory could not be unmapped ({errno}); make it anew")]
    Deleted {
        /// The kernel's answer to the unmapping.
        errno: Errno,
    },
}
