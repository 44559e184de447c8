//! Memory of somebody who knows nothing of mirrors: told before, told after, and not told.

use super::*;
use crate::uffd::Message;
use rustix::event::{PollFd, PollFlags, poll};

/// Memory that is watched. It comes first, so that it is dropped last: unmapping it waits for whoever serves.
fn watched(count: u64) -> (Region, Mirror<()>, Context<()>, RangeId) {
    let mirror = Mirror::new(()).unwrap();
    let context = mirror.context("engine").unwrap();
    let region = Region::map(None, pages(count)).unwrap();
    let id = mirror.watch(region.at(), Prot::ReadWrite).unwrap();
    (region, mirror, context, id)
}

/// Waits until the kernel has something to tell.
fn told(mirror: &Mirror<()>) {
    poll(&mut [PollFd::new(mirror.shared.uffd.as_ref().unwrap(), PollFlags::IN)], None).unwrap();
}

#[test]
fn what_is_thrown_away_unmapped_or_moved_leaves_the_device_s_table() {
    let (mut region, mirror, mut context, _) = watched(4);
    let at = region.at();
    let ((), served) = served(&mirror, || {
        for number in 0..4 {
            context.write(page(at, number).start(), &[number as u8 + 1; 8], soon()).unwrap();
        }
        region.discard(page(at, 0)).unwrap();
        let mut bytes = [9; 8];
        context.read(at.start(), &mut bytes, soon()).unwrap();
        assert_eq!(bytes, [0; 8]);
        let place = Region::map(None, pages(4)).unwrap();
        region.remap(place).unwrap();
        assert!(matches!(context.read(at.start(), &mut bytes, soon()), Err(AccessError::Refused { .. })));
        let there = region.at();
        context.read(page(there, 3).start(), &mut bytes, soon()).unwrap();
        assert_eq!(bytes, [4; 8]);
        drop(region);
        assert!(matches!(context.read(there.start(), &mut bytes, soon()), Err(AccessError::Refused { .. })));
    });
    assert!(matches!(
        served.heard[..],
        [Message::Discard(_), Message::Remap { .. }, Message::Unmap(_), Message::Unmap(_)]
    ));
    assert!(mirror.present().is_empty());
}

/// Whoever has unmapped memory and come back from that may hand its addresses to others: nothing of the device's lands there.
#[test]
fn nothing_lands_once_an_unmapping_has_returned() {
    // Far below where the kernel puts what nobody has named an address for: in the stale window nothing else is here.
    let region = Region::map(Some(ProcVa::new(0x1000_0000_0000)), pages(1)).unwrap();
    let mirror = Mirror::new(()).unwrap();
    let mut context = mirror.context("engine").unwrap();
    mirror.watch(region.at(), Prot::ReadWrite).unwrap();
    let at = region.at();
    let (stop, rounds) = (AtomicBool::new(false), std::sync::atomic::AtomicU64::new(0));
    served(&mirror, || {
        thread::scope(|scope| {
            let device = scope.spawn(|| {
                while !stop.load(Ordering::Acquire) {
                    // Refused while it is not registered.
                    let _ = context.write(at.start(), &[0xdd; 64], soon());
                    rounds.fetch_add(1, Ordering::AcqRel);
                }
            });
            let _end = Stop(&stop);
            let mut mine = Some(region);
            for _ in 0..200 {
                let seen = rounds.load(Ordering::Acquire);
                while rounds.load(Ordering::Acquire) == seen {
                    thread::yield_now();
                }
                drop(mine.take());
                // The same addresses, and somebody else's memory: the kernel had no other use for them, or somebody has.
                let Ok(others) = Region::map(Some(at.start()), at.len()) else { unreachable!("the place is free") };
                others.write(at.start(), &[0x11; 64]).unwrap();
                let seen = rounds.load(Ordering::Acquire);
                while rounds.load(Ordering::Acquire) < seen + 3 {
                    thread::yield_now();
                }
                let mut bytes = [0; 64];
                others.read(at.start(), &mut bytes).unwrap();
                assert_eq!(bytes, [0x11; 64], "the device wrote to memory that is not the process's promise");
                mirror.watch(at, Prot::ReadWrite).unwrap();
                mine = Some(others);
            }
            drop(_end);
            device.join().unwrap();
        });
    });
}

/// The stale window: an unmapping is told after it, so that for a moment the device's table leads to whatever is there now. Whoever
/// cannot have that owns the memory or pins it.
#[test]
fn between_an_unmapping_and_its_message_the_device_reaches_what_came_in_its_place() {
    let (region, mirror, mut context, _) = watched(1);
    let at = region.at().start();
    served(&mirror, || context.write(at, &[1; 8], soon()).unwrap());
    thread::scope(|scope| {
        // Replaced in one call; whoever did it waits in the kernel from here on.
        let replacing = scope.spawn(|| region.replace().unwrap());
        told(&mirror);
        context.write(at, &[0xdd; 8], soon()).unwrap();
        assert!(!replacing.is_finished());
        mirror.serve(soon()).unwrap();
        replacing.join().unwrap();
    });
    let mut bytes = [0; 8];
    region.read(at, &mut bytes).unwrap();
    assert_eq!(bytes, [0xdd; 8], "it landed in the new mapping, before whoever made it came back");
    served(&mirror, || assert!(context.write(at, &[2; 8], soon()).is_err()));
}

