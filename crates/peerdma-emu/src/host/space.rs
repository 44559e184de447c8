//! An address space for devices behind the machine's IOMMU.
//!
//! A [`DomainSpace`] writes page tables into the machine's memory, and the [`Iommu`] reads them
//! there. What Linux does around a mapping is done in its order: entries change, the IOTLB
//! forgets, devices' caches forget ([`DeviceCaches`]), and only then a call returns and the memory
//! may be given to others. A space can be made to forget to invalidate, as a driver with a bug does.
//!
//! Formats are those that Linux uses for the kind of IOMMU: VT-d second stage, AMD v1 and Arm
//! stage 1 for a device's own requests; x86-64 first stage and Arm stage 1 for those of a process
//! ([`For::Process`]); a flat table for a window.

use super::written::{Tree, Window, Written};
use crate::iommu::{
    ArmGranule, ArmStage, Attachment, Cached, Domain, DomainId, GroupResponse, Iommu, TableBytes, TableFormat, Tables,
};
use crate::platform::IommuKind;
use crate::wire::Pasid;
use peerdma::access::{MemAttrs, Prot};
use peerdma::addr::{AddrRange, Bytes, Iova};
use peerdma::dma::spaces::{SoftIommu, SoftOptions, TcePage, TceSpace, WindowError};
use peerdma::dma::{Abilities, IoSpace, MapError, Source, UnmapError};
use peerdma::iopt::{
    AmdOptions, AmdV1, ArmOptions, ArmStage1, CreateError, Format, Pages4K, Root, ShapeError, TableMemory, VtdOptions,
    VtdSecondStage, X86FirstStage, X86Options,
};
use peerdma::pcie::PciAddr;
use std::convert::Infallible;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// The way to devices that remember translations.
pub trait DeviceCaches: Send + Sync {
    /// Has a device's cache forget a range; returns when it has, and when what the device sent with
    /// those translations has arrived.
    ///
    /// Called without a lock of the space or the IOMMU.
    fn invalidate(&self, cached: Cached, range: AddrRange<Iova>);

    /// Brings writes that were translated before into memory, as an IOMMU does before it calls an
    /// invalidation done (VT-d 4.1 §6.5.4, DMA draining).
    fn drain(&self) {}
}

/// For machines whose devices remember nothing.
impl DeviceCaches for () {
    fn invalidate(&self, _cached: Cached, _range: AddrRange<Iova>) {}
}

/// Whose requests a space is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
pub enum For {
    /// Those of devices without a PASID.
    #[default]
    Device,
    /// Those of one process, which name a PASID.
    Process,
}

/// What a space is made with.
#[derive(Clone, Debug)]
pub struct SpaceOptions {
    /// Whose requests it is for.
    pub whose: For,
    /// IOVAs that are never mapped, as interrupt windows and the windows of host bridges.
    pub reserved: Vec<AddrRange<Iova>>,
    /// IOVAs that a window IOMMU translates, in pages of 4 KiB; others ignore it.
    pub window: Option<AddrRange<Iova>>,
}

impl Default for SpaceOptions {
    /// For devices, nothing reserved, a window of 256 MiB from 0 on.
    fn default() -> Self {
        Self { whose: For::Device, reserved: Vec::new(), window: AddrRange::new(Iova::new(0), Bytes::new(256 << 20)) }
    }
}

/// Why a space could not be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SpaceError {
    /// The machine has no IOMMU, or it is off.
    #[error("the machine has no IOMMU that translates; use addresses as the host bridge shows them")]
    NoIommu,
    /// A window knows no PASIDs, or no window was named.
    #[error("a window has one address space, for requests without PASID, and its addresses have to be named")]
    NoWindow,
    /// There is no such table.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// There is no memory for its root.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// The window cannot be made.
    #[error(transparent)]
    Window(#[from] WindowError),
}

/// An address space behind the machine's IOMMU; clones are handles to the same.
///
/// With the last handle the domain is taken from all streams, and its tables go.
///
/// # Concurrency
/// As of [`peerdma::iopt::PageTable`]: handles map and unmap at once where their IOVAs do not
/// overlap.
#[derive(Clone)]
pub struct DomainSpace {
    shared: Arc<Shared>,
}

struct Shared {
    id: DomainId,
    iommu: Arc<Iommu>,
    caches: Arc<dyn DeviceCaches>,
    written: Box<dyn Written>,
    memory: Arc<dyn TableBytes>,
    abilities: Abilities,
    /// Where the IOMMU was told the tables begin.
    told: Mutex<TableFormat>,
    /// How many invalidations are still to be forgotten.
    forgetting: AtomicU64,
}

