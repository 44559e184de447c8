//! What a mirror promises, one at a time.

use super::*;

#[test]
fn a_pinned_range_is_mapped_whole_and_asks_for_nothing() {
    let mut mirror = mirror();
    let pinned = mirror.register(pages(10, 4), Prot::ReadWrite, Keeping::Pinned).unwrap();
    assert_eq!(pinned.map, Some((pages(10, 4), Prot::ReadWrite)));
    assert_eq!(mirror.leads(pages(10, 4), Access::Write), Ok(()));
    let faulting = mirror.register(pages(14, 4), Prot::ReadWrite, Keeping::Faulting).unwrap();
    assert_eq!(faulting.map, None);
    assert_eq!(
        mirror.leads(pages(10, 8), Access::Read),
        Err(Wanted { at: ProcVa::new(14 * PAGE), access: Access::Read })
    );
    assert!(matches!(bring(&mut mirror, 14, Access::Read, Prot::ReadWrite), Finished::Map { .. }));
    assert_eq!(mirror.counts().requests_in_pinned, 0);
    // A device that asks all the same is told that the page is there, and is counted.
    assert_eq!(mirror.fault(wanted(11, Access::Write), Token(0)), Fault::Answer(Answer::Success));
    assert_eq!(mirror.counts().requests_in_pinned, 1);
}

#[test]
fn discarding_what_is_pinned_ends_that_part_and_says_so() {
    let mut mirror = mirror();
    let pinned = mirror.register(pages(10, 4), Prot::ReadWrite, Keeping::Pinned).unwrap();
    let discard = mirror.begin(&Event::Discard(pages(11, 1)));
    assert_eq!(
        (discard.taken.as_slice(), discard.diverged.as_slice()),
        ([pages(11, 1)].as_slice(), [pinned.id].as_slice())
    );
    assert!(mirror.end(discard).map.is_empty());
    assert_eq!(mirror.fault(wanted(11, Access::Read), Token(0)), Fault::Answer(Answer::Invalid));
    assert_eq!(mirror.leads(pages(12, 2), Access::Write), Ok(()));
    // A fork leaves pins where they are: the child is given a copy.
    let fork = mirror.begin(&Event::Fork);
    assert!(fork.taken.is_empty());
    assert!(mirror.end(fork).map.is_empty());
}

#[test]
fn a_page_that_was_touched_before_an_event_is_not_installed_after_it() {
    for event in [
        Event::Discard(pages(1, 1)),
        Event::Unmap(pages(0, 2)),
        Event::Remap { from: pages(0, 4), to: ProcVa::new(40 * PAGE), len: Bytes::new(4 * PAGE) },
        Event::Protect { at: pages(1, 1), prot: Some(Prot::Read) },
        Event::Fork,
    ] {
        let mut mirror = mirror();
        mirror.register(pages(0, 4), Prot::ReadWrite, Keeping::Faulting).unwrap();
        let early = ticket(&mut mirror, 1, Access::Write);
        let begun = mirror.begin(&event);
        let again = Finished::Again(wanted(1, Access::Write));
        assert_eq!(mirror.finish(early.clone(), Brought::Page(Prot::ReadWrite)), again, "{event:?}");
        let _ = mirror.end(begun);
        assert_eq!(mirror.finish(early, Brought::Page(Prot::ReadWrite)), again, "{event:?}, once it is over");
        assert_eq!(mirror.present().count(), 0);
    }
}

#[test]
fn whoever_asks_during_an_invalidation_is_given_back_at_its_end_and_once() {
    let mut mirror = mirror();
    mirror.register(pages(0, 4), Prot::ReadWrite, Keeping::Faulting).unwrap();
    let first = mirror.begin(&Event::Discard(pages(0, 2)));
    let second = mirror.begin(&Event::Discard(pages(1, 2)));
    assert_eq!(mirror.fault(wanted(1, Access::Read), Token(7)), Fault::Parked);
    assert!(matches!(mirror.fault(wanted(3, Access::Read), Token(8)), Fault::Bring(_)));
    assert!(mirror.end(first).parked.is_empty(), "the other is under way");
    let parked = Parked { token: Token(7), wanted: wanted(1, Access::Read) };
    assert_eq!(mirror.end(second).parked, [parked]);
    let third = mirror.begin(&Event::Discard(pages(0, 4)));
    assert!(mirror.end(third).parked.is_empty());
}

