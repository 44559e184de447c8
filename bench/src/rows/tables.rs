//! PT1, PT2, PT7: page tables alone.

use crate::draw::Draw;
use crate::limits::known_table::KnownTables;
use crate::peers::multiarch;
use crate::row::{Gate, Row, Side, Turn};
use std::hint::black_box;

/// 1 GiB, and where in IOVAs and memory it lies; memory is not aligned to it, so that no
/// one entry maps all.
const GIB: u64 = 1 << 30;
const IOVA: u64 = 4 * GIB;
const TARGET: u64 = 8 * GIB + LARGE;

/// A large page.
const LARGE: u64 = 2 << 20;

/// 4 KiB pages of 1 GiB.
const PAGES: u64 = GIB / 4096;

/// The rows of this file.
pub fn rows() -> Vec<Row> {
    vec![small_pages(), large_pages(), random_pages()]
}

fn small_pages() -> Row {
    Row {
        sides: vec![
            ours::SMALL.units(PAGES).turns(2, 1),
            Side::new("page_table_multiarch", || multiarch_gib(false)).units(PAGES).turns(1, 1).reference(164.0),
            Side::new("L", || known(512, 4096)).units(PAGES).turns(4, 1).reference(4.4),
        ],
        gates: vec![
            Gate::Instructions { of: "peerdma", most: 20.0 },
            Gate::Ratio { of: "peerdma", to: "L", most: 3.0 },
            Gate::Ratio { of: "peerdma", to: "page_table_multiarch", most: 0.30 },
        ],
        ..Row::new("PT1", "map and unmap 1 GiB as 4 KiB pages", "page")
    }
}

fn large_pages() -> Row {
    Row {
        sides: vec![
            ours::LARGE.units(512).turns(1_000, 100),
            Side::new("page_table_multiarch", || multiarch_gib(true)).units(512).turns(200, 20).reference(148.0),
            Side::new("L", || known(1, LARGE)).units(512).turns(4_000, 100).reference(4.5),
        ],
        gates: vec![
            Gate::Instructions { of: "peerdma", most: 20.0 },
            Gate::Ratio { of: "peerdma", to: "L", most: 3.0 },
        ],
        ..Row::new("PT2", "map and unmap 1 GiB as 2 MiB pages", "entry")
    }
}

fn random_pages() -> Row {
    Row {
        sides: vec![
            ours::RANDOM.units(PAGES).turns(1, 1),
            Side::new("page_table_multiarch", multiarch_random).units(PAGES).turns(1, 1),
            Side::new("L", known_random).units(PAGES).turns(1, 1),
        ],
        gates: vec![
            Gate::Instructions { of: "peerdma", most: 400.0 },
            Gate::Ratio { of: "peerdma", to: "page_table_multiarch", most: 1.2 },
        ],
        ..Row::new("PT7", "map 1 GiB page by page in random order, and unmap it so", "page")
    }
}

/// Pages of the GiB in random order, with random targets.
fn random_order() -> Vec<(u64, u64)> {
    let mut draw = Draw::new(11);
    let mut targets: Vec<u64> = (0..PAGES).map(|page| TARGET + (page << 12)).collect();
    draw.shuffle(&mut targets);
    let mut order: Vec<_> = (0..PAGES).map(|page| page << 12).zip(targets).collect();
    draw.shuffle(&mut order);
    order
}

fn known(tables: usize, step: u64) -> Turn {
    let known = KnownTables::new(tables);
    Box::new(move |turns| {
        for _ in 0..turns {
            black_box(&known).fill(black_box(TARGET), step);
            black_box(&known).clear();
        }
    })
}

fn known_random() -> Turn {
    let (known, order) = (KnownTables::new(512), random_order());
    Box::new(move |turns| {
        for _ in 0..turns {
            for &(offset, target) in &order {
                black_box(&known).map_page((offset >> 12) as usize, target);
            }
            for &(offset, _) in &order {
                black_box(&known).set((offset >> 12) as usize, 0);
            }
        }
    })
}

