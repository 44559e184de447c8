//! Requests to VFIO, iommufd and dma-bufs exactly as told, with the kernel's own answer.
//!
//! The library refuses by name what cannot work, before a kernel is asked. Whether kernels
//! still answer as those checks assume can only be seen by asking them what the library
//! would not: an export of half a page, a mapping beyond the aperture, an unmapping of half
//! an area. That is what this module is for, and it exists only with the feature `raw`.
//!
//! UNSAFETY: `ioctl` with hand-made structures of `linux/vfio.h`, `linux/dma-buf.h`,
//! `linux/udmabuf.h` and `linux/dma-heap.h`, and `mmap` and `munmap` of what is never
//! accessed. A wrong argument here is refused by the kernel; what a *taken* mapping lets a
//! device do is the subject of the folder's head.
//!
//! Not here: anything that a caller should use to get work done.

#![expect(unsafe_code)]

use super::ioctl::{exchange, exchange_words};
use super::map::Mapping;
use super::{iommufd, vfio};
use peerdma::addr::{Bytes, Iova, ProcVa};
use peerdma::dma::{Errno, Prot};
use rustix::ioctl::Opcode;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use vfio_bindings::bindings::vfio as uapi;

/// `VFIO_DEVICE_FEATURE`, computed by compiling `linux/vfio.h` on x86-64.
const DEVICE_FEATURE: Opcode = 0x3b75;
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

// Sizes stand in the numbers of these three, so a wrong one answers ENOTTY.
const _: () = assert!(size_of::<Udmabuf>() == 24 && std::mem::offset_of!(Udmabuf, offset) == 8);
const _: () = assert!(size_of::<HeapAllocation>() == 24 && std::mem::offset_of!(HeapAllocation, heap_flags) == 16);
const _: () = assert!(size_of::<ExportSyncFile>() == 8);
const _: () = assert!(size_of::<uapi::vfio_device_feature>() == 8);
const _: () = assert!(size_of::<uapi::vfio_device_feature_dma_buf>() == 16);
const _: () = assert!(size_of::<uapi::vfio_region_dma_range>() == 16);

fn errno(error: rustix::io::Errno) -> Errno {
    Errno::new(error.raw_os_error())
}

/// What an export is asked to do, besides exporting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ask {
    /// Export (`GET`).
    Export,
    /// Say whether one could (`PROBE | GET`).
    Probe,
    /// Say whether one could set, which nobody can (`PROBE | SET`).
    ProbeSet,
    /// Set, which no kernel does (`SET`).
    Set,
}

/// A request to export ranges of a region, however wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExportRequest {
    /// What is asked.
    pub ask: Ask,
    /// Length that the request claims to have; `None`: that which it has.
    pub claimed_len: Option<u32>,
    /// Number of the region; BARs are 0 to 5.
    pub region: u32,
    /// Flags of the new descriptor, as `open` has them.
    pub open_flags: u32,
    /// Flags of the request, of which there are none.
    pub flags: u32,
    /// Offset and length of each range, in the region.
    pub ranges: Vec<(Bytes, Bytes)>,
}

/// Asks a device to export; the descriptor if it gave one.
///
/// # Errors
/// The kernel's answer as it is.
pub fn export(device: impl AsFd, request: &ExportRequest) -> Result<Option<OwnedFd>, Errno> {
    let words = export_words(request).ok_or(Errno::new(libc::E2BIG))?;
    let mut words = words;
    // SAFETY:
    // 1. The kernel reads the header, 16 bytes behind it if the claimed length holds them, and
    //    `nr_ranges` times 16 bytes (Linux 7.3 `vfio_pci_core_feature_dma_buf`), all of which
    //    `export_words` wrote, whatever length is claimed.
    // 2. It writes nothing back.
    let fd = unsafe { exchange_words(device.as_fd(), DEVICE_FEATURE, &mut words) }.map_err(errno)?;
    if request.ask != Ask::Export {
        return Ok(None);
    }
    descriptor(fd).map(Some)
}

/// The structures of an export one after another, as they lie in memory.
fn export_words(request: &ExportRequest) -> Option<Vec<u64>> {
    let ask = match request.ask {
        Ask::Export => uapi::VFIO_DEVICE_FEATURE_GET,
        Ask::Probe => uapi::VFIO_DEVICE_FEATURE_PROBE | uapi::VFIO_DEVICE_FEATURE_GET,
        Ask::ProbeSet => uapi::VFIO_DEVICE_FEATURE_PROBE | uapi::VFIO_DEVICE_FEATURE_SET,
        Ask::Set => uapi::VFIO_DEVICE_FEATURE_SET,
    };
    let ranges = u32::try_from(request.ranges.len()).ok()?;
    let len = u32::try_from(24 + 16 * request.ranges.len()).ok()?;
    let mut words = vec![
        pair(request.claimed_len.unwrap_or(len), ask | uapi::VFIO_DEVICE_FEATURE_DMA_BUF),
        pair(request.region, request.open_flags),
        pair(request.flags, ranges),
    ];
    words.extend(request.ranges.iter().flat_map(|(offset, len)| [offset.as_u64(), len.as_u64()]));
    Some(words)
}

