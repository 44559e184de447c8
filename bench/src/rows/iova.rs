//! I1 to I5: handing out IOVAs.
//!
//! Peers begin with all ranges one behind the other, the best case of a first fit. The more
//! holes there are, the more it looks at, so it is measured after so many turns that it takes
//! about as many instructions as are known of it, and for few turns.

use crate::draw::Draw;
use crate::limits::bump::Bump;
use crate::peers::Allocates;
use crate::peers::first_fit::FirstFit;
use crate::peers::vm_alloc::VmAllocator;
use crate::row::{Bound, Figure, Gate, Pair, Row, SharedTurn, Side, Turn};
use ours::{Alone, Queue};
use std::hint::black_box;
use std::time::Instant;

mod ours;

/// Page 0 is never handed out.
const FIRST: u64 = 1;

/// Pages below 2^48 bytes, and below 4 GiB.
const WIDE: u64 = (1 << 36) - FIRST;
const NARROW: u64 = (1 << 20) - FIRST;

/// The rows of this file.
pub fn rows() -> Vec<Row> {
    vec![one_page(), ten_thousand(), hundred_thousand(), occupancy(), threads()]
}

fn one_page() -> Row {
    Row {
        sides: vec![
            Side::new("peerdma", || pairs(Queue::new(WIDE, USUAL))).turns(400_000, 10_000),
            Side::new("vm-allocator", || pairs(VmAllocator::new(FIRST, WIDE))).turns(20_000, 1_000).reference(990.0),
            Side::new("BTreeMap first fit", || pairs(FirstFit::new(FIRST, WIDE))).turns(40_000, 1_000).reference(629.0),
            Side::new("L", || pairs(Bump::new(FIRST, WIDE))).turns(2_000_000, 10_000).reference(13.0),
        ],
        gates: vec![
            Gate::Instructions { of: "peerdma", most: 60.0 },
            Gate::Ratio { of: "peerdma", to: "vm-allocator", most: 0.20 },
            Gate::Ratio { of: "peerdma", to: "L", most: 5.0 },
        ],
        ..Row::new("I1", "allocate and free one page", "pair")
    }
}

const LIVE_WIDE: Live = Live { ranges: 10_000, most_pages: 512 };
const LIVE_NARROW: Live = Live { ranges: 100_000, most_pages: 8 };

fn ten_thousand() -> Row {
    Row {
        sides: vec![
            Side::new("peerdma", || LIVE_WIDE.replaced(Queue::new(WIDE, AMPLE))).turns(20_000, 10_000),
            Side::new("allocator alone", || LIVE_WIDE.replaced(Alone::new(WIDE))).turns(5_000, 5_000),
            Side::new("vm-allocator", || LIVE_WIDE.placed(VmAllocator::new(FIRST, WIDE), 0)).turns(40, 0),
            Side::new("BTreeMap first fit", || LIVE_WIDE.placed(FirstFit::new(FIRST, WIDE), 3_000))
                .turns(20, 200)
                .reference(24_353.0),
            Side::new("L", || LIVE_WIDE.taken(Bump::new(FIRST, WIDE))).turns(200_000, 10_000).reference(47.0),
        ],
        gates: vec![
            Gate::Instructions { of: "peerdma", most: 350.0 },
            Gate::Ratio { of: "peerdma", to: "vm-allocator", most: 1.0 / 500.0 },
            Gate::Ratio { of: "peerdma", to: "BTreeMap first fit", most: 1.0 / 50.0 },
        ],
        figures: tail,
        ..Row::new("I2", "10k live of 1 to 512 pages, 48 bits", "op")
    }
}

