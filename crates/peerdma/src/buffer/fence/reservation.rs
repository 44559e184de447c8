//! What devices may still be doing with one buffer.

use super::set::FenceSet;
use super::timeline::{Fence, Timeline};
use super::usage::Usage;
use alloc::vec::Vec;
use thiserror::Error;

/// The fences of one buffer, each with what it stands for.
///
/// Who submits work reserves slots first, submits, and adds the fence then, when it is too late to
/// fail. Who wants to access or move memory waits for what [`waits_for`](Self::waits_for) gives; it
/// must not be waited with the buffer's lock held by one who has to retire under it.
///
/// The rules are those of Linux 7.2 `struct dma_resv` ([`Usage`]), with two differences: a fence added
/// without a slot is an error and not a crash, and a demotion is refused.
///
/// # Examples
/// ```
/// use peerdma::access::Access;
/// use peerdma::buffer::fence::{FenceSet, Reservation, Timeline, Usage};
///
/// let nic = Timeline::new("nic queue 0");
/// let mut reservation = Reservation::new();
/// reservation.reserve(1)?;
/// let reads = nic.issue();
/// reservation.add(reads.clone(), Usage::Read)?;
///
/// // Others may read at the same time; who writes waits.
/// assert_eq!(reservation.waits_for(Usage::awaited_by(Access::Read)).count(), 0);
/// let before: FenceSet = reservation.waits_for(Usage::awaited_by(Access::Write)).collect();
/// assert!(!before.state().is_retired());
/// nic.retire_to(reads.sequence())?;
/// assert!(before.state().is_retired());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct Reservation {
    entries: Vec<Entry>,
    /// Slots that were reserved and not used.
    room: usize,
}

#[derive(Debug)]
struct Entry {
    fence: Fence,
    usage: Usage,
}

impl Entry {
    /// Whether whoever waits for this one, by its usage, has waited for the other too.
    fn covers(&self, fence: &Fence, usage: Usage) -> bool {
        covers((&self.fence, self.usage), (fence, usage))
    }
}

fn covers(one: (&Fence, Usage), other: (&Fence, Usage)) -> bool {
    one.0.shares_timeline(other.0) && one.0.sequence() >= other.0.sequence() && one.1 <= other.1
}

/// What became of a fence that was added.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Added {
    /// It stands beside the others.
    New,
    /// It took the place of earlier ones of its timeline, of its usage or a weaker one.
    Merged,
    /// A later one of its timeline, of its usage or a stronger one, stands there.
    Covered,
    /// It has retired, so nobody needs to wait for it.
    Retired,
}

impl Reservation {
    /// One without fences.
    pub const fn new() -> Self {
        Self { entries: Vec::new(), room: 0 }
    }

    /// Makes room, so that `count` calls of [`add`](Self::add) cannot fail.
    ///
    /// Slots that were reserved before and not used count; a caller that failed half way need not
    /// give any back.
    ///
    /// # Errors
    /// [`ReserveError`]; nothing was reserved, so nothing may be submitted.
    pub fn reserve(&mut self, count: usize) -> Result<(), ReserveError> {
        if count == 0 {
            return Err(ReserveError::Nothing);
        }
        self.forget_the_retired();
        let room = self.room.max(count);
        self.entries.try_reserve(room).map_err(|_| ReserveError::OutOfMemory { slots: count })?;
        self.room = room;
        Ok(())
    }

    /// Records what a device is doing with the buffer. Takes one reserved slot, whatever comes of it.
    ///
    /// A fence that is added again with a stronger usage is promoted by that; with a weaker one it keeps
    /// the stronger.
    ///
    /// # Errors
    /// [`NoSlot`] without a reserved slot. If the device has begun, wait for the fence
    /// before anything else is done with the buffer.
    pub fn add(&mut self, fence: Fence, usage: Usage) -> Result<Added, NoSlot> {
        if self.room == 0 {
            return Err(NoSlot { usage });
        }
        self.room -= 1;
        Ok(self.put(fence, usage))
    }

