//! Tables written by hand, entry by entry, from the layouts in the specifications.

use super::domain;
use crate::iommu::walk::Leaf;
use crate::iommu::{ArmGranule, ArmStage, FaultReason, TableFormat};
use peerdma::addr::{AddrRange, BusAddr, Bytes, Iova};

use FaultReason::{AccessFlag, BadEntry, NotMapped, OutOfRange};

fn walk(format: TableFormat, words: &[(u64, u64)], at: u64) -> Result<Leaf, FaultReason> {
    domain(format, words).tables.walk(BusAddr::new(at))
}

fn leaf(shift: u32, base: u64, rights: &str) -> Result<Leaf, FaultReason> {
    let has = |right| rights.contains(right);
    Ok(Leaf { shift, base, read: has('r'), write: has('w'), user: has('u') })
}

/// The root in 0x1000, and a table each level below it, whose entries for address 0 lead down.
const VTD: TableFormat = TableFormat::VtdSecondStage { levels: 4 };
const DOWN: [(u64, u64); 3] = [(0x1000, 0x2003), (0x2000, 0x3003), (0x3000, 0x4003)];

fn vtd(entry: (u64, u64), at: u64) -> Result<Leaf, FaultReason> {
    walk(VTD, &[DOWN.as_slice(), &[entry]].concat(), at)
}

#[test]
fn vtd_pages_have_the_rights_of_all_levels() {
    assert_eq!(vtd((0x4008, 0x8_1234_5003), 0x1abc), leaf(12, 0x8_1234_5000, "rwu"));
    // Snoop control, dirty, accessed, memory type and ignored bits do not matter.
    assert_eq!(vtd((0x4008, 0xbff0_0008_1234_5b7a), 0x1abc), leaf(12, 0x8_1234_5000, "wu"));
    assert_eq!(vtd((0x4008, 0x8_1234_5000), 0x1abc), Err(NotMapped));
    let only_reads = [(0x1000, 0x2001), (0x2000, 0x3003), (0x3000, 0x4003), (0x4000, 0x5003)];
    assert_eq!(walk(VTD, &only_reads, 0), leaf(12, 0x5000, "ru"));
    let nothing_left = [(0x1000, 0x2001), (0x2000, 0x3003), (0x3000, 0x4003), (0x4000, 0x5002)];
    assert_eq!(walk(VTD, &nothing_left, 0), leaf(12, 0x5000, "u"));
}

#[test]
fn vtd_large_pages_are_aligned_and_no_larger_than_1_gib() {
    assert_eq!(vtd((0x3008, 0x1_2340_0083), 0x20_0abc), leaf(21, 0x1_2340_0000, "rwu"));
    assert_eq!(vtd((0x2008, 0x1_4000_0081), 0x4000_0abc), leaf(30, 0x1_4000_0000, "ru"));
    assert_eq!(vtd((0x3008, 0x1_2340_1083), 0x20_0000), Err(BadEntry));
    assert_eq!(vtd((0x2008, 0x1_2000_0083), 0x4000_0000), Err(BadEntry));
    assert_eq!(vtd((0x1008, 0x83), 1 << 39), Err(BadEntry));
}

#[test]
fn an_entry_that_leads_out_of_the_tables_memory_is_bad() {
    assert_eq!(vtd((0x3000, 0x0100_0000_0003), 0), Err(BadEntry));
    assert_eq!(vtd((0x1000, 0x000f_ffff_ffff_f003), 0), Err(BadEntry));
}

