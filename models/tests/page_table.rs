//! One page table, several threads, each with IOVAs of its own and tables in common.

#![cfg(peerdma_shuttle)]
#![expect(clippy::unwrap_used, reason = "helpers of models")]

use peerdma::access::{MemAttrs, Prot};
use peerdma::addr::{AddrRange, Bytes, Iova, PhysAddr};
use peerdma::iopt::{
    AmdOptions, AmdV1, ArmOptions, ArmStage1, Cursor, Format, Gather, NotTranslated, PageTable, Quiesced, TableMemory,
    VtdOptions, VtdSecondStage, Walk,
};
use peerdma_models::frames::Frames;
use peerdma_models::orders;
use shuttle::sync::atomic::Ordering;
use shuttle::thread;
use std::sync::Arc;

const PAGE: u64 = 0x1000;
const TWO_MEGABYTES: u64 = 0x20_0000;

type Tables<F> = Arc<PageTable<F, Frames>>;

fn range(start: u64, len: u64) -> AddrRange<Iova> {
    AddrRange::new(Iova::new(start), Bytes::new(len)).unwrap()
}

fn tables<F: Format>(format: F) -> (Tables<F>, Frames) {
    let frames = Frames::new(24);
    (Arc::new(PageTable::new(format, frames.clone()).unwrap()), frames)
}

/// Three levels, so that there is not much to walk.
fn vtd() -> VtdSecondStage {
    VtdSecondStage::new(VtdOptions { input_bits: 39, ..VtdOptions::default() }).unwrap()
}

fn amd() -> AmdV1 {
    AmdV1::new(AmdOptions::default()).unwrap()
}

fn arm() -> ArmStage1 {
    ArmStage1::new(ArmOptions { input_bits: 39, ..ArmOptions::default() }).unwrap()
}

fn map<F: Format>(table: &Tables<F>, cursor: &mut Cursor, iova: u64, to: u64, len: u64) {
    let leaf = table.leaf(Prot::ReadWrite, MemAttrs::empty());
    table.map(cursor, range(iova, len), PhysAddr::new(to), leaf).unwrap();
}

fn unmap<F: Format>(table: &Tables<F>, cursor: &mut Cursor, iova: u64, len: u64) {
    let mut gather = Gather::new();
    assert_eq!(table.unmap(cursor, range(iova, len), &mut gather).as_u64(), len);
    assert!(gather.range().is_some());
}

fn walk<F: Format>(table: &Tables<F>, iova: u64) -> Walk {
    table.walk(Iova::new(iova))
}

#[track_caller]
fn leads_to<F: Format>(table: &Tables<F>, iova: u64, to: u64) {
    assert_eq!(walk(table, iova).map(|found| found.pa), Ok(PhysAddr::new(to)), "{iova:#x}");
}

#[track_caller]
fn is_empty<F: Format>(table: &Tables<F>, iova: u64) {
    assert_eq!(walk(table, iova).map_err(|end| end.why), Err(NotTranslated::NotPresent), "{iova:#x}");
}

/// No frame but those of tables, which are as many as counted.
#[track_caller]
fn holds_its_tables_only<F: Format>(table: &Tables<F>, frames: &Frames, expected: usize) {
    table.reclaim_quiesced(Quiesced::promise());
    assert_eq!((table.tables(), frames.live()), (expected, expected));
}

/// Two threads need the same missing tables at once; one makes them, and both use those.
fn neighbours_map<F: Format + Send + Sync + 'static>(format: F) {
    let levels = usize::from(format.shape().height()) + 1;
    let (table, frames) = tables(format);
    let other = {
        let table = Arc::clone(&table);
        thread::spawn(move || map(&table, &mut Cursor::new(), PAGE, 0x20_0000_1000, PAGE))
    };
    map(&table, &mut Cursor::new(), 2 * PAGE, 0x30_0000_2000, PAGE);
    other.join().unwrap();
    leads_to(&table, PAGE, 0x20_0000_1000);
    leads_to(&table, 2 * PAGE, 0x30_0000_2000);
    is_empty(&table, 0);
    holds_its_tables_only(&table, &frames, levels);
}

