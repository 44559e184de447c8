//! Which pages a run becomes.

use super::*;

#[test]
fn entries_are_those_of_the_documentation() {
    let arena = arena(64);
    let (iova, pa) = (0x7_1234_5000, 0x3_abcd_e000);
    let leaf = |entry: u64| entry & !0x000f_ffff_ffff_f000;

    let mut table = Bench::new(vtd(), &arena);
    table.map(iova, pa, PAGE).unwrap();
    assert_eq!(table.entry(iova), 0x3_abcd_e003);
    // Large pages have the page-size bit.
    table.map(0x1_0020_0000, 0x2_0020_0000, LARGE).unwrap();
    assert_eq!(table.entry(0x1_0020_0000), 0x2_0020_0083);

    let mut table = Bench::new(x86(), &arena);
    table.map(iova, pa, PAGE).unwrap();
    assert_eq!(table.entry(iova), 0x3_abcd_e067);

    let mut table = Bench::new(amd(), &arena);
    table.map(iova, pa, PAGE).unwrap();
    assert_eq!(table.entry(iova), 0x7000_0003_abcd_e001);

    let mut table = Bench::new(arm1(ArmOptions::default()), &arena);
    table.map(iova, pa, PAGE).unwrap();
    assert_eq!(table.entry(iova), 0x3_abcd_ee43);
    table.map(0x1_0020_0000, 0x2_0020_0000, LARGE).unwrap();
    assert_eq!(table.entry(0x1_0020_0000), 0x2_0020_0e41);

    let mut table = Bench::new(arm2(ArmOptions::default()), &arena);
    table.map(iova, pa, PAGE).unwrap();
    assert_eq!(table.entry(iova), 0x3_abcd_e6d7);
    assert_eq!(leaf(table.entry(iova)), 0x6d7);
}

#[test]
fn tables_point_down_with_all_rights() {
    let arena = arena(64);
    let root = |entry: u64| entry & !0x000f_ffff_ffff_f000;
    let mut table = Bench::new(vtd(), &arena);
    table.map(0, 0, PAGE).unwrap();
    let first = |at: PhysAddr| arena.frame(at).unwrap()[0].load(Ordering::Relaxed);
    assert_eq!(root(first(table.table.root().at)), 0x3);

    let mut table = Bench::new(amd(), &arena);
    table.map(0, 0, PAGE).unwrap();
    // NextLevel of the third level's entries is 2.
    assert_eq!(root(first(table.table.root().at)), 0x6000_0000_0000_0401);
}

#[test]
fn a_page_is_the_largest_that_iova_address_and_length_allow() {
    let arena = arena(64);
    let mut table = Bench::new(vtd(), &arena);
    // 4 KiB up to a large page, a huge one, and 4 KiB behind.
    let start = HUGE - LARGE - PAGE;
    table.map(start, 8 * HUGE + start, PAGE + LARGE + HUGE + PAGE).unwrap();
    let sizes: Vec<_> = [start, HUGE - LARGE, HUGE, 2 * HUGE].map(|at| table.walk(at).unwrap()).to_vec();
    let expected = [(start, PAGE), (HUGE - LARGE, LARGE), (HUGE, HUGE), (2 * HUGE, PAGE)];
    assert_eq!(sizes, expected.map(|(at, size)| (8 * HUGE + at, size)));
    assert_eq!(table.walk(2 * HUGE + PAGE), None);
    // Not congruent: small pages, however long.
    table.map(16 * HUGE, PAGE, 2 * LARGE).unwrap();
    assert_eq!(table.walk(16 * HUGE + LARGE), Some((LARGE + PAGE, PAGE)));
}

#[test]
fn amd_pages_of_any_power_of_two_stand_in_every_entry_they_cover() {
    let arena = arena(64);
    let mut table = Bench::new(amd(), &arena);
    table.map(0x4020_0000, 0x1_2345_0000, 0x1_0000).unwrap();
    // 64 KiB: three ones above the page offset, NextLevel 7.
    for page in 0..16 {
        assert_eq!(table.entry(0x4020_0000 + page * PAGE), 0x7000_0001_2345_7e01);
    }
    assert_eq!(table.entry(0x4021_0000), 0);
    assert_eq!(table.walk(0x4020_5678), Some((0x1_2345_5678, 0x1_0000)));
    // 512 GiB would be one page that fills a table; it becomes two.
    let mut table = Bench::new(amd(), &arena);
    table.map(0, 0, 1 << 39).unwrap();
    assert_eq!(table.walk(1 << 38), Some((1 << 38, 1 << 38)));
}

#[test]
fn amd_tables_grow_at_the_top_and_keep_what_is_mapped() {
    let arena = arena(64);
    let mut table = Bench::new(amd(), &arena);
    table.map(PAGE, 0x7000, PAGE).unwrap();
    let before = table.table.root();
    table.map(1 << 39, 0x8000, PAGE).unwrap();
    let after = table.table.root();
    assert_eq!((before.height, after.height), (2, 3));
    assert_eq!(table.walk(PAGE), Some((0x7000, PAGE)));
    assert_eq!(table.walk(1 << 39), Some((0x8000, PAGE)));
    // A device that was told the old root still finds what was there.
    let old = walk_tables(table.table.format(), &&arena, before, Iova::new(PAGE)).unwrap();
    assert_eq!(old.pa, PhysAddr::new(0x7000));
    table.map(0u64.wrapping_sub(PAGE), 0x9000, PAGE).unwrap();
    assert_eq!(table.table.root().height, 5);
    assert_eq!(table.walk(u64::MAX), Some((0x9fff, PAGE)));
}

