use super::super::*;
use crate::access::Access;

fn waits(reservation: &Reservation, usage: Usage) -> Vec<u64> {
    let mut numbers: Vec<u64> = reservation.waits_for(usage).map(|fence| fence.sequence().number()).collect();
    numbers.sort_unstable();
    numbers
}

/// Linux 7.2, include/linux/dma-resv.h: a query for a usage returns all fences of it and of lower ones.
#[test]
fn waiting_for_a_usage_includes_all_stronger_ones() {
    let mut reservation = Reservation::new();
    reservation.reserve(4).unwrap();
    // Timelines of their own, so that nothing is merged; issued so that numbers tell them apart.
    let timelines = Usage::ALL.map(|usage| Timeline::new(usage.word()));
    for (nth, (timeline, usage)) in timelines.iter().zip(Usage::ALL).enumerate() {
        (0..nth).for_each(|_| drop(timeline.issue()));
        assert_eq!(reservation.add(timeline.issue(), usage), Ok(Added::New));
    }
    for (nth, usage) in Usage::ALL.into_iter().enumerate() {
        assert_eq!(waits(&reservation, usage), (1..=nth as u64 + 1).collect::<Vec<_>>(), "{usage}");
    }
    assert!(Usage::ALL.is_sorted());
}

#[test]
fn readers_wait_for_writers_and_writers_for_both() {
    assert_eq!(Usage::awaited_by(Access::Read), Usage::of(Access::Write));
    assert_eq!(Usage::awaited_by(Access::Write), Usage::of(Access::Read));
    let (nic, gpu) = (Timeline::new("nic"), Timeline::new("gpu"));
    let mut reservation = Reservation::new();
    reservation.reserve(2).unwrap();
    reservation.add(nic.issue(), Usage::of(Access::Read)).unwrap();
    assert_eq!(waits(&reservation, Usage::awaited_by(Access::Read)), [0u64; 0]);
    assert_eq!(waits(&reservation, Usage::awaited_by(Access::Write)), [1]);
    reservation.add(gpu.issue(), Usage::of(Access::Write)).unwrap();
    assert_eq!(waits(&reservation, Usage::awaited_by(Access::Read)), [1]);
}

/// In Linux a crash, or memory written past its end.
#[test]
fn adding_without_a_reserved_slot_is_refused() {
    let queue = Timeline::new("queue");
    let mut reservation = Reservation::new();
    assert_eq!(reservation.add(queue.issue(), Usage::Write), Err(NoSlot { usage: Usage::Write }));
    assert_eq!(reservation.reserve(0), Err(ReserveError::Nothing));
    reservation.reserve(2).unwrap();
    reservation.reserve(1).unwrap();
    let three: FenceSet = (0..3).map(|_| queue.issue()).collect();
    assert_eq!(reservation.add_all(&three, Usage::Read), Err(NoSlot { usage: Usage::Read }));
    assert_eq!(reservation.outstanding().count(), 0, "none of them was added");
    reservation.add(queue.issue(), Usage::Write).unwrap();
    reservation.add(queue.issue(), Usage::Write).unwrap();
    assert!(reservation.add(queue.issue(), Usage::Write).is_err(), "merging needs a slot too");
}

#[test]
fn a_reservation_that_cannot_be_is_refused() {
    let mut reservation = Reservation::new();
    assert_eq!(reservation.reserve(usize::MAX), Err(ReserveError::OutOfMemory { slots: usize::MAX }));
    assert!(reservation.add(Timeline::new("queue").issue(), Usage::Kernel).is_err());
}

#[test]
fn a_later_fence_of_the_timeline_takes_the_place_unless_its_usage_is_weaker() {
    let queue = Timeline::new("queue");
    let mut reservation = Reservation::new();
    let mut add = |usage| {
        reservation.reserve(1).unwrap();
        let added = reservation.add(queue.issue(), usage).unwrap();
        (added, waits(&reservation, Usage::Bookkeeping))
    };
    assert_eq!(add(Usage::Read), (Added::New, vec![1]));
    assert_eq!(add(Usage::Read), (Added::Merged, vec![2]));
    assert_eq!(add(Usage::Write), (Added::Merged, vec![3]));
    // A reader waits for the write alone, so both are kept.
    assert_eq!(add(Usage::Read), (Added::New, vec![3, 4]));
    assert_eq!(add(Usage::Bookkeeping), (Added::New, vec![3, 4, 5]));
    assert_eq!(add(Usage::Kernel), (Added::Merged, vec![6]));
}

#[test]
fn a_fence_is_promoted_and_not_demoted() {
    let queue = Timeline::new("queue");
    let mut reservation = Reservation::new();
    reservation.reserve(3).unwrap();
    let fence = queue.issue();
    assert_eq!(reservation.add(fence.clone(), Usage::Read), Ok(Added::New));
    assert_eq!(reservation.add(fence.clone(), Usage::Write), Ok(Added::Merged));
    assert_eq!(reservation.add(fence.clone(), Usage::Bookkeeping), Ok(Added::Covered));
    assert_eq!(reservation.outstanding().map(|(_, usage)| usage).collect::<Vec<_>>(), [Usage::Write]);
    let update = Timeline::new("page tables").issue();
    let refused = reservation.replace(&queue, &update, Usage::Bookkeeping).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "a fence of usage write cannot become one of usage bookkeeping, for which fewer wait; replace it by one of \
         usage write"
    );
    assert_eq!(waits(&reservation, Usage::Write), [1]);
}

#[test]
fn all_fences_of_a_timeline_are_replaced_by_one() {
    let (evictions, tables, other) = (Timeline::new("evictions"), Timeline::new("tables"), Timeline::new("other"));
    let mut reservation = Reservation::new();
    reservation.reserve(3).unwrap();
    reservation.add(evictions.issue(), Usage::Read).unwrap();
    reservation.add(evictions.issue(), Usage::Bookkeeping).unwrap();
    reservation.add(other.issue(), Usage::Write).unwrap();
    let update = tables.issue();
    assert_eq!(reservation.replace(&evictions, &update, Usage::Read), Ok(2));
    assert_eq!(reservation.outstanding().count(), 2);
    assert!(reservation.waits_for(Usage::Read).any(|fence| fence.shares_timeline(&update)));
    assert_eq!(reservation.replace(&evictions, &update, Usage::Kernel), Ok(0), "none of it is left");
}

#[test]
fn what_has_retired_takes_no_room_and_what_is_abandoned_stays() {
    let (queue, gone) = (Timeline::new("queue"), Timeline::new("gone"));
    let mut reservation = Reservation::new();
    reservation.reserve(1).unwrap();
    reservation.add(gone.issue(), Usage::Write).unwrap();
    drop(gone);
    for _ in 0..100 {
        reservation.reserve(1).unwrap();
        let fence = queue.issue();
        reservation.add(fence.clone(), Usage::Write).unwrap();
        queue.fail(fence.sequence(), Failure::Fault).unwrap();
    }
    assert_eq!(reservation.outstanding().count(), 1, "only the one of which nobody knows");
    reservation.reserve(1).unwrap();
    let late = queue.issue();
    queue.fail_all(Failure::Reset);
    assert_eq!(reservation.add(late, Usage::Write), Ok(Added::Retired));
}