#[test]
fn two_that_need_the_same_missing_tables_lose_neither_page_nor_frame() {
    orders::some(3000, || neighbours_map(vtd()));
    orders::some(1000, || neighbours_map(amd()));
    orders::some(1000, || neighbours_map(arm()));
}

#[test]
fn no_order_of_two_mappings_that_make_one_table_loses_anything() {
    const MOST: usize = 200_000;
    let orders = orders::all(MOST, || {
        let (table, frames) = tables(vtd());
        // All but the leaf table is there, and both know where.
        let mut cursor = Cursor::new();
        map(&table, &mut cursor, 5 * TWO_MEGABYTES, 0, PAGE);
        let mut others = cursor.clone();
        let other = {
            let table = Arc::clone(&table);
            thread::spawn(move || map(&table, &mut others, PAGE, 0x20_0000_1000, PAGE))
        };
        map(&table, &mut cursor, 2 * PAGE, 0x30_0000_2000, PAGE);
        other.join().unwrap();
        leads_to(&table, PAGE, 0x20_0000_1000);
        leads_to(&table, 2 * PAGE, 0x30_0000_2000);
        holds_its_tables_only(&table, &frames, 4);
    });
    assert!((100..MOST).contains(&orders), "{orders} orders are not all, or not two threads'");
}

#[test]
fn three_threads_map_and_unmap_beside_each_other() {
    orders::some(2000, || {
        let (table, frames) = tables(vtd());
        let threads: Vec<_> = (1..3_u64)
            .map(|thread| {
                let table = Arc::clone(&table);
                thread::spawn(move || {
                    let (mut cursor, iova) = (Cursor::new(), thread * PAGE);
                    map(&table, &mut cursor, iova, thread << 32, PAGE);
                    leads_to(&table, iova, thread << 32);
                    unmap(&table, &mut cursor, iova, PAGE);
                    is_empty(&table, iova);
                    map(&table, &mut cursor, iova, thread << 33, PAGE);
                })
            })
            .collect();
        map(&table, &mut Cursor::new(), TWO_MEGABYTES, 0x40_0000_0000, PAGE);
        for thread in threads {
            thread.join().unwrap();
        }
        for thread in 1..3_u64 {
            leads_to(&table, thread * PAGE, thread << 33);
        }
        leads_to(&table, TWO_MEGABYTES, 0x40_0000_0000);
        holds_its_tables_only(&table, &frames, 4);
    });
}

/// An IOMMU walks while others map: it finds a page as it is or none, and nothing else.
#[test]
fn a_walker_finds_a_whole_translation_or_none() {
    orders::some(3000, || {
        let (table, frames) = tables(vtd());
        let mapper = {
            let table = Arc::clone(&table);
            thread::spawn(move || {
                let mut cursor = Cursor::new();
                map(&table, &mut cursor, PAGE, 0x20_0000_1000, PAGE);
                unmap(&table, &mut cursor, PAGE, PAGE);
                map(&table, &mut cursor, PAGE, 0x50_0000_3000, PAGE);
            })
        };
        let neighbour = {
            let table = Arc::clone(&table);
            thread::spawn(move || map(&table, &mut Cursor::new(), 2 * PAGE, 0x30_0000_2000, PAGE))
        };
        for _ in 0..3 {
            match walk(&table, PAGE + 0x123) {
                Ok(found) => assert!([0x20_0000_1123, 0x50_0000_3123].contains(&found.pa.as_u64()), "{found:?}"),
                Err(end) => assert_eq!(end.why, NotTranslated::NotPresent),
            }
        }
        mapper.join().unwrap();
        neighbour.join().unwrap();
        leads_to(&table, PAGE, 0x50_0000_3000);
        leads_to(&table, 2 * PAGE, 0x30_0000_2000);
        holds_its_tables_only(&table, &frames, 3);
    });
}

