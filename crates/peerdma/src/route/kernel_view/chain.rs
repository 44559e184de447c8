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

    pub(super) fn position(&self, function: FunctionId) -> Option<usize> {
        self.steps.iter().position(|step| step.function == function)
    }
}
