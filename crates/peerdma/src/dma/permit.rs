//! Who answers for it that requests reach another device's memory.
//!
//! Neither VFIO type1 (Linux 7.2 `vfio_iommu_map`) nor iommufd (`vfio_pci_dma_buf_iommufd_map`) asks whether two devices reach
//! each other: both map whatever they are given, and what does not arrive is lost without a word. So their spaces take device memory
//! with a [`Permit`] alone, which a verdict gives or the caller, by name.
//!
//! Not here: the verdict ([`Peers::permit`](super::Peers::permit)).

use super::error::MapError;
use super::io_space::{IoSpace, Source};
use crate::access::{MemAttrs, Prot};
use crate::addr::{AddrRange, Iova};

/// Leave to map one device's memory for another, with who gave it.
///
/// # What holding this tells you
/// Either a verdict permitted requests of one initiator to one owner's memory ([`Peers::permit`](super::Peers::permit)), or
/// somebody wrote [`vouched`](Self::vouched). It is not bound to a space: whoever has several devices in one asks for each of them,
/// and whoever changes the machine's routes asks again.
///
/// ```
/// use peerdma::addr::{AddrRange, Bytes, Iova};
/// use peerdma::dma::recording::{FileKind, Profile, RecordingSpace};
/// use peerdma::dma::{IoSpace, MapError, MemAttrs, Permit, Prot, Source};
///
/// let mut space = RecordingSpace::new(Profile::Iommufd);
/// let file = space.add_file(FileKind::VfioDmabuf, Bytes::new(0x1000));
/// let (iova, source) = (AddrRange::new(Iova::new(0x10_0000), Bytes::new(0x1000)).unwrap(), Source::File { file, offset: Bytes::ZERO });
/// let unasked = space.map(iova, &source, Prot::ReadWrite, MemAttrs::MMIO);
/// assert_eq!(unasked, Err(MapError::Unasked { iova }));
/// // The two are functions of one card, whose maker says that they reach each other.
/// let permit = Permit::vouched(Prot::ReadWrite);
/// space.map_peer(iova, &source, Prot::ReadWrite, MemAttrs::MMIO, &permit)?;
/// # Ok::<(), MapError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Permit {
    prot: Prot,
    by: PermittedBy,
}

/// Who gave a [`Permit`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum PermittedBy {
    /// A verdict on initiator and owner.
    Verdict,
    /// The caller, who answers for the route.
    Caller,
}

impl Permit {
    /// The caller's own word that requests arrive, for routes that no verdict covers and for what was forced.
    ///
    /// Bytes of a route that does not exist are lost, or land in memory of somebody else's.
    pub const fn vouched(prot: Prot) -> Self {
        Self { prot, by: PermittedBy::Caller }
    }

    /// A verdict's, where its caller has seen it permit this much.
    pub(crate) const fn of_verdict(prot: Prot) -> Self {
        Self { prot, by: PermittedBy::Verdict }
    }

    /// What it is for.
    pub const fn prot(&self) -> Prot {
        self.prot
    }

    /// Who gave it.
    pub const fn by(&self) -> PermittedBy {
        self.by
    }

    /// Refuses what is more than this permits.
    ///
    /// For spaces; to be called after [`Abilities::check_map`](super::Abilities::check_map).
    ///
    /// # Errors
    /// [`MapError::BeyondPermit`]; map for less, or ask for more.
    pub fn check(&self, iova: AddrRange<Iova>, asked: Prot) -> Result<(), MapError> {
        match asked.within(self.prot) == Some(asked) {
            true => Ok(()),
            false => Err(MapError::BeyondPermit { iova, asked, permitted: self.prot }),
        }
    }
}

/// Refuses device memory for which nobody answers.
///
/// For spaces of a kernel that does not ask itself; to be called by their [`IoSpace::map`] after
/// [`Abilities::check_map`](super::Abilities::check_map).
///
/// # Errors
/// [`MapError::Unasked`]; map it with [`IoSpace::map_peer`].
pub fn check_unasked(iova: AddrRange<Iova>, attrs: MemAttrs) -> Result<(), MapError> {
    match attrs.contains(MemAttrs::MMIO) {
        true => Err(MapError::Unasked { iova }),
        false => Ok(()),
    }
}

/// Links memory, or device memory that a verdict has permitted.
pub(super) fn link<S: IoSpace>(
    space: &mut S,
    iova: AddrRange<Iova>,
    source: &Source<S::File>,
    prot: Prot,
    attrs: MemAttrs,
) -> Result<(), MapError> {
    match attrs.contains(MemAttrs::MMIO) {
        true => space.link_peer(iova, source, prot, attrs, &Permit::of_verdict(prot)),
        false => space.link(iova, source, prot, attrs),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Bytes;

    #[test]
    fn a_permit_covers_what_it_is_for_and_nothing_besides() {
        let iova = AddrRange::new(Iova::new(0x1000), Bytes::new(0x1000)).unwrap();
        let permit = Permit::vouched(Prot::Read);
        assert_eq!(permit.check(iova, Prot::Read), Ok(()));
        for asked in [Prot::Write, Prot::ReadWrite] {
            let beyond = MapError::BeyondPermit { iova, asked, permitted: Prot::Read };
            assert_eq!(permit.check(iova, asked), Err(beyond));
        }
        assert_eq!(Permit::vouched(Prot::ReadWrite).check(iova, Prot::Write), Ok(()));
    }
}