#[test]
fn x86_pages_are_for_users_where_all_levels_say_so() {
    let x86 = TableFormat::X86FirstStage { levels: 4, sign_extended: true };
    let with = |entries: &[(u64, u64)], at| walk(x86, entries, at);
    let down = [(0x1000, 0x2007), (0x2000, 0x3007), (0x3000, 0x4007)];
    let and = |entry: (u64, u64)| [down.as_slice(), &[entry]].concat();
    // Present, writable, user, accessed, dirty; no-execute does not matter.
    assert_eq!(with(&and((0x4000, 0x8000_0000_1234_5067)), 0xfff), leaf(12, 0x1234_5000, "rwu"));
    assert_eq!(with(&and((0x4000, 0x1234_5005)), 0), leaf(12, 0x1234_5000, "ru"));
    assert_eq!(with(&and((0x4000, 0x1234_5003)), 0), leaf(12, 0x1234_5000, "rw"));
    assert_eq!(with(&and((0x4000, 0x1234_5066)), 0), Err(NotMapped));
    let above = [(0x1000, 0x2003), (0x2000, 0x3005), (0x3000, 0x4007), (0x4000, 0x5007)];
    assert_eq!(with(&above, 0), leaf(12, 0x5000, "r"));
    // Bit 12 of a large page is a memory type, those above it up to the page's size are reserved.
    assert_eq!(with(&and((0x3008, 0x4020_1087)), 0x20_0000), leaf(21, 0x4020_0000, "rwu"));
    assert_eq!(with(&and((0x3008, 0x4020_2087)), 0x20_0000), Err(BadEntry));
    assert_eq!(with(&[(0x1000, 0x2087)], 0), Err(BadEntry));
    // The upper half begins in the middle of the root.
    let upper = [(0x1800, 0x2007), (0x2000, 0x3007), (0x3000, 0x4007), (0x4000, 0x5007)];
    assert_eq!(with(&upper, 0xffff_8000_0000_0000), leaf(12, 0x5000, "rwu"));
    assert_eq!(with(&upper, 0x0000_8000_0000_0000), Err(OutOfRange));
}

#[test]
fn amd_pages_tell_their_size() {
    let amd = TableFormat::AmdV1 { levels: 3 };
    let down = [(0x1000, 0x6000_0000_0000_2401), (0x2000, 0x6000_0000_0000_3201)];
    let with = |entry: (u64, u64), at| walk(amd, &[down.as_slice(), &[entry]].concat(), at);
    // The manual's example of 64 KiB: next level 7, ones in bits 14:12.
    let k64 = (0x3080, 0x7000_0001_2345_7e01);
    assert_eq!(with(k64, 0x1_0abc), leaf(16, 0x1_2345_0000, "rwu"));
    assert_eq!(with((0x3008, 0x3000_0000_0000_5001), 0x1000), leaf(12, 0x5000, "ru"));
    assert_eq!(with((0x3008, 0x5000_0000_0000_5001), 0x1000), leaf(12, 0x5000, "wu"));
    assert_eq!(with((0x2008, 0x7000_0000_4020_0001), 0x20_0000), leaf(21, 0x4020_0000, "rwu"));
    assert_eq!(with((0x3008, 0x7000_0000_0000_5000), 0x1000), Err(NotMapped));
    // Reserved bits, a size that the level does not have, a misaligned page, a level that is not below.
    for entry in [0x7010_0000_0000_5001, 0x7000_0000_000f_fe01, 0x6000_0000_0000_3301] {
        assert_eq!(with((0x3008, entry), 0x1000), Err(BadEntry), "{entry:#x}");
    }
    assert_eq!(with((0x2008, 0x7000_0000_0000_1001), 0x20_0000), Err(BadEntry));
    assert_eq!(with((0x2008, 0x6000_0000_0000_3401), 0x20_0000), Err(BadEntry));
}

#[test]
fn an_amd_level_may_be_skipped_where_its_address_bits_are_zero() {
    let amd = TableFormat::AmdV1 { levels: 3 };
    let words = [(0x1008, 0x6000_0000_0000_3201), (0x3008, 0x7000_0000_0000_5001)];
    assert_eq!(walk(amd, &words, 0x4000_1000), leaf(12, 0x5000, "rwu"));
    assert_eq!(walk(amd, &words, 0x4020_1000), Err(NotMapped));
}

const fn arm(stage: ArmStage, granule: ArmGranule) -> TableFormat {
    TableFormat::ArmLpae { stage, granule, input_bits: 39, output_bits: 48, access_flag_faults: true }
}

#[test]
fn arm_stage_1_rights_are_restricted_by_the_tables_above() {
    let format = arm(ArmStage::One { upper_half: false, hardware_dirty: true }, ArmGranule::K4);
    let with = |above: u64, page: u64| walk(format, &[(0x1000, above), (0x2000, 0x3003), (0x3000, page)], 0);
    // Valid page, access flag, inner shareable, unprivileged.
    assert_eq!(with(0x2003, 0x5743), leaf(12, 0x5000, "rwu"));
    assert_eq!(with(0x2003, 0x5703), leaf(12, 0x5000, "rw"));
    assert_eq!(with(0x2003, 0x57c3), leaf(12, 0x5000, "ru"));
    // Clean, and to be marked by the write: DBM with AP[2].
    assert_eq!(with(0x2003, 0x0008_0000_0000_57c3), leaf(12, 0x5000, "rwu"));
    // APTable: read-only, privileged only.
    assert_eq!(with(0x4000_0000_0000_2003, 0x5743), leaf(12, 0x5000, "ru"));
    assert_eq!(with(0x2000_0000_0000_2003, 0x5743), leaf(12, 0x5000, "rw"));
    // The contiguous hint (bit 52) is none of a walk's business; a clear access flag is, and so is bit 1.
    assert_eq!(with(0x2003, 0x0010_0000_0000_5743), leaf(12, 0x5000, "rwu"));
    assert_eq!(with(0x2003, 0x5343), Err(AccessFlag));
    assert_eq!(with(0x2003, 0x5741), Err(BadEntry));
    assert_eq!(with(0x2003, 0x5742), Err(NotMapped));
    assert_eq!(with(0x4000_0741, 0), leaf(30, 0x4000_0000, "rwu"));
    assert_eq!(with(0x4020_0741, 0), Err(BadEntry));
}

