//! Tables of pages, and all regions together.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

#[test]
fn pages_of_all_regions_together_are_bounded_and_come_back() {
    let mut regions = Regions::default();
    let large = || {
        let pages = Pages::Pinned(vec![0; MOST_PAGES / 2]);
        Region { domain: 1, rights: Rights::ALL, base: 0, len: 1, page_log2: 12, pages, taken: 0 }
    };
    let keys = [regions.insert(large()).unwrap(), regions.insert(large()).unwrap()];
    assert!(regions.insert(large()).is_none());
    assert!(regions.remove(keys[0]).is_some() && regions.remove(keys[0]).is_none());
    assert!(regions.insert(large()).is_some());
    regions.clear();
    assert!(regions.insert(large()).is_some());
}

const KEY: Key = Key(0x101);

fn on_demand(base: u64, len: u64, page_log2: u32) -> Option<Region> {
    let pages = Region::page_count(base, len, u64::from(page_log2))?;
    let pages = Pages::OnDemand(vec![Entry::default(); usize::try_from(pages).ok()?]);
    Some(Region { domain: 1, rights: Rights::ALL, base, len, page_log2, pages, taken: 0 })
}

/// What a command does to a table.
#[derive(Clone, Debug)]
enum Change {
    /// Writes pages of this size, as many as asked for and so many more, to these addresses.
    Write {
        at: u64,
        len: u64,
        page_log2: u64,
        more: i64,
        words: u64,
        writable: bool,
    },
    TakeAway {
        at: u64,
        len: u64,
    },
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    // Sensible ones around a region of 16 pages at 0x1000_0800, and any.
    let at = prop_oneof![8 => 0x0fff_f800_u64..0x1001_1800, 1 => any::<u64>()];
    let len = prop_oneof![6 => 0_u64..0x6000, 1 => Just(0xf000), 1 => any::<u64>()];
    let more = prop_oneof![6 => Just(0_i64), 1 => -1..2_i64];
    let page_log2 = prop_oneof![6 => Just(12_u64), 4 => 11_u64..16, 1 => any::<u64>()];
    let words = prop_oneof![6 => (0..0x1000_u64).prop_map(|page| page << 16), 1 => any::<u64>()];
    let write = (at.clone(), len.clone(), page_log2, more, words, any::<bool>()).prop_map(
        |(at, len, page_log2, more, words, writable)| Change::Write { at, len, page_log2, more, words, writable },
    );
    let away = (at, len).prop_map(|(at, len)| Change::TakeAway { at, len });
    prop::collection::vec(prop_oneof![3 => write, 1 => away], 1..24)
}

proptest! {
    /// Against a map from each page to where it is, with numbers that cannot wrap.
    #[test]
    fn a_table_holds_what_was_written_and_not_taken_away_whatever_the_commands(list in changes()) {
        let (base, len) = (0x1000_0800_u64, 0xf000_u64);
        let mut region = on_demand(base, len, 12).unwrap();
        let mut model = BTreeMap::<u64, (u64, bool)>::new();
        let inside = |at: u64, len: u64| {
            len != 0 && at >= base && u128::from(at) + u128::from(len) <= u128::from(base) + 0xf000
        };
        let pages = |at: u64, len: u64| at >> 12..=(at + (len - 1)) >> 12;
        for change in list {
            match change {
                Change::Write { at, len, page_log2, more, words, writable } => {
                    let right = inside(at, len) && (12..=31).contains(&page_log2);
                    let count = if right { ((at + (len - 1)) >> page_log2) - (at >> page_log2) + 1 } else { 4 };
                    let size = 1_u64 << page_log2.min(31);
                    let list: Vec<u64> =
                        (0..count.saturating_add_signed(more)).map(|n| words.wrapping_add(n.wrapping_mul(size * 3))).collect();
                    let listed = Listed { at, len, page_log2, words: &list, writable };
                    let takes = right && more == 0 && words.is_multiple_of(0x1000);
                    prop_assert_eq!(region.write(&listed).is_some(), takes, "{:?}", listed);
                    if takes {
                        for page in pages(at, len) {
                            let large = list[(((page << 12) >> page_log2) - (at >> page_log2)) as usize];
                            let to = large.wrapping_add((page << 12) & (size - 1));
                            model.insert(page, (to, writable));
                        }
                    }
                }
                Change::TakeAway { at, len } => {
                    let taken = region.take_away(at, len);
                    prop_assert_eq!(taken.is_some(), inside(at, len));
                    if let Some(taken) = taken {
                        let gone: Vec<_> = pages(at, len).filter_map(|page| model.remove(&page)).collect();
                        let written = gone.iter().filter(|(_, writable)| *writable).map(|(to, _)| BusAddr::new(*to));
                        prop_assert_eq!(taken.written, written.collect::<Vec<_>>());
                        prop_assert!(taken.range.0 <= at && taken.range.1 >= at + (len - 1));
                    }
                }
            }
            for write in [false, true] {
                let lacks = |page: &u64| !model.get(page).is_some_and(|(_, writable)| *writable || !write);
                let first = pages(base, len).find(lacks);
                let found = region.missing(KEY, base, len, write);
                prop_assert_eq!(found.map(|missing| missing.at >> 12), first);
                if let Some(Missing { at, len, .. }) = found {
                    prop_assert!(inside(at, len));
                    prop_assert!(pages(at, len).all(|page| lacks(&page)));
                }
            }
            for (page, (to, _)) in &model {
                let at = (page << 12).max(base);
                prop_assert_eq!(region.piece(at, 1), (BusAddr::new(to.wrapping_add(at & 0xfff)), 1));
            }
        }
    }

    /// Wherever a region lies, also at the end of all addresses, no question about it wraps.
    #[test]
    fn a_region_anywhere_is_asked_to_its_last_byte(
        base in prop_oneof![any::<u64>(), u64::MAX - 0x2_0000..u64::MAX],
        len in 1_u64..0x2_0000,
        page_log2 in 12_u32..32,
    ) {
        let Some(mut region) = on_demand(base, len, page_log2) else { return Ok(()) };
        let last = base + (len - 1);
        let missing = Missing { key: KEY, at: base, len, write: true };
        prop_assert_eq!(region.missing(KEY, base, len, true), Some(missing));
        prop_assert_eq!(region.missing(KEY, last, 1, true).map(|missing| missing.at + (missing.len - 1)), Some(last));
        prop_assert_eq!(region.take_away(base, len).map(|taken| taken.range), Some((base, last)));
        prop_assert!(region.take_away(base, len + 1).is_none());
    }
}
