use super::*;
use rustix::fs::{MemfdFlags, memfd_create};

fn page() -> Bytes {
    Bytes::new(rustix::param::page_size() as u64)
}

fn range(mapping: &Mapping) -> AddrRange<ProcVa> {
    AddrRange::new(mapping.address(), mapping.len()).unwrap()
}

fn rings() -> Vec<Ring> {
    let mut rings = vec![Ring::with_descriptor().unwrap()];
    match Ring::registered_only() {
        Ok(ring) => rings.push(ring),
        Err(error) => assert_eq!(error, Errno::INVAL, "only kernels before 6.5 know no such rings"),
    }
    rings
}

#[test]
fn bytes_go_both_ways_through_a_slot_of_either_ring() {
    for mut ring in rings() {
        let pages = Mapping::anonymous(page().as_u64() as usize).unwrap();
        let file = memfd_create("transfer", MemfdFlags::CLOEXEC).unwrap();
        ring.register_table(8).unwrap();
        ring.fill(3, range(&pages)).unwrap();
        for turn in 0..20u8 {
            pages.write(100, &[turn; 50]).unwrap();
            let part = range(&pages).slice(Bytes::new(100), Bytes::new(50)).unwrap();
            assert_eq!(ring.transfer(Way::OutOfBuffer, 3, part, file.as_fd(), Bytes::ZERO), Ok(Bytes::new(50)));
            let part = range(&pages).slice(Bytes::new(1000), Bytes::new(60)).unwrap();
            assert_eq!(ring.transfer(Way::IntoBuffer, 3, part, file.as_fd(), Bytes::ZERO), Ok(Bytes::new(50)));
            let mut back = [0; 50];
            pages.read(1000, &mut back).unwrap();
            assert_eq!(back, [turn; 50]);
        }
        ring.empty(3).unwrap();
        let part = range(&pages).slice(Bytes::ZERO, Bytes::new(8)).unwrap();
        assert_eq!(ring.transfer(Way::IntoBuffer, 3, part, file.as_fd(), Bytes::ZERO), Err(Errno::FAULT));
        ring.unregister_table().unwrap();
    }
}

#[test]
fn a_ring_of_one_thread_refuses_every_other() {
    let Ok(mut ring) = Ring::registered_only() else { return };
    let refused = std::thread::scope(|scope| scope.spawn(|| ring.register_table(1)).join().unwrap());
    assert_eq!(refused, Err(Errno::BADF));
    ring.register_table(1).unwrap();
}

#[test]
fn the_kernel_answers_one_errno_for_what_it_does_not_pin_and_others_for_what_is_no_range() {
    for mut ring in rings() {
        ring.register_table(2).unwrap();
        let at = |start, len| AddrRange::new(ProcVa::new(start), Bytes::new(len)).unwrap();
        let pages = Mapping::anonymous(page().as_u64() as usize).unwrap();
        let start = pages.address().as_u64();
        assert_eq!(ring.fill(0, at(start, (1 << 30) + 1)), Err(Errno::FAULT), "more than 1 GiB");
        assert_eq!(ring.fill(0, at(0x1000, 0x1000)), Err(Errno::FAULT), "a hole");
        assert_eq!(ring.fill(0, at(0xffff_8880_0000_0000, 0x1000)), Err(Errno::FAULT), "the kernel's");
        assert_eq!(ring.fill(0, at(u64::MAX - 0xffe, 0xfff)), Err(Errno::OVERFLOW), "to the very end");
        assert_eq!(ring.fill(2, range(&pages)), Err(Errno::INVAL), "no such slot");
        ring.fill(0, range(&pages)).unwrap();
        assert_eq!(ring.fill(0, at(0x1000, 0x1000)), Err(Errno::FAULT));
    }
}

#[test]
fn a_table_has_sixteen_thousand_slots_and_no_more() {
    for mut ring in rings() {
        assert_eq!(ring.register_table(crate::pin::MOST_SLOTS + 1), Err(Errno::INVAL));
        ring.register_table(crate::pin::MOST_SLOTS).unwrap();
    }
}

#[test]
fn a_ring_without_a_descriptor_takes_none() {
    let Ok(ring) = Ring::registered_only() else { return };
    assert!(matches!(ring.place, Place::Index { index: 0, .. }), "the first of this thread");
    let second = Ring::registered_only().unwrap();
    assert!(matches!(second.place, Place::Index { index: 1, .. }), "{second:?}");
    drop(ring);
    let third = Ring::registered_only().unwrap();
    assert!(matches!(third.place, Place::Index { index: 0, .. }), "the index of one that was dropped is used again");
}