    /// Adds each of several fences; takes a slot for each.
    ///
    /// # Errors
    /// [`NoSlot`] if there are fewer reserved slots than fences; then none is added.
    pub fn add_all(&mut self, fences: &FenceSet, usage: Usage) -> Result<(), NoSlot> {
        let fences = fences.as_slice();
        self.room = self.room.checked_sub(fences.len()).ok_or(NoSlot { usage })?;
        for fence in fences {
            self.put(fence.clone(), usage);
        }
        Ok(())
    }

    fn put(&mut self, fence: Fence, usage: Usage) -> Added {
        if fence.is_retired() {
            return Added::Retired;
        }
        if self.entries.iter().any(|entry| entry.covers(&fence, usage)) {
            return Added::Covered;
        }
        let before = self.entries.len();
        self.entries.retain(|entry| !covers((&fence, usage), (&entry.fence, entry.usage)));
        let merged = self.entries.len() < before;
        self.entries.push(Entry { fence, usage });
        if merged { Added::Merged } else { Added::New }
    }

    /// Puts `fence` in the place of all fences of `timeline`; answers of how many.
    ///
    /// For work that is known to end after theirs, such as the update of page tables that follows an
    /// eviction (Linux 7.2 `dma_resv_replace_fences`). Without any there, nothing is put there.
    ///
    /// # Errors
    /// [`Demotion`] if one of them has a stronger usage; nothing has changed.
    pub fn replace(&mut self, timeline: &Timeline, fence: &Fence, usage: Usage) -> Result<usize, Demotion> {
        let of_timeline = |entry: &Entry| entry.fence.is_on(timeline) && !entry.fence.is_retired();
        let held = self.entries.iter().filter(|entry| of_timeline(entry)).map(|entry| entry.usage);
        if let Some(stronger) = held.clone().find(|held| *held < usage) {
            return Err(Demotion { held: stronger, asked: usage });
        }
        let replaced = held.count();
        if replaced > 0 {
            self.entries.retain(|entry| !of_timeline(entry));
            // Into a place that has just become free.
            self.put(fence.clone(), usage);
        }
        Ok(replaced)
    }

    /// What is to be waited for by one who waits for `usage`: all of it and of stronger usages that has not retired.
    pub fn waits_for(&self, usage: Usage) -> impl Iterator<Item = &Fence> {
        self.outstanding().filter(move |(_, held)| *held <= usage).map(|(fence, _)| fence)
    }

    /// Everything that has not retired, with its usage.
    pub fn outstanding(&self) -> impl Iterator<Item = (&Fence, Usage)> {
        self.entries.iter().filter(|entry| !entry.fence.is_retired()).map(|entry| (&entry.fence, entry.usage))
    }

    /// All that devices are doing with the buffer now, of every usage; what is added later is not among it.
    ///
    /// What a pin is let go with ([`Ledger::unpin`](crate::buffer::pins::Ledger::unpin)).
    pub fn users(&self) -> FenceSet {
        self.outstanding().map(|(fence, _)| fence).collect()
    }

    fn forget_the_retired(&mut self) {
        self.entries.retain(|entry| !entry.fence.is_retired());
    }
}

/// No slot can be reserved.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum ReserveError {
    /// None was asked for.
    #[error("no slot was asked for; reserve one for each fence that will be added")]
    Nothing,
    /// There is no memory.
    #[error("no memory for {slots} more fences of a buffer; submit less at once, or wait until some have retired")]
    OutOfMemory {
        /// How many were asked for.
        slots: usize,
    },
}

/// A fence was to be added without a slot reserved for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("no slot is reserved for a fence of usage {usage}; reserve it before the device is told to begin")]
pub struct NoSlot {
    /// What it stands for.
    pub usage: Usage,
}

/// Fences were to be replaced by one that fewer wait for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error(
    "a fence of usage {held} cannot become one of usage {asked}, for which fewer wait; replace it by one of usage {held}"
)]
pub struct Demotion {
    /// Of what is there.
    pub held: Usage,
    /// Of what was to replace it.
    pub asked: Usage,
}
