//! What goes when something is unmapped, and what devices are told.

use super::*;

#[test]
fn a_hole_ends_an_unmapping() {
    let arena = arena(64);
    fn claim<F: Format>(mut table: Bench<'_, F>) {
        table.map(0x5000, 0, 2 * PAGE).unwrap();
        table.map(0x9000, 0x8000, PAGE).unwrap();
        assert_eq!(table.unmap(0x5000, 6 * PAGE), 2 * PAGE);
        assert_eq!(table.unmap(0x4000, 6 * PAGE), 0);
        assert_eq!(table.walk(0x9000), Some((0x8000, PAGE)));
        // Cold and warm cursors agree.
        table.cursor = Cursor::new();
        assert_eq!(table.unmap(0x8000, 2 * PAGE), 0);
        assert_eq!(table.unmap(0x9000, PAGE), PAGE);
    }
    claim(Bench::new(vtd(), &arena));
    claim(Bench::new(amd(), &arena));
    claim(Bench::new(arm1(ArmOptions::default()), &arena));
}

#[test]
fn a_part_of_a_leaf_takes_all_of_it_or_nothing() {
    let arena = arena(64);
    fn claim<F: Format>(mut table: Bench<'_, F>, end_inside: u64) {
        table.map(LARGE, 8 * LARGE, 2 * LARGE).unwrap();
        // From inside: nothing.
        assert_eq!(table.unmap(LARGE + PAGE, PAGE), 0);
        assert_eq!(table.unmap(2 * LARGE - PAGE, LARGE + PAGE), 0);
        assert_eq!(table.unmap(LARGE, PAGE), end_inside);
        assert_eq!(table.walk(2 * LARGE), Some((9 * LARGE, LARGE)));
    }
    claim(Bench::new(vtd(), &arena), LARGE);
    claim(Bench::new(x86(), &arena), LARGE);
    claim(Bench::new(arm1(ArmOptions::default()), &arena), 0);
    claim(Bench::new(arm2(ArmOptions::default()), &arena), 0);
    let mut table = Bench::new(amd(), &arena);
    table.map(0, 0, 0x1_0000).unwrap();
    assert_eq!((table.unmap(PAGE, PAGE), table.unmap(0, PAGE)), (0, 0x1_0000));
}

#[test]
fn less_than_a_page_is_not_unmapped() {
    let arena = arena(64);
    let mut table = Bench::new(vtd(), &arena);
    table.map(0x5000, 0, 4 * PAGE).unwrap();
    assert_eq!((table.unmap(0x5800, PAGE), table.unmap(0x5000, 0x800)), (0, 0));
    assert!(table.walk(0x5000).is_some() && table.gather.is_empty());
}

#[test]
fn a_table_that_lay_in_the_range_waits_for_its_reclaim() {
    let arena = arena(64);
    let mut table = Bench::new(vtd(), &arena);
    table.map(0, PAGE, 2 * LARGE).unwrap();
    let tables = table.table.tables();
    assert_eq!(table.unmap(0, 2 * LARGE), 2 * LARGE);
    assert_eq!((table.table.tables(), arena.in_use()), (tables - 2, tables));
    assert!(table.gather.tables_freed());
    assert_eq!(table.gather.range(), Some(range(0, 2 * LARGE)));
    assert_eq!((table.table.reclaim(), arena.in_use()), (2, tables - 2));
    // One that was merely emptied stays until somebody looks for it.
    table.map(0, PAGE, PAGE).unwrap();
    assert_eq!((table.unmap(0, PAGE), table.table.reclaim()), (PAGE, 0));
    assert_eq!((table.table.prune(), table.table.tables(), arena.in_use()), (3, 1, 1));
}

#[test]
fn a_cursor_does_not_remember_a_table_that_was_taken_out() {
    let arena = arena(64);
    let mut table = Bench::new(vtd(), &arena);
    let mut other = Cursor::new();
    let leaf = table.table.leaf(Prot::ReadWrite, MemAttrs::empty());
    table.table.map(&mut other, range(0, PAGE), PhysAddr::new(0), leaf).unwrap();
    table.map(PAGE, 2 * PAGE, LARGE - PAGE).unwrap();
    assert_eq!(table.unmap(0, LARGE), LARGE);
    table.table.reclaim();
    // The frame is another table by now.
    table.map(4 * HUGE, 0, PAGE).unwrap();
    table.table.map(&mut other, range(0, PAGE), PhysAddr::new(0x7000), leaf).unwrap();
    assert_eq!(table.walk(0), Some((0x7000, PAGE)));
    assert_eq!(table.walk(4 * HUGE), Some((0, PAGE)));
    assert_eq!(table.walk(4 * HUGE + PAGE), None);
}

#[test]
fn a_cursor_of_another_table_is_not_believed() {
    let arena = arena(64);
    let mut one = Bench::new(vtd(), &arena);
    one.map(0, 0, PAGE).unwrap();
    let mut two = Bench::new(vtd(), &arena);
    two.cursor = one.cursor.clone();
    two.map(PAGE, 0x9000, PAGE).unwrap();
    assert_eq!((one.walk(PAGE), two.walk(PAGE)), (None, Some((0x9000, PAGE))));
    let cursor = two.cursor.clone();
    let root = two.table.root();
    drop(two);
    // The next table has the same root and knows nothing of the cursor's.
    let mut three = Bench::new(vtd(), &arena);
    three.cursor = cursor;
    assert_eq!(three.table.root(), root);
    three.map(2 * PAGE, 0xa000, PAGE).unwrap();
    assert_eq!(three.walk(2 * PAGE), Some((0xa000, PAGE)));
}

#[test]
fn what_is_gathered_covers_the_gaps_and_names_the_smallest_page() {
    let arena = arena(64);
    let mut table = Bench::new(vtd(), &arena);
    table.map(0x5000, 0, PAGE).unwrap();
    table.map(LARGE, LARGE, LARGE).unwrap();
    assert_eq!(table.unmap(LARGE, LARGE) + table.unmap(0x5000, PAGE), LARGE + PAGE);
    assert_eq!(table.gather.range(), Some(range(0x5000, 2 * LARGE - 0x5000)));
    assert_eq!(table.gather.removed(), Bytes::new(LARGE + PAGE));
    assert_eq!(table.gather.page_size(), Some(Bytes::new(PAGE)));
    assert!(table.gather.mixes_page_sizes() && !table.gather.tables_freed());
}

#[test]
fn dropping_a_table_gives_every_frame_back() {
    let arena = arena(512);
    fn claim<F: Format>(mut table: Bench<'_, F>) {
        table.map(0, PAGE, 3 * LARGE).unwrap();
        table.map(9 * HUGE, HUGE, HUGE + PAGE).unwrap();
        table.unmap(0, LARGE);
    }
    claim(Bench::new(vtd(), &arena));
    claim(Bench::new(amd(), &arena));
    claim(Bench::new(arm2(ArmOptions { output_bits: 40, input_bits: 40, ..ArmOptions::default() }), &arena));
    assert_eq!(arena.in_use(), 0);
}
