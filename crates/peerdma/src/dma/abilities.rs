//! What an address space takes, as data, and what it refuses because of that.
//!
//! Spaces differ where it hurts: VFIO type1 takes a process's mapping of another
//! device's BAR and iommufd answers EFAULT to it; iommufd takes an exported file and
//! type1 has no call for one; neither splits a mapping. All of that is read once into
//! an [`Abilities`], so that callers can choose beforehand, and checked here once for
//! all spaces, so that the refusal has the same name everywhere.
//!
//! Two facts are recorded although nobody can change them. Type1 maps everything,
//! device memory included, as cacheable and snooped (Linux 7.2 `vfio_iommu_map`:
//! `prot | IOMMU_CACHE`), which is [`Mmio::AsMemory`]. And whether a write-only
//! mapping keeps a device from reading is decided by the page-table format: second
//! stages of VT-d and AMD's host tables can say so, x86-64 and Arm first stages
//! cannot ([`WriteOnly::MayRead`]).
//!
//! Not here: checks that need to know what is mapped ([`Mapped`](super::Mapped)).

use super::error::{MapError, Misaligned, UnmapError};
use super::io_space::{Source, SourceKind};
use super::windows::Windows;
use crate::access::{MemAttrs, Prot};
use crate::addr::{AddrRange, Bytes, Granule, Iova, PhysAddr, ProcVa};
use crate::iova::IovaRanges;
use core::fmt;

/// What becomes of a source that is device memory ([`MemAttrs::MMIO`]).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Mmio {
    /// Refused: this kind of source is memory or nothing.
    Refused,
    /// Taken, and mapped as memory would be, cacheable and snooped.
    AsMemory,
    /// Taken, and mapped as device memory.
    AsMmio,
}

/// The kinds of source a space takes, each with what becomes of device memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
pub struct Sources {
    /// Physical ranges.
    pub physical: Option<Mmio>,
    /// Process addresses.
    pub process: Option<Mmio>,
    /// Files.
    pub file: Option<Mmio>,
}

impl Sources {
    /// What becomes of device memory of one kind of source; `None` if the kind is not taken.
    pub const fn of(&self, kind: SourceKind) -> Option<Mmio> {
        match kind {
            SourceKind::Physical => self.physical,
            SourceKind::Process => self.process,
            SourceKind::File => self.file,
        }
    }

    /// The kinds that are taken.
    pub fn kinds(&self) -> impl Iterator<Item = SourceKind> {
        let all = [SourceKind::Physical, SourceKind::Process, SourceKind::File];
        all.into_iter().filter(|kind| self.of(*kind).is_some())
    }
}

impl fmt::Display for Sources {
    /// Writes `process addresses or files`, or `nothing`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for kind in self.kinds() {
            write!(f, "{separator}{kind}")?;
            separator = " or ";
        }
        if separator.is_empty() {
            return f.write_str("nothing");
        }
        Ok(())
    }
}

/// What becomes of [`Prot::Write`] alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum WriteOnly {
    /// Refused.
    Refused,
    /// Taken, but the page-table format may let the device read as well.
    MayRead,
    /// Taken, and the device cannot read.
    Exact,
}

bitflags::bitflags! {
    /// Changes to existing mappings that a space makes; what is not listed is refused.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
    pub struct Changes: u8 {
        /// Unmaps a part of a mapping, and what is left stays mapped.
        const UNMAP_PART = 0x01;
        /// Unmaps several whole mappings, or a mapping with gaps beside it, in one call.
        const UNMAP_SEVERAL = 0x02;
        /// Takes an unmapping where nothing is mapped, and answers zero bytes.
        const UNMAP_NOTHING = 0x04;
        /// Maps over a mapping of exactly the same range, without a moment in which
        /// neither holds.
        const REPLACE = 0x08;
        /// Points parts of mappings elsewhere, see [`IoSpace::relink`](super::IoSpace::relink).
        const RELINK = 0x10;
        /// Changes of later versions are kept as they came.
        const _ = !0;
    }
}

