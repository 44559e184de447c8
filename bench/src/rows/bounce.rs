//! BO1: copying through a pool, beside a copy.

use crate::row::{Gate, Row, Side, Turn};
use peerdma::addr::{Bytes, Granule};
use peerdma::dma::Owner;
use peerdma::dma::bounce::{BouncePool, Bouncer, ByteArrays};
use std::hint::black_box;

/// Bytes of a warm copy.
const WARM: u64 = 64 << 10;

/// Bytes of a cold copy, and of what it is drawn from, larger than caches.
const PAGE: u64 = 4 << 10;
const MEMORY: u64 = 256 << 20;

/// What a pool has room for, the same that the raw copies go through in turn.
const POOL: u64 = 1 << 20;
const POOL_AT: Bytes = Bytes::new(1 << 32);

/// The rows of this file.
pub fn rows() -> Vec<Row> {
    vec![Row {
        sides: vec![
            Side::new("64 KiB", || bounces(WARM, WARM)).turns(400, 0),
            Side::new("memcpy 64 KiB", || copies(WARM, WARM)).turns(400, 0),
            Side::new("4 KiB cold", || bounces(PAGE, MEMORY)).turns(2_000, 0),
            Side::new("memcpy 4 KiB cold", || copies(PAGE, MEMORY)).turns(2_000, 0),
        ],
        gates: vec![
            Gate::Ratio { of: "64 KiB", to: "memcpy 64 KiB", most: 1.0 / 0.95 },
            Gate::Ratio { of: "4 KiB cold", to: "memcpy 4 KiB cold", most: 1.0 / 0.85 },
        ],
        ..Row::new("BO1", "bounce into a pool, and give the slot back", "copy")
    }]
}

/// Offsets in memory, far from each other, that come around.
struct Places {
    len: u64,
    memory: u64,
    next: u64,
}

impl Places {
    fn next(&mut self) -> u64 {
        let now = self.next;
        // An odd number of pages, so that all are met before one is met again.
        self.next = (now + self.len * 1_031) % self.memory;
        now
    }
}

/// Bytes that are not the kernel's one page of zeros.
fn filled(bytes: u64) -> Vec<u8> {
    (0..bytes).map(|byte| byte as u8).collect()
}

fn copies(len: u64, memory: u64) -> Turn {
    let (from, mut to) = (filled(memory), filled(POOL));
    let (mut places, mut slot) = (Places { len, memory, next: 0 }, 0);
    Box::new(move |turns| {
        for _ in 0..turns {
            let at = places.next() as usize;
            to[slot..slot + len as usize].copy_from_slice(&from[at..at + len as usize]);
            black_box(&mut to);
            slot = (slot + len as usize) % POOL as usize;
        }
    })
}

fn bounces(len: u64, memory: u64) -> Turn {
    let arrays = ByteArrays::new();
    let added = arrays
        .add((Owner::Process, Bytes::ZERO), filled(memory))
        .and_then(|()| arrays.add((Owner::Ram, POOL_AT), filled(POOL)));
    let pool = BouncePool::new(arrays, (Owner::Ram, POOL_AT), Bytes::new(POOL), Granule::PAGE_4K);
    let (Ok(()), Ok(pool)) = (added, pool) else { unreachable!("two arrays apart, and an area in one") };
    let mut places = Places { len, memory, next: 0 };
    Box::new(move |turns| {
        for _ in 0..turns {
            let original = (Owner::Process, Bytes::new(places.next()));
            match pool.take_filled(original, Bytes::new(len), Bytes::ZERO, Granule::PAGE_4K) {
                Ok(slot) => pool.give_back(black_box(slot)),
                Err(error) => unreachable!("the pool is empty: {error}"),
            }
        }
    })
}
