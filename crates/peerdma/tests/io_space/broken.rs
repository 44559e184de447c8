//! Spaces with one fault each, and the claim that must notice it.
//!
//! A suite that every space passes proves nothing. Each fault here is one that an
//! implementation on top of a kernel could have, or that a kernel does have.

use crate::contract::outcomes;
use peerdma::addr::{AddrRange, Bytes, Iova};
use peerdma::dma::contract::{Access, Fixture, Lent, Recorded, Verdict};
use peerdma::dma::recording::{FileId, Profile, RecordingSpace};
use peerdma::dma::{
    Abilities, Changes, Errno, IoSpace, IovaRanges, MapError, MemAttrs, Prot, Source, SourceKind, Sources, UnmapError,
    WriteOnly,
};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    /// Unmaps the neighbour above along with what it was asked for.
    UnmapsTooMuch,
    /// Says that it unmapped, and does not.
    UnmapsNothing,
    /// Returns the length that was asked for, not the one that was mapped.
    CountsGaps,
    /// Lets a mapping take the place of another.
    Overwrites,
    /// Refuses an overlap but leaves the part below the existing mapping mapped.
    LeavesATrace,
    /// Cuts a mapping in two although it says that it never does.
    Cuts,
    /// What iommufd does by itself: unmaps the whole mappings below, then refuses.
    RefusesTooLate,
    /// Maps read-only requests writable.
    IgnoresProt,
    /// Says that write-only mappings are exact, and lets the device read.
    WriteReads,
    /// Maps every source from its start.
    IgnoresOffsets,
    /// Answers a misaligned request with the kernel's number.
    NoNames,
    /// Says that its window is narrower than it is.
    TakesOutside,
    /// Lets a file's mapping run past its end.
    TakesBeyondFile,
    /// Takes attributes that it cannot express.
    TakesAttrs,
    /// Says that it takes no files, and does.
    TakesFiles,
    /// Says that eight mappings fit, and takes nine.
    TakesOneMore,
    /// Calls an empty unmapping an error although it says it is none.
    ObjectsToNothing,
    /// Says that several mappings come out at once, and takes out the lowest.
    OnlyTheLowest,
}

struct Broken {
    inner: Recorded,
    abilities: Abilities,
    fault: Fault,
}

impl Broken {
    fn new(fault: Fault, profile: Profile) -> Self {
        let mut abilities = profile.abilities();
        match fault {
            Fault::TakesOutside => {
                abilities.usable =
                    IovaRanges::from_inclusive([(Iova::new(0x100_0000), Iova::new(0x1ff_ffff))]).unwrap_or_default();
            }
            Fault::TakesFiles => abilities.sources = Sources { file: None, ..abilities.sources },
            Fault::TakesOneMore => abilities.max_mappings = Some(8),
            _ => {}
        }
        Self { inner: Recorded::new(RecordingSpace::new(profile)), abilities, fault }
    }

    fn mapped_from(&mut self, iova: AddrRange<Iova>) -> Option<AddrRange<Iova>> {
        self.inner.space().mapped().overlapping(iova)
    }
}

impl IoSpace for Broken {
    type File = FileId;

    fn abilities(&self) -> &Abilities {
        &self.abilities
    }

    fn map(
        &mut self,
        iova: AddrRange<Iova>,
        source: &Source<FileId>,
        mut prot: Prot,
        mut attrs: MemAttrs,
    ) -> Result<(), MapError> {
        let mut source = *source;
        match self.fault {
            Fault::IgnoresProt => prot = Prot::ReadWrite,
            Fault::WriteReads if prot == Prot::Write => prot = Prot::ReadWrite,
            Fault::TakesAttrs => attrs &= MemAttrs::MMIO,
            Fault::IgnoresOffsets => source = self.inner.lend(source.kind()).map_or(source, |lent| lent.source),
            _ => {}
        }
        let answer = self.inner.space().map(iova, &source, prot, attrs);
        match (self.fault, &answer) {
            (Fault::Overwrites, Err(MapError::Overlap { existing: Some(existing), .. })) => {
                let _ = self.inner.space().unmap(*existing);
                self.map(iova, &source, prot, attrs)
            }
            (Fault::LeavesATrace, Err(MapError::Overlap { existing: Some(existing), .. })) => {
                let below = existing.start().as_u64().saturating_sub(iova.start().as_u64());
                if let Some(part) = iova.slice(Bytes::ZERO, Bytes::new(below)) {
                    self.inner.space().map(part, &source, prot, attrs)?;
                }
                answer
            }
            (Fault::NoNames, Err(MapError::Misaligned { .. })) => {
                Err(MapError::Kernel { call: "VFIO_IOMMU_MAP_DMA", errno: Errno::EINVAL })
            }
            (Fault::TakesBeyondFile, Err(MapError::BeyondFile { offset, file_len, .. })) if offset < file_len => {
                let fits = Bytes::new(file_len.as_u64() - offset.as_u64());
                match iova.slice(Bytes::ZERO, fits) {
                    Some(part) => self.inner.space().map(part, &source, prot, attrs),
                    None => answer,
                }
            }
            _ => answer,
        }
    }