/// Who chooses where a source appears.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Placement {
    /// Whoever maps it.
    #[default]
    Chosen,
    /// Nobody: every physical address has one number below the host bridge, if any.
    Dictated(Windows),
}

/// What an address space takes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Abilities {
    /// Who chooses IOVAs.
    pub placement: Placement,
    /// The kinds of source.
    pub sources: Sources,
    /// Smallest unit of IOVAs, lengths and starts of sources.
    pub granule: Granule,
    /// Where mappings can lie.
    pub usable: IovaRanges,
    /// Attributes besides [`MemAttrs::MMIO`] (that one is in `sources`) that it can express.
    pub attrs: MemAttrs,
    /// What becomes of write-only mappings; the two other protections are always taken.
    pub write_only: WriteOnly,
    /// What it does to existing mappings.
    pub changes: Changes,
    /// How many mappings can exist at once, where that is known.
    pub max_mappings: Option<u32>,
}

impl Abilities {
    /// Refuses by name what cannot be mapped whatever is mapped already.
    ///
    /// The order of checks is part of the contract, so that a request with two faults
    /// gets the same answer everywhere: kind of source, attributes, protection,
    /// alignment (IOVA, length, source), wrap of the source, usable ranges.
    ///
    /// # Errors
    /// One of [`MapError::SourceNotTaken`], [`MapError::AttrsNotTaken`],
    /// [`MapError::WriteOnlyNotTaken`], [`MapError::Misaligned`],
    /// [`MapError::SourceWraps`], [`MapError::OutsideUsable`]; each names what to change.
    pub fn check_map<F>(
        &self,
        iova: AddrRange<Iova>,
        source: &Source<F>,
        prot: Prot,
        attrs: MemAttrs,
    ) -> Result<(), MapError> {
        let kind = source.kind();
        let Some(mmio) = self.sources.of(kind) else {
            return Err(MapError::SourceNotTaken { kind, taken: self.sources });
        };
        let taken = match mmio {
            Mmio::Refused => self.attrs.difference(MemAttrs::MMIO),
            Mmio::AsMemory | Mmio::AsMmio => self.attrs.union(MemAttrs::MMIO),
        };
        if !taken.contains(attrs) {
            return Err(MapError::AttrsNotTaken { attrs: attrs.difference(taken), kind });
        }
        if prot == Prot::Write && self.write_only == WriteOnly::Refused {
            return Err(MapError::WriteOnlyNotTaken);
        }
        if let Some(what) = self.misaligned_range(&iova).or_else(|| self.misaligned_source(source)) {
            return Err(MapError::Misaligned { what, granule: self.granule });
        }
        if source_wraps(source, iova.len()) {
            return Err(MapError::SourceWraps { kind, len: iova.len() });
        }
        self.check_usable(iova)
    }

    /// Refuses by name IOVAs at which nothing is ever mapped, whatever it is and whatever is mapped already.
    ///
    /// # Errors
    /// [`MapError::Misaligned`] and [`MapError::OutsideUsable`].
    pub fn check_iovas(&self, iova: AddrRange<Iova>) -> Result<(), MapError> {
        match self.misaligned_range(&iova) {
            Some(what) => Err(MapError::Misaligned { what, granule: self.granule }),
            None => self.check_usable(iova),
        }
    }

    fn check_usable(&self, iova: AddrRange<Iova>) -> Result<(), MapError> {
        match self.usable.contain(&iova) {
            true => Ok(()),
            false => Err(MapError::OutsideUsable { iova, nearest: self.usable.nearest(iova.start()) }),
        }
    }

    /// Refuses by name what cannot be unmapped whatever is mapped.
    ///
    /// A range outside the usable ones passes: nothing is mapped there, and whether
    /// that is an error is for [`Changes::UNMAP_NOTHING`] to say.
    ///
    /// # Errors
    /// [`UnmapError::Misaligned`]: nothing like that can be mapped. (iommufd itself
    /// would take a misaligned range around a mapping; type1 answers EINVAL.)
    pub fn check_unmap(&self, iova: AddrRange<Iova>) -> Result<(), UnmapError> {
        match self.misaligned_range(&iova) {
            Some(what) => Err(UnmapError::Misaligned { what, granule: self.granule }),
            None => Ok(()),
        }
    }

