use super::super::*;
use crate::sync::atomic::{AtomicUsize, Ordering};
use alloc::sync::Arc;

/// Counts how often it was told.
#[derive(Default)]
struct Count(AtomicUsize);

impl Count {
    fn told(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Signal for Count {
    fn settled(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn counting() -> (Arc<Count>, Arc<dyn Signal>) {
    let count = Arc::new(Count::default());
    (Arc::clone(&count), count)
}

#[test]
fn a_later_fence_retires_the_earlier_ones() {
    let queue = Timeline::new("queue");
    let fences: Vec<_> = (0..3).map(|_| queue.issue()).collect();
    queue.retire_to(fences[1].sequence()).unwrap();
    let retired: Vec<_> = fences.iter().map(Fence::is_retired).collect();
    assert_eq!(retired, [true, true, false]);
    queue.retire_to(fences[0].sequence()).unwrap();
    assert!(!fences[2].is_retired(), "a completion that is read late changes nothing");
}

/// A completion queue in memory that a device writes is input.
#[test]
fn a_number_that_was_never_issued_retires_nothing() {
    let queue = Timeline::new("queue");
    let fence = queue.issue();
    for number in [0, 2, u64::MAX] {
        let refused = queue.retire_to(Sequence::new(number)).unwrap_err();
        assert_eq!(refused.issued, Sequence::new(1));
    }
    assert_eq!(fence.state(), FenceState::Outstanding);
    assert_eq!(
        queue.retire_to(Sequence::new(2)).unwrap_err().to_string(),
        "fence 2 of \"queue\" was never issued, the last is 1; look at where the number was read"
    );
}

#[test]
fn a_failed_fence_has_retired_and_tells() {
    let queue = Timeline::new("queue");
    let (before, failed, after) = (queue.issue(), queue.issue(), queue.issue());
    queue.fail(failed.sequence(), Failure::Fault).unwrap();
    assert_eq!((before.state(), after.state()), (FenceState::Retired, FenceState::Outstanding));
    assert!(failed.is_retired());
    assert_eq!(
        failed.failure().unwrap().to_string(),
        "fence 2 of \"queue\" retired with a failure: an access was refused; what it was to write is not there"
    );
    queue.fail(before.sequence(), Failure::Device).unwrap();
    assert_eq!(before.state(), FenceState::Retired, "what has retired stays so");
    queue.fail_all(Failure::Reset);
    assert_eq!(after.state(), FenceState::Failed(Failure::Reset));
}

/// Its owner is gone, and the device may be writing for all anybody knows.
#[test]
fn a_timeline_that_is_dropped_retires_nothing() {
    let queue = Timeline::new("queue");
    let (done, abandoned) = (queue.issue(), queue.issue());
    queue.retire_to(done.sequence()).unwrap();
    assert!(!abandoned.write_off(Failure::Reset), "somebody may still retire it");
    drop(queue);
    assert_eq!((done.state(), abandoned.state()), (FenceState::Retired, FenceState::Abandoned));
    assert!(!abandoned.is_retired() && !done.write_off(Failure::Reset));
    assert!(abandoned.write_off(Failure::Reset));
    assert_eq!(abandoned.state(), FenceState::Failed(Failure::Reset));
}

#[test]
fn signals_are_told_once_whenever_they_are_registered() {
    let queue = Timeline::new("queue");
    let fence = queue.issue();
    let ((early, signal), (late, late_signal)) = (counting(), counting());
    fence.notify(&signal);
    assert_eq!(early.told(), 0);
    queue.retire_to(fence.sequence()).unwrap();
    queue.retire_to(fence.sequence()).unwrap();
    fence.notify(&late_signal);
    assert_eq!((early.told(), late.told()), (1, 1));
    let abandoned = queue.issue();
    abandoned.notify(&signal);
    drop(queue);
    assert_eq!(early.told(), 2, "whoever waits hears that nobody will retire it");
}

/// A waiter that gives up again and again must leave nothing behind.
#[test]
fn a_signal_that_was_dropped_is_not_kept() {
    let queue = Timeline::new("queue");
    let fence = queue.issue();
    let (count, signal) = counting();
    fence.notify(&signal);
    drop(signal);
    let weak = Arc::downgrade(&count);
    drop(count);
    assert!(weak.upgrade().is_none());
    queue.retire_to(fence.sequence()).unwrap();
}

#[test]
fn a_set_retires_with_the_last_and_tells_the_first_failure() {
    let (one, two) = (Timeline::new("one"), Timeline::new("two"));
    let mut set: FenceSet = [one.issue(), one.issue(), two.issue()].into_iter().collect();
    one.fail(Sequence::new(1), Failure::Device).unwrap();
    two.fail_all(Failure::Gone);
    assert_eq!(set.state(), FenceState::Outstanding);
    assert_eq!(set.outstanding().count(), 1);
    one.retire_to(Sequence::new(2)).unwrap();
    assert_eq!(set.state(), FenceState::Failed(Failure::Device));
    assert_eq!(set.failure().unwrap().fence.sequence, Sequence::new(1));
    set.extend([two.issue()]);
    assert_eq!(set.failure().unwrap().failure, Failure::Device, "kept although others came");
    assert_eq!(set.as_slice().len(), 2, "what retired well is not, and one failure is enough");
    drop(two);
    assert_eq!(set.state(), FenceState::Abandoned);
    assert_eq!(FenceSet::new().state(), FenceState::Retired);
}

#[test]
fn a_link_of_a_chain_retires_after_all_before_it() {
    let (one, two) = (Timeline::new("one"), Timeline::new("two"));
    let mut chain = Chain::new();
    let links = [chain.push(one.issue()), chain.push(two.issue()), chain.push(one.issue())];
    two.retire_to(Sequence::new(1)).unwrap();
    assert!(links.iter().all(|link| link.state() == FenceState::Outstanding));
    one.retire_to(Sequence::new(1)).unwrap();
    let states = links.map(|link| link.state().is_retired());
    assert_eq!(states, [true, true, false]);
    one.retire_to(Sequence::new(2)).unwrap();
    assert!(chain.last().state().is_retired());
}
