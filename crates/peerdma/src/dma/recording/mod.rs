//! An address space that writes down what it is asked, and answers as Linux does.
//!
//! Users of [`IoSpace`] are tested against it: it records every call with its answer,
//! says where an IOVA leads ([`RecordingSpace::translate`]), and refuses what VFIO type1
//! or iommufd refuse, in the same words. What lies behind the sources (process ranges,
//! files, the devices that provide them) is a part of the fake, so that a test can reset a
//! device under a mapping and see the difference that matters most: type1 goes on mapping,
//! iommufd's mapping is dead and in the way until it is unmapped.
//!
//! The answers are those of Linux 7.2 and 7.3, from source and from runs in a guest, with a
//! device attached to the space (without one iommufd checks memory only later).
//!
//! Not here: time, pinning limits, and anything by page; maps are ordered by address.

mod provider;

use super::abilities::{Abilities, Changes, Mmio, Sources, WriteOnly, check_within_file};
use super::error::{Errno, MapError, UnmapError};
use super::io_space::{IoSpace, Source, SourceKind};
use super::mapped::Mapped;
use super::permit::{Permit, check_unasked};
use crate::access::{MemAttrs, Prot};
use crate::addr::{AddrRange, Bytes, Granule, Iova, ProcVa};
use crate::iova::IovaRanges;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use provider::Provider;
pub use provider::{Disturbance, FileId, FileKind, ProcessKind};

/// Whose answers a [`RecordingSpace`] gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Profile {
    /// A VFIO container with `VFIO_TYPE1v2_IOMMU`.
    Type1,
    /// An I/O address space of iommufd, with FIXED IOVAs.
    Iommufd,
}

impl Profile {
    /// What such a space takes behind an Intel IOMMU with 48 address bits.
    ///
    /// The hole is the window of message-signalled interrupts, which both leave out.
    pub fn abilities(self) -> Abilities {
        let pairs = [(0, 0xfedf_ffff), (0xfef0_0000, 0xffff_ffff_ffff)];
        let usable = IovaRanges::from_inclusive(pairs.map(|(first, last)| (Iova::new(first), Iova::new(last))));
        let (sources, changes, max_mappings) = match self {
            Self::Type1 => (
                Sources { process: Some(Mmio::AsMemory), ..Sources::default() },
                Changes::UNMAP_SEVERAL | Changes::UNMAP_NOTHING,
                // The default of the module parameter `dma_entry_limit`, U16_MAX.
                Some(65535),
            ),
            Self::Iommufd => (
                Sources { process: Some(Mmio::Refused), file: Some(Mmio::AsMmio), ..Sources::default() },
                Changes::UNMAP_SEVERAL,
                None,
            ),
        };
        Abilities {
            sources,
            granule: Granule::PAGE_4K,
            usable: usable.unwrap_or_default(),
            attrs: MemAttrs::empty(),
            placement: super::abilities::Placement::Chosen,
            write_only: WriteOnly::Exact,
            changes,
            max_mappings,
        }
    }
}

/// One call and what was answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Call {
    /// [`IoSpace::map`], [`IoSpace::link`] and those with a permit.
    Map {
        /// Where.
        iova: AddrRange<Iova>,
        /// What.
        source: Source<FileId>,
        /// For what.
        prot: Prot,
        /// As what.
        attrs: MemAttrs,
        /// The answer.
        answer: Result<(), MapError>,
    },
    /// [`IoSpace::unmap`].
    Unmap {
        /// Where.
        iova: AddrRange<Iova>,
        /// The answer.
        answer: Result<Bytes, UnmapError>,
    },
}

/// Where an IOVA leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Translation {
    /// The very place in the source.
    pub source: Source<FileId>,
    /// What a device may do there.
    pub prot: Prot,
}

/// One mapping as it was made.
#[derive(Clone, Debug)]
struct Entry {
    iova: AddrRange<Iova>,
    source: Source<FileId>,
    prot: Prot,
    /// Its provider revoked it; the IOVAs stay taken all the same.
    dead: bool,
}

