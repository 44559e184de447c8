//! The ioctls of `/dev/iommu`: address spaces and what is mapped in them.
//!
//! UNSAFETY: `ioctl` with structures of `linux/iommufd.h`. Every structure starts with its
//! size, beyond which the kernel accesses nothing (Linux 7.2 `iommufd_fops_ioctl`).

#![expect(unsafe_code)]

use super::ioctl::{exchange, number};
use iommufd_bindings as uapi;
use rustix::io::Errno;
use rustix::ioctl::Opcode;
use std::os::fd::{AsRawFd, BorrowedFd};

const fn iommufd(command: u32) -> Opcode {
    number(uapi::IOMMUFD_TYPE, command as u8)
}

const DESTROY: Opcode = iommufd(uapi::IOMMUFD_CMD_DESTROY);
const IOAS_ALLOC: Opcode = iommufd(uapi::IOMMUFD_CMD_IOAS_ALLOC);
const IOAS_IOVA_RANGES: Opcode = iommufd(uapi::IOMMUFD_CMD_IOAS_IOVA_RANGES);
const IOAS_MAP: Opcode = iommufd(uapi::IOMMUFD_CMD_IOAS_MAP);
const IOAS_MAP_FILE: Opcode = iommufd(uapi::IOMMUFD_CMD_IOAS_MAP_FILE);
const IOAS_UNMAP: Opcode = iommufd(uapi::IOMMUFD_CMD_IOAS_UNMAP);
const IOAS_COPY: Opcode = iommufd(uapi::IOMMUFD_CMD_IOAS_COPY);
const OPTION: Opcode = iommufd(uapi::IOMMUFD_CMD_OPTION);

// Linux 7.2, computed by compiling the header on x86-64.
const _: () = assert!(DESTROY == 0x3b80 && IOAS_MAP == 0x3b85 && IOAS_MAP_FILE == 0x3b8f);
const _: () = assert!(IOAS_COPY == 0x3b83 && OPTION == 0x3b87);
const _: () = assert!(size_of::<uapi::iommu_ioas_copy>() == 40);
const _: () = assert!(size_of::<uapi::iommu_option>() == 24 && std::mem::offset_of!(uapi::iommu_option, val64) == 16);
const _: () = assert!(size_of::<uapi::iommu_destroy>() == 8);
const _: () = assert!(size_of::<uapi::iommu_ioas_alloc>() == 12);
const _: () = assert!(size_of::<uapi::iommu_iova_range>() == 16);
const _: () = assert!(size_of::<uapi::iommu_ioas_iova_ranges>() == 32);
const _: () = assert!(size_of::<uapi::iommu_ioas_map>() == 40);
const _: () = assert!(size_of::<uapi::iommu_ioas_map_file>() == 40);
const _: () = assert!(std::mem::offset_of!(uapi::iommu_ioas_map_file, fd) == 12);
const _: () = assert!(size_of::<uapi::iommu_ioas_unmap>() == 24);

/// Most ranges that are asked for; a machine has a handful.
const MAX_RANGES: u32 = 1 << 16;

/// Size of a structure for its own first field.
const fn size<T>() -> u32 {
    size_of::<T>() as u32
}

/// Makes an address space and returns its number.
pub(crate) fn new_space(iommufd: BorrowedFd<'_>) -> Result<u32, Errno> {
    let mut request = uapi::iommu_ioas_alloc { size: size::<uapi::iommu_ioas_alloc>(), ..Default::default() };
    // SAFETY: the kernel accesses one `iommu_ioas_alloc`, all plain numbers.
    unsafe { exchange(iommufd, IOAS_ALLOC, &mut request) }?;
    Ok(request.out_ioas_id)
}

/// Destroys an object that nothing uses.
pub(crate) fn destroy(iommufd: BorrowedFd<'_>, id: u32) -> Result<(), Errno> {
    let mut request = uapi::iommu_destroy { size: size::<uapi::iommu_destroy>(), id };
    // SAFETY: the kernel reads one `iommu_destroy`.
    unsafe { exchange(iommufd, DESTROY, &mut request) }.map(drop)
}