/// A table goes as a whole beside one that is in use below the same directory.
#[test]
fn a_table_that_is_taken_out_takes_nobody_elses_page_along() {
    orders::some(1500, || {
        let (table, frames) = tables(arm());
        let mut cursor = Cursor::new();
        map(&table, &mut cursor, 0, 0x20_0000_0000, PAGE);
        let neighbour = {
            let table = Arc::clone(&table);
            thread::spawn(move || {
                let mut cursor = Cursor::new();
                map(&table, &mut cursor, TWO_MEGABYTES, 0x30_0000_0000, PAGE);
                map(&table, &mut cursor, TWO_MEGABYTES + PAGE, 0x30_0000_5000, PAGE);
            })
        };
        // The whole stretch of its owner's leaf table, and then pages in a new one.
        unmap(&table, &mut cursor, 0, TWO_MEGABYTES);
        map(&table, &mut cursor, PAGE, 0x50_0000_0000, PAGE);
        neighbour.join().unwrap();
        is_empty(&table, 0);
        leads_to(&table, PAGE, 0x50_0000_0000);
        leads_to(&table, TWO_MEGABYTES, 0x30_0000_0000);
        leads_to(&table, TWO_MEGABYTES + PAGE, 0x30_0000_5000);
        holds_its_tables_only(&table, &frames, 4);
    });
}

/// A walker that stands in a table while it is taken out still ends well.
#[test]
fn a_walk_into_a_table_that_is_taken_out_ends_with_nothing_or_the_old_page() {
    orders::some(1500, || {
        let (table, frames) = tables(arm());
        let mut cursor = Cursor::new();
        map(&table, &mut cursor, 0, 0x20_0000_0000, PAGE);
        let walker = {
            let table = Arc::clone(&table);
            thread::spawn(move || match walk(&table, 0) {
                Ok(found) => assert!([0x20_0000_0000, 0x60_0000_0000].contains(&found.pa.as_u64()), "{found:?}"),
                Err(end) => assert_eq!(end.why, NotTranslated::NotPresent),
            })
        };
        unmap(&table, &mut cursor, 0, TWO_MEGABYTES);
        // A block where the table was.
        map(&table, &mut cursor, 0, 0x60_0000_0000, TWO_MEGABYTES);
        walker.join().unwrap();
        leads_to(&table, PAGE, 0x60_0000_1000);
        holds_its_tables_only(&table, &frames, 2);
    });
}

#[test]
fn a_split_changes_no_translation_at_any_moment() {
    orders::some(300, || {
        let (table, frames) = tables(vtd());
        map(&table, &mut Cursor::new(), 0, 0x20_0000_0000, TWO_MEGABYTES);
        let walker = {
            let table = Arc::clone(&table);
            thread::spawn(move || {
                for page in [0, 3, 511] {
                    leads_to(&table, page * PAGE, 0x20_0000_0000 + page * PAGE);
                }
            })
        };
        table.split(Iova::new(3 * PAGE)).unwrap();
        walker.join().unwrap();
        assert_eq!(walk(&table, 3 * PAGE).unwrap().page_size.as_u64(), PAGE);
        holds_its_tables_only(&table, &frames, 3);
    });
}

/// Where the entry is that translates an IOVA in three levels of VT-d, and whether it is a leaf of 4K.
fn entry_of(frames: &Frames, root: PhysAddr, iova: u64) -> (PhysAddr, usize, bool) {
    let mut at = root;
    for height in [2, 1] {
        let index = (iova >> (12 + 9 * height)) as usize % 512;
        let entry = frames.frame(at).unwrap()[index].load(Ordering::Acquire);
        if entry & 0x80 != 0 {
            return (at, index, false);
        }
        at = PhysAddr::new(entry & 0xf_ffff_ffff_f000);
    }
    (at, (iova >> 12) as usize % 512, true)
}

/// Marks the leaf for a write, as an IOMMU does: if it is still what was read.
fn device_writes(frames: &Frames, root: PhysAddr, iova: u64) {
    loop {
        let (at, index, small) = entry_of(frames, root, iova);
        let slot = &frames.frame(at).unwrap()[index];
        let entry = slot.load(Ordering::Acquire);
        if !small && entry & 0x80 == 0 {
            continue;
        }
        let marked = slot.compare_exchange(entry, entry | 1 << 9, Ordering::AcqRel, Ordering::Relaxed);
        if marked.is_ok() {
            return;
        }
    }
}

