//! What children of the process inherit: nothing of a device's, and all that they did before afterwards.

use super::*;
use crate::own::smaps;
use crate::pin::Pinner;
use std::io::Write;

fn are_kept_from(at: AddrRange<ProcVa>) -> bool {
    let kept: u64 = smaps::kept_from_children(at).unwrap().iter().map(|part| part.len().as_u64()).sum();
    assert!(kept == 0 || kept == at.len().as_u64(), "of {at} children are kept from a part");
    kept > 0
}

#[test]
fn children_are_kept_out_while_a_device_has_it() {
    let mirror = Mirror::new(()).unwrap();
    let region = Region::map(None, pages(2)).unwrap();
    let id = mirror.watch(region.at(), Prot::Read).unwrap();
    assert!(are_kept_from(region.at()));
    mirror.leave(id, soon()).unwrap();
    assert!(!are_kept_from(region.at()));
    let owned = mirror.create(pages(1)).unwrap();
    assert!(are_kept_from(owned.range()), "what is owned is never handed on");
    assert!(matches!(mirror.leave(owned.id(), soon()), Err(ChangeError::Owned { .. })));
    assert!(are_kept_from(owned.range()));
}

/// A mirror that is dropped took no range back, so that no child ever inherited them.
#[test]
fn children_inherit_again_what_a_mirror_had_that_was_dropped() {
    let regions = [2, 3].map(|count| Region::map(None, pages(count)).unwrap());
    let mirror = Mirror::new(()).unwrap();
    for region in &regions {
        mirror.watch(region.at(), Prot::ReadWrite).unwrap();
    }
    drop(mirror);
    assert!(regions.iter().all(|region| !are_kept_from(region.at())));
}

#[test]
fn what_was_kept_from_children_before_stays_so_also_after_a_move() {
    let mut region = Region::map(None, pages(4)).unwrap();
    let second = |region: &Region| page(region.at(), 1);
    process_memory::keep_from_children(second(&region), true).unwrap();
    let mirror = Mirror::new(()).unwrap();
    let id = mirror.watch(region.at(), Prot::ReadWrite).unwrap();
    assert!(are_kept_from(region.at()));
    mirror.leave(id, soon()).unwrap();
    assert_eq!([0, 1, 2, 3].map(|number| are_kept_from(page(region.at(), number))), [false, true, false, false]);
    process_memory::keep_from_children(second(&region), false).unwrap();

    let id = mirror.watch(region.at(), Prot::ReadWrite).unwrap();
    let before = region.at();
    served(&mirror, || region.remap(Region::map(None, pages(4)).unwrap()).unwrap());
    assert_ne!(region.at(), before);
    assert!(are_kept_from(region.at()));
    mirror.leave(id, soon()).unwrap();
    assert!(!are_kept_from(region.at()));
}

/// A pool keeps children from its memory whether or not a mirror does.
#[test]
fn a_pool_stays_kept_from_children_when_a_mirror_leaves_it() {
    let pinner = match Pinner::new() {
        Ok(pinner) => pinner,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "SKIPPED mirror-pool: {error}");
            return;
        }
    };
    let options = crate::pool::Options::new(crate::pool::Stay::Pinned(pinner));
    let pool = crate::pool::Pool::new(Bytes::new(1 << 20), options).unwrap();
    let mirror = Mirror::new(()).unwrap();
    let id = mirror.watch(pool.range(), Prot::ReadWrite).unwrap();
    mirror.leave(id, soon()).unwrap();
    assert!(are_kept_from(pool.range()));
    mirror.watch(pool.range(), Prot::ReadWrite).unwrap();
    drop(mirror);
    assert!(are_kept_from(pool.range()));
}

/// A range that reaches past the end of its mapping is refused; what lies before the hole was not handed on afterwards.
#[test]
fn a_range_with_a_hole_is_refused_and_changes_nothing_for_children() {
    // Far from where the kernel puts what nobody has named an address for, so that nobody maps in the hole.
    let region = Region::map(Some(ProcVa::new(0x1300_0000_0000)), pages(3)).unwrap();
    let mirror = Mirror::new(()).unwrap();
    let (first, last) = (page(region.at(), 0), page(region.at(), 2));
    // A hole in the middle.
    region.punch(page(region.at(), 1)).unwrap();
    assert!(mirror.watch(region.at(), Prot::Read).is_err());
    assert!(!are_kept_from(first) && !are_kept_from(last));
    let id = mirror.watch(first, Prot::Read).unwrap();
    mirror.leave(id, soon()).unwrap();
}
