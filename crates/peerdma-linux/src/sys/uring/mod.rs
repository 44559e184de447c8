//! io_uring as far as pins need it: a ring, its table of buffers, one transfer at a time.
//!
//! UNSAFETY: `io_uring_setup`, `io_uring_register` and `io_uring_enter`, whose arguments are pointers behind numbers.
//! The structures and the calls are rustix's, which leaves the pointers to us. The crate `io-uring` was rejected: its
//! rings cannot live in memory of ours (`IORING_SETUP_NO_MMAP`), and so always have a descriptor.
//!
//! A ring is either a descriptor, or an index into the table of registered rings of *one task*
//! (`IORING_SETUP_REGISTERED_FD_ONLY`, Linux 6.5 `io_ring_add_registered_file`). Another thread's table has something
//! else at the same index, so such a ring refuses (`EBADF`) to be used by any thread but the one that made it.
//!
//! Not here: deciding which of both, and who calls; see [`crate::pin`].

#![expect(unsafe_code)]

mod queue;

use super::map::Mapping;
use peerdma::addr::{AddrRange, Bytes, ProcVa};
use queue::Queue;
use rustix::io::Errno;
use rustix::io_uring::{
    IoringEnterFlags, IoringRegisterFlags, IoringRegisterOp, IoringRsrcFlags, IoringSetupFlags, io_uring_clone_buffers,
    io_uring_enter, io_uring_params, io_uring_ptr, io_uring_register_with, io_uring_rsrc_register,
    io_uring_rsrc_update, io_uring_rsrc_update2, io_uring_setup, iovec,
};
use std::ffi::c_void;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::thread::ThreadId;

/// Entries of the submission queue. Transfers are made one at a time; the smallest ring is two pages.
pub(crate) const ENTRIES: u32 = 4;

/// Which way bytes go between a registered buffer and a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// `IORING_OP_READ_FIXED`: from the file, into the buffer.
    IntoBuffer,
    /// `IORING_OP_WRITE_FIXED`: out of the buffer, into the file.
    OutOfBuffer,
}

/// Where a ring is found.
#[derive(Debug)]
enum Place {
    Descriptor(OwnedFd),
    Index { index: RawFd, of: ThreadId },
}

/// A ring.
///
/// # Invariants
/// 1. `place` names a ring that this value made and nobody else closes; an index is one of the table of thread `of`.
/// 2. The queue lies in memory that lives as long as the ring: mapped of the ring, or ours and pinned by the kernel.
#[derive(Debug)]
pub(crate) struct Ring {
    place: Place,
    queue: Queue,
}

impl Ring {
    /// A ring that only the calling thread can use, and no child inherits (Linux 6.5).
    ///
    /// # Errors
    /// What `io_uring_setup` says; `EINVAL` where the kernel does not know such rings.
    pub(crate) fn registered_only() -> Result<Self, Errno> {
        let page = rustix::param::page_size();
        // Rings and completions of a few entries fit a page, and so do the submissions; both are pinned and charged.
        let (mut rings, mut entries) = (Mapping::anonymous(page)?, Mapping::anonymous(page)?);
        rings.keep_from_children()?;
        entries.keep_from_children()?;
        let mut params = io_uring_params::default();
        params.flags = IoringSetupFlags::NO_MMAP | IoringSetupFlags::REGISTERED_FD_ONLY;
        params.cq_off.user_addr = pointer(rings.address());
        params.sq_off.user_addr = pointer(entries.address());
        // SAFETY: 1. `params` lives across the call. 2. The kernel writes the rings into whole pages of `rings` and
        // `entries`, which nobody borrows; it pins them, so that they outlive the ring whatever we do.
        let index = unsafe { io_uring_setup(ENTRIES, &mut params) }?;
        // No descriptor, but an index: rustix cannot know. It must not be closed as if it were one.
        let index = index.into_raw_fd();
        let place = Place::Index { index, of: std::thread::current().id() };
        Ok(Self { place, queue: Queue::new(rings, entries, &params) })
    }

    /// A ring with a descriptor, closed on exec.
    ///
    /// # Errors
    /// What `io_uring_setup` and `mmap` say.
    pub(crate) fn with_descriptor() -> Result<Self, Errno> {
        let mut params = io_uring_params::default();
        // SAFETY: `params` lives across the call, and holds no pointer.
        let fd = unsafe { io_uring_setup(ENTRIES, &mut params) }?;
        let (rings, entries) = queue::map(fd.as_fd(), &params)?;
        Ok(Self { place: Place::Descriptor(fd), queue: Queue::new(rings, entries, &params) })
    }

    /// Its descriptor, if it has one.
    pub(crate) fn descriptor(&self) -> Option<&OwnedFd> {
        match &self.place {
            Place::Descriptor(fd) => Some(fd),
            Place::Index { .. } => None,
        }
    }

    /// Gives the ring a table of `slots` empty slots (Linux 5.19).
    pub(crate) fn register_table(&mut self, slots: u32) -> Result<(), Errno> {
        let mut table = io_uring_rsrc_register::default();
        table.nr = slots;
        table.flags = IoringRsrcFlags::REGISTER_SPARSE;
        // SAFETY: the kernel reads one structure of the size that is told, which lives across the call; sparse, it
        // holds no pointer.
        unsafe { self.register(IoringRegisterOp::RegisterBuffers2, (&raw const table).cast(), size_u32(&table)) }?;
        Ok(())
    }

    /// Pins a range at a slot, in place of what was there.
    ///
    /// # Errors
    /// `EFAULT` for memory that the kernel does not pin for writing, `ENOMEM` over a limit, and others.
    pub(crate) fn fill(&mut self, slot: u32, range: AddrRange<ProcVa>) -> Result<(), Errno> {
        let len = usize::try_from(range.len().as_u64()).map_err(|_| Errno::INVAL)?;
        self.update(slot, iovec { iov_base: pointer(range.start()).ptr, iov_len: len })
    }