#[test]
fn a_write_during_a_split_stays_known() {
    orders::some(300, || {
        let (table, frames) = tables(vtd());
        map(&table, &mut Cursor::new(), 0, 0x20_0000_0000, TWO_MEGABYTES);
        let device = {
            let (frames, root) = (frames.clone(), table.root().at);
            thread::spawn(move || device_writes(&frames, root, 7 * PAGE))
        };
        table.split(Iova::new(3 * PAGE)).unwrap();
        device.join().unwrap();
        let mut dirty = 0;
        table.read_dirty(range(7 * PAGE, PAGE), false, &mut |range| dirty += range.len().as_u64()).unwrap();
        assert_eq!(dirty, PAGE);
        holds_its_tables_only(&table, &frames, 3);
    });
}

#[test]
fn a_write_while_marks_are_cleared_is_in_this_answer_or_the_next() {
    orders::some(1000, || {
        let (table, frames) = tables(vtd());
        map(&table, &mut Cursor::new(), 0, 0x20_0000_0000, PAGE);
        let device = {
            let (frames, root) = (frames.clone(), table.root().at);
            thread::spawn(move || device_writes(&frames, root, 0))
        };
        let mut dirty = 0;
        let mut ask = || {
            table.read_dirty(range(0, PAGE), true, &mut |range| dirty += range.len().as_u64()).unwrap();
        };
        ask();
        device.join().unwrap();
        ask();
        assert_eq!(dirty, PAGE);
        leads_to(&table, 0, 0x20_0000_0000);
    });
}

#[test]
fn a_replaced_page_leads_to_the_old_place_or_the_new_one() {
    orders::some(1500, || {
        let (table, frames) = tables(vtd());
        let mut cursor = Cursor::new();
        map(&table, &mut cursor, 0, 0x20_0000_0000, 3 * PAGE);
        let walker = {
            let table = Arc::clone(&table);
            thread::spawn(move || {
                let found = walk(&table, PAGE).unwrap().pa.as_u64();
                assert!([0x20_0000_1000, 0x50_0000_0000].contains(&found), "{found:#x}");
            })
        };
        let leaf = table.leaf(Prot::Read, MemAttrs::empty());
        table.replace(&mut cursor, range(PAGE, PAGE), PhysAddr::new(0x50_0000_0000), leaf).unwrap();
        walker.join().unwrap();
        leads_to(&table, PAGE, 0x50_0000_0000);
        leads_to(&table, 2 * PAGE, 0x20_0000_2000);
        holds_its_tables_only(&table, &frames, 3);
    });
}

/// AMD's root grows below a mapping that is in use, twice at once.
#[test]
fn a_root_that_grows_hides_nothing_and_grows_once() {
    const FAR: u64 = 1 << 40;
    orders::some(1500, || {
        let (table, frames) = tables(amd());
        map(&table, &mut Cursor::new(), PAGE, 0x20_0000_0000, PAGE);
        let grower = {
            let table = Arc::clone(&table);
            thread::spawn(move || map(&table, &mut Cursor::new(), FAR, 0x30_0000_0000, PAGE))
        };
        let walker = {
            let table = Arc::clone(&table);
            thread::spawn(move || {
                leads_to(&table, PAGE, 0x20_0000_0000);
                leads_to(&table, PAGE, 0x20_0000_0000);
            })
        };
        map(&table, &mut Cursor::new(), FAR + PAGE, 0x30_0000_1000, PAGE);
        grower.join().unwrap();
        walker.join().unwrap();
        assert_eq!(table.root().height, 3);
        leads_to(&table, PAGE, 0x20_0000_0000);
        leads_to(&table, FAR, 0x30_0000_0000);
        leads_to(&table, FAR + PAGE, 0x30_0000_1000);
        holds_its_tables_only(&table, &frames, 7);
    });
}
