//! Memory of this process that devices reach.
//!
//! Nobody borrows it: bytes are copied in and out by volatile accesses, because a device
//! may write at any time.
//!
//! Not here: telling a device its address; see [`peerdma::dma::IoSpace`].

mod backing;

pub use backing::{Backing, huge_page_size, transparent_huge_page_size};

use crate::sys::direct;
use crate::sys::map::{Mapping, Outside};
use peerdma::addr::{Bytes, ProcVa};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Zeroed pages, unmapped when dropped.
///
/// Whoever maps them for a device unmaps them there first. A space that pins (type1,
/// iommufd) keeps the pages themselves alive, so that a forgotten mapping lets the device
/// write to memory that nobody reads any more, and not to somebody else's.
///
/// ```
/// use peerdma::addr::Bytes;
/// use peerdma_linux::memory::Pages;
///
/// let pages = Pages::zeroed(Bytes::new(4096))?;
/// pages.write(Bytes::new(8), b"bytes")?;
/// let mut back = [0; 5];
/// pages.read(Bytes::new(8), &mut back)?;
/// assert_eq!(&back, b"bytes");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Pages {
    mapping: Mapping,
    /// The memfd that it is a mapping of.
    file: Option<OwnedFd>,
}

/// Bytes were asked for that the pages do not have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{len} at offset {offset:#x} do not lie in pages of {size}", offset = offset.as_u64())]
pub struct BeyondPages {
    /// Where the access starts.
    pub offset: Bytes,
    /// How long it is.
    pub len: Bytes,
    /// How long the pages are.
    pub size: Bytes,
}

impl Pages {
    /// Maps zeroed pages that hold `len` bytes, rounded up to whole pages.
    ///
    /// # Errors
    /// `InvalidInput` for no bytes or more than an address space holds; `OutOfMemory` where
    /// the kernel has none left.
    pub fn zeroed(len: Bytes) -> io::Result<Self> {
        Self::backed(Backing::Shared, len)
    }

    /// Maps zeroed pages of a kind, rounded up to whole pages of that kind.
    ///
    /// # Errors
    /// As [`zeroed`](Self::zeroed); for [`Backing::Huge`] `OutOfMemory` where the pool (`vm.nr_hugepages`) has not enough,
    /// and `InvalidInput` for a size that the processor does not have.
    pub fn backed(backing: Backing, len: Bytes) -> io::Result<Self> {
        let page = backing.page().as_u64();
        let whole = len.as_u64().checked_next_multiple_of(page).and_then(|len| usize::try_from(len).ok());
        let (mapping, file) = backing.map(whole.ok_or(io::ErrorKind::InvalidInput)?)?;
        Ok(Self { mapping, file })
    }

    /// The memfd that the pages are a mapping of, where they are.
    pub fn file(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(AsFd::as_fd)
    }

    /// Address of the first byte in this process; a multiple of the page size.
    pub fn address(&self) -> ProcVa {
        self.mapping.address()
    }

    /// Length, whole pages.
    pub fn len(&self) -> Bytes {
        self.mapping.len()
    }

    /// Always false; there is at least one page.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Copies bytes out.
    ///
    /// # Errors
    /// [`BeyondPages`], with nothing read.
    pub fn read(&self, offset: Bytes, into: &mut [u8]) -> Result<(), BeyondPages> {
        copy_out(&self.mapping, offset, into)
    }

    /// Copies bytes in.
    ///
    /// # Errors
    /// [`BeyondPages`], with nothing written.
    pub fn write(&self, offset: Bytes, from: &[u8]) -> Result<(), BeyondPages> {
        copy_in(&self.mapping, offset, from)
    }

    /// Fills `len` bytes from `at` of the pages from `file`, starting `offset` bytes into it; the bytes that came.
    ///
    /// For files that were opened for direct I/O, which slices of this process are not aligned for. Blocks until they came.
    ///
    /// # Errors
    /// The kernel's answer, `EFAULT` for bytes that the pages do not have.
    pub fn read_from(&self, at: Bytes, len: Bytes, file: impl AsFd, offset: Bytes) -> io::Result<Bytes> {
        direct_in(&self.mapping, at, len, file.as_fd(), offset)
    }

    /// Writes `len` bytes from `at` of the pages to `file`, starting `offset` bytes into it; the bytes that went.
    ///
    /// # Errors
    /// As [`read_from`](Self::read_from).
    pub fn write_to(&self, at: Bytes, len: Bytes, file: impl AsFd, offset: Bytes) -> io::Result<Bytes> {
        direct_out(&self.mapping, at, len, file.as_fd(), offset)
    }
}