fn multiarch_gib(large: bool) -> Turn {
    let mut table = multiarch::table();
    Box::new(move |turns| {
        for _ in 0..turns {
            let mapped = multiarch::map(&mut table.cursor(), IOVA, black_box(TARGET), GIB, large);
            assert!(mapped && multiarch::unmap(&mut table.cursor(), IOVA, GIB), "the peer maps and unmaps");
        }
    })
}

fn multiarch_random() -> Turn {
    let (mut table, order) = (multiarch::table(), random_order());
    Box::new(move |turns| {
        let mut well = true;
        for _ in 0..turns {
            for &(offset, target) in &order {
                well &= multiarch::map_page(&mut table.cursor(), IOVA + offset, target);
            }
            for &(offset, _) in &order {
                well &= multiarch::unmap_page(&mut table.cursor(), IOVA + offset);
            }
        }
        assert!(well, "the peer maps and unmaps");
    })
}

/// Ours.
mod ours {
    use super::{GIB, IOVA, LARGE as LARGE_PAGE, TARGET, random_order};
    use crate::row::{Side, Turn};
    use peerdma::access::{MemAttrs, Prot};
    use peerdma::addr::{AddrRange, Bytes, Iova, PhysAddr};
    use peerdma::iopt::{Cursor, FrameArena, Gather, Leaf, PageTable, VtdOptions, VtdSecondStage};
    use std::hint::black_box;

    pub(super) const SMALL: Side = Side::new("peerdma", || gib(TARGET + 4096));
    pub(super) const LARGE: Side = Side::new("peerdma", || gib(TARGET));
    pub(super) const RANDOM: Side = Side::new("peerdma", random);

    type Table = PageTable<VtdSecondStage, FrameArena>;

    fn table() -> (Table, Leaf) {
        let format = VtdSecondStage::new(VtdOptions::default());
        let table =
            format.ok().and_then(|format| PageTable::new(format, FrameArena::new(PhysAddr::new(GIB), 1024)).ok());
        let Some(table) = table else { unreachable!("an arena has a frame for the root") };
        let leaf = table.leaf(Prot::ReadWrite, MemAttrs::empty());
        (table, leaf)
    }

    fn range(offset: u64, len: u64) -> AddrRange<Iova> {
        match AddrRange::new(Iova::new(IOVA + offset), Bytes::new(len)) {
            Some(range) => range,
            None => unreachable!("far below the end"),
        }
    }

    /// Maps 1 GiB in one call to an address whose alignment says in what pages, and unmaps it.
    fn gib(target: u64) -> Turn {
        let ((mut table, leaf), all) = (table(), range(0, GIB));
        let mut cursor = Cursor::new();
        Box::new(move |turns| {
            for _ in 0..turns {
                let mapped = table.map(&mut cursor, all, PhysAddr::new(black_box(target)), leaf);
                let mut gather = Gather::new();
                let unmapped = table.unmap(&mut cursor, all, &mut gather);
                assert!(mapped.is_ok() && unmapped.as_u64() == GIB, "{mapped:?}");
                black_box(gather);
                // Nobody walks these tables, so those that went can be used again at once.
                table.reclaim();
            }
        })
    }

    fn random() -> Turn {
        let ((table, leaf), order) = (table(), random_order());
        let mut cursor = Cursor::new();
        Box::new(move |turns| {
            let mut well = true;
            for _ in 0..turns {
                for &(offset, target) in &order {
                    well &= table.map(&mut cursor, range(offset, 4096), PhysAddr::new(target), leaf).is_ok();
                }
                let mut gather = Gather::new();
                for &(offset, _) in &order {
                    well &= table.unmap(&mut cursor, range(offset, 4096), &mut gather).as_u64() == 4096;
                }
                black_box(gather);
            }
            assert!(well, "every page is mapped and unmapped");
        })
    }

    const _: () = assert!(TARGET.is_multiple_of(LARGE_PAGE) && !(TARGET + 4096).is_multiple_of(LARGE_PAGE));
}
