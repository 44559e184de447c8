//! One domain: tables, generation, usable IOVAs and fault records.

use super::fault::{Fault, FaultLog, FaultRecord};
use super::options::{SoftOptions, usable};
use super::space::SoftSpace;
use super::tlb::{Generation, Tlb};
use crate::access::{Access, MemAttrs};
use crate::addr::{Granule, Iova, PhysAddr};
use crate::dma::abilities::{Abilities, Changes, Mmio, Placement, Sources, WriteOnly};
use crate::iopt::{CreateError, Format, NotTranslated, PageTable, TableMemory, WriteOnlyIs};
use crate::sync::atomic::Ordering;
use alloc::sync::Arc;

/// An address space in software, shared by all who map in it and all who translate through it.
///
/// Everything but [`reclaim`](Self::reclaim) takes a shared reference. Whoever maps does it
/// through a [`SoftSpace`] of its own ([`attach`](Self::attach)); whoever translates has a [`Tlb`] of its own.
/// Both may happen in any number of threads at once, as long as two threads map and unmap in
/// IOVA ranges apart from each other, which an allocator of IOVAs sees to anyway.
///
/// ```
/// use peerdma::access::Access;
/// use peerdma::addr::{AddrRange, Bytes, Iova, PhysAddr};
/// use peerdma::dma::spaces::{Fault, InitiatorId, SoftIommu, Tlb};
/// use peerdma::dma::{IoSpace, MemAttrs, Prot, Source};
/// use peerdma::iopt::{FrameArena, VtdOptions, VtdSecondStage};
///
/// let arena = FrameArena::new(PhysAddr::new(0x10_0000), 64);
/// let iommu = SoftIommu::new(VtdSecondStage::new(VtdOptions::default())?, &arena)?;
/// let (mut space, mut tlb) = (iommu.attach(), Tlb::new(InitiatorId::new(3)));
///
/// let iova = AddrRange::new(Iova::new(0x20_0000), Bytes::new(0x2000)).unwrap();
/// space.map(iova, &Source::Physical(PhysAddr::new(0x8000_0000)), Prot::Read, MemAttrs::empty())?;
/// let at = Iova::new(0x20_1008);
/// assert_eq!(iommu.translate(&mut tlb, at, Access::Read), Ok(PhysAddr::new(0x8000_1008)));
/// assert_eq!(iommu.translate(&mut tlb, at, Access::Write), Err(Fault::NotPermitted));
///
/// space.unmap(iova)?;
/// assert_eq!(iommu.translate(&mut tlb, at, Access::Read), Err(Fault::NotMapped));
/// let record = iommu.faults().take().unwrap();
/// assert_eq!((record.iova, record.initiator), (at, InitiatorId::new(3)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct SoftIommu<F: Format, M: TableMemory> {
    pub(super) table: PageTable<F, M>,
    generation: Arc<Generation>,
    pub(super) abilities: Abilities,
    faults: FaultLog,
}

impl<F: Format, M: TableMemory> SoftIommu<F, M> {
    /// An empty domain with nothing reserved.
    ///
    /// # Errors
    /// [`CreateError`] where the memory gives no frames for the root.
    pub fn new(format: F, memory: M) -> Result<Self, CreateError> {
        Self::with(format, memory, &SoftOptions::default())
    }

