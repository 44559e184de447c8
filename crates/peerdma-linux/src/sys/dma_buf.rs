//! The ioctls of dma-bufs, of the files of their fences, and of the two allocators.
//!
//! UNSAFETY: `ioctl` with structures of `linux/dma-buf.h`, `linux/sync_file.h`, `linux/udmabuf.h` and
//! `linux/dma-heap.h`. Sizes stand in the numbers, but for a name (a C string) and a list of ranges (counted).

#![expect(unsafe_code)]

use super::ioctl::{exchange, exchange_words};
use rustix::io::Errno;
use rustix::ioctl::{Opcode, opcode};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const SYNC: Opcode = opcode::write::<u64>(b'b', 0);
/// The argument points to the string itself, whatever the number says of its size.
const SET_NAME: Opcode = opcode::write::<u64>(b'b', 1);
const EXPORT_FENCES: Opcode = opcode::read_write::<FenceRequest>(b'b', 2);
const IMPORT_FENCES: Opcode = opcode::write::<FenceRequest>(b'b', 3);
const MERGE: Opcode = opcode::read_write::<Merge>(b'>', 3);
const FILE_INFO: Opcode = opcode::read_write::<FileInfo>(b'>', 4);
const UDMABUF_LIST: Opcode = opcode::write::<u64>(b'u', 0x43);
const HEAP_ALLOC: Opcode = opcode::read_write::<HeapAllocation>(b'H', 0);

// Linux 7.2, computed by compiling the headers on x86-64.
const _: () = assert!(SYNC == 0x4008_6200 && SET_NAME == 0x4008_6201);
const _: () = assert!(EXPORT_FENCES == 0xc008_6202 && IMPORT_FENCES == 0x4008_6203);
const _: () = assert!(MERGE == 0xc030_3e03 && FILE_INFO == 0xc038_3e04);
const _: () = assert!(UDMABUF_LIST == 0x4008_7543 && HEAP_ALLOC == 0xc018_4800);

/// A longer name is refused (`DMA_BUF_NAME_LEN`, with the zero).
pub(crate) const NAME_ROOM: usize = 32;

/// `DMA_BUF_SYNC_READ`, and of fences what writers left.
pub(crate) const READ: u32 = 1;
/// `DMA_BUF_SYNC_WRITE`.
pub(crate) const WRITE: u32 = 2;
const END: u64 = 4;

/// `struct dma_buf_export_sync_file` and `dma_buf_import_sync_file`.
#[repr(C)]
struct FenceRequest {
    flags: u32,
    fd: i32,
}

/// `struct sync_merge_data`.
#[repr(C)]
struct Merge {
    name: [u8; 32],
    other: i32,
    fence: i32,
    flags: u32,
    pad: u32,
}

/// `struct sync_file_info`.
#[repr(C)]
struct FileInfo {
    name: [u8; 32],
    status: i32,
    flags: u32,
    fences: u32,
    pad: u32,
    info: u64,
}

/// `struct dma_heap_allocation_data`.
#[repr(C)]
struct HeapAllocation {
    len: u64,
    fd: u32,
    fd_flags: u32,
    heap_flags: u64,
}

const _: () = assert!(size_of::<FenceRequest>() == 8 && size_of::<Merge>() == 48 && size_of::<FileInfo>() == 56);
const _: () = assert!(std::mem::offset_of!(Merge, fence) == 36 && std::mem::offset_of!(FileInfo, fences) == 40);
const _: () = assert!(size_of::<HeapAllocation>() == 24 && std::mem::offset_of!(HeapAllocation, heap_flags) == 16);

/// Says that the CPU begins or ends to access a dma-buf; waits for devices where its exporter does.
pub(crate) fn sync(dma_buf: BorrowedFd<'_>, access: u32, ends: bool) -> Result<(), Errno> {
    let mut flags = u64::from(access) | if ends { END } else { 0 };
    // SAFETY: the kernel reads one word.
    unsafe { exchange(dma_buf, SYNC, &mut flags) }.map(drop)
}

/// Names a dma-buf; a string without a zero within the room is refused.
pub(crate) fn set_name(dma_buf: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    let mut room = [0u8; NAME_ROOM * 2];
    let fits = name.len() < NAME_ROOM && !name.contains(&0);
    room.get_mut(..name.len()).filter(|_| fits).ok_or(Errno::NAMETOOLONG)?.copy_from_slice(name);
    // SAFETY: the kernel reads a C string of at most 32 bytes (`DMA_BUF_NAME_LEN`), whose end lies within `room`.
    unsafe { exchange(dma_buf, SET_NAME, &mut room) }.map(drop)
}

