//! Memory of this process by its addresses, as a device reaches it: with an error where nothing is there.
//!
//! UNSAFETY: `process_vm_readv` and `process_vm_writev`, which rustix does not offer, and `madvise`. The kernel copies as it
//! does for a `read` into such a buffer: what is not mapped, or not for this, is EFAULT and no signal, and
//! permissions are never overridden. A write to memory that Rust code borrows would be the caller's fault as a device's is, see
//! the folder's head: whoever registers a range for a device vouches for it.
//!
//! Rejected: volatile accesses, which end in a signal where a mapping has gone or a file was cut off; and `/proc/self/mem`,
//! which overrides permissions.

#![expect(unsafe_code)]

use peerdma::addr::{AddrRange, ProcVa};
use rustix::io::Errno;
use rustix::mm::{Advice, madvise};
use std::ffi::c_void;

fn pointer(at: ProcVa) -> *mut c_void {
    std::ptr::without_provenance_mut(at.as_u64() as usize)
}

fn outcome(answer: isize, wanted: usize) -> Result<(), Errno> {
    match usize::try_from(answer) {
        Ok(moved) if moved == wanted => Ok(()),
        // The kernel stops at the first page that it cannot reach, and says how far it came.
        Ok(_) => Err(Errno::FAULT),
        Err(_) => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
    }
}

fn this_process() -> libc::pid_t {
    rustix::process::getpid().as_raw_nonzero().get()
}

/// Copies bytes out of this process's memory.
///
/// After an error some of `into` may have been written.
pub(crate) fn read(at: ProcVa, into: &mut [u8]) -> Result<(), Errno> {
    if into.is_empty() {
        return Ok(());
    }
    let local = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    let remote = libc::iovec { iov_base: pointer(at), iov_len: into.len() };
    // SAFETY: 1. `local` is `into`, borrowed for the call. 2. `remote` is only read, by the kernel, which checks it.
    let moved = unsafe { libc::process_vm_readv(this_process(), &raw const local, 1, &raw const remote, 1, 0) };
    outcome(moved, into.len())
}

/// Copies bytes into this process's memory, where that permits writes.
///
/// After an error some may have been written.
pub(crate) fn write(at: ProcVa, from: &[u8]) -> Result<(), Errno> {
    if from.is_empty() {
        return Ok(());
    }
    let local = libc::iovec { iov_base: from.as_ptr().cast_mut().cast(), iov_len: from.len() };
    let remote = libc::iovec { iov_base: pointer(at), iov_len: from.len() };
    // SAFETY: 1. `local` is `from`, of which the kernel only reads. 2. What is written is what the module's head says.
    let moved = unsafe { libc::process_vm_writev(this_process(), &raw const local, 1, &raw const remote, 1, 0) };
    outcome(moved, from.len())
}

/// Brings pages as an access by the CPU would, for reading or for writing; changes no byte (Linux 5.14).
pub(crate) fn populate(at: AddrRange<ProcVa>, for_writes: bool) -> Result<(), Errno> {
    let advice = if for_writes { Advice::LinuxPopulateWrite } else { Advice::LinuxPopulateRead };
    // SAFETY: populating reads and changes no byte; a range that is no mapping is refused.
    unsafe { madvise(pointer(at.start()), at.len().as_u64() as usize, advice) }
}

/// Has children of this process not inherit a range, or inherit it again.
pub(crate) fn keep_from_children(at: AddrRange<ProcVa>, keep: bool) -> Result<(), Errno> {
    let advice = if keep { Advice::LinuxDontFork } else { Advice::LinuxDoFork };
    // SAFETY: nothing changes in this process; a child that is forked without its memory is one that may not touch it, which it
    // learns by a signal.
    unsafe { madvise(pointer(at.start()), at.len().as_u64() as usize, advice) }
}