#[test]
fn what_is_unmapped_is_refused_and_the_rest_of_its_range_is_not() {
    let mut mirror = mirror();
    let range = mirror.register(pages(0, 4), Prot::ReadWrite, Keeping::Faulting).unwrap();
    for page in 0..4 {
        assert!(matches!(bring(&mut mirror, page, Access::Write, Prot::ReadWrite), Finished::Map { .. }));
    }
    let unmap = mirror.begin(&Event::Unmap(pages(1, 2)));
    assert_eq!(unmap.taken, [pages(1, 2)]);
    assert!(mirror.end(unmap).map.is_empty());
    assert_eq!(mirror.fault(wanted(1, Access::Read), Token(0)), Fault::Answer(Answer::Invalid));
    assert_eq!(mirror.pieces_of(range.id).collect::<Vec<_>>(), [pages(0, 1), pages(3, 1)]);
    let rest = mirror.unregister(range.id).unwrap();
    assert_eq!(rest.taken, [pages(0, 1), pages(3, 1)]);
    let _ = mirror.end(rest);
    assert_eq!(mirror.unregister(range.id).unwrap_err(), UnknownRange { id: range.id });
}

#[test]
fn what_moves_is_asked_for_at_its_new_addresses_and_grows_with_them() {
    let mut mirror = mirror();
    let range = mirror.register(pages(0, 4), Prot::Read, Keeping::Faulting).unwrap();
    let to = ProcVa::new(100 * PAGE);
    let moved = mirror.begin(&Event::Remap { from: pages(2, 2), to, len: Bytes::new(5 * PAGE) });
    assert_eq!(mirror.fault(wanted(100, Access::Read), Token(0)), Fault::Parked);
    assert_eq!(mirror.end(moved).parked.len(), 1);
    assert_eq!(mirror.pieces_of(range.id).collect::<Vec<_>>(), [pages(0, 2), pages(100, 5)]);
    assert_eq!(mirror.fault(wanted(2, Access::Read), Token(0)), Fault::Answer(Answer::Invalid));
    assert!(matches!(bring(&mut mirror, 104, Access::Read, Prot::ReadWrite), Finished::Map { prot: Prot::Read, .. }));
}

#[test]
fn a_device_may_do_what_the_owner_and_the_page_both_permit() {
    let mut mirror = mirror();
    mirror.register(pages(0, 2), Prot::ReadWrite, Keeping::Faulting).unwrap();
    let invalid = Finished::Answer(Answer::Invalid);
    assert_eq!(bring(&mut mirror, 0, Access::Write, Prot::Read), invalid);
    assert!(matches!(bring(&mut mirror, 0, Access::Read, Prot::Read), Finished::Map { prot: Prot::Read, .. }));
    // Asked for again for a write, it is brought again, and permits both.
    assert!(matches!(
        bring(&mut mirror, 0, Access::Write, Prot::ReadWrite),
        Finished::Map { prot: Prot::ReadWrite, .. }
    ));
    let closed = mirror.begin(&Event::Protect { at: pages(0, 1), prot: None });
    assert_eq!(closed.taken, [pages(0, 1)]);
    let _ = mirror.end(closed);
    assert_eq!(mirror.fault(wanted(0, Access::Read), Token(0)), Fault::Answer(Answer::Invalid));
    let opened = mirror.begin(&Event::Protect { at: pages(0, 1), prot: Some(Prot::Read) });
    let _ = mirror.end(opened);
    assert!(matches!(bring(&mut mirror, 0, Access::Read, Prot::ReadWrite), Finished::Map { prot: Prot::Read, .. }));
}

