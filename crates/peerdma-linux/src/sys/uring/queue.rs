//! The two queues of a ring, in memory that the kernel shares.

use super::super::map::{Mapping, Outside};
use super::Way;
use peerdma::addr::{AddrRange, Bytes, ProcVa};
use rustix::io::Errno;
use rustix::io_uring::{IORING_OFF_SQ_RING, IORING_OFF_SQES, IoringFeatureFlags, IoringOp, io_uring_params};
use std::os::fd::{BorrowedFd, RawFd};

/// `sizeof(struct io_uring_sqe)`, and where its fields lie that a fixed transfer has.
const ENTRY: usize = 64;
const OPCODE: usize = 0;
const FILE: usize = 4;
const OFFSET: usize = 8;
const ADDRESS: usize = 16;
const LENGTH: usize = 24;
const USER_DATA: usize = 32;
const SLOT: usize = 40;
/// `sizeof(struct io_uring_cqe)`.
const COMPLETION: usize = 16;

const _: () = {
    use core::mem::offset_of;
    use rustix::io_uring::{io_uring_cqe, io_uring_sqe};
    assert!(size_of::<io_uring_sqe>() == ENTRY && size_of::<io_uring_cqe>() == COMPLETION);
    assert!(offset_of!(io_uring_sqe, opcode) == OPCODE && offset_of!(io_uring_sqe, fd) == FILE);
    assert!(offset_of!(io_uring_sqe, off_or_addr2) == OFFSET && offset_of!(io_uring_sqe, len) == LENGTH);
    assert!(offset_of!(io_uring_sqe, addr_or_splice_off_in) == ADDRESS);
    assert!(offset_of!(io_uring_sqe, user_data) == USER_DATA && offset_of!(io_uring_sqe, buf) == SLOT);
    assert!(offset_of!(io_uring_cqe, user_data) == 0 && offset_of!(io_uring_cqe, res) == 8);
};

/// Submissions and completions; one transfer is under way at most.
#[derive(Debug)]
pub(super) struct Queue {
    rings: Mapping,
    entries: Mapping,
    sq_tail: usize,
    sq_mask: u32,
    sq_array: usize,
    cq_head: usize,
    cq_tail: usize,
    cq_mask: u32,
    cqes: usize,
    /// Number of the last transfer, by which its completion is known.
    last: u64,
}

/// Maps the two regions of a ring that has a descriptor.
pub(super) fn map(ring: BorrowedFd<'_>, params: &io_uring_params) -> Result<(Mapping, Mapping), Errno> {
    if !params.features.contains(IoringFeatureFlags::SINGLE_MMAP) {
        // Before Linux 5.4, which has no table of buffers to update either.
        return Err(Errno::NOSYS);
    }
    let completions = params.cq_off.cqes as usize + params.cq_entries as usize * COMPLETION;
    let submissions = params.sq_off.array as usize + params.sq_entries as usize * size_of::<u32>();
    let rings = Mapping::of_file(ring, IORING_OFF_SQ_RING, completions.max(submissions))?;
    let entries = Mapping::of_file(ring, IORING_OFF_SQES, params.sq_entries as usize * ENTRY)?;
    Ok((rings, entries))
}

impl Queue {
    /// The queues of a ring that was just made; masks are powers of two less one, told by the number of entries.
    pub(super) fn new(rings: Mapping, entries: Mapping, params: &io_uring_params) -> Self {
        Self {
            rings,
            entries,
            sq_tail: params.sq_off.tail as usize,
            sq_mask: params.sq_entries.wrapping_sub(1),
            sq_array: params.sq_off.array as usize,
            cq_head: params.cq_off.head as usize,
            cq_tail: params.cq_off.tail as usize,
            cq_mask: params.cq_entries.wrapping_sub(1),
            cqes: params.cq_off.cqes as usize,
            last: 0,
        }
    }

    /// Writes one entry and moves the tail past it.
    pub(super) fn push(
        &mut self,
        way: Way,
        slot: u32,
        part: AddrRange<ProcVa>,
        file: RawFd,
        offset: Bytes,
    ) -> Result<(), Errno> {
        let slot = u16::try_from(slot).map_err(|_| Errno::INVAL)?;
        let len = u32::try_from(part.len().as_u64()).map_err(|_| Errno::INVAL)?;
        let opcode = match way {
            Way::IntoBuffer => IoringOp::ReadFixed,
            Way::OutOfBuffer => IoringOp::WriteFixed,
        };
        self.last += 1;
        let mut entry = [0; ENTRY];
        entry[OPCODE] = opcode as u8;
        put(&mut entry, FILE, file.to_ne_bytes());
        put(&mut entry, OFFSET, offset.as_u64().to_ne_bytes());
        put(&mut entry, ADDRESS, part.start().as_u64().to_ne_bytes());
        put(&mut entry, LENGTH, len.to_ne_bytes());
        put(&mut entry, USER_DATA, self.last.to_ne_bytes());
        put(&mut entry, SLOT, slot.to_ne_bytes());
        let tail = self.rings.load_u32(self.sq_tail).map_err(outside)?;
        let index = tail & self.sq_mask;
        self.entries.write(index as usize * ENTRY, &entry).map_err(outside)?;
        self.rings.store_u32(self.sq_array + index as usize * size_of::<u32>(), index).map_err(outside)?;
        self.rings.release_u32(self.sq_tail, tail.wrapping_add(1)).map_err(outside)
    }

    /// Takes an entry back that the kernel has not taken.
    pub(super) fn take_back(&mut self) {
        if let Ok(tail) = self.rings.load_u32(self.sq_tail) {
            // The offset was just read from, so that it lies inside.
            let _ = self.rings.release_u32(self.sq_tail, tail.wrapping_sub(1));
        }
    }

    /// What the last transfer came to, if it has come to anything.
    pub(super) fn pop(&mut self) -> Option<Result<Bytes, Errno>> {
        loop {
            let head = self.rings.load_u32(self.cq_head).ok()?;
            if self.rings.acquire_u32(self.cq_tail).ok()? == head {
                return None;
            }
            let at = self.cqes + (head & self.cq_mask) as usize * COMPLETION;
            let number = self.rings.load_u64(at).ok()?;
            let result = self.rings.load_u32(at + 8).ok()?.cast_signed();
            self.rings.release_u32(self.cq_head, head.wrapping_add(1)).ok()?;
            // One of before whose waiter gave up is nobody's any more.
            if number == self.last {
                return Some(match u32::try_from(result) {
                    Ok(moved) => Ok(Bytes::new(u64::from(moved))),
                    Err(_) => Err(Errno::from_raw_os_error(result.saturating_neg())),
                });
            }
        }
    }
}

fn put<const N: usize>(entry: &mut [u8; ENTRY], at: usize, bytes: [u8; N]) {
    entry[at..at + N].copy_from_slice(&bytes);
}

/// The kernel told of a queue outside of its own memory.
fn outside(Outside: Outside) -> Errno {
    Errno::IO
}
