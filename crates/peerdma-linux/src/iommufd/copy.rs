//! What one address space maps of another's (`IOMMU_IOAS_COPY`).
//!
//! The kernel shares what is pinned already (Linux 7.2 `iopt_get_pages`): nothing is pinned or counted twice, the memory need not
//! be mapped in this process any more, and it stays pinned until the last of the mappings has gone. A copy is a mapping of its
//! own: unmapping one leaves the other.
//!
//! A copy of a BAR's dma-buf is revoked when its source is. One of a mapping that was revoked before would be made, and lead
//! nowhere; who knows of the revocation maps the file anew.

use super::{IommufdSpace, flags};
use crate::sys::iommufd;
use crate::vfio::errno;
use peerdma::addr::{AddrRange, Bytes, Iova, ProcVa};
use peerdma::dma::error::Misaligned;
use peerdma::dma::permit::check_unasked;
use peerdma::dma::{Errno, MapError, MemAttrs, Permit, Prot, Source};
use rustix::io::Errno as Answer;
use std::os::fd::AsFd;
use std::sync::Arc;

/// Why nothing was copied; nothing is mapped then that was not before.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// The spaces belong to two iommufds, which share nothing; make the second with [`IommufdSpace::another`].
    #[error(
        "the two address spaces are of two iommufds, which share no pinned memory; make one of them out of the other"
    )]
    AnotherIommufd,
    /// Some of the source is not mapped; copy what is.
    #[error(
        "some of {len} from IOVA {from} is not mapped in the address space to copy from; copy what is mapped there"
    )]
    NotMapped {
        /// Where the source starts.
        from: Iova,
        /// Its length.
        len: Bytes,
    },
    /// The source was mapped for reading, and its pages are not pinned for more; map it anew for writing.
    #[error("what IOVA {from} leads to is held for reading and was to be copied {asked}; copy it r, or map it anew")]
    BeyondSource {
        /// Where the source starts.
        from: Iova,
        /// For what it was to be copied.
        asked: Prot,
    },
    /// The space that it was to be mapped in does not take it there.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The kernel refused for a reason of its own.
    #[error("IOMMU_IOAS_COPY refused with {errno}")]
    Kernel {
        /// Its answer.
        errno: Errno,
    },
}

impl IommufdSpace {
    /// Maps at `iova` what `source` has at `from`, without pinning anything anew.
    ///
    /// `from` is the first byte; it is as long as `iova`, and all of it is mapped, by one mapping or by several that touch.
    ///
    /// # Errors
    /// [`CopyError::Map`] with [`MapError::Unasked`] for memory of devices, which takes
    /// [`copy_peer`](Self::copy_peer); the others say what to change.
    ///
    /// # Examples
    /// ```no_run
    /// use peerdma::addr::{AddrRange, Bytes, Iova};
    /// use peerdma::dma::{IoSpace, MemAttrs, Prot, Source};
    /// use peerdma_linux::{iommufd::IommufdSpace, memory::Pages, vfio::Nodes};
    ///
    /// let mut nic = IommufdSpace::open(&Nodes::live())?;
    /// let mut drive = nic.another()?;
    /// let pages = Pages::zeroed(Bytes::new(1 << 20))?;
    /// let iova = AddrRange::new(Iova::new(1 << 20), pages.len()).ok_or("wraps")?;
    /// nic.map(iova, &Source::Process(pages.address()), Prot::ReadWrite, MemAttrs::empty())?;
    /// // The same memory for the drive, which only reads it; pinned and counted once.
    /// drive.copy(iova, &nic, iova.start(), Prot::Read)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn copy(&mut self, iova: AddrRange<Iova>, source: &Self, from: Iova, prot: Prot) -> Result<(), CopyError> {
        self.copy_by(iova, (source, from), prot, None)
    }

    /// The same of memory of devices, with leave to reach it: the devices of this space are others than those of the source.
    ///
    /// # Errors
    /// As [`copy`](Self::copy), and [`CopyError::Map`] with [`MapError::BeyondPermit`].
    pub fn copy_peer(
        &mut self,
        iova: AddrRange<Iova>,
        source: &Self,
        from: Iova,
        prot: Prot,
        permit: &Permit,
    ) -> Result<(), CopyError> {
        self.copy_by(iova, (source, from), prot, Some(permit))
    }

    fn copy_by(
        &mut self,
        iova: AddrRange<Iova>,
        (source, from): (&Self, Iova),
        prot: Prot,
        permit: Option<&Permit>,
    ) -> Result<(), CopyError> {
        if !Arc::ptr_eq(&self.iommufd, &source.iommufd) {
            return Err(CopyError::AnotherIommufd);
        }
        let granule = self.abilities.granule;
        // All that can be asked of the place without a source.
        self.abilities.check_map(iova, &Source::<()>::Process(ProcVa::new(0)), prot, MemAttrs::empty())?;
        if !granule.aligns(from) {
            return Err(MapError::Misaligned { what: Misaligned::Iova(from), granule }.into());
        }
        // What runs past the end of all IOVAs is mapped by nobody.
        let range = AddrRange::new(from, iova.len()).ok_or(CopyError::NotMapped { from, len: iova.len() })?;
        let of_device = source.peers.overlapping(range).is_some();
        let attrs = if of_device { MemAttrs::MMIO } else { MemAttrs::empty() };
        permit.map_or_else(|| check_unasked(iova, attrs), |permit| permit.check(iova, prot))?;
        self.mapped.check_map(&self.abilities, iova)?;
        let (to, of) = ((self.ioas, iova.start().as_u64()), (source.ioas, from.as_u64()));
        let copied = iommufd::copy(self.iommufd.as_fd(), flags(prot), to, of, iova.len().as_u64());
        copied.map_err(|error| refusal(iova, from, prot, error))?;
        self.mapped.insert(iova);
        if of_device {
            self.peers.insert(iova);
        }
        Ok(())
    }
}

/// What an answer to a copy means (Linux 7.2 `iommufd_ioas_copy`).
fn refusal(iova: AddrRange<Iova>, from: Iova, asked: Prot, error: Answer) -> CopyError {
    match error {
        Answer::NOENT => CopyError::NotMapped { from, len: iova.len() },
        Answer::PERM => CopyError::BeyondSource { from, asked },
        Answer::EXIST => MapError::Overlap { iova, existing: None }.into(),
        error => CopyError::Kernel { errno: errno(error) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_with_a_hole_is_told_from_one_that_is_read_only_and_from_a_place_that_is_taken() {
        let len = Bytes::new(4096);
        let (iova, from) = (AddrRange::new(Iova::new(0x1000), len).unwrap(), Iova::new(0x8000));
        let refused = |error| refusal(iova, from, Prot::ReadWrite, error);
        assert_eq!(refused(Answer::NOENT), CopyError::NotMapped { from, len });
        assert_eq!(refused(Answer::PERM), CopyError::BeyondSource { from, asked: Prot::ReadWrite });
        assert_eq!(refused(Answer::EXIST), CopyError::Map(MapError::Overlap { iova, existing: None }));
        assert_eq!(refused(Answer::NOMEM), CopyError::Kernel { errno: Errno::ENOMEM });
    }
}