#[test]
fn arm_stage_2_tables_stand_side_by_side() {
    let stage = ArmStage::Two { start_level: 1 };
    let format = TableFormat::ArmLpae {
        stage,
        granule: ArmGranule::K4,
        input_bits: 40,
        output_bits: 40,
        access_flag_faults: false,
    };
    // The second of two tables of level 1 begins at 2^39. S2AP in bits 7:6; no access flag.
    let words = [(0x2008, 0x4000_0041), (0x1000, 0x8000_0081), (0x2010, 0xc1_0000_00c1)];
    assert_eq!(walk(format, &words, 0x80_4000_0abc), leaf(30, 0x4000_0000, "ru"));
    assert_eq!(walk(format, &words, 0xabc), leaf(30, 0x8000_0000, "wu"));
    assert_eq!(walk(format, &words, 0x80_8000_0000), leaf(30, 0xc1_0000_0000, "rwu"));
    assert_eq!(walk(format, &[(0x1000, 0x0100_0000_00c1)], 0), Err(BadEntry), "2^40 is beyond the output");
    assert_eq!(walk(format, &[], 1 << 40), Err(OutOfRange));
}

#[test]
fn arm_blocks_are_as_large_as_their_granule_has_them() {
    let one = ArmStage::One { upper_half: false, hardware_dirty: false };
    // 16 KiB: 39 bits take levels 2 and 3 below one of level 1 with eight entries.
    let k16 = arm(one, ArmGranule::K16);
    assert_eq!(walk(k16, &[(0x1000, 0x8003), (0x8008, 0x0400_0741)], 1 << 25), leaf(25, 0x0400_0000, "rwu"));
    assert_eq!(walk(k16, &[(0x1000, 0x741)], 0), Err(BadEntry), "no blocks at level 1");
    // nT, bit 16, is a hint.
    assert_eq!(walk(k16, &[(0x1000, 0x8003), (0x8008, 0x0401_0741)], 1 << 25), leaf(25, 0x0400_0000, "rwu"));
    let k64 = TableFormat::ArmLpae {
        stage: one,
        granule: ArmGranule::K64,
        input_bits: 52,
        output_bits: 52,
        access_flag_faults: true,
    };
    // Bits 51:48 of the address stand in 15:12.
    assert_eq!(walk(k64, &[(0x1000, 0x0001_0003), (0x1_0000, 0x2000_a741)], 0), leaf(29, 0xa_0000_2000_0000, "rwu"));
    assert_eq!(walk(k64, &[(0x1008, 0xf741)], 1 << 42), leaf(42, 0xf_0000_0000_0000, "rwu"));
}

#[test]
fn tces_are_big_endian_and_start_with_the_window() {
    let window = AddrRange::new(Iova::new(0x8000_0000), Bytes::new(0x4_0000)).unwrap();
    let format = TableFormat::Tce { window, page_shift: 16 };
    let words = [(0x1000, 0x1_2345_0003_u64.to_be()), (0x1008, 0x5_0002_u64.to_be()), (0x1010, 0x5_0000_u64.to_be())];
    assert_eq!(walk(format, &words, 0x8000_0abc), leaf(16, 0x1_2345_0000, "rwu"));
    assert_eq!(walk(format, &words, 0x8001_ffff), leaf(16, 0x5_0000, "wu"));
    assert_eq!(walk(format, &words, 0x8002_0000), Err(NotMapped));
    assert_eq!(
        (walk(format, &words, 0x7fff_ffff), walk(format, &words, 0x8004_0000)),
        (Err(OutOfRange), Err(OutOfRange))
    );
}