    fn misaligned_range(&self, iova: &AddrRange<Iova>) -> Option<Misaligned> {
        if !self.granule.aligns(iova.start()) {
            return Some(Misaligned::Iova(iova.start()));
        }
        (!self.granule.divides(iova.len())).then_some(Misaligned::Length(iova.len()))
    }

    fn misaligned_source<F>(&self, source: &Source<F>) -> Option<Misaligned> {
        let granule = self.granule;
        match source {
            Source::Physical(at) => (!granule.aligns(*at)).then_some(Misaligned::Physical(*at)),
            Source::Process(at) => (!granule.aligns(*at)).then_some(Misaligned::Process(*at)),
            Source::File { offset, .. } => (!granule.divides(*offset)).then_some(Misaligned::FileOffset(*offset)),
        }
    }
}

/// Refuses a range of a file that the file does not hold.
///
/// For spaces that take files, to be called after [`Abilities::check_map`] and before
/// [`Mapped::check_map`](super::Mapped::check_map), with the length that `fstat` or `lseek`
/// gives (a dma-buf answers both). iommufd itself would say EINVAL for a dma-buf, one of
/// several reasons for it, and look at a memfd only when a device is attached.
///
/// # Errors
/// [`MapError::BeyondFile`]; map at most `file_len - offset`.
pub fn check_within_file(offset: Bytes, len: Bytes, file_len: Bytes) -> Result<(), MapError> {
    match offset.checked_add(len) {
        Some(end) if end <= file_len => Ok(()),
        _ => Err(MapError::BeyondFile { offset, len, file_len }),
    }
}

