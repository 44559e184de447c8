//! Pages and addresses that part, and what says so.

use super::*;
use crate::memory::{Backing, Pages};
use crate::pin::{Pin, Standing, Unknown};
use crate::sys::disturb::Disturbed;
use peerdma::addr::{AddrRange, ProcVa};
use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, ftruncate, memfd_create};
use rustix::mm::{MprotectFlags, ProtFlags};
use std::os::fd::AsFd;
use std::sync::Arc;

/// The standing as frames tell it, where the process may see them.
fn by_frames(pin: &Pin, expected: &Standing) {
    match pin.standing() {
        Standing::CannotTell { why: Unknown::Hidden | Unknown::Unmapped } => {
            skip("pins-frames", "this process may not see page frames")
        }
        standing => assert_eq!(&standing, expected),
    }
}

fn part(range: AddrRange<ProcVa>, first: u64, count: u64) -> AddrRange<ProcVa> {
    range.slice(pages(first), pages(count)).unwrap()
}

fn word(range: AddrRange<ProcVa>, number: u64) -> AddrRange<ProcVa> {
    range.slice(pages(number), Bytes::new(8)).unwrap()
}

/// Writes a byte through the slot, as a device does.
fn device_writes(pin: &Pin, offset: u64, value: u8) {
    let file = memfd_create("device", MemfdFlags::CLOEXEC).unwrap();
    rustix::io::pwrite(&file, &[value], 0).unwrap();
    assert_eq!(pin.read_from(&file, Bytes::ZERO, Bytes::new(offset), Bytes::new(1)).unwrap(), Bytes::new(1));
}

#[test]
fn memory_that_nobody_disturbed_is_live_and_a_probe_leaves_it_as_it_was() {
    for pinner in both_kinds() {
        for backing in [Backing::Shared, Backing::Private, Backing::Transparent, Backing::Memfd] {
            let memory = Arc::new(Pages::backed(backing, pages(300)).unwrap());
            let before: Vec<u8> = (0..300 * page()).map(|index| (index % 251) as u8).collect();
            memory.write(Bytes::ZERO, &before).unwrap();
            let pin = pinner.pin_part(Arc::clone(&memory), Bytes::new(3), Bytes::new(299 * page())).unwrap();
            by_frames(&pin, &Standing::Live);
            assert_eq!(pin.probe().unwrap(), Standing::Live);
            let mut after = vec![0; before.len()];
            memory.read(Bytes::ZERO, &mut after).unwrap();
            assert!(before == after, "{backing:?}");
        }
    }
}

#[test]
fn discarded_pages_are_stale_and_transfers_succeed_all_the_same() {
    for pinner in both_kinds() {
        let memory = Disturbed::anonymous(pages(8), true);
        let pin = pinner.pin_foreign(memory.range().start(), pages(8)).unwrap();
        memory.discard(part(memory.range(), 2, 3));
        by_frames(&pin, &Standing::Stale { at: part(memory.range(), 2, 3) });
        assert_eq!(pin.probe().unwrap(), Standing::Stale { at: word(memory.range(), 2) });
        device_writes(&pin, 2 * page(), 7);
        assert_eq!(memory.load(2 * page()), 0, "the device wrote to the old page, without an error");
        device_writes(&pin, page(), 7);
        assert_eq!(memory.load(page()), 7);
    }
}

#[test]
fn memory_mapped_anew_at_the_same_address_is_stale() {
    for pinner in both_kinds() {
        let memory = Disturbed::anonymous(pages(4), true);
        let pin = pinner.pin_foreign(memory.range().start(), pages(4)).unwrap();
        memory.replace(memory.range(), true);
        (0..4).for_each(|number| memory.store(number * page(), 1));
        by_frames(&pin, &Standing::Stale { at: memory.range() });
        assert_eq!(pin.probe().unwrap(), Standing::Stale { at: word(memory.range(), 0) });
        assert_eq!(memory.load(0), 1, "the probe wrote to the pinned pages alone");
    }
}

#[test]
fn a_hole_punched_into_a_memfd_is_stale() {
    let file = memfd_create("punched", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, 4 * page()).unwrap();
    let memory = Disturbed::of_file(file.as_fd(), pages(4), false, ProtFlags::READ | ProtFlags::WRITE).unwrap();
    let pin = Pinner::new().unwrap().pin_foreign(memory.range().start(), pages(4)).unwrap();
    fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, page(), page()).unwrap();
    // Reclaim leaves shared memory in the same state, so that it is not called stale before it is touched.
    by_frames(&pin, &Standing::CannotTell { why: Unknown::NotPresent });
    assert_eq!(pin.probe().unwrap(), Standing::Stale { at: word(memory.range(), 1) });
    by_frames(&pin, &Standing::Stale { at: part(memory.range(), 1, 1) });
}

#[test]
fn memory_that_mremap_moved_is_the_same_and_answers_at_its_old_address_alone() {
    for pinner in both_kinds() {
        let mut memory = Disturbed::anonymous(pages(3), true);
        let pin = pinner.pin_foreign(memory.range().start(), pages(3)).unwrap();
        memory.move_away();
        by_frames(&pin, &Standing::Moved { to: memory.range().start() });
        device_writes(&pin, page() + 5, 9);
        assert_eq!(memory.load(page() + 5), 9, "by the old address to the page at the new one");
    }
}

#[test]
fn without_a_note_of_frames_only_a_probe_can_tell() {
    let pinner = Pinner::with(Options::default().record_frames(false)).unwrap();
    let memory = Disturbed::anonymous(pages(2), true);
    let pin = pinner.pin_foreign(memory.range().start(), pages(2)).unwrap();
    assert_eq!(pin.standing(), Standing::CannotTell { why: Unknown::NotRecorded });
    assert_eq!(pin.probe().unwrap(), Standing::Live);
}

#[test]
fn mprotect_takes_nothing_from_a_device() {
    for pinner in both_kinds() {
        let memory = Disturbed::anonymous(pages(1), true);
        let pin = pinner.pin_foreign(memory.range().start(), pages(1)).unwrap();
        memory.protect(MprotectFlags::READ);
        device_writes(&pin, 0, 0x5a);
        assert_eq!(memory.load(0), 0x5a, "a page that no CPU of the process may write has changed");
        memory.protect(MprotectFlags::empty());
        device_writes(&pin, 0, 0x5b);
        memory.protect(MprotectFlags::READ);
        assert_eq!(memory.load(0), 0x5b);
    }
}