impl fmt::Debug for DomainSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DomainSpace").field("domain", &self.shared.id).finish_non_exhaustive()
    }
}

fn tree<F, M>(
    format: F,
    memory: M,
    reserved: &[AddrRange<Iova>],
    read_as: fn(Root) -> TableFormat,
) -> Result<Box<dyn Written>, SpaceError>
where
    F: Format + Send + Sync + 'static,
    M: TableMemory + Send + Sync + 'static,
{
    let options = reserved.iter().fold(SoftOptions::default(), |options, range| options.reserving(*range));
    let iommu = RwLock::new(SoftIommu::with(format, memory, &options)?);
    Ok(Box::new(Tree { iommu, format: read_as }))
}

fn arm_stage1(_root: Root) -> TableFormat {
    let stage = ArmStage::One { upper_half: false, hardware_dirty: false };
    let granule = ArmGranule::K4;
    TableFormat::ArmLpae { stage, granule, input_bits: 48, output_bits: 48, access_flag_faults: true }
}

impl DomainSpace {
    /// An empty space, to which nothing is attached, with tables in `memory`.
    ///
    /// `id` is to be the number of no other space of this IOMMU.
    ///
    /// # Errors
    /// [`SpaceError`]; nothing is allocated after any of them.
    pub fn new<M>(
        iommu: Arc<Iommu>,
        id: DomainId,
        memory: M,
        caches: Arc<dyn DeviceCaches>,
        options: &SpaceOptions,
    ) -> Result<Self, SpaceError>
    where
        M: TableMemory + Clone + Send + Sync + 'static,
    {
        let reserved = options.reserved.as_slice();
        let frames = memory.clone();
        let written = match (iommu.kind(), options.whose) {
            (IommuKind::None, _) => return Err(SpaceError::NoIommu),
            (IommuKind::Vtd, For::Device) => {
                tree(VtdSecondStage::new(VtdOptions::default())?, frames, reserved, |root| {
                    TableFormat::VtdSecondStage { levels: root.height + 1 }
                })?
            }
            // What Linux gives a device of its own: 48 bits are plenty, and the table grows to them.
            (IommuKind::Amd, For::Device) => {
                let options = AmdOptions { input_bits: 48, ..AmdOptions::default() };
                tree(AmdV1::new(options)?, frames, reserved, |root| TableFormat::AmdV1 { levels: root.height + 1 })?
            }
            (IommuKind::Vtd, For::Process) => {
                tree(X86FirstStage::new(X86Options::default())?, frames, reserved, |root| TableFormat::X86FirstStage {
                    levels: root.height + 1,
                    sign_extended: true,
                })?
            }
            (IommuKind::Amd, For::Process) => {
                let options = X86Options { sign_extend: false, ..X86Options::default() };
                tree(X86FirstStage::new(options)?, frames, reserved, |root| TableFormat::X86FirstStage {
                    levels: root.height + 1,
                    sign_extended: false,
                })?
            }
            (IommuKind::Smmu, _) => {
                tree(ArmStage1::<Pages4K>::new(ArmOptions::default())?, frames, reserved, arm_stage1)?
            }
            (IommuKind::Window, For::Device) => {
                let window = options.window.ok_or(SpaceError::NoWindow)?;
                let space = TceSpace::new(frames, window, TcePage::K4)?;
                let space = reserved.iter().fold(space, |space, range| space.reserving(*range));
                Box::new(Window(Mutex::new(space)))
            }
            (IommuKind::Window, For::Process) => return Err(SpaceError::NoWindow),
        };
        let (abilities, told) = (written.abilities(), Mutex::new(written.place().0));
        let (memory, forgetting) = (Arc::new(memory), AtomicU64::new(0));
        Ok(Self { shared: Arc::new(Shared { id, iommu, caches, written, memory, abilities, told, forgetting }) })
    }

    /// The domain as the IOMMU is told of it.
    pub fn domain(&self) -> Domain {
        self.shared.domain()
    }

    /// Attaches a requester's requests without a PASID.
    pub fn attach(&self, requester: PciAddr) {
        self.shared.attach(requester, Attachment::Translated(self.domain()));
    }

    /// Detaches a requester, which is blocked from then on, and remembers nothing.
    pub fn detach(&self, requester: PciAddr) {
        self.shared.attach(requester, Attachment::Blocked);
    }

