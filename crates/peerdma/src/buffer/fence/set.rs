//! Several fences as one.

use super::state::{FailedFence, FenceState};
use super::timeline::{Fence, Signal};
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Fences that are waited for together: retired when all of them are.
///
/// What has retired well is forgotten when others are put in. Of failures the first is kept, since it may be the
/// cause of the others. Fences of one timeline are all kept although the last of them settles last, because an
/// earlier one may fail alone.
///
/// ```
/// use peerdma::buffer::fence::{FenceSet, FenceState, Timeline};
///
/// let (copy, nic) = (Timeline::new("copy engine"), Timeline::new("nic queue 0"));
/// let both: FenceSet = [copy.issue(), nic.issue()].into_iter().collect();
/// copy.retire_to(copy.issued())?;
/// assert_eq!(both.state(), FenceState::Outstanding);
/// nic.retire_to(nic.issued())?;
/// assert_eq!(both.state(), FenceState::Retired);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct FenceSet {
    fences: Vec<Fence>,
}

impl FenceSet {
    /// None, which has retired.
    pub const fn new() -> Self {
        Self { fences: Vec::new() }
    }

    /// What is known of all of them: abandoned if one is, else outstanding if one is, else the first failure.
    pub fn state(&self) -> FenceState {
        let mut all = FenceState::Retired;
        for state in self.fences.iter().map(Fence::state) {
            all = match (all, state) {
                (_, FenceState::Abandoned) => return state,
                (_, FenceState::Outstanding) => state,
                (FenceState::Retired, FenceState::Failed(_)) => state,
                _ => all,
            };
        }
        all
    }

    /// Those that have not retired.
    pub fn outstanding(&self) -> impl Iterator<Item = &Fence> {
        self.fences.iter().filter(|fence| !fence.is_retired())
    }

    /// The first that failed.
    pub fn failure(&self) -> Option<FailedFence> {
        self.fences.iter().find_map(Fence::failure)
    }

    /// Tells `signal` as each of them is settled.
    pub fn notify(&self, signal: &Arc<dyn Signal>) {
        self.outstanding().for_each(|fence| fence.notify(signal));
    }

    pub(super) fn as_slice(&self) -> &[Fence] {
        &self.fences
    }

    fn forget_the_retired(&mut self) {
        let mut failed = false;
        self.fences.retain(|fence| match fence.state() {
            FenceState::Outstanding | FenceState::Abandoned => true,
            FenceState::Retired => false,
            FenceState::Failed(_) => !core::mem::replace(&mut failed, true),
        });
    }
}

impl Extend<Fence> for FenceSet {
    fn extend<I: IntoIterator<Item = Fence>>(&mut self, fences: I) {
        self.fences.extend(fences);
        self.forget_the_retired();
    }
}

impl FromIterator<Fence> for FenceSet {
    fn from_iter<I: IntoIterator<Item = Fence>>(fences: I) -> Self {
        let mut set = Self::new();
        set.extend(fences);
        set
    }
}

impl<'f> FromIterator<&'f Fence> for FenceSet {
    fn from_iter<I: IntoIterator<Item = &'f Fence>>(fences: I) -> Self {
        fences.into_iter().cloned().collect()
    }
}

impl From<Fence> for FenceSet {
    fn from(fence: Fence) -> Self {
        Self { fences: alloc::vec![fence] }
    }
}

impl IntoIterator for FenceSet {
    type Item = Fence;
    type IntoIter = alloc::vec::IntoIter<Fence>;

    fn into_iter(self) -> Self::IntoIter {
        self.fences.into_iter()
    }
}

/// Fences of several timelines in one order: each link retires when it and all before it have.
///
/// What a timeline is to one device, this is to work that goes from device to device.
///
/// ```
/// use peerdma::buffer::fence::{Chain, FenceState, Timeline};
///
/// let (copy, nic) = (Timeline::new("copy engine"), Timeline::new("nic queue 0"));
/// let mut chain = Chain::new();
/// let copied = chain.push(copy.issue());
/// let sent = chain.push(nic.issue());
/// nic.retire_to(nic.issued())?;
/// assert_eq!(sent.state(), FenceState::Outstanding, "the copy before it has not retired");
/// copy.retire_to(copy.issued())?;
/// assert!(copied.state().is_retired() && sent.state().is_retired());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Chain {
    last: FenceSet,
}

impl Chain {
    /// One without links.
    pub const fn new() -> Self {
        Self { last: FenceSet::new() }
    }

    /// Adds a link; answers what retires when it and all before it have.
    pub fn push(&mut self, fence: Fence) -> FenceSet {
        self.last.extend([fence]);
        self.last.clone()
    }

    /// The last link, with all before it.
    pub const fn last(&self) -> &FenceSet {
        &self.last
    }
}
