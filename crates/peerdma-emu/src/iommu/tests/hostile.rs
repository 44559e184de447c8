//! Bytes that are no tables, and descriptions that no table has.

use crate::iommu::{ArmGranule, ArmStage, TableBytes, TableFormat, Tables};
use peerdma::addr::{AddrRange, BusAddr, Bytes, Iova, PhysAddr};
use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Words that follow from their address, with some bits always set; counts how often it is read.
struct Noise {
    seed: u64,
    set: u64,
    reads: AtomicU32,
}

impl TableBytes for Noise {
    fn word(&self, at: PhysAddr) -> Option<u64> {
        assert_eq!(at.as_u64() % 8, 0, "a word is aligned");
        self.reads.fetch_add(1, Ordering::Relaxed);
        let mixed = (at.as_u64() ^ self.seed).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        Some(mixed.wrapping_mul(0xbf58_476d_1ce4_e5b9) | self.set)
    }
}

fn formats() -> impl Strategy<Value = TableFormat> {
    let levels = 0_u8..10;
    let stage = prop_oneof![
        any::<(bool, bool)>().prop_map(|(upper_half, hardware_dirty)| ArmStage::One { upper_half, hardware_dirty }),
        (0_u8..6).prop_map(|start_level| ArmStage::Two { start_level }),
    ];
    let granule = prop_oneof![Just(ArmGranule::K4), Just(ArmGranule::K16), Just(ArmGranule::K64)];
    let arm = (stage, granule, any::<u8>(), any::<u8>(), any::<bool>());
    let arm_near = (10_u8..60, 30_u8..60);
    prop_oneof![
        levels.clone().prop_map(|levels| TableFormat::VtdSecondStage { levels }),
        (levels.clone(), any::<bool>())
            .prop_map(|(levels, sign_extended)| TableFormat::X86FirstStage { levels, sign_extended }),
        levels.prop_map(|levels| TableFormat::AmdV1 { levels }),
        (arm, arm_near, any::<bool>()).prop_map(|((stage, granule, wild_in, wild_out, flag), near, wild)| {
            let (input_bits, output_bits) = if wild { (wild_in, wild_out) } else { near };
            TableFormat::ArmLpae { stage, granule, input_bits, output_bits, access_flag_faults: flag }
        }),
        (any::<u64>(), 1..u64::MAX, any::<u8>()).prop_map(|(start, len, page_shift)| {
            let window = AddrRange::new(Iova::new(start), Bytes::new(len.min(u64::MAX - start).max(1)));
            let whole = AddrRange::new(Iova::new(0), Bytes::new(u64::MAX));
            TableFormat::Tce { window: window.or(whole).unwrap(), page_shift }
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn whatever_stands_in_memory_ends_a_walk_after_a_step_a_level(
        format in formats(),
        seed in any::<u64>(),
        set in prop_oneof![Just(0), Just(1), Just(3), Just(0x6000_0000_0000_0001), any::<u64>()],
        root in any::<u64>(),
        address in any::<u64>(),
        bits in 0_u32..64,
    ) {
        let noise = Arc::new(Noise { seed, set, reads: AtomicU32::new(0) });
        let root = PhysAddr::new(root & !0xfff);
        let tables = Tables { format, root, memory: Arc::<Noise>::clone(&noise) };
        let at = address >> bits;
        if let Ok(leaf) = tables.walk(BusAddr::new(at)) {
            prop_assert!((12..64).contains(&leaf.shift));
            prop_assert_eq!(leaf.base & ((1 << leaf.shift) - 1), 0);
        }
        prop_assert!(noise.reads.load(Ordering::Relaxed) <= 6);
    }
}

/// A table that leads to itself at every level.
#[test]
fn a_loop_ends() {
    let itself = |format, entry| {
        let words = (0..512).map(|n| (0x1000 + n * 8, entry)).collect();
        let memory = Arc::new(super::Words(words));
        Tables { format, root: PhysAddr::new(0x1000), memory }.walk(BusAddr::new(0))
    };
    // The last level takes its entry for a page.
    let page = itself(TableFormat::VtdSecondStage { levels: 5 }, 0x1003).unwrap();
    assert_eq!((page.base, page.shift), (0x1000, 12));
    assert!(itself(TableFormat::AmdV1 { levels: 6 }, 0x6000_0000_0000_1201).is_err());
}
