//! Where and when a fault strikes.

use super::Fault;
use crate::fabric::{HostId, NodeId};
use peerdma::addr::BusAddr;

/// One place of a machine that a fault can strike at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Spot {
    /// A port or a function.
    Node(NodeId),
    /// A host bridge's root complex.
    Host(HostId),
    /// The IOMMU.
    Iommu,
}

/// Which place a plan is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Place {
    /// This one.
    At(Spot),
    /// One on the way of requests of the first function for the second, at which the fault shows; the
    /// seed chooses among several.
    Between(NodeId, NodeId),
    /// Any of the machine that the fault can strike; the seed chooses.
    Anywhere,
}

/// When a plan strikes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum When {
    /// From the moment that it is armed.
    Now,
    /// From this many steps of the machine on, counted from arming.
    AfterSteps(u64),
    /// From this many requests of anybody on, packets counted, from arming.
    AfterRequests(u64),
    /// By chance: one in so many of the requests that it can strike; of what changes the machine, one
    /// in so many of all requests. 0 is as 1, always.
    OneIn(u32),
}

/// What becomes of data in which a bit turned.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
pub enum Damage {
    /// It arrives, and nobody knows.
    #[default]
    Silent,
    /// The port noticed and marked it as poisoned: written data is dropped, and whoever reads is
    /// told (PCIe 6.0 §2.7.2).
    Poisoned,
}

/// A fault, where it strikes, and when.
///
/// The same plan on the same machine under the same seeds strikes the same requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    pub(super) fault: Fault,
    pub(super) place: Place,
    pub(super) when: When,
    pub(super) limit: Option<u64>,
    pub(super) damage: Damage,
    pub(super) address: Option<BusAddr>,
    pub(super) seed: u64,
}

impl Plan {
    /// The fault anywhere, at once, under seed 0: what lasts strikes until it is disarmed, what
    /// changes the machine once.
    pub const fn new(fault: Fault) -> Self {
        Self {
            fault,
            place: Place::Anywhere,
            when: When::Now,
            limit: None,
            damage: Damage::Silent,
            address: None,
            seed: 0,
        }
    }

    /// A fault that the seed chooses among those that can be armed, anywhere, at one in `many` requests.
    pub fn by_chance(seed: u64, many: u32) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let possible = Fault::ALL.iter().copied().filter(|fault| !fault.needs_lifetimes());
        let fault = random.choice(possible.collect::<Vec<_>>()).unwrap_or(Fault::DropWrites);
        Self { when: When::OneIn(many), seed: random.u64(..), ..Self::new(fault) }
    }

    /// At this place.
    #[must_use]
    pub const fn at(self, spot: Spot) -> Self {
        Self { place: Place::At(spot), ..self }
    }

    /// On the way of requests of one function for another.
    #[must_use]
    pub const fn between(self, from: NodeId, to: NodeId) -> Self {
        Self { place: Place::Between(from, to), ..self }
    }

    /// At another time.
    #[must_use]
    pub const fn when(self, when: When) -> Self {
        Self { when, ..self }
    }

    /// So many times at most; then it is spent.
    #[must_use]
    pub const fn times(self, limit: u64) -> Self {
        Self { limit: Some(limit), ..self }
    }

    /// With bits that turn in this way; means nothing to other faults than `bit-flip`.
    #[must_use]
    pub const fn damage(self, damage: Damage) -> Self {
        Self { damage, ..self }
    }

    /// With this address for the bytes of `stray-write`, and not one that the seed chooses.
    #[must_use]
    pub const fn to(self, address: BusAddr) -> Self {
        Self { address: Some(address), ..self }
    }

    /// With other choices of place, requests and bits.
    #[must_use]
    pub const fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// The fault.
    pub const fn fault(&self) -> Fault {
        self.fault
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_comes_to_every_fault_that_can_be_armed_and_to_the_same_by_the_same_seed() {
        let chosen: Vec<Fault> = (0..500).map(|seed| Plan::by_chance(seed, 10).fault()).collect();
        for &fault in Fault::ALL {
            assert_eq!(chosen.contains(&fault), !fault.needs_lifetimes(), "{fault}");
        }
        assert_eq!(Plan::by_chance(7, 10), Plan::by_chance(7, 10));
    }
}