    /// An empty domain.
    ///
    /// # Errors
    /// [`CreateError`] where the memory gives no frames for the root.
    pub fn with(format: F, memory: M, options: &SoftOptions) -> Result<Self, CreateError> {
        let shape = format.shape();
        let expressed = format.expresses();
        let granule = Granule::new(shape.page()).unwrap_or(Granule::PAGE_4K);
        let mmio = if expressed.contains(MemAttrs::MMIO) { Mmio::AsMmio } else { Mmio::AsMemory };
        let abilities = Abilities {
            placement: Placement::Chosen,
            sources: Sources { physical: Some(mmio), ..Sources::default() },
            granule,
            usable: usable(shape, granule, &options.reserved),
            attrs: expressed.difference(MemAttrs::MMIO),
            write_only: match format.write_only() {
                WriteOnlyIs::Exact => WriteOnly::Exact,
                WriteOnlyIs::MayRead => WriteOnly::MayRead,
            },
            changes: Changes::UNMAP_PART | Changes::UNMAP_SEVERAL | Changes::UNMAP_NOTHING | Changes::RELINK,
            max_mappings: None,
        };
        Ok(Self {
            table: PageTable::new(format, memory)?,
            generation: Arc::default(),
            abilities,
            faults: FaultLog::new(options.fault_records),
        })
    }

    /// A handle to map and unmap with, for one queue, context or thread.
    pub fn attach(&self) -> SoftSpace<'_, F, M> {
        SoftSpace::new(self)
    }

    /// What it takes.
    pub fn abilities(&self) -> &Abilities {
        &self.abilities
    }

    /// The page tables, for an IOMMU that walks the very bytes: root, format and memory.
    pub fn table(&self) -> &PageTable<F, M> {
        &self.table
    }

    /// What was not let through.
    pub fn faults(&self) -> &FaultLog {
        &self.faults
    }

    /// Where an access of `tlb`'s device to the byte at `iova` ends up.
    ///
    /// A transfer asks for each page that it touches. Nothing is locked and nothing is waited
    /// for. An unmapping that has returned in this thread, or whose return this thread was
    /// told of, is seen; one that runs meanwhile may be or not.
    ///
    /// # Errors
    /// [`Fault`], which is recorded in [`faults`](Self::faults).
    #[inline]
    pub fn translate(&self, tlb: &mut Tlb, iova: Iova, access: Access) -> Result<PhysAddr, Fault> {
        // Acquire pairs with `invalidate`: in this generation what it removed is gone.
        let now = self.generation.0.load(Ordering::Acquire);
        match tlb.find(&self.generation, now, iova, access) {
            Some(to) => Ok(to),
            None => self.miss(tlb, now, iova, access),
        }
    }

    /// Walks, and remembers what it found as of `before`, the generation read before the walk.
    #[inline(never)]
    fn miss(&self, tlb: &mut Tlb, before: u64, iova: Iova, access: Access) -> Result<PhysAddr, Fault> {
        let why = match self.table.walk(iova) {
            Ok(found) => {
                let reserved = found.attrs.contains(MemAttrs::PRIVILEGED) && !tlb.is_privileged();
                if !reserved && access.is_permitted_by(found.prot) {
                    tlb.fill(&self.generation, before, iova, found.pa, found.prot);
                    return Ok(found.pa);
                }
                Fault::NotPermitted
            }
            // A root that has not grown that far yet.
            Err(ended) if ended.why == NotTranslated::OutOfRange && self.table.format().shape().contains(iova) => {
                Fault::NotMapped
            }
            Err(ended) => Fault::from(ended.why),
        };
        self.faults.push(FaultRecord { iova, access, initiator: tlb.initiator(), why });
        Err(why)
    }

    /// Makes every remembered translation stale; called after entries were removed or changed.
    ///
    /// Release: whoever sees the new number sees the entries as they are now.
    pub(super) fn invalidate(&self) {
        self.generation.0.fetch_add(1, Ordering::Release);
    }

    /// Gives back the frames of tables that lay in unmapped ranges as a whole, and says how many.
    ///
    /// The exclusive reference proves that nobody maps or translates; whoever walks the tables by
    /// their root alone has to have been told to stop.
    pub fn reclaim(&mut self) -> usize {
        self.table.reclaim()
    }

    /// The same, and the frames of tables that were emptied piece by piece.
    ///
    /// Looks at every entry of every table.
    pub fn prune(&mut self) -> usize {
        self.table.prune()
    }
}