/// The fences of a dma-buf that an access has to wait for, as a file.
pub(crate) fn export_fences(dma_buf: BorrowedFd<'_>, access: u32) -> Result<OwnedFd, Errno> {
    let mut request = FenceRequest { flags: access, fd: -1 };
    // SAFETY: the kernel reads and writes one `dma_buf_export_sync_file`, all plain numbers.
    unsafe { exchange(dma_buf, EXPORT_FENCES, &mut request) }?;
    owned(request.fd)
}

/// Puts the fences of a file into a dma-buf, as those of an access.
pub(crate) fn import_fences(dma_buf: BorrowedFd<'_>, access: u32, fences: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut request = FenceRequest { flags: access, fd: fences.as_raw_fd() };
    // SAFETY: the kernel reads one `dma_buf_import_sync_file`.
    unsafe { exchange(dma_buf, IMPORT_FENCES, &mut request) }.map(drop)
}

/// A file of the fences of two.
pub(crate) fn merge(one: BorrowedFd<'_>, other: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    let mut request = Merge { name: [0; 32], other: other.as_raw_fd(), fence: -1, flags: 0, pad: 0 };
    let len = name.len().min(31);
    request.name[..len].copy_from_slice(&name[..len]);
    // SAFETY: the kernel reads and writes one `sync_merge_data`, all plain numbers.
    unsafe { exchange(one, MERGE, &mut request) }?;
    owned(request.fence)
}

/// The status of a file of fences, and how many there are: 0 while one has not retired, 1 when all have, an error if negative.
pub(crate) fn fence_status(fences: BorrowedFd<'_>) -> Result<(i32, u32), Errno> {
    let mut request = FileInfo { name: [0; 32], status: 0, flags: 0, fences: 0, pad: 0, info: 0 };
    // SAFETY: the kernel reads and writes one `sync_file_info`; with room for no fences it follows no pointer.
    unsafe { exchange(fences, FILE_INFO, &mut request) }?;
    Ok((request.status, request.fences))
}

/// Makes a dma-buf of ranges of memfds: file, offset, length.
pub(crate) fn udmabuf(maker: BorrowedFd<'_>, ranges: &[(BorrowedFd<'_>, u64, u64)]) -> Result<OwnedFd, Errno> {
    let count = u32::try_from(ranges.len()).map_err(|_| Errno::INVAL)?;
    // `struct udmabuf_create_list` {flags: u32, count: u32}, then `struct udmabuf_create_item`
    // {memfd: u32, pad: u32, offset: u64, size: u64} for each; 1 is UDMABUF_FLAGS_CLOEXEC.
    let mut words = vec![pair(1, count)];
    for (memfd, offset, size) in ranges {
        let memfd = u32::try_from(memfd.as_raw_fd()).map_err(|_| Errno::BADF)?;
        words.extend([pair(memfd, 0), *offset, *size]);
    }
    // SAFETY: the kernel reads a head of one word, and as many items of three words as the head says.
    owned(unsafe { exchange_words(maker, UDMABUF_LIST, &mut words) }?)
}

/// Two numbers of 32 bits as they lie one after the other in memory.
fn pair(first: u32, second: u32) -> u64 {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&first.to_ne_bytes());
    bytes[4..].copy_from_slice(&second.to_ne_bytes());
    u64::from_ne_bytes(bytes)
}

/// Takes a dma-buf from a heap. The heap kills the caller for what the machine does not have: bound the length first.
pub(crate) fn heap(heap: BorrowedFd<'_>, len: u64) -> Result<OwnedFd, Errno> {
    let flags = rustix::fs::OFlags::CLOEXEC.union(rustix::fs::OFlags::RDWR).bits();
    let mut request = HeapAllocation { len, fd: 0, fd_flags: flags, heap_flags: 0 };
    // SAFETY: the kernel reads and writes one `dma_heap_allocation_data`, all plain numbers.
    unsafe { exchange(heap, HEAP_ALLOC, &mut request) }?;
    owned(i32::try_from(request.fd).map_err(|_| Errno::BADF)?)
}

fn owned(fd: i32) -> Result<OwnedFd, Errno> {
    if fd < 0 {
        return Err(Errno::BADF);
    }
    // SAFETY: the kernel has just opened this descriptor for the caller, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