    fn unmap(&mut self, iova: AddrRange<Iova>) -> Result<Bytes, UnmapError> {
        let lowest = self.mapped_from(iova);
        match self.fault {
            Fault::UnmapsNothing if lowest == Some(iova) => return Ok(iova.len()),
            Fault::ObjectsToNothing if lowest.is_none() => return Err(UnmapError::NothingMapped { iova }),
            Fault::OnlyTheLowest => {
                if let Some(lowest) = lowest.filter(|lowest| iova.contains_range(lowest)) {
                    return self.inner.space().unmap(lowest);
                }
            }
            Fault::UnmapsTooMuch => {
                let next = iova.last().checked_add(Bytes::new(1));
                let above = next.and_then(|next| AddrRange::new(next, Bytes::new(4096)));
                if let Some(above) = above.filter(|above| self.mapped_from(*above) == Some(*above)) {
                    let _ = self.inner.space().unmap(above);
                }
            }
            _ => {}
        }
        let answer = self.inner.space().unmap(iova);
        match (self.fault, &answer) {
            (Fault::CountsGaps, Ok(_)) => Ok(iova.len()),
            (Fault::Cuts, Err(UnmapError::Split { existing: Some(existing), .. })) => {
                self.inner.space().unmap(*existing)?;
                Ok(Bytes::new(existing.len().as_u64() / 2))
            }
            (Fault::RefusesTooLate, Err(UnmapError::Split { .. })) => {
                if let Some(lowest) = lowest.filter(|lowest| iova.contains_range(lowest)) {
                    self.inner.space().unmap(lowest)?;
                }
                answer
            }
            (Fault::NoNames, Err(UnmapError::Split { .. })) => {
                Err(UnmapError::Kernel { call: "VFIO_IOMMU_UNMAP_DMA", errno: Errno::EINVAL })
            }
            _ => answer,
        }
    }
}

impl Fixture for Broken {
    type Space = Self;

    fn space(&mut self) -> &mut Self {
        self
    }

    fn lend(&mut self, kind: SourceKind) -> Option<Lent<FileId>> {
        self.inner.lend(kind)
    }

    fn reaches(&mut self, iova: Iova, source: &Source<FileId>, access: Access) -> Option<bool> {
        self.inner.reaches(iova, source, access)
    }
}

#[test]
fn the_suite_notices_every_fault_by_the_claim_that_names_it() {
    assert_eq!(Profile::Type1.abilities().write_only, WriteOnly::Exact);
    assert!(!Profile::Iommufd.abilities().changes.contains(Changes::UNMAP_PART));
    for (fault, profile, claim) in [
        (Fault::UnmapsTooMuch, Profile::Type1, "sixty-four mappings"),
        (Fault::UnmapsNothing, Profile::Type1, "what was unmapped is out of reach"),
        (Fault::CountsGaps, Profile::Type1, "several mappings come out"),
        (Fault::CountsGaps, Profile::Iommufd, "several mappings come out"),
        (Fault::Overwrites, Profile::Type1, "a mapping over a mapping"),
        (Fault::LeavesATrace, Profile::Iommufd, "a mapping over a mapping"),
        (Fault::Cuts, Profile::Type1, "a part of a mapping"),
        (Fault::RefusesTooLate, Profile::Iommufd, "leaves the others whole"),
        (Fault::IgnoresProt, Profile::Iommufd, "each protection"),
        (Fault::WriteReads, Profile::Type1, "each protection"),
        (Fault::IgnoresOffsets, Profile::Iommufd, "the middle of a source"),
        (Fault::NoNames, Profile::Type1, "an unaligned IOVA, length or source"),
        (Fault::NoNames, Profile::Type1, "a part of a mapping"),
        (Fault::TakesOutside, Profile::Type1, "not inside one usable range"),
        (Fault::TakesBeyondFile, Profile::Iommufd, "a file that ends"),
        (Fault::TakesAttrs, Profile::Iommufd, "attributes that the space"),
        (Fault::TakesFiles, Profile::Iommufd, "a kind of source that the space does not take"),
        (Fault::TakesOneMore, Profile::Type1, "one mapping more"),
        (Fault::ObjectsToNothing, Profile::Type1, "where nothing is mapped"),
        (Fault::OnlyTheLowest, Profile::Iommufd, "several mappings come out"),
    ] {
        let (tally, outcomes) = outcomes(&mut Broken::new(fault, profile));
        let broken: Vec<_> =
            outcomes.iter().filter(|outcome| matches!(outcome.verdict, Verdict::Broken { .. })).collect();
        assert!(broken.iter().any(|outcome| outcome.claim.contains(claim)), "{fault:?} {profile:?}: {broken:#?}");
        assert!(!tally.passed());
    }
}

#[test]
fn a_claim_that_breaks_leaves_nothing_mapped_for_the_next() {
    for fault in [Fault::NoNames, Fault::IgnoresProt, Fault::TakesAttrs, Fault::RefusesTooLate] {
        let mut broken = Broken::new(fault, Profile::Iommufd);
        let (tally, _) = outcomes(&mut broken);
        assert!(tally.broken > 0, "{fault:?}");
        assert!(broken.inner.into_space().mapped().is_empty(), "{fault:?}");
    }
}
