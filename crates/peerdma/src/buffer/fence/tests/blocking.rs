use super::super::*;
use core::convert::Infallible;
use core::time::Duration;
use std::sync::Arc;
use std::thread;

const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_wait_ends_when_the_last_of_several_retires() {
    let (one, two) = (Timeline::new("one"), Timeline::new("two"));
    let both: FenceSet = [one.issue(), two.issue()].into_iter().collect();
    thread::scope(|threads| {
        let waiter = threads.spawn(|| both.wait_at_most(LONG));
        one.retire_to(one.issued()).unwrap();
        two.fail(two.issued(), Failure::Fault).unwrap();
        let Ok(Ok(Retired::WithFailure(failed))) = waiter.join() else { panic!("both have retired") };
        assert_eq!((&*failed.fence.timeline, failed.failure), ("two", Failure::Fault));
    });
}

#[test]
fn a_wait_that_is_too_short_names_a_fence() {
    let queue = Timeline::new("queue");
    let set: FenceSet = [queue.issue(), queue.issue()].into_iter().collect();
    let late = set.wait_at_most(Duration::from_millis(2)).unwrap_err();
    assert_eq!(
        late.to_string(),
        "fence 1 of \"queue\" and 1 more are outstanding after 2 ms; wait longer, or stop the device"
    );
}

/// A driver thread that dies would leave its waiters asleep for good.
#[test]
fn a_wait_ends_when_the_timeline_is_dropped_and_says_that_nobody_knows() {
    let queue = Timeline::new("queue");
    let fence = queue.issue();
    let waiter = {
        let fence = fence.clone();
        thread::spawn(move || fence.wait_at_most(LONG))
    };
    drop(queue);
    let error = waiter.join().unwrap().unwrap_err();
    assert!(matches!(&error, NotRetired::Abandoned { fence } if fence.sequence == Sequence::new(1)), "{error}");
    assert!(fence.write_off(Failure::Reset));
    assert!(matches!(fence.wait_at_most(Duration::ZERO), Ok(Retired::WithFailure(_))));
}

#[test]
fn locks_taken_together_in_any_order_do_not_wait_for_each_other() {
    let locks: Arc<[ReservationLock<u64>; 3]> = Arc::default();
    let threads: Vec<_> = [[0, 1, 2], [2, 1, 0], [1, 2, 0]]
        .into_iter()
        .map(|order| {
            let locks = Arc::clone(&locks);
            thread::spawn(move || {
                for _ in 0..200 {
                    let mut held = lock_all(&order.map(|nth| &locks[nth])).unwrap();
                    held.iter_mut().for_each(|value| **value += 1);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(locks.iter().all(|lock| *lock.lock() == 600));
}

#[test]
fn a_buffer_named_twice_is_refused_before_anything_is_locked() {
    let (one, two) = (ReservationLock::new(1), ReservationLock::new(2));
    let twice = lock_all(&[&one, &two, &one]).unwrap_err();
    assert_eq!((twice.first, twice.second), (0, 2));
    assert_eq!(*one.lock() + *two.lock(), 3);
}

/// The slot is taken away while the fault looks where the memory lies.
#[test]
fn a_fault_installs_nothing_in_a_slot_that_changed_meanwhile() {
    let (buffer, slot) = (ReservationLock::new(7), SecondStage::new(None));
    let find = |place: &mut i32| {
        slot.invalidate(|table| *table = None);
        Ok::<_, Infallible>(*place)
    };
    let (fault, _) = slot.fault(|table| *table);
    assert_eq!(fault.serve(&buffer, find, |table, place| *table = Some(place)), Ok(Served::Again));
    assert_eq!(slot.invalidate(|table| *table), None);
}
