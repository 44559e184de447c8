//! The way up from a function, as `pci_upstream_bridge` walks it.

use crate::topology::{FunctionId, HostBridgeId, Parent, Topology};
use alloc::vec::Vec;

/// One function on the way up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Step {
    pub(super) function: FunctionId,
    /// Between this function and the next step lie bridges that were not listed.
    pub(super) hidden_above: bool,
}

/// The way up from a function, itself first.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    pub(super) steps: Vec<Step>,
    /// The host bridge at the top; `None` where the way up is not known to the end.
    pub(super) host: Option<HostBridgeId>,
}

impl Chain {
    pub(super) fn above(topology: &Topology, start: FunctionId) -> Self {
        let mut steps = Vec::new();
        let mut function = start;
        // The builder broke every cycle of parents.
        loop {
            let (hidden_above, next, host) = match topology.upstream(function) {
                Parent::Bridge(bridge) => (false, Some(bridge), None),
                Parent::Root(host) => (false, None, Some(host)),
                Parent::Unknown { enclosing } => (true, enclosing, None),
            };
            steps.push(Step { function, hidden_above });
            match next {
                Some(next) => function = next,
                None => return Self { steps, host },
            }
        }
    }

    pub(super) fn functions(&self) -> impl Iterator<Item = FunctionId> + '_ {
        self.steps.iter().map(|step| step.function)
    }

    /// The bus that a way up with an open end ends on, which all bridges above lead to.
    pub(super) fn open_end(&self, topology: &Topology) -> Option<u8> {
        match self.host {
            Some(_) => None,
            None => self.hidden_end(topology, self.steps.len()),
        }
    }

    /// The bus of the last of the first `len` steps, if bridges are hidden right above it.
    pub(super) fn hidden_end(&self, topology: &Topology, len: usize) -> Option<u8> {
        let last = self.steps[..len].last().filter(|step| step.hidden_above)?;
        Some(topology.function(topology.placed_as(last.function)).address().bus())
    }

    /// Where another way up, of which only the `bus` it ends on is known, joins the
    /// first `len` steps of this one if it joins as low as it may: the number of hops
    /// up to there, and of steps walked. `None` if it cannot join among them.
    pub(super) fn lowest_joint(&self, topology: &Topology, len: usize, bus: u8) -> Option<(usize, usize)> {
        let mut lowest = None;
        for at in (0..len).rev() {
            // What lies above another bridge but outside its range is not below it either.
            if !topology.function(self.steps[at].function).info().may_lead_to(bus) {
                break;
            }
            let at_unlisted = at > 0 && self.steps[at - 1].hidden_above;
            lowest = Some((at, if at_unlisted { at } else { at + 1 }));
        }
        lowest
    }

    pub(super) fn domain(&self, topology: &Topology) -> Option<u32> {
        self.steps.last().map(|step| topology.function(step.function).address().domain())
    }

    pub(super) fn position(&self, function: FunctionId) -> Option<usize> {
        self.steps.iter().position(|step| step.function == function)
    }
}