/// Of `mprotect` nobody is told: the table goes on permitting what the process does not. Bytes are copied by
/// the kernel here, which holds them against the process's own tables; a device with physical addresses would go on.
#[test]
fn of_changed_permissions_the_mirror_is_not_told() {
    let (region, mirror, mut context, _) = watched(1);
    let at = region.at();
    served(&mirror, || {
        context.write(at.start(), &[1; 8], soon()).unwrap();
        region.protect(at, Some(Prot::Read)).unwrap();
        assert_eq!(mirror.present(), [(at, Prot::ReadWrite)]);
        let stale = context.write(at.start(), &[2; 8], soon()).unwrap_err();
        assert!(matches!(stale, AccessError::Stale { .. }), "{stale}");
    });
}

/// The same of a file that is cut off or punched.
#[test]
fn of_a_file_that_is_cut_off_the_mirror_is_not_told() {
    use crate::sys::map::Mapping;
    use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, ftruncate, memfd_create};
    let file = memfd_create("cut", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, 2 * PAGE).unwrap();
    let mapping = Mapping::of_file(file.as_fd(), 0, 2 * PAGE as usize).unwrap();
    let at = AddrRange::new(mapping.address(), pages(2)).unwrap();
    let mirror = Mirror::new(()).unwrap();
    let mut context = mirror.context("engine").unwrap();
    mirror.watch(at, Prot::ReadWrite).unwrap();
    let ((), served) = served(&mirror, || {
        context.write(at.start(), &[1; 8], soon()).unwrap();
        context.write(page(at, 1).start(), &[1; 8], soon()).unwrap();
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&file, hole, 0, PAGE).unwrap();
        let mut bytes = [9; 8];
        context.read(at.start(), &mut bytes, soon()).unwrap();
        assert_eq!(bytes, [0; 8], "by its address, the device finds what the process does");
        ftruncate(&file, PAGE).unwrap();
        assert!(matches!(context.read(page(at, 1).start(), &mut bytes, soon()), Err(AccessError::Stale { .. })));
    });
    assert!(served.heard.is_empty());
    assert_eq!(mirror.present(), [(at, Prot::ReadWrite)], "the table knows nothing of it");
}

/// Children are kept out, so that no page of the device's becomes a copy that nobody tells of.
#[test]
fn a_fork_takes_nothing_from_the_device_and_gives_the_child_nothing() {
    let (region, mirror, mut context, _) = watched(1);
    let at = region.at();
    let ((), served) = served(&mirror, || {
        context.write(at.start(), &[1; 8], soon()).unwrap();
        fork_once();
        assert_eq!(mirror.present(), [(at, Prot::ReadWrite)]);
        context.write(at.start(), &[2; 8], soon()).unwrap();
        let mut bytes = [0; 8];
        region.read(at.start(), &mut bytes).unwrap();
        assert_eq!(bytes, [2; 8]);
    });
    assert!(served.heard.is_empty());
}

#[test]
fn a_range_that_is_left_is_not_the_device_s_any_more() {
    let (region, mirror, mut context, id) = watched(2);
    let at = region.at();
    served(&mirror, || {
        context.write(at.start(), &[1; 8], soon()).unwrap();
        mirror.leave(id, soon()).unwrap();
        assert!(context.write(at.start(), &[2; 8], soon()).is_err());
    });
    assert!(matches!(mirror.leave(id, soon()), Err(ChangeError::Unknown(_))));
    // Nobody is told any more, so that nobody waits.
    drop(region);
    let owned_alone = Mirror::of_owned_memory(()).unwrap();
    let region = Region::map(None, pages(1)).unwrap();
    assert!(matches!(owned_alone.watch(region.at(), Prot::Read), Err(RangeError::Untold { .. })));
}

/// What another watches is refused, and goes on being watched: older kernels let anybody end that.
#[test]
fn a_range_that_another_mirror_watches_stays_that_one_s() {
    let region = Region::map(None, pages(1)).unwrap();
    let (mirror, other) = (Mirror::new(()).unwrap(), Mirror::new(()).unwrap());
    other.watch(region.at(), Prot::Read).unwrap();
    assert!(matches!(mirror.watch(region.at(), Prot::Read), Err(RangeError::Watch(_))));
    let at = region.at();
    let ((), served) = served(&other, || drop(region));
    assert_eq!(served.heard, [Message::Unmap(at)], "the other one still hears");
}