/// Two fields of 32 bits as they lie in one word.
fn pair(first: u32, second: u32) -> u64 {
    let (first, second) = (first.to_ne_bytes(), second.to_ne_bytes());
    u64::from_ne_bytes([first[0], first[1], first[2], first[3], second[0], second[1], second[2], second[3]])
}

/// Takes a descriptor that a call returned.
fn descriptor(fd: i32) -> Result<OwnedFd, Errno> {
    if fd < 0 {
        return Err(Errno::EBADF);
    }
    // SAFETY: the kernel has just made this descriptor for us and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Asks a type1 container to map.
///
/// # Errors
/// The kernel's answer as it is.
pub fn type1_map(container: impl AsFd, prot: Prot, from: ProcVa, iova: Iova, len: Bytes) -> Result<(), Errno> {
    let read = if prot.reads() { uapi::VFIO_DMA_MAP_FLAG_READ } else { 0 };
    let write = if prot.writes() { uapi::VFIO_DMA_MAP_FLAG_WRITE } else { 0 };
    vfio::map(container.as_fd(), read | write, from.as_u64(), iova.as_u64(), len.as_u64()).map_err(errno)
}

/// Asks a type1 container to unmap; the bytes that were mapped.
///
/// # Errors
/// The kernel's answer as it is.
pub fn type1_unmap(container: impl AsFd, iova: Iova, len: Bytes) -> Result<Bytes, Errno> {
    vfio::unmap(container.as_fd(), 0, iova.as_u64(), len.as_u64()).map(Bytes::new).map_err(errno)
}

/// Asks a type1 container to unmap everything; the bytes that were mapped.
///
/// # Errors
/// The kernel's answer as it is.
pub fn type1_unmap_all(container: impl AsFd) -> Result<Bytes, Errno> {
    vfio::unmap(container.as_fd(), uapi::VFIO_DMA_UNMAP_FLAG_ALL, 0, 0).map(Bytes::new).map_err(errno)
}

/// An address space of an iommufd.
#[derive(Clone, Copy, Debug)]
pub struct Ioas<'a> {
    /// The iommufd.
    pub iommufd: BorrowedFd<'a>,
    /// The number of the address space in it.
    pub id: u32,
}

impl<'a> Ioas<'a> {
    /// Makes an address space in an iommufd.
    ///
    /// # Errors
    /// The kernel's answer as it is.
    pub fn allocate(iommufd: BorrowedFd<'a>) -> Result<Self, Errno> {
        let id = iommufd::new_space(iommufd).map_err(errno)?;
        Ok(Self { iommufd, id })
    }

    /// Gives it to a device that is bound to the same iommufd.
    ///
    /// # Errors
    /// The kernel's answer as it is.
    pub fn attach(self, device: impl AsFd) -> Result<(), Errno> {
        vfio::attach(device.as_fd(), self.id).map_err(errno)
    }

    fn flags(prot: Prot) -> u32 {
        let read = if prot.reads() { iommufd_bindings::iommufd_ioas_map_flags_IOMMU_IOAS_MAP_READABLE } else { 0 };
        let write = if prot.writes() { iommufd_bindings::iommufd_ioas_map_flags_IOMMU_IOAS_MAP_WRITEABLE } else { 0 };
        read | write
    }

    /// Asks to map process memory at a fixed IOVA.
    ///
    /// # Errors
    /// The kernel's answer as it is.
    pub fn map(self, prot: Prot, from: ProcVa, iova: Iova, len: Bytes) -> Result<(), Errno> {
        let (from, iova, len) = (from.as_u64(), iova.as_u64(), len.as_u64());
        iommufd::map(self.iommufd, self.id, Self::flags(prot), from, iova, len).map_err(errno)
    }

    /// Asks to map a file from `start` on at a fixed IOVA.
    ///
    /// # Errors
    /// The kernel's answer as it is.
    pub fn map_file(self, prot: Prot, file: impl AsFd, start: Bytes, iova: Iova, len: Bytes) -> Result<(), Errno> {
        let (start, iova, len) = (start.as_u64(), iova.as_u64(), len.as_u64());
        iommufd::map_file(self.iommufd, self.id, Self::flags(prot), file.as_fd(), start, iova, len).map_err(errno)
    }

