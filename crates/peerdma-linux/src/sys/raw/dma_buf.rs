//! Requests to dma-bufs, and dma-bufs of other makers than VFIO.
//!
//! A BAR that VFIO exported is a dma-buf like any other to whoever holds it, and iommufd takes
//! only those of VFIO. Both can be seen by asking.
//!
//! UNSAFETY: `ioctl` with hand-made structures of `linux/dma-buf.h`, `linux/udmabuf.h`,
//! `linux/dma-heap.h` and `drm/drm.h`.
//!
//! Not here: exporting a BAR; see [`super::export`].

use super::super::ioctl::exchange;
use super::{descriptor, errno};
use peerdma::addr::Bytes;
use peerdma::dma::Errno;
use rustix::ioctl::Opcode;
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// `DMA_BUF_IOCTL_SYNC`: `_IOW('b', 0, struct dma_buf_sync)`.
const DMA_BUF_SYNC: Opcode = 0x4008_6200;
/// `DMA_BUF_SET_NAME_B`: `_IOW('b', 1, __u64)`.
const DMA_BUF_SET_NAME: Opcode = 0x4008_6201;
/// `DMA_BUF_IOCTL_EXPORT_SYNC_FILE`: `_IOWR('b', 2, struct dma_buf_export_sync_file)`.
const DMA_BUF_EXPORT_SYNC_FILE: Opcode = 0xc008_6202;
/// `UDMABUF_CREATE`: `_IOW('u', 0x42, struct udmabuf_create)`.
const UDMABUF_CREATE: Opcode = 0x4018_7542;
/// `DMA_HEAP_IOCTL_ALLOC`: `_IOWR('H', 0, struct dma_heap_allocation_data)`.
const DMA_HEAP_ALLOC: Opcode = 0xc018_4800;

/// Most bytes asked of a heap. A heap does not refuse what the machine does not have: a
/// request for 2^50 bytes has the caller killed for memory instead.
const MAX_HEAP: u64 = 1 << 24;

/// `DRM_IOCTL_PRIME_FD_TO_HANDLE`: `_IOWR('d', 0x2e, struct drm_prime_handle)`.
const PRIME_FD_TO_HANDLE: Opcode = 0xc00c_642e;

/// `DRM_IOCTL_VGEM_FENCE_ATTACH`: `_IOWR('d', 0x41, struct drm_vgem_fence_attach)`.
const VGEM_FENCE_ATTACH: Opcode = 0xc010_6441;
/// `DRM_IOCTL_VGEM_FENCE_SIGNAL`: `_IOW('d', 0x42, struct drm_vgem_fence_signal)`.
const VGEM_FENCE_SIGNAL: Opcode = 0x4008_6442;
/// `VGEM_FENCE_WRITE`.
const VGEM_WRITES: u32 = 1;

#[repr(C)]
struct VgemAttach {
    handle: u32,
    flags: u32,
    out_fence: u32,
    pad: u32,
}

#[repr(C)]
struct VgemSignal {
    fence: u32,
    flags: u32,
}

#[repr(C)]
struct Prime {
    handle: u32,
    flags: u32,
    fd: i32,
}

#[repr(C)]
struct Udmabuf {
    memfd: u32,
    flags: u32,
    offset: u64,
    size: u64,
}

#[repr(C)]
struct HeapAllocation {
    len: u64,
    fd: u32,
    fd_flags: u32,
    heap_flags: u64,
}

#[repr(C)]
struct ExportSyncFile {
    flags: u32,
    fd: i32,
}

// Sizes stand in the numbers of these, so a wrong one answers ENOTTY.
const _: () = assert!(size_of::<Udmabuf>() == 24 && std::mem::offset_of!(Udmabuf, offset) == 8);
const _: () = assert!(size_of::<HeapAllocation>() == 24 && std::mem::offset_of!(HeapAllocation, heap_flags) == 16);
const _: () = assert!(size_of::<ExportSyncFile>() == 8 && size_of::<Prime>() == 12);
const _: () = assert!(size_of::<VgemAttach>() == 16 && size_of::<VgemSignal>() == 8);

/// Which half of a CPU's access to a dma-buf is announced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CpuAccess {
    /// It begins, for reading and writing.
    Begins,
    /// It ends.
    Ends,
}

/// Announces to a dma-buf that the CPU begins or ends to access it.
///
/// # Errors
/// The kernel's answer as it is.
pub fn dma_buf_sync(dma_buf: impl AsFd, access: CpuAccess) -> Result<(), Errno> {
    // DMA_BUF_SYNC_RW is 3, DMA_BUF_SYNC_END 4.
    let mut flags = match access {
        CpuAccess::Begins => 3u64,
        CpuAccess::Ends => 7,
    };
    // SAFETY: the kernel reads one word.
    unsafe { exchange(dma_buf.as_fd(), DMA_BUF_SYNC, &mut flags) }.map(drop).map_err(errno)
}