/// An [`IoSpace`] without a kernel that records every call.
///
/// ```
/// use peerdma::addr::{AddrRange, Bytes, Iova};
/// use peerdma::dma::recording::{Disturbance, FileKind, Profile, RecordingSpace};
/// use peerdma::dma::{IoSpace, MapError, MemAttrs, Permit, Prot, Source};
///
/// let mut space = RecordingSpace::new(Profile::Iommufd);
/// let permit = Permit::vouched(Prot::ReadWrite);
/// let bar = space.add_file(FileKind::VfioDmabuf, Bytes::new(0x10000));
/// let iova = AddrRange::new(Iova::new(0x1000_0000), Bytes::new(0x1000)).unwrap();
/// let source = Source::File { file: bar, offset: Bytes::new(0x2000) };
/// space.map_peer(iova, &source, Prot::ReadWrite, MemAttrs::MMIO, &permit)?;
/// assert_eq!(space.translate(iova.start()).unwrap().source, source);
///
/// // The device is reset: nobody tells us, the mapping is dead, and its IOVAs stay taken.
/// space.disturb(bar, Disturbance::Reset);
/// assert_eq!(space.translate(iova.start()), None);
/// let again = space.map_peer(iova, &source, Prot::ReadWrite, MemAttrs::MMIO, &permit);
/// assert!(matches!(again, Err(MapError::Overlap { .. })));
/// space.unmap(iova)?;
/// space.map_peer(iova, &source, Prot::ReadWrite, MemAttrs::MMIO, &permit)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct RecordingSpace {
    profile: Profile,
    abilities: Abilities,
    provider: Provider,
    mapped: Mapped,
    entries: BTreeMap<Iova, Entry>,
    calls: Vec<Call>,
}

impl RecordingSpace {
    /// An empty space in a process without memory or files.
    pub fn new(profile: Profile) -> Self {
        Self {
            profile,
            abilities: profile.abilities(),
            provider: Provider::default(),
            mapped: Mapped::new(),
            entries: BTreeMap::new(),
            calls: Vec::new(),
        }
    }

    /// Sets how many mappings fit, as type1's `dma_entry_limit` does.
    #[must_use]
    pub fn with_max_mappings(mut self, limit: u32) -> Self {
        self.abilities.max_mappings = Some(limit);
        self
    }

    /// Whose answers it gives.
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// Puts something at a range of the process, in place of what touched it.
    ///
    /// Mappings of what was there stay, since both kernels' spaces hold pages and not addresses.
    pub fn add_process(&mut self, range: AddrRange<ProcVa>, kind: ProcessKind) {
        self.provider.add_process(range, kind);
    }

    /// Takes away all that touches a range of the process, as `munmap` does; mappings stay.
    pub fn remove_process(&mut self, range: AddrRange<ProcVa>) {
        self.provider.remove_process(range);
    }

    /// Opens a file of `len` bytes.
    pub fn add_file(&mut self, kind: FileKind, len: Bytes) -> FileId {
        self.provider.add_file(kind, len)
    }

    /// Lets something happen to the device whose memory a dma-buf is; other files do not mind.
    ///
    /// Whatever revokes the dma-buf kills its mappings for good (Linux 7.2 `iopt_revoke_notify`):
    /// they can be unmapped and made anew, but they do not come back.
    pub fn disturb(&mut self, file: FileId, what: Disturbance) {
        if !self.provider.disturb(file, what) {
            return;
        }
        for entry in self.entries.values_mut() {
            entry.dead |= matches!(entry.source, Source::File { file: of, .. } if of == file);
        }
    }

    /// Where a device that uses `iova` ends up; `None` where it meets a fault.
    pub fn translate(&self, iova: Iova) -> Option<Translation> {
        let (_, entry) = self.entries.range(..=iova).next_back()?;
        let offset = Bytes::new(iova.as_u64().checked_sub(entry.iova.start().as_u64())?);
        if entry.dead || entry.iova.last() < iova {
            return None;
        }
        let source = match entry.source {
            Source::Physical(at) => Source::Physical(at.checked_add(offset)?),
            Source::Process(at) => Source::Process(at.checked_add(offset)?),
            Source::File { file, offset: start } => Source::File { file, offset: start.checked_add(offset)? },
        };
        Some(Translation { source, prot: entry.prot })
    }

    /// What is mapped, mappings that a provider revoked included.
    pub fn mapped(&self) -> &Mapped {
        &self.mapped
    }

    /// All calls so far, oldest first.
    pub fn calls(&self) -> &[Call] {
        &self.calls
    }

    /// Takes the calls so far out of the record.
    pub fn take_calls(&mut self) -> Vec<Call> {
        core::mem::take(&mut self.calls)
    }

