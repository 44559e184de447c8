//! The ioctls of VFIO: containers, groups, devices and the type1 IOMMU behind them.
//!
//! UNSAFETY: `ioctl` with structures of `linux/vfio.h`. Numbers overlap (`GET_INFO` of a
//! container is `GET_PCI_HOT_RESET_INFO` of a device), so each function says which file
//! it is for. A file of another kind answers ENOTTY, or takes the structure for one of its
//! own: the kernel then first copies as many bytes as the fixed part of *its* structure has
//! (Linux 7.2 `copy_from_user(&x, arg, minsz)`) and only afterwards compares `argsz` with that
//! number, answering EINVAL if it is less. So it may read some tens of bytes past ours, which
//! is a read of this process's own memory or EFAULT; it writes only where `argsz` is enough.
//!
//! What comes back with a chain of capabilities comes back as the kernel's bytes;
//! `crate::vfio::chain` takes them apart without trusting them.

#![expect(unsafe_code)]

pub(crate) mod interrupts;
pub(crate) mod whole;

use super::ioctl::{exchange, exchange_words, number, with_number};
use rustix::io::Errno;
use rustix::ioctl::Opcode;
use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use vfio_bindings::bindings::vfio as uapi;

const fn vfio(offset: u32) -> Opcode {
    number(uapi::VFIO_TYPE, (uapi::VFIO_BASE + offset) as u8)
}

const GET_API_VERSION: Opcode = vfio(0);
const CHECK_EXTENSION: Opcode = vfio(1);
const SET_IOMMU: Opcode = vfio(2);
const GROUP_GET_STATUS: Opcode = vfio(3);
const GROUP_SET_CONTAINER: Opcode = vfio(4);
const GROUP_GET_DEVICE_FD: Opcode = vfio(6);
const DEVICE_GET_INFO: Opcode = vfio(7);
const DEVICE_GET_REGION_INFO: Opcode = vfio(8);
const DEVICE_RESET: Opcode = vfio(11);
const DEVICE_FEATURE: Opcode = vfio(17);
const DEVICE_BIND_IOMMUFD: Opcode = vfio(18);
const DEVICE_ATTACH_IOMMUFD_PT: Opcode = vfio(19);
const IOMMU_GET_INFO: Opcode = vfio(12);
const IOMMU_MAP_DMA: Opcode = vfio(13);
const IOMMU_UNMAP_DMA: Opcode = vfio(14);

// Linux 7.2, computed by compiling the header on x86-64.
const _: () = assert!(GET_API_VERSION == 0x3b64 && DEVICE_RESET == 0x3b6f && DEVICE_ATTACH_IOMMUFD_PT == 0x3b77);
const _: () = assert!(size_of::<uapi::vfio_group_status>() == 8);
const _: () = assert!(size_of::<uapi::vfio_device_info>() == 24);
const _: () = assert!(size_of::<uapi::vfio_region_info>() == 32);
const _: () = assert!(size_of::<uapi::vfio_iommu_type1_info>() == 24);
const _: () = assert!(size_of::<uapi::vfio_iommu_type1_dma_map>() == 32);
const _: () = assert!(size_of::<uapi::vfio_iommu_type1_dma_unmap>() == 24);
const _: () = assert!(size_of::<uapi::vfio_device_bind_iommufd>() == 24);
const _: () = assert!(size_of::<uapi::vfio_device_attach_iommufd_pt>() == 16);

/// Most bytes of an answer with capabilities that is asked for again with more room.
const MAX_ANSWER: usize = 1 << 20;

/// `vfio_device_feature` with one `vfio_device_feature_dma_buf` of one range, which the
/// header leaves to be put together by hand.
#[repr(C)]
struct ExportOneRange {
    argsz: u32,
    feature: u32,
    region_index: u32,
    open_flags: u32,
    flags: u32,
    nr_ranges: u32,
    range: uapi::vfio_region_dma_range,
}

const _: () = assert!(size_of::<ExportOneRange>() == 40);
const _: () = assert!(
    std::mem::offset_of!(ExportOneRange, region_index) == size_of::<uapi::vfio_device_feature>()
        && std::mem::offset_of!(ExportOneRange, range)
            == size_of::<uapi::vfio_device_feature>() + size_of::<uapi::vfio_device_feature_dma_buf>()
);

/// Size of a structure for its own `argsz` field.
const fn argsz<T>() -> u32 {
    size_of::<T>() as u32
}

