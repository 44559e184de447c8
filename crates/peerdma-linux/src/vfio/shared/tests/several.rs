//! Buffers of several ranges: one to whoever imports them, and range by range to a space.

use super::*;

/// Two ranges that are not neighbours, the later one first.
fn two() -> [BarRange; 2] {
    let bar = BarIndex::new(2).unwrap();
    let range = |at, pages| BarRange::new(bar, Bytes::new(at * PAGE), Bytes::new(pages * PAGE)).unwrap();
    [range(3, 1), range(0, 2)]
}

fn import(bench: &Bench, need: Need) -> Result<DmaImport<Space, Fake>, ImportError> {
    let exported = bench.device.export_ranges("rings", &two(), Owner::Device(OwnerId::new(1))).unwrap();
    assert_eq!((exported.size(), exported.ranges()), (Bytes::new(3 * PAGE), &two()[..]));
    let iova = AddrRange::new(Iova::new(1 << 32), exported.size()).unwrap();
    let tables = (Declaration::of_tables("edu's", Prot::ReadWrite), Prot::ReadWrite);
    DmaImport::attach("edu", &exported, bench.space.clone(), iova, tables, vouched(), need, ())
}

fn mapped(bench: &Bench) -> Vec<(u64, u64)> {
    let space = lock(&bench.space);
    space.mapped.iter().map(|iova| (iova.start().as_u64() - (1 << 32), iova.len().as_u64())).collect()
}

#[test]
fn a_buffer_of_several_ranges_is_a_dma_buf_for_each_at_consecutive_addresses() {
    let bench = Bench::new(true);
    let import = import(&bench, Need::Required).unwrap();
    assert_eq!(said(&bench.log), ["export", "dma files", "export", "dma files"]);
    assert_eq!(mapped(&bench), [(0, PAGE), (PAGE, 2 * PAGE)]);
    bench.device.perform(Deed::Reset, LONG).unwrap();
    let again = ["dma off", "dma off", "reset", "export", "dma files", "export", "dma files"];
    assert_eq!(said(&bench.log), again);
    assert!(matches!(import.state(), ImportState::Mapped(_)));
    drop(import);
    assert!(mapped(&bench).is_empty());
}

#[test]
fn where_one_range_is_refused_none_is_mapped_and_the_buffer_waits_for_nobody() {
    let bench = Bench::new(true);
    let room = lock(&bench.space).room.clone();
    room.store(1, Ordering::Relaxed);
    assert!(matches!(import(&bench, Need::Required), Err(ImportError::Space(MapError::Kernel { .. }))));
    let import = import(&bench, Need::BestEffort).unwrap();
    assert!(matches!(import.state(), ImportState::Failed(ImportError::Space(_))) && mapped(&bench).is_empty());
    bench.device.perform(Deed::Reset, LONG).unwrap();
    room.store(2, Ordering::Relaxed);
    assert!(matches!(import.retry(), ImportState::Mapped(_)));
    assert_eq!(mapped(&bench).len(), 2);
}

/// Half of a buffer must not pass for the buffer: the range that was unmapped would be found missing by its user.
#[test]
fn a_space_that_lets_go_of_one_range_and_keeps_another_is_stuck_until_it_lets_go_of_both() {
    let bench = Bench::new(true);
    let import = import(&bench, Need::Required).unwrap();
    let patience = lock(&bench.space).patience.clone();
    patience.store(1, Ordering::Relaxed);
    let announced = bench.device.announce(Deed::Reset).unwrap();
    assert!(matches!(import.state(), ImportState::Stuck(ImportError::Unmap(_))));
    assert_eq!(mapped(&bench), [(0, PAGE)]);
    said(&bench.log);
    drop(announced);
    assert!(matches!(import.state(), ImportState::Stuck(ImportError::Unmap(_))));
    assert!(matches!(bench.device.perform(Deed::Reset, SHORT), Err(DeedError::Late { .. })));
    patience.store(usize::MAX, Ordering::Relaxed);
    bench.device.perform(Deed::Reset, LONG).unwrap();
    assert!(matches!(import.state(), ImportState::Mapped(_)));
    assert_eq!(mapped(&bench), [(0, PAGE), (PAGE, 2 * PAGE)]);
}

#[test]
fn ranges_that_are_no_buffer_together_are_refused_by_name() {
    let bench = Bench::new(false);
    let owner = Owner::Device(OwnerId::new(1));
    let page =
        |bar: u8, at: u64| BarRange::new(BarIndex::new(bar).unwrap(), Bytes::new(at * PAGE), Bytes::new(PAGE)).unwrap();
    let refused = |ranges: &[BarRange]| bench.device.export_ranges("x", ranges, owner).map(drop).unwrap_err();
    assert_eq!(refused(&[]), ShareError::NoRanges);
    assert_eq!(refused(&[page(2, 0), page(4, 0)]), ShareError::TwoBars { first: page(2, 0), other: page(4, 0) });
    assert!(matches!(refused(&[page(2, 0), page(2, 4)]), ShareError::Range(MapBarError::Outside { .. })));
    assert!(matches!(refused(&[page(4, 0)]), ShareError::Range(MapBarError::Absent { .. })));
    let one = Chunk::new(owner, Bytes::ZERO, Bytes::new(PAGE), MemAttrs::MMIO).unwrap();
    let offer = Offer::new(Chunks::collect_from([one]).unwrap(), Stays::UNTIL_REVOKED, Place::Ram).unwrap();
    let short = bench.device.export_as("x", &[page(2, 0), page(2, 1)], offer).map(drop).unwrap_err();
    assert_eq!(short, ShareError::Length { offered: Bytes::new(PAGE), ranges: Bytes::new(2 * PAGE) });
    assert_eq!(bench.device.buffers().len(), 1, "the one of the bench");
}

#[test]
fn ranges_that_the_device_does_not_have_are_no_buffers() {
    let bench = Bench::new(false);
    let export = |bar: u8, at: u64, len: u64| {
        let range = BarRange::new(BarIndex::new(bar).unwrap(), Bytes::new(at), Bytes::new(len)).unwrap();
        bench.device.export("x", range, Owner::Device(OwnerId::new(1))).map(drop)
    };
    assert!(matches!(export(0, 0, PAGE), Err(ShareError::Range(MapBarError::Absent { .. }))));
    assert!(matches!(export(2, 4 * PAGE, PAGE), Err(ShareError::Range(MapBarError::Outside { .. }))));
    assert!(export(2, PAGE, PAGE).is_ok());
}
