//! dma-bufs of memfds, through `/dev/udmabuf`.
//!
//! The kernel says EINVAL to everything that is wrong with a memfd, so that is looked at first.

use super::buf::{DmaBuf, NotADmaBuf};
use crate::memory::page_size;
use crate::sys::dma_buf;
use crate::vfio::errno;
use peerdma::addr::{Bytes, Granule};
use peerdma::dma::Errno;
use rustix::fs::{Mode, OFlags, SealFlags, fcntl_get_seals, fstat, open};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A range of a memfd: `offset..offset + len`, whole pages.
#[derive(Clone, Copy, Debug)]
pub struct MemfdRange<'f> {
    /// The memfd.
    pub file: BorrowedFd<'f>,
    /// From where.
    pub offset: Bytes,
    /// How much.
    pub len: Bytes,
}

/// Why no dma-buf was made of memfds. All but the last three are said before the kernel is asked.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UdmabufError {
    /// There are no ranges.
    #[error("a dma-buf of no ranges cannot be made; give one at least")]
    NoRanges,
    /// There are more ranges than the kernel takes.
    #[error(
        "{count} ranges are more than the kernel takes ({most}); raise udmabuf's parameter list_limit, or make several dma-bufs"
    )]
    TooMany {
        /// How many.
        count: usize,
        /// How many it takes.
        most: u64,
    },
    /// It is longer than the kernel takes.
    #[error(
        "{len} are more than the kernel takes ({most}); raise udmabuf's parameter size_limit_mb, or make several dma-bufs"
    )]
    TooLong {
        /// How long.
        len: Bytes,
        /// How long at most.
        most: Bytes,
    },
    /// A file is no memfd.
    #[error("the file of range {range} has no seals, so that it is no memfd; give one")]
    NoMemfd {
        /// Which range, counted from 0.
        range: usize,
    },
    /// A memfd may be cut off.
    #[error("the memfd of range {range} can shrink; seal it with F_SEAL_SHRINK first")]
    Shrinks {
        /// Which range.
        range: usize,
    },
    /// A memfd may not be written, and a dma-buf always may.
    #[error(
        "the memfd of range {range} is sealed against writing (F_SEAL_WRITE), and a dma-buf may be written; give one that is not"
    )]
    Sealed {
        /// Which range.
        range: usize,
    },
    /// A range is empty or not whole pages.
    #[error("range {range} ({len} from {offset:#x} on) is not made of whole pages of {page}", offset = .offset.as_u64())]
    NotPages {
        /// Which range.
        range: usize,
        /// Where it starts.
        offset: Bytes,
        /// How long it is.
        len: Bytes,
        /// The page size.
        page: Bytes,
    },
    /// A range ends past its memfd.
    #[error("range {range} ({len} from {offset:#x} on) does not lie in its memfd of {size}", offset = .offset.as_u64())]
    Outside {
        /// Which range.
        range: usize,
        /// Where it starts.
        offset: Bytes,
        /// How long it is.
        len: Bytes,
        /// How long the memfd is.
        size: Bytes,
    },
    /// It cannot be opened.
    #[error(
        "/dev/udmabuf cannot be opened ({errno}); it needs CONFIG_UDMABUF and mostly root, or have a descriptor handed in"
    )]
    NotOpened {
        /// The kernel's answer.
        errno: Errno,
    },
    /// The kernel refused for a reason of its own.
    #[error("/dev/udmabuf refused with {errno}")]
    Kernel {
        /// Its answer.
        errno: Errno,
    },
    /// What it gave is no dma-buf.
    #[error(transparent)]
    Strange(#[from] NotADmaBuf),
}

/// `/dev/udmabuf`.
#[derive(Debug)]
pub struct Udmabuf(OwnedFd);

