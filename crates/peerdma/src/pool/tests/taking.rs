//! Blocks that are taken and put back.

use crate::addr::{AddrRange, Bytes, Granule, ProcVa};
use crate::pool::{Area, AreaError, Block, Cache, Owner};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use proptest::prelude::*;

const START: u64 = 0x7000_0000_0000;

fn area(len: u64) -> Arc<Area> {
    let range = AddrRange::new(ProcVa::new(START), Bytes::new(len)).unwrap();
    Arc::new(Area::new(range, Area::LINE).unwrap())
}

#[derive(Clone, Debug)]
enum Step {
    Take { len: u64, owner: usize, through: usize },
    Put { which: usize, through: usize },
    Drain { through: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let len = prop_oneof![4 => 0_u64..300, 2 => 0_u64..9000, 1 => 0_u64..200_000];
    let step = prop_oneof![
        4 => (len, 0..3_usize, 0..3_usize).prop_map(|(len, owner, through)| Step::Take { len, owner, through }),
        3 => (any::<usize>(), 0..3_usize).prop_map(|(which, through)| Step::Put { which, through }),
        1 => (0..2_usize).prop_map(|through| Step::Drain { through }),
    ];
    proptest::collection::vec(step, 0..300)
}

proptest! {
    /// Two caches and the area itself, against a list of who has what.
    #[test]
    fn no_byte_is_two_blocks_and_the_report_is_what_was_taken_and_not_put_back(steps in steps()) {
        const LEN: u64 = 1 << 18;
        let area = area(LEN);
        let owners: Vec<Owner> = ["a", "b", "c"].iter().map(|name| area.owner(name).unwrap()).collect();
        let mut caches = [Cache::new(Arc::clone(&area)), Cache::new(Arc::clone(&area))];
        let mut live: Vec<(Block, usize)> = Vec::new();
        for step in steps {
            match step {
                Step::Take { len, owner, through } => {
                    let taken = match caches.get_mut(through) {
                        Some(cache) => cache.take(Bytes::new(len), owners[owner]),
                        None => area.take(Bytes::new(len), owners[owner]),
                    };
                    let Ok(block) = taken else {
                        // What another cache keeps is not free, and never more than its sixteenth.
                        continue;
                    };
                    let (start, end) = (block.address().as_u64(), block.range().last().as_u64() + 1);
                    prop_assert!(start >= START && end <= START + LEN);
                    prop_assert!(end - start >= len.max(1));
                    let natural = (end - start).next_power_of_two();
                    prop_assert_eq!(start % natural, 0);
                    for (other, _) in &live {
                        prop_assert!(other.range().last().as_u64() < start || end <= other.address().as_u64());
                    }
                    live.push((block, owner));
                }
                Step::Put { which, through } if !live.is_empty() => {
                    let (block, _) = live.swap_remove(which % live.len());
                    match caches.get_mut(through) {
                        Some(cache) => cache.put(block).unwrap(),
                        None => area.put(block).unwrap(),
                    }
                }
                Step::Put { .. } => {}
                Step::Drain { through } => caches[through].drain(),
            }
            let report = area.report();
            let told: BTreeMap<u64, (u64, &str)> = report
                .live()
                .iter()
                .map(|live| (live.range.start().as_u64(), (live.range.len().as_u64(), live.owner.as_str())))
                .collect();
            let so: BTreeMap<u64, (u64, &str)> = live
                .iter()
                .map(|(block, owner)| (block.address().as_u64(), (block.range().len().as_u64(), ["a", "b", "c"][*owner])))
                .collect();
            prop_assert_eq!(told, so);
            prop_assert_eq!(report.cached(), Bytes::new(caches.iter().map(|cache| cache.held().as_u64()).sum()));
        }
        for (block, _) in live {
            area.put(block).unwrap();
        }
        drop(caches);
        let report = area.report();
        prop_assert!(report.live().is_empty());
        prop_assert_eq!(report.free(), Bytes::new(LEN));
        prop_assert_eq!(area.take(Bytes::new(LEN), owners[0]).unwrap().address().as_u64(), START, "all in one piece");
    }
}

#[test]
fn a_full_pool_says_what_is_left() {
    let area = area(1 << 16);
    let owner = area.owner("rx").unwrap();
    let half = area.take(Bytes::new(1 << 15), owner).unwrap();
    let full = area.take(Bytes::new(1 << 16), owner).unwrap_err();
    assert_eq!((full.free, full.largest), (Bytes::new(1 << 15), Bytes::new(1 << 15)));
    let text = full.to_string();
    assert!(text.contains("no 64 KiB in one piece; 32 KiB are free"), "{text}");
    for len in [u64::MAX, u64::MAX - 63, 1 << 63] {
        assert_eq!(area.take(Bytes::new(len), owner).unwrap_err().wanted, Bytes::new(len));
    }
    area.put(half).unwrap();
    assert!(area.take(Bytes::new(1 << 16), owner).is_ok());
}

/// What a cache keeps would else be lost to all others, and to itself.
#[test]
fn a_cache_gives_back_what_it_keeps_before_it_says_that_there_is_nothing() {
    let area = area(1 << 20);
    let owner = area.owner("rx").unwrap();
    let mut cache = Cache::new(Arc::clone(&area));
    let blocks: Vec<Block> = (0..32).map(|_| cache.take(Bytes::new(1 << 10), owner).unwrap()).collect();
    blocks.into_iter().for_each(|block| cache.put(block).unwrap());
    assert_ne!(cache.held(), Bytes::ZERO);
    assert!(area.take(Bytes::new(1 << 20), owner).is_err());
    assert!(cache.take(Bytes::new(1 << 20), owner).is_ok());
}

#[test]
fn a_block_of_another_pool_is_handed_back_as_it_was() {
    let (one, other) = (area(1 << 16), {
        let range = AddrRange::new(ProcVa::new(START + (1 << 16)), Bytes::new(1 << 16)).unwrap();
        Area::new(range, Area::LINE).unwrap()
    });
    let block = one.take(Bytes::new(64), one.owner("rx").unwrap()).unwrap();
    let rejected = other.put(block).unwrap_err();
    assert!(rejected.error.to_string().contains("another pool"), "{rejected}");
    assert_eq!(one.report().live().len(), 1);
    one.put(rejected.block).unwrap();
    assert!(one.report().live().is_empty());
}

#[test]
fn a_report_names_who_lost_what_and_where() {
    let area = area(1 << 16);
    let (rx, tx) = (area.owner("rx ring").unwrap(), area.owner("tx ring").unwrap());
    assert_eq!(area.owner("rx ring").unwrap(), rx);
    let lost = [area.take(Bytes::new(100), rx).unwrap(), area.take(Bytes::new(3000), rx).unwrap()];
    let kept = area.take(Bytes::new(1), tx).unwrap();
    let first = lost.iter().map(Block::address).min().unwrap();
    let text = area.report().to_string();
    assert_eq!(
        text,
        format!(
            "rx ring: 2 blocks, 3200 bytes, the first at {first}\ntx ring: 1 blocks, 64 bytes, the first at {}\n",
            kept.address()
        )
    );
}

#[test]
fn owners_beyond_what_a_tag_holds_are_refused_by_name() {
    let area = area(1 << 16);
    for number in 0..Owner::MOST {
        area.owner(&format!("owner {number}")).unwrap();
    }
    assert!(area.owner("owner 5").is_ok(), "known");
    assert!(area.owner("one more").unwrap_err().to_string().starts_with("one more would be"));
}

#[test]
fn a_range_of_half_granules_is_refused() {
    let range = AddrRange::new(ProcVa::new(START + 32), Bytes::new(4096)).unwrap();
    assert!(matches!(Area::new(range, Area::LINE), Err(AreaError::Unaligned { .. })));
    let range = AddrRange::new(ProcVa::new(START), Bytes::new(4096 + 64)).unwrap();
    assert!(matches!(Area::new(range, Granule::PAGE_4K), Err(AreaError::Unaligned { .. })));
}
