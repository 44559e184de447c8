//! M1 and M2: bytes that describe 1 GiB.

use super::lists::SHIFT;
use crate::draw::Draw;
use crate::peers::iotlb;
use crate::row::{Bound, Figure, Gate, Row, Side, Turn};
use peerdma::access::{MemAttrs, Prot};
use peerdma::addr::{AddrRange, Bytes, Iova, PhysAddr};
use peerdma::chunk::{Chunk, Chunks};
use peerdma::dma::Owner;
use peerdma::iopt::{Cursor, FrameArena, PageTable, VtdOptions, VtdSecondStage};
use std::hint::black_box;

/// Single pages of 1 GiB.
const SCATTERED: u64 = 1 << 18;

/// The header of the one group of pages of one owner.
const HEADER: u64 = 64;

/// The rows of this file.
pub fn rows() -> Vec<Row> {
    vec![bytes_a_range(), with_tables()]
}

fn bytes_a_range() -> Row {
    Row {
        sides: vec![
            Side::new("Chunks", || kept(chunks(&scattered()))).units(SCATTERED),
            Side::new("Iotlb", || {
                let pages = scattered().into_iter().enumerate();
                let pages: Vec<_> = pages.map(|(nth, (target, _))| ((nth as u64) << SHIFT, target)).collect();
                kept(iotlb::filled(&pages))
            })
            .units(SCATTERED),
        ],
        gates: vec![
            // The value itself lies where the bench keeps it, on the heap too.
            Gate::Held { of: "Chunks", most: 8.0, fixed: HEADER + size_of::<Chunks<Owner>>() as u64 },
            Gate::HeldRatio { of: "Chunks", to: "Iotlb", most: 1.0 / 7.0 },
        ],
        ..Row::new("M1", "a list of 262144 scattered pages", "range")
    }
}

fn with_tables() -> Row {
    Row { figures: totals, ..Row::new("M2", "list and page tables of 1 GiB", "GiB") }
}

fn totals() -> Vec<Figure> {
    // As performance is stated: 8.5 KB, 1.7 MB and 4.3 MB, counted in thousands.
    let kinds = [
        ("contiguous", vec![(MEMORY, SCATTERED)], 8_500.0),
        ("mixed", mixed(), 1_700_000.0),
        ("scattered", scattered(), 4_300_000.0),
    ];
    let figure = |(what, ranges, most): (&str, Vec<(u64, u64)>, f64)| Figure {
        what: what.to_owned(),
        value: total(&ranges) as f64,
        unit: "bytes",
        bound: Bound::Most(most),
        gates: true,
    };
    kinds.into_iter().map(figure).collect()
}

const MEMORY: u64 = 0x1_0000_0000;

/// As many pages in ranges of so many, none next to another, in an order of their own.
fn apart(pages: u64, count: u64, from: u64) -> Vec<(u64, u64)> {
    (0..count).map(|nth| (from + ((nth * 2 * pages) << SHIFT), pages)).collect()
}

fn scattered() -> Vec<(u64, u64)> {
    let mut ranges = apart(1, SCATTERED, MEMORY);
    Draw::new(13).shuffle(&mut ranges);
    ranges
}

/// 256 ranges of 2 MiB, 4096 of 64 KiB and 65536 single pages.
fn mixed() -> Vec<(u64, u64)> {
    let kinds = [(512, 256, 1u64), (16, 4096, 2), (1, 65_536, 3)];
    kinds.into_iter().flat_map(|(pages, count, place)| apart(pages, count, place << 32)).collect()
}

/// Keeps what was built, and does nothing.
fn kept(value: impl Sized + 'static) -> Turn {
    Box::new(move |_| {
        black_box(&value);
    })
}

fn chunks(ranges: &[(u64, u64)]) -> Chunks<Owner> {
    let chunk = |&(target, pages): &(u64, u64)| {
        Chunk::new(Owner::Ram, Bytes::new(target), Bytes::new(pages << SHIFT), MemAttrs::empty())
    };
    let Ok(list) = Chunks::collect_from(ranges.iter().filter_map(chunk)) else { unreachable!("1 GiB is not too long") };
    assert_eq!(list.ranges(), ranges.len(), "no two ranges touch");
    list
}

/// Bytes of the list, the value itself among them, and of the tables that map it one range behind the other.
fn total(ranges: &[(u64, u64)]) -> u64 {
    let list = chunks(ranges).metadata().as_u64() + size_of::<Chunks<Owner>>() as u64;
    let arena = FrameArena::new(PhysAddr::new(1 << 40), 1024);
    let format = VtdSecondStage::new(VtdOptions::default());
    let Some(table) = format.ok().and_then(|format| PageTable::new(format, &arena).ok()) else {
        unreachable!("an arena has a frame for the root")
    };
    let (leaf, mut cursor) = (table.leaf(Prot::ReadWrite, MemAttrs::empty()), Cursor::new());
    let mut at = 1 << 32;
    for &(target, pages) in ranges {
        let range = AddrRange::new(Iova::new(at), Bytes::new(pages << SHIFT));
        let mapped = range.map(|range| table.map(&mut cursor, range, PhysAddr::new(target), leaf));
        assert!(matches!(mapped, Some(Ok(()))), "{mapped:?}");
        at += pages << SHIFT;
    }
    list + table.table_bytes().as_u64()
}