fn hundred_thousand() -> Row {
    Row {
        sides: vec![
            Side::new("peerdma", || LIVE_NARROW.replaced(Queue::new(NARROW, USUAL))).turns(20_000, 10_000),
            Side::new("allocator alone", || LIVE_NARROW.replaced(Alone::new(NARROW))).turns(5_000, 5_000),
            Side::new("vm-allocator", || LIVE_NARROW.placed(VmAllocator::new(FIRST, NARROW), 0)).turns(6, 0),
            Side::new("BTreeMap first fit", || LIVE_NARROW.placed(FirstFit::new(FIRST, NARROW), 1_100))
                .turns(20, 100)
                .reference(6_345.0),
            Side::new("L", || LIVE_NARROW.taken(Bump::new(FIRST, NARROW))).turns(200_000, 10_000).reference(47.0),
        ],
        gates: vec![
            Gate::Instructions { of: "peerdma", most: 400.0 },
            Gate::Ratio { of: "peerdma", to: "vm-allocator", most: 1.0 / 1000.0 },
            Gate::Ratio { of: "peerdma", to: "L", most: 3.0 },
        ],
        ..Row::new("I3", "100k live of 1 to 8 pages, 4 GiB", "op")
    }
}

fn occupancy() -> Row {
    let figures = || {
        let mean = |most_pages| (1..=SPACES).map(|seed| filled(most_pages, seed)).sum::<f64>() / SPACES as f64;
        let figure = |what: &str, most_pages, least| Figure {
            what: what.to_owned(),
            value: mean(most_pages),
            unit: "%",
            bound: Bound::Least(least),
            gates: true,
        };
        vec![figure("1 to 512 pages", 512, 74.0), figure("1 to 8 pages", 8, 82.0)]
    };
    Row { figures, ..Row::new("I4", "4 GiB in use at the first failure, churned, naturally aligned", "space") }
}

fn threads() -> Row {
    Row {
        pairs: vec![
            Pair {
                name: "peerdma, an arena each",
                start: ours::two_queues,
                timed: 400_000,
                wanted: 1.8,
                stalls: false,
            },
            Pair { name: "Mutex<BTreeMap first fit>", start: two_first_fit, timed: 20_000, wanted: 1.0, stalls: true },
        ],
        ..Row::new("I5", "two threads, 64 held each, 1 to 8 pages", "op")
    }
}

/// Spaces filled for a figure of I4, with other numbers drawn each.
const SPACES: u64 = 5;

/// Percent of 4 GiB that is in use when the allocator fails for the first time: ranges are added one by one,
/// and after each another is replaced.
///
/// With natural alignment no allocator exceeds 80 % of 1 to 512 pages in equal shares: those above 256 take 512 each,
/// those from 129 to 256 half of that, and what lies behind them holds none of either.
fn filled(most_pages: u64, seed: u64) -> f64 {
    let mut allocator = Alone::new(NARROW);
    let mut draw = Draw::new(seed << 8);
    let mut live: Vec<(u64, u64)> = Vec::new();
    let mut in_use = 0;
    let add = |allocator: &mut Alone, draw: &mut Draw| {
        let pages = draw.below(most_pages) + 1;
        Some((allocator.take(pages)?, pages))
    };
    while let Some(range) = add(&mut allocator, &mut draw) {
        in_use += range.1;
        live.push(range);
        let (start, pages) = live.swap_remove(draw.below(live.len() as u64) as usize);
        allocator.give(start, pages);
        in_use -= pages;
        let Some(range) = add(&mut allocator, &mut draw) else { break };
        in_use += range.1;
        live.push(range);
    }
    in_use as f64 * 100.0 / NARROW as f64
}

/// How much dearer the dearest operations of I2 are, the clock included.
fn tail() -> Vec<Figure> {
    let mut turn = LIVE_WIDE.replaced(Queue::new(WIDE, AMPLE));
    let once = |_| {
        let start = Instant::now();
        turn(1);
        start.elapsed().as_nanos() as u64
    };
    let mut times: Vec<u64> = (0..200_000).map(once).collect();
    times.sort_unstable();
    let value = times[times.len() * 999 / 1000] as f64 / times[times.len() / 2].max(1) as f64;
    let what = "99.9th percentile beside the median".to_owned();
    vec![Figure { what, value, unit: "x", bound: Bound::Most(10.0), gates: false }]
}

