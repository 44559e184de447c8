//! The software IOMMU with every format: what the suite says of it, and what a device sees.

use crate::contract::assert_kept;
use peerdma::access::Access;
use peerdma::addr::{Bytes, Iova, PhysAddr};
use peerdma::dma::contract::{Fixture, Lent, Verdict};
use peerdma::dma::spaces::{SoftIommu, SoftOptions, SoftSpace};
use peerdma::dma::{Changes, IoSpace, MemAttrs, Mmio, Source, SourceKind, WriteOnly};
use peerdma::iopt::{
    AmdOptions, AmdV1, ArmOptions, ArmStage1, ArmStage2, Format, FrameArena, Pages4K, Pages64K, TableMemory,
    VtdOptions, VtdSecondStage, X86FirstStage, X86Options, walk_tables,
};

/// Where the memory on loan is, far from the frames of the tables.
const LENT: PhysAddr = PhysAddr::new(0x10_0000_0000);

/// A handle of a domain, looked at by walking its tables from their root.
pub(crate) struct Soft<'a, F: Format, M: TableMemory> {
    space: SoftSpace<'a, F, M>,
    attrs: MemAttrs,
}

impl<'a, F: Format, M: TableMemory> Soft<'a, F, M> {
    pub(crate) fn new(iommu: &'a SoftIommu<F, M>, attrs: MemAttrs) -> Self {
        Self { space: iommu.attach(), attrs }
    }
}

impl<'a, F: Format, M: TableMemory> Fixture for Soft<'a, F, M> {
    type Space = SoftSpace<'a, F, M>;

    fn space(&mut self) -> &mut Self::Space {
        &mut self.space
    }

    fn lend(&mut self, kind: SourceKind) -> Option<Lent<core::convert::Infallible>> {
        let len = Bytes::new(4 * self.space.abilities().granule.bytes().as_u64());
        (kind == SourceKind::Physical).then_some(Lent { source: Source::Physical(LENT), len, attrs: self.attrs })
    }

    fn reaches(&mut self, iova: Iova, source: &Source<core::convert::Infallible>, access: Access) -> Option<bool> {
        let Source::Physical(wanted) = source else { return Some(false) };
        let table = self.space.iommu().table();
        let found = walk_tables(table.format(), table.memory(), table.root(), iova);
        Some(found.is_ok_and(|found| found.pa == *wanted && access.is_permitted_by(found.prot)))
    }
}

pub(crate) fn vtd() -> VtdSecondStage {
    VtdSecondStage::new(VtdOptions::default()).expect("the default is a format")
}

pub(crate) fn arm_stage1() -> ArmStage1 {
    ArmStage1::<Pages4K>::new(ArmOptions::default()).expect("the default is a format")
}

fn keeps_the_contract<F: Format>(format: F) {
    for attrs in [MemAttrs::empty(), MemAttrs::MMIO] {
        let arena = FrameArena::new(PhysAddr::new(0x4000_0000), 4096);
        let options = SoftOptions::default().reserving_interrupts();
        let mut iommu = SoftIommu::with(format.clone(), &arena, &options).expect("there are frames for a root");
        let outcomes = assert_kept(&mut Soft::new(&iommu, attrs), 20);
        for outcome in outcomes.iter().filter(|outcome| outcome.source == Some(SourceKind::Physical)) {
            // All of its abilities are on, so that hardly a claim has nothing to try.
            let excused = ["file", "more than fit", "cut one mapping", "does not take", "does not show"];
            let applies = !matches!(outcome.verdict, Verdict::DoesNotApply { .. });
            assert!(applies || excused.iter().any(|word| outcome.claim.contains(word)), "{outcome}");
        }
        iommu.reclaim();
        let format = iommu.table().format().clone();
        drop(iommu);
        assert_eq!(arena.in_use(), 0, "{format:?} leaves no frame behind");
    }
}

#[test]
fn the_software_iommu_keeps_the_contract_with_every_format() {
    keeps_the_contract(vtd());
    keeps_the_contract(AmdV1::new(AmdOptions::default()).unwrap());
    keeps_the_contract(X86FirstStage::new(X86Options::default()).unwrap());
    keeps_the_contract(arm_stage1());
    keeps_the_contract(ArmStage2::<Pages4K>::new(ArmOptions::default()).unwrap());
    keeps_the_contract(ArmStage2::<Pages64K>::new(ArmOptions::default()).unwrap());
}

#[test]
fn abilities_say_what_the_format_can_express() {
    let arena = FrameArena::new(PhysAddr::new(0x4000_0000), 16);
    let vtd = SoftIommu::new(vtd(), &arena).unwrap();
    let arm = SoftIommu::new(arm_stage1(), &arena).unwrap();
    let (vtd, arm) = (vtd.abilities(), arm.abilities());
    assert_eq!((vtd.write_only, arm.write_only), (WriteOnly::Exact, WriteOnly::MayRead));
    assert_eq!(arm.sources.physical, Some(Mmio::AsMmio));
    assert!(arm.attrs.contains(MemAttrs::PRIVILEGED | MemAttrs::NO_EXECUTE));
    assert!(!vtd.attrs.intersects(MemAttrs::PRIVILEGED | MemAttrs::NO_EXECUTE));
    assert!(vtd.changes.contains(Changes::RELINK | Changes::UNMAP_PART));
}