/// Usable ranges as first and last address, and the alignment of IOVAs in bytes.
pub(crate) fn iova_ranges(iommufd: BorrowedFd<'_>, ioas: u32) -> Result<(Vec<(u64, u64)>, u64), Errno> {
    let mut room = 64u32;
    loop {
        let mut ranges = vec![uapi::iommu_iova_range::default(); room as usize];
        let mut request = uapi::iommu_ioas_iova_ranges {
            size: size::<uapi::iommu_ioas_iova_ranges>(),
            ioas_id: ioas,
            num_iovas: room,
            allowed_iovas: ranges.as_mut_ptr().expose_provenance() as u64,
            ..Default::default()
        };
        // SAFETY: 1. The kernel accesses one `iommu_ioas_iova_ranges`. 2. It writes at most
        // `num_iovas` ranges to `allowed_iovas`, which has room for as many and outlives the
        // call. 3. Any bits are a valid range.
        match unsafe { exchange(iommufd, IOAS_IOVA_RANGES, &mut request) } {
            Ok(_) => {
                ranges.truncate(request.num_iovas as usize);
                let ranges = ranges.into_iter().map(|range| (range.start, range.last)).collect();
                return Ok((ranges, request.out_iova_alignment));
            }
            Err(Errno::MSGSIZE) if request.num_iovas > room && request.num_iovas <= MAX_RANGES => {
                room = request.num_iovas;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Maps process memory at a fixed IOVA.
pub(crate) fn map(
    iommufd: BorrowedFd<'_>,
    ioas: u32,
    flags: u32,
    user_va: u64,
    iova: u64,
    length: u64,
) -> Result<(), Errno> {
    let mut request = uapi::iommu_ioas_map {
        size: size::<uapi::iommu_ioas_map>(),
        flags: flags | uapi::iommufd_ioas_map_flags_IOMMU_IOAS_MAP_FIXED_IOVA,
        ioas_id: ioas,
        user_va,
        length,
        iova,
        ..Default::default()
    };
    // SAFETY: 1. The kernel accesses one `iommu_ioas_map`. 2. It pins the memory at `user_va`
    // without accessing it; what devices then do is the subject of the folder's head.
    unsafe { exchange(iommufd, IOAS_MAP, &mut request) }.map(drop)
}

/// Maps a range of a file at a fixed IOVA.
pub(crate) fn map_file(
    iommufd: BorrowedFd<'_>,
    ioas: u32,
    flags: u32,
    file: BorrowedFd<'_>,
    start: u64,
    iova: u64,
    length: u64,
) -> Result<(), Errno> {
    let mut request = uapi::iommu_ioas_map_file {
        size: size::<uapi::iommu_ioas_map_file>(),
        flags: flags | uapi::iommufd_ioas_map_flags_IOMMU_IOAS_MAP_FIXED_IOVA,
        ioas_id: ioas,
        fd: file.as_raw_fd(),
        start,
        length,
        iova,
    };
    // SAFETY: the kernel accesses one `iommu_ioas_map_file`.
    unsafe { exchange(iommufd, IOAS_MAP_FILE, &mut request) }.map(drop)
}

/// Unmaps a range, or everything with `iova` 0 and `length` `u64::MAX`; returns the bytes
/// that were mapped.
pub(crate) fn unmap(iommufd: BorrowedFd<'_>, ioas: u32, iova: u64, length: u64) -> Result<u64, Errno> {
    let mut request = uapi::iommu_ioas_unmap { size: size::<uapi::iommu_ioas_unmap>(), ioas_id: ioas, iova, length };
    // SAFETY: the kernel accesses one `iommu_ioas_unmap`.
    unsafe { exchange(iommufd, IOAS_UNMAP, &mut request) }?;
    Ok(request.length)
}

/// Maps at a fixed IOVA of one address space what is mapped in another of the same iommufd, or in the same.
pub(crate) fn copy(
    iommufd: BorrowedFd<'_>,
    flags: u32,
    (dst_ioas_id, dst_iova): (u32, u64),
    (src_ioas_id, src_iova): (u32, u64),
    length: u64,
) -> Result<(), Errno> {
    let mut request = uapi::iommu_ioas_copy {
        size: size::<uapi::iommu_ioas_copy>(),
        flags: flags | uapi::iommufd_ioas_map_flags_IOMMU_IOAS_MAP_FIXED_IOVA,
        dst_ioas_id,
        src_ioas_id,
        length,
        dst_iova,
        src_iova,
    };
    // SAFETY: 1. The kernel accesses one `iommu_ioas_copy`. 2. No memory is named that is not pinned for a device already.
    unsafe { exchange(iommufd, IOAS_COPY, &mut request) }.map(drop)
}

/// An option of an object, or of the iommufd where `object_id` is zero.
pub(crate) fn option(iommufd: BorrowedFd<'_>, option_id: u32, object_id: u32) -> Result<u64, Errno> {
    let op = uapi::iommufd_option_ops_IOMMU_OPTION_OP_GET as u16;
    let mut request =
        uapi::iommu_option { size: size::<uapi::iommu_option>(), option_id, op, object_id, ..Default::default() };
    // SAFETY: the kernel accesses one `iommu_option`, all plain numbers.
    unsafe { exchange(iommufd, OPTION, &mut request) }?;
    Ok(request.val64)
}

/// Sets an option.
pub(crate) fn set_option(iommufd: BorrowedFd<'_>, option_id: u32, object_id: u32, val64: u64) -> Result<(), Errno> {
    let op = uapi::iommufd_option_ops_IOMMU_OPTION_OP_SET as u16;
    let size = size::<uapi::iommu_option>();
    let mut request = uapi::iommu_option { size, option_id, op, object_id, val64, ..Default::default() };
    // SAFETY: the kernel accesses one `iommu_option`, all plain numbers.
    unsafe { exchange(iommufd, OPTION, &mut request) }.map(drop)
}
