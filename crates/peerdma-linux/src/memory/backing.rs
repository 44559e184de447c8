//! What pages are made of.

use crate::sys::map::Mapping;
use peerdma::addr::Bytes;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// What pages are made of; it decides what a fork does to them, and how large they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Backing {
    /// Anonymous, and shared with forked children.
    #[default]
    Shared,
    /// Anonymous; a forked child gets copies.
    Private,
    /// As `Private`, aligned so that huge pages fit, and with the wish for them (`MADV_HUGEPAGE`). Where the kernel has
    /// none left they are small.
    Transparent,
    /// Huge pages of this size out of the pool (`vm.nr_hugepages`), private; they are never swapped or moved by
    /// compaction.
    Huge(Bytes),
    /// A memfd that keeps its length (`F_SEAL_SHRINK`, `F_SEAL_GROW`), mapped shared.
    Memfd,
    /// The same, mapped private: writes stay with this process.
    MemfdPrivate,
}

impl Backing {
    /// What lengths are rounded up to.
    pub(super) fn page(self) -> Bytes {
        match self {
            Self::Huge(size) if size > Bytes::ZERO => size,
            _ => super::page_size(),
        }
    }

    /// Maps that many bytes, whole pages of its kind.
    pub(super) fn map(self, len: usize) -> io::Result<(Mapping, Option<OwnedFd>)> {
        let anonymous = |mapping| (mapping, None);
        match self {
            Self::Shared => Ok(anonymous(Mapping::anonymous(len)?)),
            Self::Private => Ok(anonymous(Mapping::private(len)?)),
            Self::Transparent => Ok(anonymous(Mapping::transparent(len, log2(transparent_huge_page_size()))?)),
            Self::Huge(size) if size.as_u64().is_power_of_two() => Ok(anonymous(Mapping::huge(len, log2(size))?)),
            Self::Huge(_) => Err(io::ErrorKind::InvalidInput.into()),
            Self::Memfd | Self::MemfdPrivate => {
                let file = memfd_create("peerdma pages", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
                ftruncate(&file, len as u64)?;
                // Whoever maps it is not cut off, and udmabuf takes no other.
                fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW)?;
                let mapping = match self {
                    Self::Memfd => Mapping::of_file(file.as_fd(), 0, len)?,
                    _ => Mapping::private_of_file(file.as_fd(), len)?,
                };
                Ok((mapping, Some(file)))
            }
        }
    }
}

fn log2(size: Bytes) -> u32 {
    size.as_u64().trailing_zeros()
}

/// The size of the pool's huge pages, the default one where there are several; `None` on a kernel without.
pub fn huge_page_size() -> Option<Bytes> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("Hugepagesize:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024).map(Bytes::new)
}

/// The size of transparent huge pages, or that of a page on a kernel without.
pub fn transparent_huge_page_size() -> Bytes {
    let text = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size").ok();
    let size: Option<u64> = text.and_then(|text| text.trim().parse().ok());
    size.filter(|size| size.is_power_of_two()).map_or_else(super::page_size, Bytes::new)
}
