//! Splitting and replacing: everything but the one page stays as it was.

use super::*;

#[test]
fn a_split_leaf_translates_as_before() {
    let arena = arena(64);
    fn claim<F: Format>(mut table: Bench<'_, F>) {
        table.map(HUGE, 2 * HUGE, HUGE).unwrap();
        let before = table.table.tables();
        table.table.split(Iova::new(HUGE + LARGE + PAGE)).unwrap();
        assert_eq!(table.table.tables(), before + 2);
        for at in [0, LARGE, LARGE + PAGE, 2 * LARGE - 1, 2 * LARGE, HUGE - 1] {
            assert_eq!(table.walk(HUGE + at).map(|found| found.0), Some(2 * HUGE + at));
        }
        assert_eq!(table.walk(HUGE).map(|found| found.1), Some(LARGE));
        // Where nothing crosses there is nothing to do.
        table.table.split(Iova::new(HUGE + LARGE + PAGE)).unwrap();
        table.table.split(Iova::new(0)).unwrap();
        assert_eq!(table.table.tables(), before + 2);
        let (cursor, gather) = (&mut table.cursor, &mut table.gather);
        let page = range(HUGE + LARGE + PAGE, PAGE);
        assert_eq!(table.table.unmap(cursor, page, gather), page.len());
        assert_eq!(table.walk(HUGE + LARGE), Some((2 * HUGE + LARGE, PAGE)));
        assert_eq!(table.walk(HUGE + LARGE + PAGE), None);
    }
    claim(Bench::new(vtd(), &arena));
    claim(Bench::new(x86(), &arena));
    claim(Bench::new(amd(), &arena));
    claim(Bench::new(arm1(ArmOptions::default()), &arena));
    claim(Bench::new(arm2(ArmOptions::default()), &arena));
}

#[test]
fn a_page_in_several_entries_is_split_in_place_and_keeps_its_mark() {
    let arena = arena(64);
    let mut table = Bench::new(amd(), &arena);
    table.map(0x1_0000, 0x9_0000, 0x1_0000).unwrap();
    table.device_writes(0x1_5000);
    table.table.split(Iova::new(0x1_3000)).unwrap();
    for page in 0..16 {
        // Marked everywhere: the device may have written anywhere in the page.
        assert_eq!(table.entry(0x1_0000 + page * PAGE), 0x7000_0000_0009_0041 + page * PAGE);
    }
}

#[test]
fn what_cannot_be_split_says_why() {
    let arena = arena(5);
    let only = VtdOptions { page_sizes: Some(PageSizes::from_bitmap(PAGE | HUGE)), ..VtdOptions::default() };
    let mut table = Bench::new(VtdSecondStage::new(only).unwrap(), &arena);
    table.map(HUGE, HUGE, HUGE).unwrap();
    let (at, page) = (Iova::new(HUGE + LARGE), Bytes::new(HUGE));
    assert_eq!(table.table.split(at), Err(SplitError::NoSmallerPage { at, page }));
    drop(table);
    let mut table = Bench::new(vtd(), &arena);
    table.map(HUGE, HUGE, HUGE).unwrap();
    table.map(512 * HUGE, 0, HUGE).unwrap();
    let at = Iova::new(HUGE + LARGE + PAGE);
    assert_eq!(table.table.split(at), Ok(()));
    let at = Iova::new(512 * HUGE + PAGE);
    assert_eq!(table.table.split(at), Err(SplitError::NoMemory { at }));
    assert_eq!(table.walk(512 * HUGE), Some((0, HUGE)));
    let at = Iova::new(0x800);
    assert_eq!(table.table.split(at), Err(SplitError::Misaligned { at, page: Bytes::new(PAGE) }));
    let at = Iova::new(1 << 48);
    assert_eq!(table.table.split(at), Err(SplitError::IovaOutOfRange { at }));
}

#[test]
fn one_page_of_a_large_mapping_is_replaced_after_a_split() {
    let arena = arena(64);
    let mut table = Bench::new(vtd(), &arena);
    table.map(0, LARGE, LARGE).unwrap();
    let (page, to) = (range(0x5000, PAGE), PhysAddr::new(0x7777_7000));
    let leaf = table.table.leaf(Prot::Read, MemAttrs::empty());
    let crosses = ReplaceError::Crosses { at: page.start(), page: Bytes::new(LARGE) };
    assert_eq!(table.table.replace(&mut table.cursor, page, to, leaf), Err(crosses));
    table.table.split(Iova::new(0x5000)).unwrap();
    table.table.split(Iova::new(0x6000)).unwrap();
    table.device_writes(0x5000);
    assert_eq!(table.table.replace(&mut table.cursor, page, to, leaf), Ok(()));
    // Read only, so that no mark of the old page is carried over.
    assert_eq!(table.entry(0x5000), 0x7777_7001);
    assert_eq!(table.walk(0x4000), Some((LARGE + 0x4000, PAGE)));
    assert_eq!(table.walk(0x6000), Some((LARGE + 0x6000, PAGE)));
    table.device_writes(0x6000);
    let leaf = table.table.leaf(Prot::ReadWrite, MemAttrs::empty());
    table.table.replace(&mut table.cursor, range(0x6000, PAGE), to, leaf).unwrap();
    assert_eq!(table.entry(0x6000), 0x7777_7203);
}

#[test]
fn a_replacement_that_does_not_fit_changes_nothing() {
    let arena = arena(64);
    let mut table = Bench::new(vtd(), &arena);
    table.map(0, 0, PAGE).unwrap();
    table.map(LARGE, LARGE, LARGE).unwrap();
    let leaf = table.table.leaf(Prot::ReadWrite, MemAttrs::empty());
    let mut replace = |at, len, to| table.table.replace(&mut table.cursor, range(at, len), PhysAddr::new(to), leaf);
    let hole = Iova::new(PAGE);
    assert_eq!(replace(0, 2 * PAGE, 0x9000), Err(ReplaceError::NotMapped { at: hole }));
    let (at, to) = (Iova::new(LARGE), PhysAddr::new(PAGE));
    assert_eq!(replace(LARGE, LARGE, PAGE), Err(ReplaceError::SourceMisaligned { at, to, page: Bytes::new(LARGE) }));
    assert_eq!(replace(0, PAGE, 1 << 52), Err(ReplaceError::OutOfRange { at: Iova::new(0) }));
    assert_eq!(table.walk(0), Some((0, PAGE)));
    assert_eq!(table.walk(LARGE), Some((LARGE, LARGE)));
}
