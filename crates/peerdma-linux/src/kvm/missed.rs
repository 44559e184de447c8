//! Accesses that KVM made for a guest, and that found nothing.
//!
//! A processor that runs a guest's instruction stops at memory that is away, and tries again. An instruction that KVM carries
//! out in its place does not: its access is over, and left to whoever runs the guest as one to a device's register. For a slot of ours
//! it is known what should have been there, so that it can be made when the memory is back.

use super::exit::AnswerError;
use super::follow::{BufferSlot, Piece};
use super::follow_error::NotRestored;
use super::memory::CpuFile;
use super::vcpu::Vcpu;
use crate::memory::page_size;
use crate::sys::map::{Mapping, Outside, ReadOnly};
use crate::vfio::errno;
use peerdma::addr::{AddrRange, Bytes, GuestPhys};
use peerdma::buffer::life::Refused;
use peerdma::buffer::shared::MapRefused;
use peerdma::dma::Errno;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

/// An access that found nothing, and that is not made again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MissedAccess {
    /// It wrote.
    Store {
        /// Where.
        at: GuestPhys,
        /// What; up to eight bytes.
        bytes: Vec<u8>,
    },
    /// It reads, and waits for the answer.
    Load {
        /// Where.
        at: GuestPhys,
        /// How many bytes; up to eight.
        len: usize,
    },
}

/// Why an access was not made. It is still missing; the guest must not run before it was made or given up.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotFinished {
    /// The memory is not back.
    #[error(transparent)]
    NotRestored(#[from] NotRestored),
    /// It was to another slot.
    #[error("an access of {len} at {at} is not to the slot over {slot}; finish it by the slot that the exit names")]
    Elsewhere {
        /// Where it was to.
        at: GuestPhys,
        /// How long it was.
        len: Bytes,
        /// Where this slot is.
        slot: AddrRange<GuestPhys>,
    },
    /// The memory cannot be mapped here.
    #[error("the memory at byte {at:#x} of the buffer could not be mapped to finish an access: {errno}", at = .at.as_u64())]
    NotMapped {
        /// Where in the buffer.
        at: Bytes,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The processor waits for something else.
    #[error(transparent)]
    Answer(#[from] AnswerError),
}

impl MissedAccess {
    /// Where it was to.
    pub fn at(&self) -> GuestPhys {
        let (Self::Store { at, .. } | Self::Load { at, .. }) = self;
        *at
    }

    /// How many bytes.
    pub fn len(&self) -> Bytes {
        let len = match self {
            Self::Store { bytes, .. } => bytes.len(),
            Self::Load { len, .. } => *len,
        };
        Bytes::new(len as u64)
    }

    /// Whether it is none; no access of a guest is.
    pub fn is_empty(&self) -> bool {
        self.len() == Bytes::ZERO
    }
}

impl BufferSlot {
    /// Makes an access that [`Exit::Missed`](super::Exit::Missed) told of, once the buffer is back, and restores the slot with that.
    ///
    /// Waits `patience` at most. A load is answered, so that the processor can run again. The exporter waits for the access, and
    /// an aligned one of four or eight bytes is one access of the bus too.
    ///
    /// # Errors
    /// [`NotFinished`]: nothing was accessed. Try again later, or give the access up: a store is lost then, and a load is to be
    /// [answered](Vcpu::answer) with what a hole reads as.
    pub fn finish(&self, vcpu: &mut Vcpu, missed: &MissedAccess, patience: Duration) -> Result<(), NotFinished> {
        let (begun, len) = (Instant::now(), missed.len());
        let range = self.range();
        if AddrRange::new(missed.at(), len).is_none_or(|access| !range.contains_range(&access)) {
            return Err(NotFinished::Elsewhere { at: missed.at(), len, slot: range });
        }
        let offset = missed.at().as_u64() - range.start().as_u64();
        let mapped = loop {
            self.restore(patience.saturating_sub(begun.elapsed()))?;
            match self.state.seat.map() {
                Ok(mapped) => break mapped,
                Err(MapRefused::Life(Refused::Dead { .. })) => return Err(NotRestored::Gone.into()),
                // Taken away again meanwhile: the next turn waits for it, or gives up.
                Err(MapRefused::Life(_)) => {}
                Err(why) => return Err(NotRestored::Refused(why).into()),
            }
        };
        // While `mapped` lives the memory answers.
        let parts = parts(&self.state.pieces(&mapped)?, offset, len.as_u64());
        match missed {
            MissedAccess::Store { bytes, .. } => {
                let mut left = bytes.as_slice();
                for part in parts {
                    let (here, rest) = left.split_at(part.len.min(left.len()));
                    let mapping = part.mapped(Mapping::of_file)?;
                    mapping.store(part.within, here).map_err(|Outside| part.overflow())?;
                    left = rest;
                }
                Ok(())
            }
            MissedAccess::Load { len, .. } => {
                let mut bytes = vec![0; *len];
                let mut left = bytes.as_mut_slice();
                for part in parts {
                    let (here, rest) = left.split_at_mut(part.len.min(left.len()));
                    let mapping = part.mapped(ReadOnly::of_file)?;
                    mapping.load(part.within, here).map_err(|Outside| part.overflow())?;
                    left = rest;
                }
                Ok(vcpu.answer(&bytes)?)
            }
        }
    }
}

/// What of an access lies in one file in one piece.
struct InOneFile {
    /// Where in the buffer.
    at: u64,
    file: CpuFile,
    /// Where the pages are in the file, whose first and second it may be in.
    pages: u64,
    /// Where in the pages.
    within: usize,
    len: usize,
}

/// Cuts an access where the buffer's ranges meet.
fn parts(pieces: &[Piece], offset: u64, len: u64) -> Vec<InOneFile> {
    let page = page_size().as_u64();
    let mut parts = Vec::new();
    for (into, file, from, extent) in pieces {
        let (first, last) = (into.as_u64().max(offset), (into.as_u64() + extent.as_u64()).min(offset + len));
        if first >= last {
            continue;
        }
        let in_file = from + (first - into.as_u64());
        // A page, and an access, are shorter than any address space.
        let (within, len) = ((in_file % page) as usize, (last - first) as usize);
        parts.push(InOneFile { at: first, file: file.clone(), pages: in_file - in_file % page, within, len });
    }
    parts
}

impl InOneFile {
    fn mapped<M>(
        &self,
        map: impl FnOnce(BorrowedFd<'_>, u64, usize) -> Result<M, rustix::io::Errno>,
    ) -> Result<M, NotFinished> {
        let mapped = map(self.file.descriptor(), self.pages, self.within + self.len);
        mapped.map_err(|error| NotFinished::NotMapped { at: Bytes::new(self.at), errno: errno(error) })
    }

    fn overflow(&self) -> NotFinished {
        NotFinished::NotMapped { at: Bytes::new(self.at), errno: errno(rustix::io::Errno::OVERFLOW) }
    }
}
