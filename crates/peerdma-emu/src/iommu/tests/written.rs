//! Tables of the core, read by walkers that share no line with it.

use super::SharedArena;
use crate::iommu::{ArmGranule, ArmStage, FaultReason, TableFormat, Tables};
use peerdma::access::{MemAttrs, Prot};
use peerdma::addr::{AddrRange, BusAddr, Bytes, Iova, PhysAddr};
use peerdma::iopt::{
    AmdOptions, AmdV1, ArmOptions, ArmStage1, ArmStage2, Cursor, Format, Gather, PageTable, Pages4K, Pages16K,
    Pages64K, Root, VtdOptions, VtdSecondStage, X86FirstStage, X86Options,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

/// One step: map or unmap so many pages, counted in the format's smallest.
#[derive(Clone, Copy, Debug)]
struct Step {
    map: bool,
    at: u64,
    pages: u64,
    to: u64,
    prot: Prot,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let prot = prop_oneof![Just(Prot::Read), Just(Prot::Write), Just(Prot::ReadWrite)];
    // Ends of large pages come up often, so that large pages and their splitting do.
    let near = prop_oneof![0_u64..40, 500_u64..530, 1020_u64..1030, 0x3_fff0_u64..0x4_0010];
    let len = prop_oneof![1_u64..5, 16_u64..17, 512_u64..513, 1000_u64..1100];
    let step = (prop::bool::weighted(0.75), near, len, 0_u64..4, prot);
    let to_step = |(map, at, pages, to, prot)| Step { map, at, pages, to: to << 18 | at, prot };
    prop::collection::vec(step.prop_map(to_step), 1..10)
}

/// Runs the steps, and compares every page with a model.
fn agrees<F: Format>(format: F, read_as: impl Fn(Root) -> TableFormat, base: u64, steps: &[Step]) {
    let arena = SharedArena::new(512);
    let shift = F::PAGE_SHIFT;
    let exact = matches!(format.write_only(), peerdma::iopt::WriteOnlyIs::Exact);
    let table = PageTable::new(format, arena.clone()).unwrap();
    let mut cursor = Cursor::new();
    let mut model: BTreeMap<u64, (u64, Prot)> = BTreeMap::new();
    for step in steps {
        let range = AddrRange::new(Iova::new(base + (step.at << shift)), Bytes::new(step.pages << shift)).unwrap();
        let pages = step.at..step.at + step.pages;
        if !step.map {
            table.unmap_exactly(&mut cursor, range, &mut Gather::new()).unwrap();
            model.retain(|page, _| !pages.contains(page));
            continue;
        }
        let to = PhysAddr::new(step.to << shift);
        if table.map(&mut cursor, range, to, table.leaf(step.prot, MemAttrs::empty())).is_ok() {
            let prot = if step.prot == Prot::Write && !exact { Prot::ReadWrite } else { step.prot };
            model.extend(pages.zip(step.to..).map(|(page, to)| (page, (to << shift, prot))));
        }
    }
    let root = table.root();
    let tables = Tables { format: read_as(root), root: root.at, memory: Arc::new(arena) };
    // Where steps begin and end; the middle of long runs by samples.
    let looked_at = (0..60).chain(490..540).chain((540..2200).step_by(31)).chain(0x3_ffe0..0x4_0040);
    for page in looked_at {
        let at = base + (page << shift) + 0x123;
        let found = tables.walk(BusAddr::new(at));
        match (found, model.get(&page)) {
            (Ok(leaf), Some((pa, prot))) => {
                let within = (1 << leaf.shift) - 1;
                assert_eq!((leaf.base | at & within, leaf.prot(false)), (pa + 0x123, Some(*prot)), "{at:#x}");
                let walked = table.walk(Iova::new(at)).unwrap();
                assert_eq!(within + 1, walked.page_size.as_u64(), "{at:#x}");
            }
            (Err(FaultReason::NotMapped), None) => {}
            // A root that has not grown that far.
            (Err(FaultReason::OutOfRange), None) if F::GROWS => {}
            (found, expected) => panic!("{at:#x} is {found:x?}, not {expected:x?}"),
        }
    }
}

fn arm(stage: ArmStage, granule: ArmGranule, input_bits: u8, output_bits: u8) -> impl Fn(Root) -> TableFormat {
    move |_| TableFormat::ArmLpae { stage, granule, input_bits, output_bits, access_flag_faults: true }
}

const STAGE1: ArmStage = ArmStage::One { upper_half: false, hardware_dirty: false };

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn vtd_second_stages_are_read_as_they_were_written(steps in steps(), levels in 3_u8..=5) {
        let options = VtdOptions { input_bits: 3 + 9 * levels + 9, ..VtdOptions::default() };
        let read_as = |root: Root| TableFormat::VtdSecondStage { levels: root.height + 1 };
        agrees(VtdSecondStage::new(options).unwrap(), read_as, 0x40_0000_0000, &steps);
    }

    #[test]
    fn x86_first_stages_are_read_as_they_were_written(steps in steps(), five in any::<bool>(), high in any::<bool>()) {
        let input_bits = if five { 57 } else { 48 };
        let base = if high { u64::MAX << (input_bits - 1) } else { 0x7f_0000_0000 };
        let format = X86FirstStage::new(X86Options { input_bits, ..X86Options::default() }).unwrap();
        let read_as =
            |root: Root| TableFormat::X86FirstStage { levels: root.height + 1, sign_extended: true };
        agrees(format, read_as, base, &steps);
    }

    #[test]
    fn amd_tables_are_read_as_they_were_written(steps in steps(), top in 0_u32..6) {
        let base = if top == 0 { 0 } else { 1 << (20 + 8 * top) };
        let read_as = |root: Root| TableFormat::AmdV1 { levels: root.height + 1 };
        agrees(AmdV1::new(AmdOptions::default()).unwrap(), read_as, base, &steps);
    }

    #[test]
    fn arm_stages_1_are_read_as_they_were_written(steps in steps(), upper_half in any::<bool>()) {
        let stage = ArmStage::One { upper_half, hardware_dirty: false };
        let base = |bits: u8| if upper_half { u64::MAX << bits } else { 0 };
        let options = |bits| ArmOptions { input_bits: bits, output_bits: bits, upper_half, ..ArmOptions::default() };
        let (k4, k16, k64) = (options(39), options(48), options(52));
        agrees(ArmStage1::<Pages4K>::new(k4).unwrap(), arm(stage, ArmGranule::K4, 39, 39), base(39), &steps);
        agrees(ArmStage1::<Pages16K>::new(k16).unwrap(), arm(stage, ArmGranule::K16, 48, 48), base(48), &steps);
        agrees(ArmStage1::<Pages64K>::new(k64).unwrap(), arm(stage, ArmGranule::K64, 52, 52), base(52), &steps);
    }

    #[test]
    fn arm_stages_2_are_read_as_they_were_written(steps in steps()) {
        let options = |input_bits, output_bits| ArmOptions { input_bits, output_bits, ..ArmOptions::default() };
        let two = |start_level| ArmStage::Two { start_level };
        // 40 bits in and out of 4 KiB pages: two tables of level 1 side by side.
        for (input, output, start) in [(40, 40, 1), (48, 48, 0), (43, 42, 1), (39, 40, 1)] {
            let format = ArmStage2::<Pages4K>::new(options(input, output)).unwrap();
            agrees(format, arm(two(start), ArmGranule::K4, input, output), 1 << (input - 1), &steps);
        }
        let format = ArmStage2::<Pages16K>::new(options(48, 48)).unwrap();
        agrees(format, arm(two(1), ArmGranule::K16, 48, 48), 1 << 47, &steps);
        let format = ArmStage2::<Pages64K>::new(options(52, 52)).unwrap();
        agrees(format, arm(two(1), ArmGranule::K64, 52, 52), 1 << 51, &steps);
    }
}

#[test]
fn addresses_beyond_what_a_table_translates_are_out_of_range() {
    let arena = SharedArena::new(8);
    let root = PhysAddr::new(0x4000_0000);
    let walk = |format, at| {
        let tables = Tables { format, root, memory: Arc::new(arena.clone()) };
        tables.walk(BusAddr::new(at)).unwrap_err()
    };
    let out = FaultReason::OutOfRange;
    let vtd = TableFormat::VtdSecondStage { levels: 3 };
    assert_eq!((walk(vtd, 1 << 39), walk(TableFormat::AmdV1 { levels: 2 }, 1 << 30)), (out, out));
    let x86 = |sign_extended| TableFormat::X86FirstStage { levels: 4, sign_extended };
    assert_eq!((walk(x86(true), 1 << 47), walk(x86(true), u64::MAX >> 1)), (out, out));
    assert_eq!((walk(x86(false), 1 << 48), walk(x86(false), u64::MAX)), (out, out));
    assert_eq!(walk(arm(STAGE1, ArmGranule::K4, 39, 48)(Root { at: root, height: 0, level: 0 }), 1 << 39), out);
}
