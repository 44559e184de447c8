//! Requests to VFIO, iommufd and dma-bufs exactly as told, with the kernel's own answer.
//!
//! The library refuses by name what cannot work, before a kernel is asked. Whether kernels
//! still answer as those checks assume can only be seen by asking them what the library
//! would not: an export of half a page, a mapping beyond the aperture, an unmapping of half
//! an area. That is what this module is for, and it exists only with the feature `raw`.
//!
//! UNSAFETY: `ioctl` with hand-made structures of `linux/vfio.h`, and `mmap` and `munmap` of
//! what is never accessed. A wrong argument here is refused by the kernel; what a *taken*
//! mapping lets a device do is the subject of the folder's head.
//!
//! Not here: dma-bufs once they exist, and those of other makers (`dma_buf`); anything that
//! a caller should use to get work done.

#![expect(unsafe_code)]

mod dma_buf;
mod foreign;

pub use foreign::Foreign;

pub use dma_buf::{
    CpuAccess, dma_buf_fences, dma_buf_set_name, dma_buf_sync, heap, prime_import, udmabuf, vgem_fence, vgem_signal,
};

use super::ioctl::exchange_words;
use super::map::Mapping;
use super::{iommufd, vfio};
use peerdma::addr::{Bytes, Iova, ProcVa};
use peerdma::dma::{Errno, Prot};
use rustix::ioctl::Opcode;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use vfio_bindings::bindings::vfio as uapi;

/// `VFIO_DEVICE_FEATURE`, computed by compiling `linux/vfio.h` on x86-64.
const DEVICE_FEATURE: Opcode = 0x3b75;

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
    }
}