    /// Asks to unmap; the bytes that were mapped.
    ///
    /// # Errors
    /// The kernel's answer as it is.
    pub fn unmap(self, iova: Iova, len: Bytes) -> Result<Bytes, Errno> {
        iommufd::unmap(self.iommufd, self.id, iova.as_u64(), len.as_u64()).map(Bytes::new).map_err(errno)
    }

    /// Asks to unmap everything; the bytes that were mapped.
    ///
    /// # Errors
    /// The kernel's answer as it is.
    pub fn unmap_all(self) -> Result<Bytes, Errno> {
        iommufd::unmap(self.iommufd, self.id, 0, u64::MAX).map(Bytes::new).map_err(errno)
    }
}

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

/// Asks whether a file can be mapped, and unmaps it at once.
///
/// # Errors
/// The kernel's answer as it is.
pub fn try_mmap(file: impl AsFd, len: Bytes, prot: Prot) -> Result<(), Errno> {
    let len = usize::try_from(len.as_u64()).map_err(|_| Errno::ENOMEM)?;
    let read = if prot.reads() { ProtFlags::READ } else { ProtFlags::empty() };
    let write = if prot.writes() { ProtFlags::WRITE } else { ProtFlags::empty() };
    // SAFETY: without MAP_FIXED the kernel chooses an address that nothing uses.
    let start = unsafe { mmap(std::ptr::null_mut(), len, read | write, MapFlags::SHARED, file, 0) }.map_err(errno)?;
    // SAFETY: the range is the mapping just made, and nobody was told its address.
    unsafe { munmap(start, len) }.map_err(errno)
}

/// A shared mapping of a file, for its address: what is behind it is not accessed.
#[derive(Debug)]
pub struct Mapped(Mapping);

impl Mapped {
    /// Maps `len` bytes of `file` from its start.
    ///
    /// # Errors
    /// The kernel's answer as it is.
    pub fn of_file(file: impl AsFd, len: Bytes) -> Result<Self, Errno> {
        let len = usize::try_from(len.as_u64()).map_err(|_| Errno::ENOMEM)?;
        Mapping::of_file(file.as_fd(), 0, len).map(Self).map_err(errno)
    }

    /// Address of its first byte in this process.
    pub fn address(&self) -> ProcVa {
        self.0.address()
    }

    /// Copies bytes out, as `Pages::read` does; false if they do not all lie inside.
    pub fn read(&self, offset: Bytes, into: &mut [u8]) -> bool {
        usize::try_from(offset.as_u64()).is_ok_and(|offset| self.0.read(offset, into).is_ok())
    }

    /// Copies bytes in, as `Pages::write` does; false if they do not all lie inside.
    pub fn write(&self, offset: Bytes, from: &[u8]) -> bool {
        usize::try_from(offset.as_u64()).is_ok_and(|offset| self.0.write(offset, from).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_lies_in_memory_as_the_kernel_reads_it() {
        let request = ExportRequest {
            ask: Ask::Export,
            claimed_len: None,
            region: 2,
            open_flags: 0x8_0002,
            flags: 0,
            ranges: vec![(Bytes::new(0x1000), Bytes::new(0x2000)), (Bytes::ZERO, Bytes::new(0x1000))],
        };
        let bytes: Vec<u8> = export_words(&request).unwrap().iter().flat_map(|word| word.to_ne_bytes()).collect();
        let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        // argsz, flags (GET | 11), region_index, open_flags, flags, nr_ranges.
        let head = [0, 4, 8, 12, 16, 20].map(word);
        assert_eq!(head, [56, 0x1_000b, 2, 0x8_0002, 0, 2]);
        assert_eq!((word(24), word(32), word(40), word(48)), (0x1000, 0x2000, 0, 0x1000));
        let lying = ExportRequest { claimed_len: Some(12), ask: Ask::ProbeSet, ranges: vec![], ..request };
        assert_eq!(export_words(&lying).unwrap()[0], pair(12, 0x6_000b));
    }

    #[test]
    fn a_file_that_is_no_device_refuses_as_itself() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let request =
            ExportRequest { ask: Ask::Export, claimed_len: None, region: 0, open_flags: 0, flags: 0, ranges: vec![] };
        assert_eq!(export(&file, &request).unwrap_err(), Errno::new(libc::ENOTTY));
        assert_eq!(type1_unmap_all(&file).unwrap_err(), Errno::new(libc::ENOTTY));
        assert_eq!(dma_buf_sync(&file, CpuAccess::Begins).unwrap_err(), Errno::new(libc::ENOTTY));
        assert_eq!(heap(&file, Bytes::new(1 << 50)).unwrap_err(), Errno::ENOMEM);
        assert_eq!(heap(&file, Bytes::new(4096)).unwrap_err(), Errno::new(libc::ENOTTY));
    }
}
