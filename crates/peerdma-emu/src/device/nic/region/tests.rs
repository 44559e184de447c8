//! Tables of pages, and all regions together.

use super::*;

#[test]
fn pages_of_all_regions_together_are_bounded_and_come_back() {
    let mut regions = Regions::default();
    let large = || {
        let pages = Pages::Pinned(vec![0; MOST_PAGES / 2]);
        Region { domain: 1, rights: Rights::ALL, base: 0, len: 1, page_log2: 12, pages }
    };
    let keys = [regions.insert(large()).unwrap(), regions.insert(large()).unwrap()];
    assert!(regions.insert(large()).is_none());
    assert!(regions.remove(keys[0]).is_some() && regions.remove(keys[0]).is_none());
    assert!(regions.insert(large()).is_some());
    regions.clear();
    assert!(regions.insert(large()).is_some());
}