#[test]
fn arm_stage_two_puts_tables_side_by_side_where_it_must() {
    let arena = arena(64);
    let mut table = Bench::new(arm2(ArmOptions { input_bits: 40, output_bits: 40, ..ArmOptions::default() }), &arena);
    assert_eq!((table.table.root().level, arena.in_use()), (1, 2));
    // A block at each side of the seam of the two roots.
    table.map((1 << 39) - HUGE, 0, 2 * HUGE).unwrap();
    assert_eq!(table.walk(1 << 39), Some((HUGE, HUGE)));
    assert_eq!(table.unmap((1 << 39) - HUGE, 2 * HUGE), 2 * HUGE);
    assert_eq!(table.table.tables(), 1);
    let aligned = table.table.root().at.as_u64();
    assert_eq!(aligned % 0x2000, 0);
}

/// 30 bits are one page of 1 GiB, and no entry of the root is that large.
#[test]
fn a_block_larger_than_an_entry_of_the_root_is_never_chosen() {
    let arena = arena(64);
    let options = ArmOptions { input_bits: 30, ..ArmOptions::default() };
    let mut table = Bench::new(arm1(options), &arena);
    table.map(0, 4 * HUGE, HUGE).unwrap();
    assert_eq!(table.walk(HUGE - 1), Some((5 * HUGE - 1, LARGE)));
    assert_eq!(table.unmap(0, HUGE), HUGE);
    assert_eq!(table.walk(0), None);
}

#[test]
fn the_upper_half_is_translated_where_the_format_says() {
    let arena = arena(64);
    let mut table = Bench::new(x86(), &arena);
    let upper = 0xffff_8000_0000_0000;
    table.map(upper, 0x5000, PAGE).unwrap();
    assert_eq!(table.walk(upper), Some((0x5000, PAGE)));
    let fault = |result: Result<(), MapFault>| result.unwrap_err().kind;
    // The page below it is not canonical, and no run crosses the gap.
    assert_eq!(fault(table.map(upper - PAGE, 0, PAGE)), MapFaultKind::IovaOutOfRange);
    assert_eq!(fault(table.map(0x7fff_ffff_f000, 0, 2 * PAGE)), MapFaultKind::IovaOutOfRange);

    let ttbr1 = ArmOptions { input_bits: 39, upper_half: true, ..ArmOptions::default() };
    let mut table = Bench::new(arm1(ttbr1), &arena);
    table.map(0xffff_ff80_0000_0000, 0x5000, PAGE).unwrap();
    assert_eq!(fault(table.map(0x5000, 0, PAGE)), MapFaultKind::IovaOutOfRange);
    assert_eq!(table.walk(0xffff_ff80_0000_0000), Some((0x5000, PAGE)));
}

#[test]
fn large_granules_have_large_tables() {
    let arena = arena(256);
    let options = ArmOptions { input_bits: 52, output_bits: 52, ..ArmOptions::default() };
    let format = ArmStage1::<Pages64K>::new(options).unwrap();
    let table = PageTable::new(format, &arena).unwrap();
    let mut cursor = Cursor::new();
    let leaf = table.leaf(Prot::ReadWrite, MemAttrs::NOT_SNOOPED);
    // Output bits 51:48 stand in bits 15:12.
    let (iova, to) = (range(0x1_0000, 0x4_0000), PhysAddr::new(0xf_0000_0001_0000));
    table.map(&mut cursor, iova, to, leaf).unwrap();
    let found = table.walk(Iova::new(0x2_0000)).unwrap();
    assert_eq!((found.pa.as_u64(), found.entry), (0xf_0000_0002_0000, 0x0000_0000_0002_fe43));
    // An index past the first frame of a table.
    table.map(&mut cursor, range(0x1fff_0000, 0x1_0000), PhysAddr::new(0), leaf).unwrap();
    assert!(table.walk(Iova::new(0x1fff_0000)).is_ok() && table.walk(Iova::new(0x1ffe_0000)).is_err());
}

#[test]
fn a_table_above_can_take_rights_away_and_grant_none() {
    let arena = arena(64);
    let mut table = Bench::new(vtd(), &arena);
    table.map(0, 0, PAGE).unwrap();
    let slot = &arena.frame(table.table.root().at).unwrap()[0];
    let entry = slot.load(Ordering::Relaxed);
    let prot = |rights: u64| {
        slot.store(entry & !3 | rights, Ordering::Relaxed);
        table.table.walk(Iova::new(0)).map(|found| found.prot).map_err(|end| end.why)
    };
    assert_eq!((prot(1), prot(2), prot(3)), (Ok(Prot::Read), Ok(Prot::Write), Ok(Prot::ReadWrite)));
    // Neither: the table is not there.
    assert_eq!(prot(0), Err(NotTranslated::NotPresent));
}

#[test]
fn two_that_need_the_same_table_share_one_and_no_frame_is_lost() {
    let arena = arena(64);
    for _ in 0..200 {
        let table = PageTable::new(vtd(), &arena).unwrap();
        let leaf = table.leaf(Prot::ReadWrite, MemAttrs::empty());
        let start = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            for page in 0..2 {
                let (table, start) = (&table, &start);
                scope.spawn(move || {
                    start.wait();
                    let mut cursor = Cursor::new();
                    table.map(&mut cursor, range(page * PAGE, PAGE), PhysAddr::new(page * PAGE), leaf).unwrap();
                });
            }
        });
        assert!(table.walk(Iova::new(0)).is_ok() && table.walk(Iova::new(PAGE)).is_ok());
        assert_eq!((table.tables(), arena.in_use()), (4, 4));
    }
    assert_eq!(arena.in_use(), 0);
}
