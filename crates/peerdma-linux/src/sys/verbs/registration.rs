//! Registered memory.

#![expect(unsafe_code)]

use super::answer::{of_pointer, of_status};
use super::layout;
use super::objects::Domain;
use peerdma::addr::{AddrRange, Bytes, Iova, ProcVa};
use rustix::io::Errno;
use std::ffi::c_int;
use std::fmt;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

/// Flags of `ibv_access_flags`.
pub(crate) const LOCAL_WRITE: u32 = 1;
pub(crate) const REMOTE_WRITE: u32 = 2;
pub(crate) const REMOTE_READ: u32 = 4;

/// A region, deregistered when dropped.
pub(crate) struct Registration {
    domain: Domain,
    /// There until it is deregistered.
    raw: Option<NonNull<layout::Region>>,
}

// SAFETY: the verbs may be called by any number of threads at once.
unsafe impl Send for Registration {}
// SAFETY: as for `Send`.
unsafe impl Sync for Registration {}

impl Registration {
    /// Registers memory of this process, by its own addresses.
    pub(crate) fn of_memory(domain: &Domain, range: AddrRange<ProcVa>, access: u32) -> Result<Self, Errno> {
        let start = usize::try_from(range.start().as_u64()).map_err(|_| Errno::INVAL)?;
        let len = usize::try_from(range.len().as_u64()).map_err(|_| Errno::INVAL)?;
        let access = c_int::try_from(access).map_err(|_| Errno::INVAL)?;
        let start = std::ptr::without_provenance_mut(start);
        // SAFETY: 1. The domain is allocated. 2. The address is only handed to the kernel, which checks it. 3. What the
        // device does to the memory is said in the folder's head.
        let raw = of_pointer(unsafe { (domain.context().library().register)(domain.raw(), start, len, access) })?;
        Ok(Self { domain: domain.clone(), raw: Some(raw) })
    }

    /// Registers a part of a dma-buf, which devices see from `iova` on; `NOSYS` where the library is too old. Without
    /// a file it is what a file that is none is answered.
    pub(crate) fn of_dmabuf(
        domain: &Domain,
        fd: Option<BorrowedFd<'_>>,
        offset: Bytes,
        len: Bytes,
        iova: Iova,
        access: u32,
    ) -> Result<Self, Errno> {
        let register = domain.context().library().register_dmabuf.ok_or(Errno::NOSYS)?;
        let size = usize::try_from(len.as_u64()).map_err(|_| Errno::INVAL)?;
        let access = c_int::try_from(access).map_err(|_| Errno::INVAL)?;
        let fd = fd.map_or(-1, |fd| fd.as_raw_fd());
        // SAFETY: 1. The domain is allocated. 2. The kernel checks file, offset and length.
        let raw = of_pointer(unsafe { register(domain.raw(), offset.as_u64(), size, iova.as_u64(), fd, access) })?;
        Ok(Self { domain: domain.clone(), raw: Some(raw) })
    }

    /// The keys, local and remote.
    pub(crate) fn keys(&self) -> (u32, u32) {
        // SAFETY: the region lives until it is deregistered, and nobody changes its keys.
        self.raw.map_or((0, 0), |raw| unsafe { ((*raw.as_ptr()).local_key, (*raw.as_ptr()).remote_key) })
    }

    /// Deregisters it: no device reaches the memory through it any more. Once; again is nothing.
    ///
    /// An error leaves it registered for good.
    pub(crate) fn close(&mut self) -> Result<(), Errno> {
        let Some(raw) = self.raw.take() else { return Ok(()) };
        // SAFETY: 1. It was registered once, and is taken out here. 2. The domain is still allocated.
        of_status(unsafe { (self.domain.context().library().deregister)(raw.as_ptr()) })
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // Whoever wants to know closes it.
        let _ = self.close();
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Registration {:?}", self.keys())
    }
}
