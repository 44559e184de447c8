//! Fences in the order in which a device retires them.

use super::state::{FailedFence, Failure, FenceName, FenceState, Sequence};
use crate::sync::atomic::{AtomicU8, Ordering};
use crate::sync::{Lock, for_every};
use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::fmt;
use core::mem;
use thiserror::Error;

/// Is told once when a fence is settled: retired, failed or abandoned.
///
/// For wakers, event descriptors and threads. It is called by whoever retires, with no lock held
/// that this crate knows of; it must not block for long.
pub trait Signal: Send + Sync {
    /// A fence that this was registered with is settled.
    fn settled(&self);
}

/// What all fences of a timeline share.
struct Context {
    name: Arc<str>,
    line: Lock<Line>,
}

#[derive(Default)]
struct Line {
    issued: u64,
    /// Those not settled, in their order.
    outstanding: VecDeque<Arc<Point>>,
}

struct Point {
    context: Arc<Context>,
    sequence: Sequence,
    state: AtomicU8,
    signals: Lock<Vec<Weak<dyn Signal>>>,
}

impl Point {
    fn settle(&self, state: FenceState) {
        // Release: who sees it retired sees what the device's driver saw. Before the signals are taken:
        // whoever registers looks at the state with their lock held.
        self.state.store(state.to_byte(), Ordering::Release);
        let signals = self.signals.with(mem::take);
        for_every(signals.iter().filter_map(Weak::upgrade), |signal| signal.settled());
    }
}

/// One queue of a device, or whatever else finishes in the order in which it begins.
///
/// Whoever submits issues a fence for each submission, and whoever hears of completions retires them. A
/// timeline that is dropped abandons what is outstanding: nobody will say any more that the device
/// is done, so nobody may take it for done.
///
/// # Concurrency
/// Each call takes the timeline's lock for a moment. Signals are called without it.
///
/// # Examples
/// ```
/// use peerdma::buffer::fence::{Failure, FenceState, Timeline};
///
/// let queue = Timeline::new("nic queue 0");
/// let (first, second) = (queue.issue(), queue.issue());
/// queue.retire_to(first.sequence())?;
/// assert!(first.is_retired() && !second.is_retired());
/// queue.fail(second.sequence(), Failure::Fault)?;
/// assert!(second.is_retired());
/// assert_eq!(second.state(), FenceState::Failed(Failure::Fault));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Timeline {
    context: Arc<Context>,
}

impl Timeline {
    /// One on which nothing was issued.
    pub fn new(name: &str) -> Self {
        Self { context: Arc::new(Context { name: Arc::from(name), line: Lock::new(Line::default()) }) }
    }

    /// A fence for what is submitted next.
    pub fn issue(&self) -> Fence {
        let point = self.context.line.with(|line| {
            line.issued += 1;
            let point = Arc::new(Point {
                context: Arc::clone(&self.context),
                sequence: Sequence::new(line.issued),
                state: AtomicU8::new(FenceState::Outstanding.to_byte()),
                signals: Lock::new(Vec::new()),
            });
            line.outstanding.push_back(Arc::clone(&point));
            point
        });
        Fence { point }
    }

    /// The device is done with everything up to and including `sequence`.
    ///
    /// Again, or for an earlier one, is no mistake and changes nothing: completions may be read late.
    ///
    /// # Errors
    /// [`NotIssued`] if no submission has that number, and nothing has changed: what was read from the device is no
    /// completion of this timeline.
    pub fn retire_to(&self, sequence: Sequence) -> Result<(), NotIssued> {
        self.settle_to(sequence, FenceState::Retired)
    }

    /// The device is done with `sequence`, which did not come about, and before that with all earlier ones.
    ///
    /// One that has retired stays as it is.
    ///
    /// # Errors
    /// As [`retire_to`](Self::retire_to).
    pub fn fail(&self, sequence: Sequence, failure: Failure) -> Result<(), NotIssued> {
        self.settle_to(sequence, FenceState::Failed(failure))
    }

