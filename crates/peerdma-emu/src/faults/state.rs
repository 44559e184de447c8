//! What is armed on a machine, and whom it strikes.

use super::place::{self, Has, Passing, Stop};
use super::{ArmError, Damage, Fault, Place, Plan, Spot, When};
use crate::fabric::{Fabric, NodeId, Tree};
use crate::memory::{Memory, Mirror};
use peerdma::addr::BusAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Names one plan that was armed on a machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[repr(transparent)]
pub struct FaultId(u64);

/// A plan in effect, and what it has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Armed {
    /// Its name.
    pub id: FaultId,
    /// The fault.
    pub fault: Fault,
    /// Where it strikes, as the seed chose or the plan said.
    pub spot: Spot,
    /// How often it struck.
    pub strikes: u64,
}

/// Something that plans are counted by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Moment {
    /// The machine makes a step.
    Step,
    /// Somebody sends a request.
    Request,
    /// A plan was armed.
    Arming,
}

/// Something that has to be done to the machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Due {
    pub(crate) id: FaultId,
    pub(crate) fault: Fault,
    pub(crate) spot: Spot,
    /// Where stray bytes go, if that was said.
    pub(crate) address: Option<BusAddr>,
    /// How often it may strike.
    pub(crate) limit: u64,
    /// The seed's choice of whatever is to choose.
    pub(crate) chance: u64,
}

#[derive(Debug)]
struct Entry {
    id: FaultId,
    plan: Plan,
    spot: Spot,
    random: fastrand::Rng,
    steps: u64,
    requests: u64,
    strikes: u64,
    /// Of `lost-invalidation`: what the IOMMU had lost when it began.
    begun: Option<u64>,
    /// Of `mirror-bar`: apertures, by the memory behind each.
    mirrors: Vec<(Arc<dyn Memory>, Arc<Mirror>)>,
}

impl Entry {
    fn armed(&self) -> Armed {
        Armed { id: self.id, fault: self.plan.fault, spot: self.spot, strikes: self.strikes }
    }

    /// What changes the machine does so once, where nothing else was said.
    fn limit(&self) -> u64 {
        self.plan.limit.unwrap_or(match self.plan.fault {
            fault if fault.is_lasting() && fault != Fault::LostInvalidation => u64::MAX,
            _ => 1,
        })
    }

    fn has_begun(&self) -> bool {
        self.strikes < self.limit()
            && match self.plan.when {
                When::Now | When::OneIn(_) => true,
                When::AfterSteps(steps) => self.steps >= steps,
                When::AfterRequests(requests) => self.requests > requests,
            }
    }

    /// Whether it may strike any request, or has to count all of them.
    ///
    /// What is spent does neither. What changes the machine does so at a request, and what has not
    /// begun counts requests until it does.
    fn may_strike_anything(&self) -> bool {
        if self.strikes >= self.limit() {
            return false;
        }
        let waits_for_requests = matches!(self.plan.when, When::AfterRequests(_)) && !self.has_begun();
        let waits_for_steps = matches!(self.plan.when, When::AfterSteps(_)) && !self.has_begun();
        match self.plan.fault {
            Fault::LostInvalidation => self.begun.is_none() && !waits_for_steps,
            fault if fault.is_lasting() => waits_for_requests,
            _ => !waits_for_steps,
        }
    }

    /// Whether it may strike a request that has gone all of its way, whatever it counts.
    fn may_strike(&self, tree: &Tree, passing: Passing<'_>) -> bool {
        self.strikes < self.limit()
            && match (self.plan.fault, self.spot) {
                (Fault::LateCompletion | Fault::BitFlip, spot) => passing.passes(tree, spot),
                (Fault::MirrorBar, Spot::Node(node)) => passing.way.contains(&Stop::At(node)),
                (fault, spot) => passing.suffers(tree, fault, spot),
            }
    }

