//! Bytes between pinned memory and files, moved through the slot.

use super::handle::Pin;
use super::inner::Slot;
use super::seat::Gone;
use crate::sys::uring::Way;
use peerdma::addr::{AddrRange, Bytes, ProcVa};
use rustix::fs::{FileType, fstat};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd};

/// The most that is moved by one request; a request of 2 GiB would be cut by the kernel (`MAX_RW_COUNT`).
const MOST_OF_A_REQUEST: u64 = 1 << 30;

/// Why bytes were not moved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// The part does not lie in the pin.
    #[error("{len} at offset {offset:#x} do not lie in the pin of {pinned}; ask for a part of it", offset = .offset.as_u64())]
    Outside {
        /// What is pinned.
        pinned: AddrRange<ProcVa>,
        /// Where the part starts.
        offset: Bytes,
        /// How long it is.
        len: Bytes,
    },
    /// The file may make its reader wait for ever, and with it all other pins of the ring.
    #[error(
        "a transfer takes regular files and block devices, and this is a {kind:?}; read it into the memory instead"
    )]
    NotAFile {
        /// What it is.
        kind: FileType,
    },
    /// The pins are those of the parent of this process.
    #[error("the pin belongs to the process that this one was forked from; pin anew here")]
    Forked,
    /// The transfer failed.
    #[error("{moved} were moved, and then the kernel stopped ({errno})")]
    Kernel {
        /// How many bytes were moved before.
        moved: Bytes,
        /// What it answered.
        errno: Errno,
    },
}

impl Pin {
    /// Reads from a file, at `from`, into the pinned memory, at `offset`; says how many bytes came.
    ///
    /// The kernel writes to the pages that were pinned, whatever is mapped at their addresses now. A file opened with
    /// `O_DIRECT` has its device write there; it wants offsets and lengths that are multiples of its block size. Blocks
    /// until done, and other pins of the same ring wait meanwhile.
    ///
    /// # Errors
    /// [`TransferError`]; fewer bytes than asked for are no error, but the end of the file.
    pub fn read_from(&self, file: impl AsFd, from: Bytes, offset: Bytes, len: Bytes) -> Result<Bytes, TransferError> {
        self.transfer(Way::IntoBuffer, file.as_fd(), from, (offset, len))
    }

    /// Writes pinned memory, at `offset`, to a file, at `to`; says how many bytes went.
    ///
    /// # Errors
    /// As [`read_from`](Self::read_from).
    pub fn write_to(&self, file: impl AsFd, to: Bytes, offset: Bytes, len: Bytes) -> Result<Bytes, TransferError> {
        self.transfer(Way::OutOfBuffer, file.as_fd(), to, (offset, len))
    }

    fn transfer(
        &self,
        way: Way,
        file: BorrowedFd<'_>,
        at: Bytes,
        (offset, len): (Bytes, Bytes),
    ) -> Result<Bytes, TransferError> {
        let outside = TransferError::Outside { pinned: self.range, offset, len };
        let part = self.range.slice(offset, len).ok_or(outside)?;
        let failed = |moved, errno| TransferError::Kernel { moved: Bytes::new(moved), errno };
        let stat = fstat(file).map_err(|errno| failed(0, errno))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile | FileType::BlockDevice => (),
            kind => return Err(TransferError::NotAFile { kind }),
        }
        let mut moved = 0;
        while moved < len.as_u64() {
            let Some((slot, piece)) = self.piece(part, moved) else { break };
            let position = at.checked_add(Bytes::new(moved)).ok_or(failed(moved, Errno::OVERFLOW))?;
            let now = slot.transfer(way, piece, file, position).map_err(|Gone| TransferError::Forked)?;
            match now.map_err(|errno| failed(moved, errno))?.as_u64() {
                0 => break,
                now => moved += now,
            }
        }
        Ok(Bytes::new(moved))
    }

    /// What comes after `moved` bytes of a part, as far as one slot reaches.
    fn piece(&self, part: AddrRange<ProcVa>, moved: u64) -> Option<(&Slot, AddrRange<ProcVa>)> {
        let rest = part.slice(Bytes::new(moved), Bytes::new(part.len().as_u64() - moved))?;
        let slot =
            self.slots.iter().find(|slot| slot.range.start() <= rest.start() && rest.start() <= slot.range.last())?;
        let room = slot.range.last().as_u64() - rest.start().as_u64() + 1;
        let len = room.min(rest.len().as_u64()).min(MOST_OF_A_REQUEST);
        Some((slot, rest.slice(Bytes::ZERO, Bytes::new(len))?))
    }
}

impl Slot {
    /// One request, waited for.
    pub(super) fn transfer(
        &self,
        way: Way,
        part: AddrRange<ProcVa>,
        file: BorrowedFd<'_>,
        at: Bytes,
    ) -> Result<Result<Bytes, Errno>, Gone> {
        let number = self.number;
        // A duplicate, so that what the thread is sent is its own.
        let file = match file.try_clone_to_owned() {
            Ok(file) => file,
            Err(error) => return Ok(Err(Errno::from_io_error(&error).unwrap_or(Errno::IO))),
        };
        self.seat.call(move |ring| ring.transfer(way, number, part, file.as_fd(), at))
    }
}
