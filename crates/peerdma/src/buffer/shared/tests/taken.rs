//! Somebody has the reservation while memory is taken away.

use super::*;

/// A fence of this timeline, in the reservation.
fn add_fence(seat: &Attachment, queue: &Timeline) -> crate::buffer::fence::Fence {
    let mut reservation = seat.reservation().lock();
    reservation.reserve(1).unwrap();
    let fence = queue.issue();
    reservation.add(fence.clone(), Usage::Write).unwrap();
    fence
}

/// Announcing waited for the lock, without end, and whoever had it could be waiting for the announcement.
#[test]
fn announcing_waits_for_nobody_who_has_the_reservation() {
    let (buffer, nic) = (buffer(), Arc::new(Nic::default()));
    let seat = attach(&buffer, &nic, Lifetime::Revocable).unwrap();
    nic.hold(Some(seat.map().unwrap()));
    let held = seat.reservation().lock();
    let (begun, is_begun) = mpsc::channel();
    let other = buffer.clone();
    // In a thread, so that a call which waits is a failure and not silence.
    let author = thread::spawn(move || {
        let disturbing = other.begin(Disturbance::Reset).unwrap();
        begun.send(()).unwrap();
        let late = disturbing.wait(SHORT).unwrap_err();
        assert_eq!(
            late.to_string(),
            "reset must not happen yet: ring: somebody has its reservation, and its fences cannot be looked at; wait on, \
             end whoever holds on, or give up"
        );
        assert!(late.held[0].reservation_taken && late.held[0].fences.is_empty());
        begun.send(()).unwrap();
        late.disturbing.wait(LONG).unwrap().done();
    });
    is_begun.recv_timeout(LONG).expect("it was announced while somebody had the reservation");
    is_begun.recv_timeout(LONG).expect("the wait ended at its deadline");
    drop(held);
    author.join().unwrap();
    assert_eq!(buffer.phase(), Phase::Live);
}

#[test]
fn fences_that_could_not_be_asked_for_are_waited_for_all_the_same() {
    let (buffer, nic, queue) = (buffer(), Arc::new(Nic::default()), Timeline::new("nic queue 0"));
    let seat = attach(&buffer, &nic, Lifetime::Revocable).unwrap();
    let fence = add_fence(&seat, &queue);
    let held = seat.reservation().lock();
    let disturbing = buffer.begin(Disturbance::Reset).unwrap();
    drop(held);
    let late = disturbing.wait(SHORT).unwrap_err();
    assert_eq!(late.held[0].fences, [fence.name()]);
    queue.retire_to(fence.sequence()).unwrap();
    late.disturbing.wait(LONG).unwrap().done();
}

/// An event loop sleeps until it is woken, and nobody else asks.
#[test]
fn who_does_not_block_is_woken_when_the_reservation_is_given_up() {
    let (buffer, nic) = (buffer(), Arc::new(Nic::default()));
    let seat = attach(&buffer, &nic, Lifetime::Revocable).unwrap();
    let held = seat.reservation().lock();
    let disturbing = buffer.begin(Disturbance::Reset).unwrap();
    let counter = Arc::new(Counter(AtomicUsize::new(0)));
    let wake: Arc<dyn Wake> = counter.clone();
    disturbing.wake(&wake);
    let disturbing = disturbing.try_proceed().unwrap_err();
    assert_eq!(counter.0.load(Ordering::Relaxed), 0);
    drop(held);
    assert_eq!(counter.0.load(Ordering::Relaxed), 1);
    disturbing.try_proceed().unwrap().done();
}

/// Fences of the disturbance that was given up are not those of the next.
#[test]
fn each_disturbance_asks_for_its_own_fences() {
    let (buffer, nic, queue) = (buffer(), Arc::new(Nic::default()), Timeline::new("nic queue 0"));
    let seat = attach(&buffer, &nic, Lifetime::Revocable).unwrap();
    let held = seat.reservation().lock();
    drop(buffer.begin(Disturbance::Reset).unwrap());
    drop(held);
    let fence = add_fence(&seat, &queue);
    let late = buffer.begin(Disturbance::Reset).unwrap().wait(SHORT).unwrap_err();
    assert_eq!(late.held[0].fences, [fence.name()]);
    queue.retire_to(fence.sequence()).unwrap();
    late.disturbing.wait(LONG).unwrap().done();
}