    /// Whether it strikes now, as it could; counts it then.
    fn strikes(&mut self) -> bool {
        let strikes = self.has_begun()
            && match self.plan.when {
                When::OneIn(many) => self.random.u32(..many.max(1)) == 0,
                _ => true,
            };
        self.strikes += u64::from(strikes);
        strikes
    }
}

/// What is armed on a machine.
///
/// # Concurrency
/// Its lock is held for a moment, and nothing is called under it.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    any: AtomicBool,
    list: Mutex<(u64, Vec<Entry>)>,
}

impl Faults {
    /// Whether anything is armed.
    #[inline]
    pub(crate) fn are_armed(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    fn list(&self) -> MutexGuard<'_, (u64, Vec<Entry>)> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a plan into effect. `has` says what functions have; `lent` whether any memory is lent as buffers.
    pub(crate) fn arm(
        &self,
        fabric: &Fabric,
        (has, lent): (&dyn Fn(NodeId) -> Has, bool),
        plan: Plan,
    ) -> Result<FaultId, ArmError> {
        let (fault, needs) = (plan.fault, plan.fault.needs());
        if fault.needs_lifetimes() && !lent {
            return Err(ArmError::NeedsLifetimes { fault });
        }
        let mut random = fastrand::Rng::with_seed(plan.seed);
        let candidates = place::candidates(fabric, has, &plan);
        let spot = random.choice(candidates).ok_or(match plan.place {
            Place::At(_) => ArmError::WrongPlace { fault, needs },
            Place::Between(..) | Place::Anywhere => ArmError::NoPlace { fault, needs },
        })?;
        let mut list = self.list();
        let id = FaultId(list.0);
        list.0 += 1;
        list.1.push(Entry {
            id,
            plan,
            spot,
            random,
            steps: 0,
            requests: 0,
            strikes: 0,
            begun: None,
            mirrors: Vec::new(),
        });
        self.any.store(true, Ordering::Relaxed);
        Ok(id)
    }

    /// Ends a plan; what it has done, if it was armed.
    pub(crate) fn disarm(&self, id: FaultId) -> Option<Armed> {
        let mut list = self.list();
        let position = list.1.iter().position(|entry| entry.id == id)?;
        let entry = list.1.remove(position);
        self.any.store(!list.1.is_empty(), Ordering::Relaxed);
        Some(entry.armed())
    }

    /// Every plan in effect, in the order of arming.
    pub(crate) fn armed(&self) -> Vec<Armed> {
        self.list().1.iter().map(Entry::armed).collect()
    }

    /// Counts a moment; what has to be done to the machine now.
    pub(crate) fn due(&self, moment: Moment) -> Vec<Due> {
        let mut list = self.list();
        let mut due = Vec::new();
        for entry in &mut list.1 {
            match moment {
                Moment::Step => entry.steps += 1,
                Moment::Request => entry.requests += 1,
                Moment::Arming => {}
            }
            let fault = entry.plan.fault;
            let by_chance = matches!(entry.plan.when, When::OneIn(_));
            let in_time = moment == Moment::Request || !by_chance;
            let losing = fault == Fault::LostInvalidation;
            if !in_time || fault.is_lasting() && !losing {
                continue;
            }
            let limit = entry.limit();
            let strikes = match losing {
                // What is lost counts, which the IOMMU does.
                true => entry.begun.is_none() && entry.has_begun() && (!by_chance || entry.strikes()),
                false => entry.strikes(),
            };
            if strikes {
                if losing {
                    entry.strikes = 0;
                    // Until the IOMMU was asked what it had lost before, nothing counts.
                    entry.begun = Some(u64::MAX);
                }
                let chance = entry.random.u64(..);
                due.push(Due { id: entry.id, fault, spot: entry.spot, address: entry.plan.address, limit, chance });
            }
        }
        due
    }

    /// A strike that came to nothing does not count.
    pub(crate) fn undo(&self, id: FaultId) {
        if let Some(entry) = self.list().1.iter_mut().find(|entry| entry.id == id) {
            entry.strikes = entry.strikes.saturating_sub(1);
        }
    }

    /// From here on a plan counts what the IOMMU loses; `lost` is what it had lost before.
    pub(crate) fn loses_from(&self, id: FaultId, lost: u64) {
        if let Some(entry) = self.list().1.iter_mut().find(|entry| entry.id == id) {
            entry.begun = Some(lost);
        }
    }

    /// Counts what the IOMMU has lost; how many are new.
    pub(crate) fn lost(&self, lost: u64) -> u64 {
        let mut new = 0;
        for entry in &mut self.list().1 {
            if let Some(before) = entry.begun {
                let now = lost.saturating_sub(before).min(entry.limit());
                new += now.saturating_sub(entry.strikes);
                entry.strikes = now;
            }
        }
        new
    }

    /// Whether something armed may strike any request, or has to count all of them one by one.
    pub(crate) fn may_strike_anything(&self) -> bool {
        self.list().1.iter().any(Entry::may_strike_anything)
    }

    /// Whether a request that goes all of this way is struck by nothing, as nothing that is armed
    /// stands on it.
    pub(crate) fn spares(&self, tree: &Tree, passing: Passing<'_>) -> bool {
        !self.list().1.iter().any(|entry| entry.may_strike(tree, passing))
    }

    /// What ends a request at the stop that it has come to, and where.
    pub(crate) fn ends(&self, tree: &Tree, passing: Passing<'_>) -> Option<(Fault, Spot)> {
        let before = Passing { way: passing.way.split_last().map_or(&[][..], |(_, before)| before), ..passing };
        self.list().1.iter_mut().find_map(|entry| {
            let (fault, spot) = (entry.plan.fault, entry.spot);
            if !passing.suffers(tree, fault, spot) {
                return None;
            }
            // Chance is asked once for a request, where it first could be struck.
            let asked_before = matches!(entry.plan.when, When::OneIn(_)) && before.suffers(tree, fault, spot);
            (!asked_before && entry.strikes()).then_some((fault, spot))
        })
    }

    /// Whether the completion of a request that has arrived comes too late.
    pub(crate) fn delays(&self, tree: &Tree, passing: Passing<'_>) -> bool {
        let mut list = self.list();
        let mut late = list.1.iter_mut().filter(|entry| entry.plan.fault == Fault::LateCompletion);
        late.any(|entry| passing.passes(tree, entry.spot) && entry.strikes())
    }

    /// Which bit turns, of how many, in the data of a request that has arrived.
    pub(crate) fn flips(&self, tree: &Tree, passing: Passing<'_>, bits: u64) -> Option<(u64, Damage)> {
        let mut list = self.list();
        let mut flips = list.1.iter_mut().filter(|entry| entry.plan.fault == Fault::BitFlip);
        let entry = flips.find_map(|entry| (passing.passes(tree, entry.spot) && entry.strikes()).then_some(entry))?;
        Some((entry.random.u64(..bits.max(1)), entry.plan.damage))
    }

    /// The aperture that stands before a function's memory.
    pub(crate) fn mirror(&self, node: NodeId, memory: &Arc<dyn Memory>) -> Option<Arc<Mirror>> {
        let mut list = self.list();
        let mine = |entry: &&mut Entry| entry.plan.fault == Fault::MirrorBar && entry.spot == Spot::Node(node);
        let entry = list.1.iter_mut().find(mine)?;
        if !entry.strikes() {
            return None;
        }
        if let Some((_, mirror)) = entry.mirrors.iter().find(|(behind, _)| Arc::ptr_eq(behind, memory)) {
            return Some(mirror.clone());
        }
        let mirror = Arc::new(Mirror::new(memory.clone()));
        mirror.engage();
        entry.mirrors.push((memory.clone(), mirror.clone()));
        Some(mirror)
    }
}
