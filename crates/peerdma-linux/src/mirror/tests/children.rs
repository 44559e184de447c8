//! What children of the process inherit: nothing of a device's, and all that they did before afterwards.

use super::*;
use crate::own::smaps;
use crate::pin::Pinner;

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
            let _ = std::io::stderr().write_all(format!("SKIPPED mirror-pool: {error}\n").as_bytes());
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

/// Memory that a child maps where its parent's is stays the child's when the parent's handle is dropped there.
#[test]
fn a_child_that_drops_a_handle_keeps_what_it_has_at_those_addresses() {
    let mirror = Mirror::new(()).unwrap();
    let owned = mirror.create(pages(2)).unwrap();
    let (foreign, at) = (Region::map(None, pages(1)).unwrap(), owned.range());
    mirror.watch(foreign.at(), Prot::ReadWrite).unwrap();
    let mut handles = Some((owned, mirror));
    let answer = crate::sys::disturb::in_a_forked_child(Duration::from_secs(30), || {
        let Ok(own) = Region::map(Some(at.start()), at.len()) else { return 1 };
        let Ok(()) = own.write(at.start(), &[7; 8]) else { return 2 };
        let Some((owned, mirror)) = handles.take() else { return 3 };
        if owned.read(at.start(), &mut [0; 8]).is_ok() || owned.write(at.start(), &[1; 8]).is_ok() {
            return 4;
        }
        drop((owned, mirror));
        let mut bytes = [0; 8];
        u8::from(own.read(at.start(), &mut bytes).is_err() || bytes != [7; 8])
    });
    assert_eq!(answer, Some(0));
    let (owned, mirror) = handles.unwrap();
    owned.write(at.start(), &[1; 8]).unwrap();
    served(&mirror, || drop(foreign));
}
