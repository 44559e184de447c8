//! Handles: each its own, named by generation, gone when dropped.

use super::*;
use crate::memory::Pages;
use crate::pin::PinError;
use peerdma::addr::ProcVa;
use std::sync::Arc;

#[test]
fn overlapping_and_repeated_pins_are_each_their_own() {
    for pinner in both_kinds() {
        let memory = Arc::new(Pages::zeroed(pages(8)).unwrap());
        let all = pinner.pin(Arc::clone(&memory)).unwrap();
        let again = pinner.pin(Arc::clone(&memory)).unwrap();
        let part = pinner.pin_part(Arc::clone(&memory), Bytes::new(page() + 5), pages(2)).unwrap();
        assert_eq!(pinner.pins().len(), 3);
        assert_eq!(pinner.pinned(part.id()).unwrap().charge, pages(3), "whole pages, touched by the part");
        let (gone, kept) = (all.id(), again.id());
        drop(all);
        assert_eq!((pinner.pinned(gone), pinner.pinned(kept).map(|pin| pin.range)), (None, Some(again.range())));
        let next = pinner.pin(Arc::clone(&memory)).unwrap();
        assert_eq!(pinner.pinned(gone), None, "its place was taken, its name was not");
        assert_ne!(next.id(), gone);
    }
}

#[test]
fn a_pin_keeps_its_memory_mapped() {
    let pinner = Pinner::new().unwrap();
    let memory = Arc::new(Pages::zeroed(pages(1)).unwrap());
    let weak = Arc::downgrade(&memory);
    let pin = pinner.pin(memory).unwrap();
    assert!(weak.upgrade().is_some() && pin.owns_memory());
    drop(pin);
    assert!(weak.upgrade().is_none());
}

#[test]
fn pins_outlive_the_pinner_that_made_them() {
    for pinner in both_kinds() {
        let memory = Arc::new(Pages::zeroed(pages(1)).unwrap());
        memory.write(Bytes::ZERO, b"kept").unwrap();
        let pin = pinner.pin(Arc::clone(&memory)).unwrap();
        drop(pinner);
        let file = rustix::fs::memfd_create("out", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        assert_eq!(pin.write_to(&file, Bytes::ZERO, Bytes::ZERO, Bytes::new(4)).unwrap(), Bytes::new(4));
        let mut back = [0; 4];
        rustix::io::pread(&file, &mut back, 0).unwrap();
        assert_eq!(&back, b"kept");
    }
}

#[test]
fn more_pins_than_one_ring_has_slots_for_get_another_ring() {
    for ring in [Ring::Best, Ring::Descriptor] {
        let pinner = Pinner::with(Options::default().ring(ring).slots_per_ring(3)).unwrap();
        let memory = Arc::new(Pages::zeroed(pages(10)).unwrap());
        let pin = |at| pinner.pin_part(Arc::clone(&memory), Bytes::new(at * page()), pages(1)).unwrap();
        let mut pins: Vec<_> = (0..10).map(pin).collect();
        assert_eq!((pinner.rings(), pinner.pins().len()), (4, 10));
        pins.drain(..5);
        pins.extend((0..5).map(pin));
        assert_eq!(pinner.rings(), 4, "slots of dropped pins are used again");
    }
}

#[test]
fn ranges_that_are_none_are_refused_by_name() {
    let pinner = Pinner::new().unwrap();
    let memory = Arc::new(Pages::zeroed(pages(2)).unwrap());
    let start = memory.address();
    assert!(matches!(pinner.pin_foreign(start, Bytes::ZERO), Err(PinError::Empty { .. })));
    assert!(matches!(pinner.pin_foreign(ProcVa::new(u64::MAX - 10), Bytes::new(100)), Err(PinError::Wraps { .. })));
    let outside = pinner.pin_part(Arc::clone(&memory), pages(1), pages(2)).unwrap_err();
    assert!(outside.to_string().contains("8 KiB at offset 0x1000 do not lie in"), "{outside}");
    assert!(matches!(pinner.pin_part(memory, pages(1), Bytes::ZERO), Err(PinError::Empty { .. })));
}
