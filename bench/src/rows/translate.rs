//! T1 to T3: translating what devices ask for. The guard against revocation comes with buffers.

use crate::draw::Draw;
use crate::limits::walk::{FourLevels, Hits};
use crate::peers::iotlb;
use crate::row::{Gate, Pair, Row, SharedTurn, Side, Turn};
use std::hint::black_box;
use std::sync::{Arc, PoisonError, RwLock};

/// Mapped pages, as powers of two.
const FEW: u32 = 4;
const SOME: u32 = 10;
const MANY: u32 = 16;

/// Where they begin.
const IOVA: u64 = 0x40_0000_0000;

/// The rows of this file.
pub fn rows() -> Vec<Row> {
    vec![hit(), walk(), two_threads()]
}

fn hit() -> Row {
    Row {
        sides: vec![
            Side::new("peerdma 16", || ours::hits(FEW)).turns(1_000_000, 20_000),
            Side::new("Iotlb 16", || iotlb_lookups(FEW)).turns(20_000, 2_000).reference(679.0),
            Side::new("L 16", || raw_hits(FEW)).turns(1_000_000, 20_000).reference(32.0),
            Side::new("peerdma 1k", || ours::hits(SOME)).turns(1_000_000, 20_000),
            Side::new("Iotlb 1k", || iotlb_lookups(SOME)).turns(10_000, 2_000).reference(1_080.0),
            Side::new("L 1k", || raw_hits(SOME)).turns(1_000_000, 20_000).reference(32.0),
            Side::new("peerdma 64k", || ours::hits(MANY)).turns(500_000, 20_000),
            Side::new("Iotlb 64k", || iotlb_lookups(MANY)).turns(10_000, 2_000).reference(1_508.0),
        ],
        gates: vec![
            Gate::Instructions { of: "peerdma 16", most: 45.0 },
            Gate::Instructions { of: "peerdma 1k", most: 45.0 },
            Gate::Ratio { of: "peerdma 16", to: "Iotlb 16", most: 1.0 / 25.0 },
            Gate::Ratio { of: "peerdma 1k", to: "Iotlb 1k", most: 1.0 / 60.0 },
            Gate::Ratio { of: "peerdma 64k", to: "Iotlb 64k", most: 1.0 / 25.0 },
            Gate::Ratio { of: "peerdma 16", to: "L 16", most: 1.5 },
            Gate::Ratio { of: "peerdma 1k", to: "L 1k", most: 1.5 },
        ],
        ..Row::new("T1", "translate 8 bytes on one of N pages, remembered", "lookup")
    }
}

fn walk() -> Row {
    Row {
        sides: vec![
            Side::new("peerdma", || ours::walks(SOME)).turns(500_000, 20_000),
            Side::new("L", || raw_walks(SOME)).turns(500_000, 20_000).reference(61.0),
        ],
        gates: vec![
            Gate::Short { of: "peerdma", most: 85.0, held: 130.0 },
            Gate::Ratio { of: "peerdma", to: "L", most: 1.5 },
        ],
        ..Row::new("T2", "walk four levels, 1k pages", "lookup")
    }
}

fn two_threads() -> Row {
    Row {
        pairs: vec![
            Pair { name: "peerdma 16", start: ours::shared_hits, timed: 1_000_000, wanted: 1.85, stalls: false },
            Pair { name: "RwLock<Iotlb> 16", start: locked_iotlb, timed: 20_000, wanted: 0.6, stalls: true },
        ],
        ..Row::new("T3", "translate in two threads", "lookup")
    }
}

/// Pairs of IOVA and target, no two targets in a row.
fn pages(log2: u32) -> Vec<(u64, u64)> {
    let number = 1 << log2;
    let mut targets: Vec<u64> = (0..number).map(|page| 0x1_0000_0000 + (page << 13)).collect();
    Draw::new(5).shuffle(&mut targets);
    (0..number).map(|page| IOVA + (page << 12)).zip(targets).collect()
}

/// Looks up addresses that jump between the pages; nothing depends on the one before.
#[inline(always)]
fn each(turns: u64, log2: u32, mut translate: impl FnMut(u64) -> u64) {
    let mut sum = 0u64;
    for turn in 0..turns {
        // Fibonacci hashing: the upper bits of the product jump about.
        let jump = turn.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let iova = IOVA + (jump >> (64 - log2) << 12) + (jump & 0xff8);
        sum = sum.wrapping_add(translate(iova));
    }
    black_box(sum);
}