/// Bytes that an arena keeps in a space with little to spare, and in one with plenty.
const USUAL: u64 = 64 << 20;
const AMPLE: u64 = 4 << 30;

/// Ranges that each thread of I5 holds, and pages of the longest.
const HELD: usize = 64;
const HELD_PAGES: u64 = 8;

/// Replaces what one thread holds, range by range.
fn replacing_held(mut allocator: impl Allocates + Send + 'static, seed: u64) -> SharedTurn {
    let mut draw = Draw::new(seed << 8);
    let take = |_| {
        let pages = draw.below(HELD_PAGES) + 1;
        Some((allocator.take(pages)?, pages))
    };
    let mut live: Vec<(u64, u64)> = (0..HELD).filter_map(take).collect();
    Box::new(move |turns| {
        for _ in 0..turns {
            replace(&mut allocator, &mut live, &mut draw, HELD_PAGES);
        }
    })
}

fn two_first_fit() -> [SharedTurn; 2] {
    let shared = std::sync::Arc::new(std::sync::Mutex::new(FirstFit::new(FIRST, WIDE)));
    [1, 2].map(|seed| replacing_held(ours::Locked(shared.clone()), seed))
}

/// Allocates a page and frees it.
fn pairs(mut allocator: impl Allocates + 'static) -> Turn {
    Box::new(move |turns| {
        for _ in 0..turns {
            if let Some(start) = allocator.take(black_box(1)) {
                allocator.give(black_box(start), 1);
            }
        }
    })
}

/// Ranges that live while one after the other is replaced.
struct Live {
    ranges: usize,
    most_pages: u64,
}

impl Live {
    /// An allocator that has handed out all ranges itself.
    fn taken(&self, mut allocator: impl Allocates + 'static) -> Turn {
        let mut draw = Draw::new(7);
        let live = (0..self.ranges)
            .filter_map(|_| {
                let pages = draw.below(self.most_pages) + 1;
                Some((allocator.take(pages)?, pages))
            })
            .collect();
        self.replacing(allocator, live, draw)
    }

    /// The same, after each range was replaced some times.
    fn replaced(&self, allocator: impl Allocates + 'static) -> Turn {
        let mut turn = self.taken(allocator);
        turn(CHURN * self.ranges as u64);
        turn
    }

    /// An allocator put at once into the state that first fit reaches, range after range,
    /// since a search for each would take minutes, and `turns` further on.
    fn placed(&self, mut allocator: impl Allocates + 'static, turns: u64) -> Turn {
        let mut draw = Draw::new(7);
        let mut end = FIRST;
        let mut live = Vec::with_capacity(self.ranges);
        for _ in 0..self.ranges {
            let pages = draw.below(self.most_pages) + 1;
            if allocator.place(end, pages) {
                live.push((end, pages));
            }
            end += pages;
        }
        let mut turn = self.replacing(allocator, live, draw);
        turn(turns);
        turn
    }

    fn replacing(&self, mut allocator: impl Allocates + 'static, mut live: Vec<(u64, u64)>, mut draw: Draw) -> Turn {
        let most_pages = self.most_pages;
        Box::new(move |turns| {
            for _ in 0..turns {
                replace(&mut allocator, &mut live, &mut draw, most_pages);
            }
        })
    }
}

/// How often each range was replaced before we are measured.
const CHURN: u64 = 3;

/// Frees a range drawn from those that live and allocates another instead.
#[inline]
fn replace(allocator: &mut impl Allocates, live: &mut [(u64, u64)], draw: &mut Draw, most_pages: u64) {
    let nth = draw.below(live.len() as u64) as usize;
    let (start, pages) = live[nth];
    allocator.give(start, pages);
    let pages = draw.below(most_pages) + 1;
    if let Some(start) = allocator.take(pages) {
        live[nth] = (start, pages);
    }
}