/// Takes a descriptor that an ioctl returned.
fn owned(fd: i32) -> Result<OwnedFd, Errno> {
    if fd < 0 {
        return Err(Errno::BADF);
    }
    // SAFETY: the kernel has just made this descriptor for us and nobody else knows its
    // number, so there is no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Container: which version of the interface it speaks.
pub(crate) fn api_version(container: BorrowedFd<'_>) -> Result<i32, Errno> {
    // SAFETY: the number takes no argument (Linux 7.2 `vfio_fops_unl_ioctl`).
    unsafe { with_number(container, GET_API_VERSION, 0) }
}

/// Container: whether it knows an extension such as `VFIO_TYPE1v2_IOMMU`.
pub(crate) fn has_extension(container: BorrowedFd<'_>, extension: u32) -> Result<bool, Errno> {
    // SAFETY: the argument is a number (`vfio_container_ioctl_check_extension`).
    Ok(unsafe { with_number(container, CHECK_EXTENSION, extension as usize) }? > 0)
}

/// Container: chooses its kind of IOMMU, once it has a group.
pub(crate) fn choose_iommu(container: BorrowedFd<'_>, kind: u32) -> Result<(), Errno> {
    // SAFETY: the argument is a number (`vfio_ioctl_set_iommu`).
    unsafe { with_number(container, SET_IOMMU, kind as usize) }.map(drop)
}

/// Group: its `VFIO_GROUP_FLAGS_*`.
pub(crate) fn group_flags(group: BorrowedFd<'_>) -> Result<u32, Errno> {
    let mut status = uapi::vfio_group_status { argsz: argsz::<uapi::vfio_group_status>(), ..Default::default() };
    // SAFETY: the kernel reads and writes one `vfio_group_status`, all plain numbers.
    unsafe { exchange(group, GROUP_GET_STATUS, &mut status) }?;
    Ok(status.flags)
}

/// Group: puts it into a container.
pub(crate) fn enter_container(group: BorrowedFd<'_>, container: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut fd = container.as_raw_fd();
    // SAFETY: the kernel reads one `int`.
    unsafe { exchange(group, GROUP_SET_CONTAINER, &mut fd) }.map(drop)
}

/// Group: opens one of its devices, which keeps the group and its container open.
pub(crate) fn device_of_group(group: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    // The kernel reads the name up to its end, so it gets a copy of known room; a PCI
    // address takes 13 to 17 bytes.
    let mut room = [0u8; 64];
    let bytes = name.to_bytes_with_nul();
    room.get_mut(..bytes.len()).ok_or(Errno::NAMETOOLONG)?.copy_from_slice(bytes);
    // SAFETY: the kernel reads a C string (`vfio_group_ioctl_get_device_fd`), whose end
    // lies within `room` as copied.
    owned(unsafe { exchange(group, GROUP_GET_DEVICE_FD, &mut room) }?)
}

/// Device: flags and numbers of regions and interrupts.
pub(crate) fn device_info(device: BorrowedFd<'_>) -> Result<uapi::vfio_device_info, Errno> {
    let mut info = uapi::vfio_device_info { argsz: argsz::<uapi::vfio_device_info>(), ..Default::default() };
    // SAFETY: the kernel reads and writes at most `argsz` bytes, one `vfio_device_info`.
    unsafe { exchange(device, DEVICE_GET_INFO, &mut info) }?;
    Ok(info)
}

/// Device: a `vfio_region_info` and its capabilities, as bytes.
pub(crate) fn region_info(device: BorrowedFd<'_>, index: u32) -> Result<Vec<u8>, Errno> {
    // The index stands at offset 8, in the first half of the second word.
    growing(size_of::<uapi::vfio_region_info>(), |words| {
        words[1] = u64::from_ne_bytes(pair(index, 0));
        // SAFETY: the kernel accesses at most `argsz` bytes, which `growing` set to the
        // size of the slice.
        unsafe { exchange_words(device, DEVICE_GET_REGION_INFO, words) }
    })
}

/// Container: a `vfio_iommu_type1_info` and its capabilities, as bytes.
pub(crate) fn iommu_info(container: BorrowedFd<'_>) -> Result<Vec<u8>, Errno> {
    growing(size_of::<uapi::vfio_iommu_type1_info>(), |words| {
        // SAFETY: as for `region_info`.
        unsafe { exchange_words(container, IOMMU_GET_INFO, words) }
    })
}

const fn pair(low: u32, high: u32) -> [u8; 8] {
    let (low, high) = (low.to_ne_bytes(), high.to_ne_bytes());
    [low[0], low[1], low[2], low[3], high[0], high[1], high[2], high[3]]
}

/// Asks with room for the structure and some capabilities, and again if `argsz`, the
/// first four bytes, comes back larger. Too little room is no error to the kernel.
fn growing(least: usize, mut ask: impl FnMut(&mut [u64]) -> Result<i32, Errno>) -> Result<Vec<u8>, Errno> {
    let mut len = least.max(512);
    loop {
        let mut words = vec![0u64; len.div_ceil(8)];
        let room = words.len() * 8;
        words[0] = u64::from_ne_bytes(pair(room as u32, 0));
        ask(&mut words)?;
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let wanted = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
        if wanted <= room {
            return Ok(bytes);
        }
        if wanted > MAX_ANSWER {
            return Err(Errno::TOOBIG);
        }
        len = wanted;
    }
}

/// Device: resets the function.
pub(crate) fn reset(device: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: the number takes no argument (`vfio_pci_ioctl_reset`).
    unsafe { with_number(device, DEVICE_RESET, 0) }.map(drop)
}

/// Device: a dma-buf of one range of a BAR.
///
/// One range only: Linux 7.2 cannot map several through a translating IOMMU
/// (`dma_buf_phys_vec_to_sgt` links each at offset 0), and iommufd refuses several.
pub(crate) fn export(
    device: BorrowedFd<'_>,
    region_index: u32,
    mode: rustix::fs::OFlags,
    offset: u64,
    length: u64,
) -> Result<OwnedFd, Errno> {
    let mut request = ExportOneRange {
        argsz: argsz::<ExportOneRange>(),
        feature: uapi::VFIO_DEVICE_FEATURE_GET | uapi::VFIO_DEVICE_FEATURE_DMA_BUF,
        region_index,
        open_flags: rustix::fs::OFlags::CLOEXEC.union(mode).bits(),
        flags: 0,
        nr_ranges: 1,
        range: uapi::vfio_region_dma_range { offset, length },
    };
    // SAFETY: the kernel reads `argsz` bytes (`vfio_pci_core_feature_dma_buf`).
    owned(unsafe { exchange(device, DEVICE_FEATURE, &mut request) }?)
}

/// Device node: binds it to an iommufd, before which it answers nothing else.
pub(crate) fn bind(device: BorrowedFd<'_>, iommufd: BorrowedFd<'_>) -> Result<u32, Errno> {
    let mut request = uapi::vfio_device_bind_iommufd {
        argsz: argsz::<uapi::vfio_device_bind_iommufd>(),
        iommufd: iommufd.as_raw_fd(),
        ..Default::default()
    };
    // SAFETY: the kernel reads at most `argsz` bytes and writes `out_devid`; without the
    // token flag it does not follow `token_uuid_ptr`.
    unsafe { exchange(device, DEVICE_BIND_IOMMUFD, &mut request) }?;
    Ok(request.out_devid)
}

/// Device node, bound: gives it the address space `ioas`.
pub(crate) fn attach(device: BorrowedFd<'_>, ioas: u32) -> Result<(), Errno> {
    let mut request = uapi::vfio_device_attach_iommufd_pt {
        argsz: argsz::<uapi::vfio_device_attach_iommufd_pt>(),
        pt_id: ioas,
        ..Default::default()
    };
    // SAFETY: the kernel reads at most `argsz` bytes and writes `pt_id`.
    unsafe { exchange(device, DEVICE_ATTACH_IOMMUFD_PT, &mut request) }.map(drop)
}

/// Container: maps process memory for the devices of its groups.
pub(crate) fn map(container: BorrowedFd<'_>, flags: u32, vaddr: u64, iova: u64, size: u64) -> Result<(), Errno> {
    let mut request =
        uapi::vfio_iommu_type1_dma_map { argsz: argsz::<uapi::vfio_iommu_type1_dma_map>(), flags, vaddr, iova, size };
    // SAFETY: 1. The kernel reads one `vfio_iommu_type1_dma_map`. 2. It pins the memory at
    // `vaddr` without accessing it; what devices then do is the subject of the folder's head.
    unsafe { exchange(container, IOMMU_MAP_DMA, &mut request) }.map(drop)
}

/// Container: unmaps a range, or everything with `VFIO_DMA_UNMAP_FLAG_ALL` and a range
/// of zeros; returns the bytes that were mapped.
pub(crate) fn unmap(container: BorrowedFd<'_>, flags: u32, iova: u64, size: u64) -> Result<u64, Errno> {
    let mut request = uapi::vfio_iommu_type1_dma_unmap {
        argsz: argsz::<uapi::vfio_iommu_type1_dma_unmap>(),
        flags,
        iova,
        size,
        ..Default::default()
    };
    // SAFETY: the kernel reads and writes one `vfio_iommu_type1_dma_unmap`; a bitmap would
    // follow only with a flag that nobody here sets.
    unsafe { exchange(container, IOMMU_UNMAP_DMA, &mut request) }?;
    Ok(request.size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_outgrows_its_room_is_asked_for_again() {
        let mut rooms = Vec::new();
        let bytes = growing(24, |words| {
            rooms.push(words.len() * 8);
            let argsz = if words.len() * 8 < 4000 { 4000 } else { 4000.min(words.len() as u32 * 8) };
            words[0] = u64::from_ne_bytes(pair(argsz, 7));
            Ok(0)
        })
        .unwrap();
        assert_eq!(rooms, [512, 4000]);
        assert_eq!((bytes.len(), bytes[4]), (4000, 7));
    }

    #[test]
    fn an_answer_that_always_wants_more_is_given_up() {
        let endless = growing(24, |words| {
            words[0] = u64::from_ne_bytes(pair(words.len() as u32 * 16, 0));
            Ok(0)
        });
        assert_eq!(endless.unwrap_err(), Errno::TOOBIG);
    }
}