/// Whether the source's last byte cannot be named.
fn source_wraps<F>(source: &Source<F>, len: Bytes) -> bool {
    match source {
        Source::Physical(at) => AddrRange::<PhysAddr>::new(*at, len).is_none(),
        Source::Process(at) => AddrRange::<ProcVa>::new(*at, len).is_none(),
        Source::File { offset, .. } => offset.checked_add(len).is_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    fn range(first: u64, last: u64) -> AddrRange<Iova> {
        AddrRange::from_inclusive(Iova::new(first), Iova::new(last)).unwrap()
    }

    /// Takes process addresses, nothing special, in two windows that touch.
    fn abilities() -> Abilities {
        Abilities {
            sources: Sources { process: Some(Mmio::Refused), ..Sources::default() },
            granule: Granule::PAGE_4K,
            usable: IovaRanges::from_inclusive(
                [(0x1000, 0x4fff), (0x5000, 0x8fff)].map(|(first, last)| (Iova::new(first), Iova::new(last))),
            )
            .unwrap(),
            attrs: MemAttrs::empty(),
            write_only: WriteOnly::Refused,
            changes: Changes::empty(),
            max_mappings: None,
            placement: Placement::Chosen,
        }
    }

    #[test]
    fn a_mapping_across_two_usable_ranges_that_touch_is_refused() {
        let across = range(0x4000, 0x5fff);
        let source = Source::<u8>::Process(ProcVa::new(0x1000));
        let answer = abilities().check_map(across, &source, Prot::Read, MemAttrs::empty());
        assert_eq!(answer, Err(MapError::OutsideUsable { iova: across, nearest: Some(range(0x1000, 0x4fff)) }));
    }

    /// One request with every fault; mending them one by one shows them in the order of the contract.
    #[test]
    fn of_several_faults_the_first_in_the_contracts_order_is_named() {
        let abilities = abilities();
        let (odd_iova, outside) = (range(0x9800, 0xa7ff), range(0x9000, 0x9fff));
        let (physical, process) =
            (Source::<u8>::Physical(PhysAddr::new(1)), |at| Source::<u8>::Process(ProcVa::new(at)));
        let check =
            |iova, source: Source<u8>, prot, attrs| abilities.check_map(iova, &source, prot, attrs).unwrap_err();
        let odd = |what| MapError::Misaligned { what, granule: Granule::PAGE_4K };
        let wrapping = range(0x9000, 0xafff);

        let taken = abilities.sources;
        let kind = SourceKind::Physical;
        assert_eq!(check(odd_iova, physical, Prot::Write, MemAttrs::MMIO), MapError::SourceNotTaken { kind, taken });
        let (kind, attrs) = (SourceKind::Process, MemAttrs::MMIO);
        assert_eq!(check(odd_iova, process(1), Prot::Write, attrs), MapError::AttrsNotTaken { attrs, kind });
        let attrs = MemAttrs::empty();
        assert_eq!(check(odd_iova, process(1), Prot::Write, attrs), MapError::WriteOnlyNotTaken);
        assert_eq!(check(odd_iova, process(1), Prot::Read, attrs), odd(Misaligned::Iova(Iova::new(0x9800))));
        assert_eq!(
            check(range(0x9000, 0x97ff), process(1), Prot::Read, attrs),
            odd(Misaligned::Length(Bytes::new(0x800)))
        );
        assert_eq!(check(outside, process(1), Prot::Read, attrs), odd(Misaligned::Process(ProcVa::new(1))));
        let last_page = process(u64::MAX - 0xfff);
        assert_eq!(
            check(wrapping, last_page, Prot::Read, attrs),
            MapError::SourceWraps { kind, len: Bytes::new(0x2000) }
        );
        assert!(matches!(check(outside, last_page, Prot::Read, attrs), MapError::OutsideUsable { .. }));
        assert_eq!(abilities.check_map(range(0x1000, 0x1fff), &last_page, Prot::ReadWrite, attrs), Ok(()));
    }

    #[test]
    fn a_source_may_end_with_its_address_space_and_not_past_it() {
        let page = Bytes::new(0x1000);
        let top = u64::MAX - 0xfff;
        assert!(!source_wraps(&Source::<u8>::Process(ProcVa::new(top)), page));
        assert!(!source_wraps(&Source::<u8>::Physical(PhysAddr::new(top)), page));
        assert!(source_wraps(&Source::<u8>::Physical(PhysAddr::new(top + 1)), page));
        // A file's offset one past its last byte has to be a number too.
        assert!(source_wraps(&Source::File { file: 0, offset: Bytes::new(top) }, page));
    }

    #[test]
    fn device_memory_is_refused_where_the_kind_of_source_cannot_be_any() {
        let mut abilities = abilities();
        let at = range(0x1000, 0x1fff);
        let source = Source::<u8>::Process(ProcVa::new(0));
        assert!(abilities.check_map(at, &source, Prot::Read, MemAttrs::MMIO).is_err());
        for mmio in [Mmio::AsMemory, Mmio::AsMmio] {
            abilities.sources.process = Some(mmio);
            assert_eq!(abilities.check_map(at, &source, Prot::Read, MemAttrs::MMIO), Ok(()));
        }
        // Of two attributes only the one that is not taken is named.
        let both = MemAttrs::MMIO | MemAttrs::PRIVILEGED;
        let answer = abilities.check_map(at, &source, Prot::Read, both);
        assert_eq!(answer, Err(MapError::AttrsNotTaken { attrs: MemAttrs::PRIVILEGED, kind: SourceKind::Process }));
    }

    #[test]
    fn a_range_of_a_file_ends_where_the_file_does() {
        let page = Bytes::new(0x1000);
        assert_eq!(check_within_file(Bytes::new(0x1000), page, Bytes::new(0x2000)), Ok(()));
        for (offset, file_len) in [(0x1000, 0x1fff), (0x2000, 0x2000), (u64::MAX, u64::MAX)] {
            let answer = check_within_file(Bytes::new(offset), page, Bytes::new(file_len));
            assert!(matches!(answer, Err(MapError::BeyondFile { .. })), "{offset:#x}");
        }
    }

    #[test]
    fn what_a_space_takes_reads_as_a_sentence() {
        assert_eq!(Sources::default().to_string(), "nothing");
        let iommufd = Sources { process: Some(Mmio::Refused), file: Some(Mmio::AsMmio), physical: None };
        assert_eq!(iommufd.to_string(), "process addresses or files");
    }
}