fn raw_hits(log2: u32) -> Turn {
    let hits = Hits::of(&pages(log2));
    Box::new(move |turns| each(turns, log2, |iova| hits.translate(iova)))
}

fn raw_walks(log2: u32) -> Turn {
    let mut tables = FourLevels::default();
    for (iova, target) in pages(log2) {
        tables.map(iova, target);
    }
    Box::new(move |turns| each(turns, log2, |iova| tables.translate(iova)))
}

fn iotlb_lookups(log2: u32) -> Turn {
    let table = iotlb::filled(&pages(log2));
    Box::new(move |turns| each(turns, log2, |iova| iotlb::translate(&table, iova)))
}

fn locked_iotlb() -> [SharedTurn; 2] {
    let table = Arc::new(RwLock::new(iotlb::filled(&pages(FEW))));
    let thread = || -> SharedTurn {
        let table = Arc::clone(&table);
        Box::new(move |turns| {
            each(turns, FEW, |iova| iotlb::translate(&table.read().unwrap_or_else(PoisonError::into_inner), iova));
        })
    };
    [thread(), thread()]
}

/// Ours.
mod ours {
    use super::{FEW, each, pages};
    use crate::row::{SharedTurn, Turn};
    use peerdma::access::{Access, MemAttrs, Prot};
    use peerdma::addr::{AddrRange, Bytes, Iova, PhysAddr};
    use peerdma::dma::spaces::{InitiatorId, SoftIommu, Tlb};
    use peerdma::dma::{IoSpace, Source};
    use peerdma::iopt::{FrameArena, VtdOptions, VtdSecondStage, walk_tables};
    use std::hint::black_box;
    use std::sync::Arc;

    type Domain = SoftIommu<VtdSecondStage, FrameArena>;

    fn domain(log2: u32) -> Domain {
        let format = VtdSecondStage::new(VtdOptions::default());
        let arena = FrameArena::new(PhysAddr::new(1 << 30), 1024);
        let Some(domain) = format.ok().and_then(|format| SoftIommu::new(format, arena).ok()) else {
            unreachable!("an arena has a frame for the root")
        };
        let mut space = domain.attach();
        let mut well = true;
        for (iova, target) in pages(log2) {
            let source = Source::Physical(PhysAddr::new(target));
            well &= AddrRange::new(Iova::new(iova), Bytes::new(4096))
                .is_some_and(|range| space.map(range, &source, Prot::ReadWrite, MemAttrs::empty()).is_ok());
        }
        assert!(well, "all pages are mapped");
        domain
    }

    #[inline(always)]
    fn translate(domain: &Domain, tlb: &mut Tlb, iova: u64) -> u64 {
        domain.translate(tlb, Iova::new(iova), Access::Read).map_or(0, PhysAddr::as_u64)
    }

    pub(super) fn hits(log2: u32) -> Turn {
        let (domain, mut tlb) = (domain(log2), Tlb::new(InitiatorId::new(1)));
        for (iova, target) in pages(log2) {
            assert_eq!(translate(&domain, &mut tlb, iova), target, "as mapped");
        }
        Box::new(move |turns| each(turns, log2, |iova| translate(&domain, &mut tlb, iova)))
    }

    pub(super) fn walks(log2: u32) -> Turn {
        let domain = domain(log2);
        Box::new(move |turns| {
            let table = domain.table();
            let (format, memory, root) = black_box((table.format(), table.memory(), table.root()));
            let frames = memory.frames();
            each(turns, log2, |iova| {
                walk_tables(format, &frames, root, Iova::new(iova)).map_or(0, |found| found.pa.as_u64())
            });
        })
    }

    pub(super) fn shared_hits() -> [SharedTurn; 2] {
        let domain = Arc::new(domain(FEW));
        let thread = || -> SharedTurn {
            let (domain, mut tlb) = (Arc::clone(&domain), Tlb::new(InitiatorId::new(1)));
            Box::new(move |turns| each(turns, FEW, |iova| translate(&domain, &mut tlb, iova)))
        };
        [thread(), thread()]
    }
}