/// Reads a file into a mapping.
pub(crate) fn direct_in(
    mapping: &Mapping,
    at: Bytes,
    len: Bytes,
    file: BorrowedFd<'_>,
    offset: Bytes,
) -> io::Result<Bytes> {
    let (at, len) = run(at, len)?;
    Ok(Bytes::new(direct::read_from(mapping, at, len, file, offset.as_u64())? as u64))
}

/// Writes a mapping's bytes to a file.
pub(crate) fn direct_out(
    mapping: &Mapping,
    at: Bytes,
    len: Bytes,
    file: BorrowedFd<'_>,
    offset: Bytes,
) -> io::Result<Bytes> {
    let (at, len) = run(at, len)?;
    Ok(Bytes::new(direct::write_to(mapping, at, len, file, offset.as_u64())? as u64))
}

/// Offset and length as numbers of this process, none of whose mappings has more.
fn run(at: Bytes, len: Bytes) -> Result<(usize, usize), Errno> {
    let number = |bytes: Bytes| usize::try_from(bytes.as_u64()).map_err(|_| Errno::FAULT);
    Ok((number(at)?, number(len)?))
}

/// Copies bytes out of a mapping; nothing if they do not all lie in it.
pub(crate) fn copy_out(mapping: &Mapping, offset: Bytes, into: &mut [u8]) -> Result<(), BeyondPages> {
    let beyond = BeyondPages { offset, len: Bytes::new(into.len() as u64), size: mapping.len() };
    let at = usize::try_from(offset.as_u64()).map_err(|_| beyond)?;
    mapping.read(at, into).map_err(|Outside| beyond)
}

/// Copies bytes into a mapping; nothing if they do not all lie in it.
pub(crate) fn copy_in(mapping: &Mapping, offset: Bytes, from: &[u8]) -> Result<(), BeyondPages> {
    let beyond = BeyondPages { offset, len: Bytes::new(from.len() as u64), size: mapping.len() };
    let at = usize::try_from(offset.as_u64()).map_err(|_| beyond)?;
    mapping.write(at, from).map_err(|Outside| beyond)
}

/// The CPU's page size, which is what mmap maps.
pub fn page_size() -> Bytes {
    Bytes::new(rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_whole_and_aligned() {
        let page = page_size().as_u64();
        let pages = Pages::zeroed(Bytes::new(page + 1)).unwrap();
        assert_eq!(pages.len(), Bytes::new(2 * page));
        assert_eq!(pages.address().as_u64() % page, 0);
        assert!(Pages::zeroed(Bytes::ZERO).is_err());
        assert!(Pages::zeroed(Bytes::new(u64::MAX)).is_err());
    }

    #[test]
    fn what_the_pages_do_not_have_is_refused() {
        let pages = Pages::zeroed(Bytes::new(1)).unwrap();
        let end = pages.len();
        assert!(pages.write(end, &[1]).is_err());
        assert!(pages.read(Bytes::new(u64::MAX), &mut [0; 2]).is_err());
        assert!(pages.write(end, &[]).is_ok());
        let zero = std::fs::File::open("/dev/zero").unwrap();
        for (at, len) in [(0, end.as_u64() + 1), (end.as_u64(), 1), (u64::MAX, 1), (1, u64::MAX)] {
            let refused = pages.read_from(Bytes::new(at), Bytes::new(len), &zero, Bytes::ZERO).unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(Errno::FAULT.raw_os_error()), "{len} at {at}");
        }
    }

    #[test]
    fn a_file_is_read_into_the_middle_and_nothing_beside_it_changes() {
        let pages = Pages::zeroed(page_size()).unwrap();
        pages.write(Bytes::ZERO, &[0xee; 64]).unwrap();
        let zero = std::fs::File::open("/dev/zero").unwrap();
        assert_eq!(pages.read_from(Bytes::new(16), Bytes::new(32), &zero, Bytes::ZERO).unwrap(), Bytes::new(32));
        let mut seen = [0; 64];
        pages.read(Bytes::ZERO, &mut seen).unwrap();
        assert_eq!(seen, std::array::from_fn(|at| if (16..48).contains(&at) { 0 } else { 0xee }));
        let folder = std::fs::File::open("/").unwrap();
        let refused = pages.read_from(Bytes::ZERO, Bytes::new(1), &folder, Bytes::ZERO).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EISDIR));
    }
}
