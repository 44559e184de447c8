//! One mapping of a process, asked for by address (`PROCMAP_QUERY`, Linux 6.11).
//!
//! UNSAFETY: an ioctl whose structure points to room for a name.

#![expect(unsafe_code)]

use super::ioctl::exchange;
use rustix::io::Errno;
use rustix::ioctl::{Opcode, opcode};
use std::os::fd::BorrowedFd;

/// `struct procmap_query` of linux/fs.h.
#[repr(C)]
#[derive(Default)]
struct Query {
    size: u64,
    query_flags: u64,
    query_addr: u64,
    vma_start: u64,
    vma_end: u64,
    vma_flags: u64,
    vma_page_size: u64,
    vma_offset: u64,
    inode: u64,
    dev_major: u32,
    dev_minor: u32,
    vma_name_size: u32,
    build_id_size: u32,
    vma_name_addr: u64,
    build_id_addr: u64,
}

const _: () = assert!(size_of::<Query>() == 104 && core::mem::offset_of!(Query, vma_name_addr) == 88);

const PROCMAP_QUERY: Opcode = opcode::read_write::<Query>(b'f', 17);
const READABLE: u64 = 1;
const WRITABLE: u64 = 2;
const SHARED: u64 = 8;
const COVERING_OR_NEXT: u64 = 0x10;

/// A mapping, as the kernel describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Found {
    pub(crate) start: u64,
    /// Exclusive.
    pub(crate) end: u64,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    pub(crate) shared: bool,
    pub(crate) page: u64,
    pub(crate) offset: u64,
    pub(crate) inode: u64,
    pub(crate) device: (u32, u32),
    pub(crate) name: Vec<u8>,
}

/// The mapping at `address`, or the next above it.
///
/// # Errors
/// `ENOENT` where there is none; `ENOTTY` before Linux 6.11.
pub(crate) fn at_or_above(maps: BorrowedFd<'_>, address: u64) -> Result<Found, Errno> {
    // PATH_MAX, and the word that marks a deleted file.
    let mut name = vec![0_u8; 4096 + 16];
    let mut query = Query {
        size: size_of::<Query>() as u64,
        query_flags: COVERING_OR_NEXT,
        query_addr: address,
        vma_name_size: name.len() as u32,
        vma_name_addr: name.as_mut_ptr().expose_provenance() as u64,
        ..Query::default()
    };
    // SAFETY: 1. The kernel reads and writes one `Query`, as its first field says. 2. It writes at most `vma_name_size`
    // bytes to `name`, which is that long and lives across the call. 3. Other files answer ENOTTY.
    unsafe { exchange(maps, PROCMAP_QUERY, &mut query) }?;
    // Its length counts the zero at the end; none is no name.
    name.truncate((query.vma_name_size as usize).saturating_sub(1).min(name.len()));
    Ok(Found {
        start: query.vma_start,
        end: query.vma_end,
        readable: query.vma_flags & READABLE != 0,
        writable: query.vma_flags & WRITABLE != 0,
        shared: query.vma_flags & SHARED != 0,
        page: query.vma_page_size,
        offset: query.vma_offset,
        inode: query.inode,
        device: (query.dev_major, query.dev_minor),
        name,
    })
}