#[test]
fn pinned_memory_comes_back_with_its_new_permission() {
    let mut mirror = mirror();
    mirror.register(pages(0, 4), Prot::ReadWrite, Keeping::Pinned).unwrap();
    let change = mirror.begin(&Event::Protect { at: pages(1, 1), prot: Some(Prot::Read) });
    assert_eq!(change.taken, [pages(1, 1)]);
    assert_eq!(mirror.end(change).map, [(pages(1, 1), Prot::Read)]);
    assert_eq!(mirror.leads(pages(0, 4), Access::Read), Ok(()));
    assert_eq!(mirror.leads(pages(0, 4), Access::Write).unwrap_err().at, ProcVa::new(PAGE));
    // Unmapped while its permission changes, it does not come back.
    let change = mirror.begin(&Event::Protect { at: pages(1, 1), prot: Some(Prot::ReadWrite) });
    let unmap = mirror.begin(&Event::Unmap(pages(1, 1)));
    assert!(mirror.end(change).map.is_empty() && mirror.end(unmap).map.is_empty());
}

#[test]
fn a_failure_is_told_from_a_refusal() {
    let mut mirror = mirror();
    mirror.register(pages(0, 1), Prot::ReadWrite, Keeping::Faulting).unwrap();
    let denied = ticket(&mut mirror, 0, Access::Read);
    assert_eq!(mirror.finish(denied, Brought::Denied), Finished::Answer(Answer::Invalid));
    let failed = ticket(&mut mirror, 0, Access::Read);
    assert_eq!(mirror.finish(failed, Brought::Failed), Finished::Answer(Answer::Failure));
    assert_eq!(mirror.counts().refused, 2);
}

#[test]
fn ranges_are_whole_pages_that_nobody_else_has() {
    let mut mirror = mirror();
    let half = AddrRange::new(ProcVa::new(PAGE / 2), Bytes::new(PAGE)).unwrap();
    assert!(matches!(mirror.register(half, Prot::Read, Keeping::Faulting), Err(RegisterError::NotPages { .. })));
    let id = mirror.register(pages(2, 2), Prot::Read, Keeping::Faulting).unwrap().id;
    let error = mirror.register(pages(0, 3), Prot::Read, Keeping::Pinned).unwrap_err();
    assert_eq!(error, RegisterError::Overlap { at: pages(0, 3), other: pages(2, 1), id });
    let gone = mirror.unregister(id).unwrap();
    assert_eq!(
        mirror.register(pages(2, 2), Prot::Read, Keeping::Faulting),
        Err(RegisterError::Busy { at: pages(2, 2) })
    );
    let _ = mirror.end(gone);
    let next = mirror.register(pages(2, 2), Prot::Read, Keeping::Faulting).unwrap().id;
    assert_ne!(next, id, "no name is given twice");
    // The last page there is.
    let last = AddrRange::new(ProcVa::new(!(PAGE - 1)), Bytes::new(PAGE)).unwrap();
    mirror.register(last, Prot::Read, Keeping::Faulting).unwrap();
    assert!(matches!(mirror.fault(Wanted { at: last.last(), access: Access::Read }, Token(0)), Fault::Bring(_)));
    let over = mirror.begin(&Event::Remap { from: last, to: ProcVa::new(!0), len: Bytes::new(2 * PAGE) });
    assert!(mirror.end(over).map.is_empty(), "no address is past the last");
}

#[test]
fn every_event_says_when_userfaultfd_tells_of_it() {
    let at = pages(0, 1);
    assert_eq!(Event::Discard(at).told_by_userfaultfd(), Told::Before);
    assert_eq!(Event::Unmap(at).told_by_userfaultfd(), Told::After);
    assert_eq!(Event::Protect { at, prot: None }.told_by_userfaultfd(), Told::Never);
    assert_eq!(Event::Fork.told_by_userfaultfd(), Told::After);
}
