//! Marks of writes.

use super::*;
use alloc::vec::Vec;

fn dirty<F: Format>(table: &Bench<'_, F>, iova: u64, len: u64, clear: bool) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    let answer = table.table.read_dirty(range(iova, len), clear, &mut |range| {
        found.push((range.start().as_u64(), range.len().as_u64()));
    });
    answer.unwrap();
    found
}

#[test]
fn written_pages_are_reported_joined_and_cleared() {
    let arena = arena(64);
    let mut table = Bench::new(vtd(), &arena);
    table.map(0x5000, 0, 4 * PAGE).unwrap();
    table.map(LARGE, LARGE, LARGE).unwrap();
    for at in [0x5000, 0x6000, 0x8000, LARGE + 0x3000] {
        table.device_writes(at);
    }
    let all = [(0x5000, 2 * PAGE), (0x8000, PAGE), (LARGE, LARGE)];
    assert_eq!(dirty(&table, 0, HUGE, false), all);
    // A part of a page is reported for that part, and clears the whole.
    assert_eq!(dirty(&table, LARGE + PAGE, PAGE, true), [(LARGE + PAGE, PAGE)]);
    assert_eq!(dirty(&table, 0, HUGE, true), all[..2]);
    assert_eq!(dirty(&table, 0, HUGE, true), []);
}

#[test]
fn a_page_in_several_entries_is_dirty_as_a_whole() {
    let arena = arena(64);
    let mut table = Bench::new(amd(), &arena);
    table.map(0x4020_0000, 0x9020_0000, 0x1_0000).unwrap();
    table.device_writes(0x4020_5000);
    assert_eq!(dirty(&table, 0, 1 << 45, false), [(0x4020_0000, 0x1_0000)]);
    assert_eq!(dirty(&table, 0x4020_8000, 0x4000, true), [(0x4020_8000, 0x4000)]);
    assert_eq!(dirty(&table, 0, HUGE * 4, false), []);
    assert_eq!(dirty(&table, 1 << 45, PAGE, false), []);
}

#[test]
fn arm_pages_start_dirty_and_are_clean_when_read_only_again() {
    let arena = arena(64);
    let mut table = Bench::new(arm1(ArmOptions { hardware_dirty: true, ..ArmOptions::default() }), &arena);
    table.map(0x5000, 0x3_abcd_e000, PAGE).unwrap();
    assert_eq!(table.entry(0x5000), 0x0008_0003_abcd_ee43);
    assert_eq!(dirty(&table, 0, HUGE, true), [(0x5000, PAGE)]);
    assert_eq!(table.entry(0x5000), 0x0008_0003_abcd_eec3);
    assert_eq!(table.table.walk(Iova::new(0x5000)).unwrap().prot, Prot::ReadWrite);
    assert_eq!(dirty(&table, 0, HUGE, false), []);
    table.device_writes(0x5000);
    assert_eq!(dirty(&table, 0, HUGE, false), [(0x5000, PAGE)]);
}

#[test]
fn formats_without_marks_say_so() {
    let arena = arena(64);
    let fault = |answer: Result<(), DirtyFault>| answer.unwrap_err();
    let table = Bench::new(x86(), &arena);
    let none = fault(table.table.read_dirty(range(0, PAGE), false, &mut |_| {}));
    assert_eq!((none, none.linux_errno(Family::GenericPt)), (DirtyFault::NotTracked, "EOPNOTSUPP"));
    let table = Bench::new(arm2(ArmOptions::default()), &arena);
    let none = fault(table.table.read_dirty(range(0, PAGE), false, &mut |_| {}));
    assert_eq!((none, none.linux_errno(Family::IoPgtable)), (DirtyFault::NotTracked, "EINVAL"));
    let table = Bench::new(vtd(), &arena);
    let out = fault(table.table.read_dirty(range(1 << 48, PAGE), false, &mut |_| {}));
    assert_eq!(out, DirtyFault::IovaOutOfRange { at: Iova::new(1 << 48) });
}
