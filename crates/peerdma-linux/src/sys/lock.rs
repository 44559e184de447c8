//! Locking pages in RAM.
//!
//! UNSAFETY: `mlock` and `munlock`, which take an address.

#![expect(unsafe_code)]

use peerdma::addr::{AddrRange, ProcVa};
use rustix::io::Errno;
use std::ffi::c_void;

/// Locks the pages of a range, which are all in RAM when this returns.
pub(crate) fn lock(range: AddrRange<ProcVa>) -> Result<(), Errno> {
    let (start, len) = raw(range)?;
    // SAFETY: locking changes no byte and no mapping; the kernel checks the range.
    unsafe { rustix::mm::mlock(start, len) }
}

/// Unlocks the pages of a range, however often they were locked.
pub(crate) fn unlock(range: AddrRange<ProcVa>) -> Result<(), Errno> {
    let (start, len) = raw(range)?;
    // SAFETY: as for locking.
    unsafe { rustix::mm::munlock(start, len) }
}

fn raw(range: AddrRange<ProcVa>) -> Result<(*mut c_void, usize), Errno> {
    let start = usize::try_from(range.start().as_u64()).map_err(|_| Errno::INVAL)?;
    let len = usize::try_from(range.len().as_u64()).map_err(|_| Errno::INVAL)?;
    Ok((std::ptr::without_provenance_mut(start), len))
}