    /// The device has stopped, and whatever is outstanding did not come about: after a reset, or when it is gone.
    pub fn fail_all(&self, failure: Failure) {
        let points = self.context.line.with(|line| mem::take(&mut line.outstanding));
        for_every(points, |point| point.settle(FenceState::Failed(failure)));
    }

    fn settle_to(&self, sequence: Sequence, last: FenceState) -> Result<(), NotIssued> {
        let points: VecDeque<_> = self.context.line.with(|line| {
            if sequence.number() > line.issued || sequence.number() == 0 {
                let (timeline, issued) = (Arc::clone(&self.context.name), Sequence::new(line.issued));
                return Err(NotIssued { fence: FenceName { timeline, sequence }, issued });
            }
            let done = line.outstanding.partition_point(|point| point.sequence <= sequence);
            Ok(line.outstanding.drain(..done).collect())
        })?;
        // Nobody else finds them any more, so all are settled whatever a signal does.
        for_every(points, |point| point.settle(if point.sequence == sequence { last } else { FenceState::Retired }));
        Ok(())
    }

    /// The last that was issued; of number 0 if none was.
    pub fn issued(&self) -> Sequence {
        Sequence::new(self.context.line.with(|line| line.issued))
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.context.name
    }
}

impl Drop for Timeline {
    fn drop(&mut self) {
        let points = self.context.line.with(|line| mem::take(&mut line.outstanding));
        for_every(points, |point| point.settle(FenceState::Abandoned));
    }
}

impl fmt::Debug for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timeline").field("name", &self.name()).field("issued", &self.issued()).finish()
    }
}

/// A number that no submission of the timeline has.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{fence} was never issued, the last is {issued}; look at where the number was read")]
pub struct NotIssued {
    /// What was to retire.
    pub fence: FenceName,
    /// The last that was issued.
    pub issued: Sequence,
}

/// What a device was told to do, and may still be doing.
///
/// Cloning gives another handle of the same fence.
#[derive(Clone)]
pub struct Fence {
    point: Arc<Point>,
}

impl Fence {
    /// What is known of it; settled stays settled, except by [`write_off`](Self::write_off).
    pub fn state(&self) -> FenceState {
        FenceState::of_byte(self.point.state.load(Ordering::Acquire))
    }

    /// Whether the device is done, well or not.
    pub fn is_retired(&self) -> bool {
        self.state().is_retired()
    }

    /// Which one failed and why, if it did.
    pub fn failure(&self) -> Option<FailedFence> {
        match self.state() {
            FenceState::Failed(failure) => Some(FailedFence { fence: self.name(), failure }),
            _ => None,
        }
    }

    /// Its number on its timeline.
    pub fn sequence(&self) -> Sequence {
        self.point.sequence
    }

    /// What it is called in errors.
    pub fn name(&self) -> FenceName {
        FenceName { timeline: Arc::clone(&self.point.context.name), sequence: self.point.sequence }
    }

    /// Whether it stands on that timeline.
    pub fn is_on(&self, timeline: &Timeline) -> bool {
        Arc::ptr_eq(&self.point.context, &timeline.context)
    }

    /// Whether both stand on one timeline, so that the later is settled after the earlier.
    pub fn shares_timeline(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.point.context, &other.point.context)
    }

    /// Tells `signal` when the fence is settled; at once if it is.
    ///
    /// The signal is not kept alive: one that was dropped is not told and holds nothing.
    pub fn notify(&self, signal: &Arc<dyn Signal>) {
        let settled = self.point.signals.with(|signals| {
            if self.state().is_settled() {
                return true;
            }
            signals.retain(|other| other.strong_count() > 0);
            signals.push(Arc::downgrade(signal));
            false
        });
        if settled {
            signal.settled();
        }
    }

    /// Settles an abandoned fence, by the word of a caller who knows that the device has stopped.
    ///
    /// After a reset of the device, say. Answers whether it did; a fence that somebody may still retire, or that is
    /// retired, stays as it is.
    pub fn write_off(&self, failure: Failure) -> bool {
        let (from, to) = (FenceState::Abandoned.to_byte(), FenceState::Failed(failure).to_byte());
        self.point.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

impl fmt::Debug for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?})", self.name(), self.state())
    }
}