impl From<OwnedFd> for Udmabuf {
    /// Takes a descriptor of `/dev/udmabuf` that the caller opened; one of something else refuses each request with ENOTTY.
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl Udmabuf {
    /// Opens it.
    ///
    /// # Errors
    /// [`UdmabufError::NotOpened`].
    pub fn open() -> Result<Self, UdmabufError> {
        let fd = open("/dev/udmabuf", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
        fd.map(Self).map_err(|error| UdmabufError::NotOpened { errno: errno(error) })
    }

    /// Makes a dma-buf of these ranges, one after another. Pages of the memfds are pinned as long as it lives.
    ///
    /// # Errors
    /// [`UdmabufError`] names the first range that is wrong, by its number.
    pub fn create(&self, ranges: &[MemfdRange<'_>]) -> Result<DmaBuf, UdmabufError> {
        check(ranges)?;
        let ranges: Vec<_> =
            ranges.iter().map(|range| (range.file, range.offset.as_u64(), range.len.as_u64())).collect();
        let fd = dma_buf::udmabuf(self.0.as_fd(), &ranges);
        Ok(DmaBuf::from_fd(fd.map_err(|error| UdmabufError::Kernel { errno: errno(error) })?)?)
    }
}

fn check(ranges: &[MemfdRange<'_>]) -> Result<(), UdmabufError> {
    let limit = |name: &str| {
        let text = std::fs::read_to_string(format!("/sys/module/udmabuf/parameters/{name}")).ok()?;
        text.trim().parse::<u64>().ok()
    };
    if ranges.is_empty() {
        return Err(UdmabufError::NoRanges);
    }
    // Where the kernel does not show its limits it says EINVAL itself.
    if let Some(most) = limit("list_limit").filter(|most| ranges.len() as u64 > *most) {
        return Err(UdmabufError::TooMany { count: ranges.len(), most });
    }
    let mut whole = 0_u64;
    for (nth, range) in ranges.iter().enumerate() {
        one(nth, range)?;
        whole = whole.saturating_add(range.len.as_u64());
    }
    let most = limit("size_limit_mb").and_then(|mib| mib.checked_mul(1 << 20)).map(Bytes::new);
    match most.filter(|most| Bytes::new(whole) > *most) {
        Some(most) => Err(UdmabufError::TooLong { len: Bytes::new(whole), most }),
        None => Ok(()),
    }
}

fn one(range: usize, of: &MemfdRange<'_>) -> Result<(), UdmabufError> {
    let MemfdRange { file, offset, len } = *of;
    let seals = fcntl_get_seals(file).map_err(|_| UdmabufError::NoMemfd { range })?;
    if !seals.contains(SealFlags::SHRINK) {
        return Err(UdmabufError::Shrinks { range });
    }
    // Linux 7.2 `check_memfd_seals`; F_SEAL_FUTURE_WRITE is not looked at there.
    if seals.contains(SealFlags::WRITE) {
        return Err(UdmabufError::Sealed { range });
    }
    let page = Granule::new(page_size()).unwrap_or(Granule::PAGE_4K);
    if len == Bytes::ZERO || !page.divides(len) || !page.divides(offset) {
        return Err(UdmabufError::NotPages { range, offset, len, page: page.bytes() });
    }
    let size = fstat(file).map_err(|_| UdmabufError::NoMemfd { range })?.st_size;
    let size = Bytes::new(u64::try_from(size).unwrap_or(0));
    match offset.checked_add(len).filter(|end| *end <= size) {
        Some(_) => Ok(()),
        None => Err(UdmabufError::Outside { range, offset, len, size }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Backing, Pages};
    use rustix::fs::fcntl_add_seals;

    fn memfd(seals: SealFlags) -> OwnedFd {
        let page = page_size().as_u64();
        let file = rustix::fs::memfd_create("m", rustix::fs::MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::ftruncate(&file, 4 * page).unwrap();
        fcntl_add_seals(&file, seals).unwrap();
        file
    }

    fn refused(file: impl AsFd, offset: u64, len: u64) -> UdmabufError {
        let good = memfd(SealFlags::SHRINK);
        let first = MemfdRange { file: good.as_fd(), offset: Bytes::ZERO, len: page_size() };
        let second = MemfdRange { file: file.as_fd(), offset: Bytes::new(offset), len: Bytes::new(len) };
        check(&[first]).unwrap();
        check(&[first, second]).unwrap_err()
    }

    #[test]
    fn what_is_wrong_with_a_range_is_said_with_its_number_and_without_the_kernel() {
        let (page, good) = (page_size().as_u64(), memfd(SealFlags::SHRINK));
        assert_eq!(check(&[]), Err(UdmabufError::NoRanges));
        assert_eq!(refused(memfd(SealFlags::empty()), 0, page), UdmabufError::Shrinks { range: 1 });
        assert_eq!(refused(memfd(SealFlags::SHRINK | SealFlags::WRITE), 0, page), UdmabufError::Sealed { range: 1 });
        assert_eq!(refused(std::fs::File::open("/dev/null").unwrap(), 0, page), UdmabufError::NoMemfd { range: 1 });
        for (offset, len) in [(0, 0), (1, page), (0, page - 1)] {
            assert!(matches!(refused(&good, offset, len), UdmabufError::NotPages { range: 1, .. }), "{offset} {len}");
        }
        for (offset, len) in [(0, 5 * page), (4 * page, page), (page.wrapping_neg(), page)] {
            assert!(matches!(refused(&good, offset, len), UdmabufError::Outside { range: 1, .. }), "{offset} {len}");
        }
    }

    #[test]
    fn a_memfd_of_the_librarys_own_has_to_be_sealed_first() {
        let pages = Pages::backed(Backing::Memfd, page_size()).unwrap();
        let file = pages.file().unwrap();
        let range = MemfdRange { file, offset: Bytes::ZERO, len: page_size() };
        assert_eq!(check(&[range]), Err(UdmabufError::Shrinks { range: 0 }));
    }
}