    /// Binds the space to a PASID of a requester.
    pub fn bind(&self, requester: PciAddr, pasid: Pasid) {
        self.shared.iommu.bind_pasid(requester, pasid, self.domain());
    }

    /// Takes the space from a PASID of a requester; returns once nobody remembers anything of it.
    ///
    /// Answers the responses that page requests of that PASID get, which are to be delivered.
    pub fn unbind(&self, requester: PciAddr, pasid: Pasid) -> Vec<GroupResponse> {
        let unbound = self.shared.iommu.unbind_pasid(requester, pasid);
        self.shared.tell(unbound.caches, everything());
        unbound.responses
    }

    /// Makes the next `count` changes that take something away return without an invalidation.
    pub fn forget_invalidations(&self, count: u64) {
        self.shared.forgetting.store(count, Ordering::Relaxed);
    }
}

/// All addresses; no range has the last byte too, and its page is in this one.
fn everything() -> Option<AddrRange<Iova>> {
    AddrRange::new(Iova::new(0), Bytes::new(u64::MAX))
}

impl Shared {
    fn domain(&self) -> Domain {
        let (format, root) = self.written.place();
        Domain { id: self.id, tables: Tables { format, root, memory: Arc::clone(&self.memory) } }
    }

    fn attach(&self, requester: PciAddr, attachment: Attachment) {
        let cached = self.iommu.attach(requester, attachment);
        self.tell(cached, everything());
    }

    fn tell(&self, caches: impl IntoIterator<Item = Cached>, range: Option<AddrRange<Iova>>) {
        let Some(range) = range else { return };
        caches.into_iter().for_each(|cached| self.caches.invalidate(cached, range));
        self.caches.drain();
    }

    /// Tells the IOMMU where the tables begin, if the root has grown.
    fn follow_root(&self) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let domain = self.domain();
        if domain.tables.format != *told {
            *told = domain.tables.format;
            self.iommu.update(&domain);
        }
    }

    /// Has the IOTLB forget a range, then devices' caches.
    fn forget(&self, range: AddrRange<Iova>) {
        let caches = self.iommu.invalidate(self.id, range);
        self.tell(caches, Some(range));
    }

    /// What has to happen after entries were changed or taken away, and before anybody relies on it.
    fn invalidate(&self, range: AddrRange<Iova>) {
        let forgets = self.forgetting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| count.checked_sub(1));
        if forgets.is_err() {
            self.forget(range);
        }
        self.written.reclaim();
    }

    /// A mapping that was refused may have been there in part for a moment, and been remembered.
    fn mapped(&self, range: AddrRange<Iova>, answer: Result<(), MapError>) -> Result<(), MapError> {
        self.follow_root();
        answer.inspect_err(|_| self.forget(range))
    }
}

impl Drop for Shared {
    /// Nobody may reach the tables when they go.
    fn drop(&mut self) {
        let caches = self.iommu.remove(self.id);
        self.tell(caches, everything());
    }
}

impl IoSpace for DomainSpace {
    /// Files have no physical address; there is no value of this type.
    type File = Infallible;

    fn abilities(&self) -> &Abilities {
        &self.shared.abilities
    }

    fn map(
        &mut self,
        iova: AddrRange<Iova>,
        source: &Source<Infallible>,
        prot: Prot,
        attrs: MemAttrs,
    ) -> Result<(), MapError> {
        let mut answer = Ok(());
        self.shared.written.write(&mut |tables| answer = tables.map(iova, source, prot, attrs));
        self.shared.mapped(iova, answer)
    }

    fn relink(
        &mut self,
        iova: AddrRange<Iova>,
        source: &Source<Infallible>,
        prot: Prot,
        attrs: MemAttrs,
    ) -> Result<(), MapError> {
        let mut answer = Ok(());
        self.shared.written.write(&mut |tables| answer = tables.relink(iova, source, prot, attrs));
        answer?;
        self.shared.invalidate(iova);
        Ok(())
    }

    fn unmap(&mut self, iova: AddrRange<Iova>) -> Result<Bytes, UnmapError> {
        let mut answer = Ok(Bytes::ZERO);
        self.shared.written.write(&mut |tables| answer = tables.unmap(iova));
        // Refused for damaged tables, it may have taken something out before it met them.
        let gone = answer.inspect_err(|_| self.shared.forget(iova))?;
        if gone != Bytes::ZERO {
            self.shared.invalidate(iova);
        }
        Ok(gone)
    }
}