    /// Empties a slot; its pages are let go before this returns, unless a transfer still uses them.
    pub(crate) fn empty(&mut self, slot: u32) -> Result<(), Errno> {
        self.update(slot, iovec { iov_base: std::ptr::null_mut(), iov_len: 0 })
    }

    fn update(&mut self, slot: u32, buffer: iovec) -> Result<(), Errno> {
        let mut update = io_uring_rsrc_update2::default();
        update.offset = slot;
        update.data = io_uring_ptr::new((&raw const buffer).cast_mut().cast());
        update.nr = 1;
        // SAFETY: 1. The kernel reads one structure of the size that is told and the one `iovec` that it points to;
        // both live across the call. 2. What the `iovec` names is only pinned, and neither read nor written.
        unsafe { self.register(IoringRegisterOp::RegisterBuffersUpdate, (&raw const update).cast(), size_u32(&update)) }
            .map(|_| ())
    }

    /// Empties all slots and takes the table away; charges are returned before this returns.
    pub(crate) fn unregister_table(&mut self) -> Result<(), Errno> {
        // SAFETY: the call takes no argument.
        unsafe { self.register(IoringRegisterOp::UnregisterBuffers, std::ptr::null(), 0) }.map(|_| ())
    }

    /// Fills this ring's table, which must not exist yet, with what a ring of the same address space has (Linux 6.12).
    pub(crate) fn clone_table(&mut self, from: BorrowedFd<'_>) -> Result<(), Errno> {
        let mut clone = io_uring_clone_buffers::default();
        clone.src_fd = from.as_raw_fd().cast_unsigned();
        // SAFETY: the kernel reads one structure, which lives across the call and holds no pointer.
        unsafe { self.register(IoringRegisterOp::RegisterCloneBuffers, (&raw const clone).cast(), 1) }.map(|_| ())
    }

    /// Moves bytes between a file and `part` of what is pinned at a slot, and waits until that is done.
    ///
    /// How many bytes moved; fewer than asked for at the end of a file.
    ///
    /// # Errors
    /// What the transfer came to: `EFAULT` for a part outside the buffer, and the file's own.
    pub(crate) fn transfer(
        &mut self,
        way: Way,
        slot: u32,
        part: AddrRange<ProcVa>,
        file: BorrowedFd<'_>,
        offset: Bytes,
    ) -> Result<Bytes, Errno> {
        self.queue.push(way, slot, part, file.as_raw_fd(), offset)?;
        if let Err(error) = self.enter_until_done(1, 0) {
            self.queue.take_back();
            return Err(error);
        }
        loop {
            if let Some(result) = self.queue.pop() {
                return result;
            }
            self.enter_until_done(0, 1)?;
        }
    }

    /// Submits, or waits, again where a signal came in between.
    fn enter_until_done(&self, submit: u32, wait_for: u32) -> Result<u32, Errno> {
        let mut flags = IoringEnterFlags::GETEVENTS;
        flags.set(IoringEnterFlags::REGISTERED_RING, self.descriptor().is_none());
        let fd = self.number()?;
        loop {
            // SAFETY: 1. `number` is this ring's (invariant 1, and this is the thread of an index). 2. What is
            // submitted was written by `Queue::push`: it names a slot, which the kernel checks, and no other memory.
            match unsafe { io_uring_enter(fd, submit, wait_for, flags) } {
                Err(Errno::INTR) => (),
                answer => return answer,
            }
        }
    }

    /// # Safety
    /// The kernel must read no more for this operation than `arg` points to.
    unsafe fn register(&self, operation: IoringRegisterOp, arg: *const c_void, count: u32) -> Result<u32, Errno> {
        let flags = match self.place {
            Place::Descriptor(_) => IoringRegisterFlags::empty(),
            Place::Index { .. } => IoringRegisterFlags::USE_REGISTERED_RING,
        };
        let fd = self.number()?;
        // SAFETY: 1. `number` is this ring's. 2. The caller vouches for the argument.
        unsafe { io_uring_register_with(fd, operation, flags, arg, count) }
    }

    /// The descriptor, or the index in a descriptor's place, as the calls take it.
    fn number(&self) -> Result<BorrowedFd<'_>, Errno> {
        match &self.place {
            Place::Descriptor(fd) => Ok(fd.as_fd()),
            Place::Index { index, of } if *of == std::thread::current().id() => {
                // SAFETY: 1. The index stays this ring's while `self` is borrowed (invariant 1). 2. It only goes into
                // calls that are told by a flag that it is an index.
                Ok(unsafe { BorrowedFd::borrow_raw(*index) })
            }
            Place::Index { .. } => Err(Errno::BADF),
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // Only an index needs it: the descriptor closes itself, and the end of a thread would take its table along.
        if let Place::Index { index, .. } = self.place {
            let mut gone = io_uring_rsrc_update::default();
            gone.offset = index.cast_unsigned();
            // SAFETY: the kernel reads one structure, which lives across the call and holds no pointer.
            // An error would mean that there is no such ring; there is nobody to tell.
            let _ = unsafe { self.register(IoringRegisterOp::UnregisterRingFds, (&raw const gone).cast(), 1) };
        }
    }
}

fn pointer(address: ProcVa) -> io_uring_ptr {
    // An address beyond what pointers hold does not come from this process, and the kernel refuses its cut form as well.
    io_uring_ptr::new(std::ptr::without_provenance_mut(address.as_u64() as usize))
}

/// The size of a structure, as a register call is told it.
const fn size_u32<T>(_: &T) -> u32 {
    size_of::<T>() as u32
}

#[cfg(test)]
mod tests;