    fn try_map(
        &mut self,
        iova: AddrRange<Iova>,
        source: &Source<FileId>,
        prot: Prot,
        attrs: MemAttrs,
        permit: Option<&Permit>,
    ) -> Result<(), MapError> {
        self.abilities.check_map(iova, source, prot, attrs)?;
        permit.map_or_else(|| check_unasked(iova, attrs), |permit| permit.check(iova, prot))?;
        if let Source::File { file, offset } = source {
            let len = self.provider.file(*file).map(|state| state.len);
            len.map_or(Ok(()), |len| check_within_file(*offset, iova.len(), len))?;
        }
        self.mapped.check_map(&self.abilities, iova)?;
        self.kernel_takes(source, iova.len(), prot)?;
        self.mapped.insert(iova);
        self.entries.insert(iova.start(), Entry { iova, source: *source, prot, dead: false });
        Ok(())
    }

    /// What is left for the kernel to refuse: the very bytes.
    fn kernel_takes(&self, source: &Source<FileId>, len: Bytes, prot: Prot) -> Result<(), MapError> {
        match source {
            // Neither profile takes physical ranges, so the abilities have refused them before.
            Source::Physical(_) => {
                Err(MapError::SourceNotTaken { kind: SourceKind::Physical, taken: self.abilities.sources })
            }
            Source::Process(at) => {
                let refused = MapError::SourceRefused { kind: SourceKind::Process, errno: Errno::EFAULT };
                let kinds = self.provider.kinds_of(*at, len).ok_or(refused.clone())?;
                match kinds.iter().all(|kind| self.pins(*kind, prot)) {
                    true => Ok(()),
                    false => Err(refused),
                }
            }
            Source::File { file, .. } => {
                let refused = |errno| MapError::SourceRefused { kind: SourceKind::File, errno };
                let state = self.provider.file(*file).ok_or(refused(Errno::EBADF))?;
                match (state.kind, state.revoked()) {
                    (FileKind::Memfd, _) | (FileKind::VfioDmabuf, false) => Ok(()),
                    (FileKind::VfioDmabuf, true) => Err(MapError::SourceRevoked { errno: Errno::ENODEV }),
                    (FileKind::OtherDmabuf, _) => Err(refused(Errno::EOPNOTSUPP)),
                }
            }
        }
    }

    /// Whether pages of this sort can be held for a device.
    ///
    /// `pin_user_pages` refuses PFN maps. Type1 then looks at the page table
    /// (`follow_fault_pfn`) and takes BARs; iommufd does not look.
    fn pins(&self, kind: ProcessKind, prot: Prot) -> bool {
        match kind {
            ProcessKind::Memory => true,
            ProcessKind::ReadOnlyMemory => !prot.writes(),
            ProcessKind::Bar => self.profile == Profile::Type1,
            ProcessKind::P2pmem => false,
        }
    }

    fn record(
        &mut self,
        iova: AddrRange<Iova>,
        source: &Source<FileId>,
        (prot, attrs): (Prot, MemAttrs),
        permit: Option<&Permit>,
    ) -> Result<(), MapError> {
        let answer = self.try_map(iova, source, prot, attrs, permit);
        self.calls.push(Call::Map { iova, source: *source, prot, attrs, answer: answer.clone() });
        answer
    }

    fn try_unmap(&mut self, iova: AddrRange<Iova>) -> Result<Bytes, UnmapError> {
        self.abilities.check_unmap(iova)?;
        let len = self.mapped.check_unmap(&self.abilities, iova)?;
        let removed = self.mapped.remove(iova);
        assert!(removed == len, "the record and its check count the same bytes");
        // No profile unmaps parts, so every mapping that starts in the range ends in it.
        self.entries.retain(|start, _| *start < iova.start() || iova.last() < *start);
        Ok(removed)
    }
}

impl IoSpace for RecordingSpace {
    type File = FileId;

    fn abilities(&self) -> &Abilities {
        &self.abilities
    }

    fn check_place(&self, iova: AddrRange<Iova>) -> Result<(), MapError> {
        self.abilities.check_iovas(iova)?;
        self.mapped.check_map(&self.abilities, iova)
    }

    fn map(
        &mut self,
        iova: AddrRange<Iova>,
        source: &Source<FileId>,
        prot: Prot,
        attrs: MemAttrs,
    ) -> Result<(), MapError> {
        self.record(iova, source, (prot, attrs), None)
    }

    fn link_peer(
        &mut self,
        iova: AddrRange<Iova>,
        source: &Source<FileId>,
        prot: Prot,
        attrs: MemAttrs,
        permit: &Permit,
    ) -> Result<(), MapError> {
        self.record(iova, source, (prot, attrs), Some(permit))
    }

    fn unmap(&mut self, iova: AddrRange<Iova>) -> Result<Bytes, UnmapError> {
        let answer = self.try_unmap(iova);
        self.calls.push(Call::Unmap { iova, answer: answer.clone() });
        answer
    }
}