/// Names a dma-buf.
///
/// # Errors
/// The kernel's answer as it is.
pub fn dma_buf_set_name(dma_buf: impl AsFd, name: &CStr) -> Result<(), Errno> {
    let mut room = [0u8; 64];
    let bytes = name.to_bytes_with_nul();
    room.get_mut(..bytes.len()).ok_or(Errno::new(libc::ENAMETOOLONG))?.copy_from_slice(bytes);
    // SAFETY: the kernel reads a C string of at most 32 bytes (`DMA_BUF_NAME_LEN`), whose end
    // lies within `room`.
    unsafe { exchange(dma_buf.as_fd(), DMA_BUF_SET_NAME, &mut room) }.map(drop).map_err(errno)
}

/// Takes the fences of a dma-buf as a file.
///
/// # Errors
/// The kernel's answer as it is.
pub fn dma_buf_fences(dma_buf: impl AsFd) -> Result<OwnedFd, Errno> {
    let mut request = ExportSyncFile { flags: 3, fd: -1 };
    // SAFETY: the kernel reads and writes one `dma_buf_export_sync_file`, all plain numbers.
    unsafe { exchange(dma_buf.as_fd(), DMA_BUF_EXPORT_SYNC_FILE, &mut request) }.map_err(errno)?;
    descriptor(request.fd)
}

/// Makes a dma-buf of a memfd, through an open `/dev/udmabuf`.
///
/// # Errors
/// The kernel's answer as it is.
pub fn udmabuf(udmabuf: impl AsFd, memfd: impl AsFd, offset: Bytes, size: Bytes) -> Result<OwnedFd, Errno> {
    let memfd = u32::try_from(memfd.as_fd().as_raw_fd()).map_err(|_| Errno::EBADF)?;
    // 1 is UDMABUF_FLAGS_CLOEXEC.
    let mut request = Udmabuf { memfd, flags: 1, offset: offset.as_u64(), size: size.as_u64() };
    // SAFETY: the kernel reads one `udmabuf_create`.
    descriptor(unsafe { exchange(udmabuf.as_fd(), UDMABUF_CREATE, &mut request) }.map_err(errno)?)
}

/// Takes a dma-buf of at most 16 MiB from a heap, as `/dev/dma_heap/system`.
///
/// # Errors
/// The kernel's answer as it is; ENOMEM for more, which the kernel is not asked.
pub fn heap(heap: impl AsFd, len: Bytes) -> Result<OwnedFd, Errno> {
    if len.as_u64() > MAX_HEAP {
        return Err(Errno::ENOMEM);
    }
    let flags = rustix::fs::OFlags::CLOEXEC.union(rustix::fs::OFlags::RDWR).bits();
    let mut request = HeapAllocation { len: len.as_u64(), fd: 0, fd_flags: flags, heap_flags: 0 };
    // SAFETY: the kernel reads and writes one `dma_heap_allocation_data`, all plain numbers.
    unsafe { exchange(heap.as_fd(), DMA_HEAP_ALLOC, &mut request) }.map_err(errno)?;
    descriptor(i32::try_from(request.fd).map_err(|_| Errno::EBADF)?)
}

/// Has a DRM driver import a dma-buf, through an open node of its; the handle goes with the node.
///
/// # Errors
/// The kernel's answer as it is.
pub fn prime_import(drm: impl AsFd, dma_buf: impl AsFd) -> Result<u32, Errno> {
    let mut request = Prime { handle: 0, flags: 0, fd: dma_buf.as_fd().as_raw_fd() };
    // SAFETY: the kernel reads and writes one `drm_prime_handle`, all plain numbers.
    unsafe { exchange(drm.as_fd(), PRIME_FD_TO_HANDLE, &mut request) }.map_err(errno)?;
    Ok(request.handle)
}

/// Has vgem put a fence of a write into what it imported under `handle`, and gives its number: the one way for a program to
/// make a fence of the kernel's. It retires when it is [signalled](vgem_signal), and by itself after ten seconds.
///
/// # Errors
/// The kernel's answer as it is.
pub fn vgem_fence(vgem: impl AsFd, handle: u32) -> Result<u32, Errno> {
    let mut request = VgemAttach { handle, flags: VGEM_WRITES, out_fence: 0, pad: 0 };
    // SAFETY: the kernel reads and writes one `drm_vgem_fence_attach`, all plain numbers.
    unsafe { exchange(vgem.as_fd(), VGEM_FENCE_ATTACH, &mut request) }.map_err(errno)?;
    Ok(request.out_fence)
}

/// Retires a fence that [`vgem_fence`] made.
///
/// # Errors
/// The kernel's answer as it is.
pub fn vgem_signal(vgem: impl AsFd, fence: u32) -> Result<(), Errno> {
    let mut request = VgemSignal { fence, flags: 0 };
    // SAFETY: the kernel reads one `drm_vgem_fence_signal`.
    unsafe { exchange(vgem.as_fd(), VGEM_FENCE_SIGNAL, &mut request) }.map(drop).map_err(errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_dma_buf_and_no_heap_refuses_as_itself() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(dma_buf_sync(&file, CpuAccess::Begins).unwrap_err(), Errno::new(libc::ENOTTY));
        assert_eq!(heap(&file, Bytes::new(1 << 50)).unwrap_err(), Errno::ENOMEM);
        assert_eq!(heap(&file, Bytes::new(4096)).unwrap_err(), Errno::new(libc::ENOTTY));
    }
}
