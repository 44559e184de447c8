//! One option a pair, so that all of them together change the fewest ports.

use super::options::Options;
use super::{PortChange, Search};
use crate::pcie::acs::AcsBits;
use crate::route::{Judge, Permission, Target};
use crate::topology::FunctionId;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// Most steps of the search: enough for dozens of pairs below a few switches.
const MOST_STEPS: usize = 100_000;

/// What was chosen.
pub(super) struct Choice {
    /// The ports, in order of addresses.
    pub(super) ports: Vec<PortChange>,
    /// Whether everything smaller was tried.
    pub(super) proven: bool,
}

/// Bits to clear and to set, by port.
type Union = BTreeMap<FunctionId, (AcsBits, AcsBits)>;

/// Ports first, bits second: fewer bits leave more of what firmware and kernel wanted.
type Cost = (usize, u32);

struct State<'s> {
    pairs: &'s [(FunctionId, Target)],
    /// Options of the pairs that need something, those with fewest first.
    options: Vec<&'s Options>,
    best: Option<(Cost, Vec<PortChange>)>,
    steps: usize,
}

impl Search<'_> {
    /// The cheapest union of options that permits every pair; `None` if none does.
    pub(super) fn choose(&self, pairs: &[(FunctionId, Target)], found: &[Options]) -> Option<Choice> {
        let mut options: Vec<&Options> = found.iter().filter(|options| !options.satisfied()).collect();
        options.sort_by_key(|options| options.minimal.len());
        let mut state = State { pairs, options, best: None, steps: 0 };
        self.descend(&mut state, 0, &Union::new());
        let proven = state.steps <= MOST_STEPS;
        state.best.map(|(_, ports)| Choice { ports, proven })
    }

    fn descend(&self, state: &mut State<'_>, depth: usize, union: &Union) {
        state.steps += 1;
        // The first descent always ends, so that something is found.
        if state.steps > MOST_STEPS && state.best.is_some() {
            return;
        }
        if state.best.as_ref().is_some_and(|(best, _)| cost(union) >= *best) {
            return;
        }
        let Some(options) = state.options.get(depth).copied() else {
            let ports: Vec<PortChange> =
                union.iter().map(|(&function, &(clear, set))| PortChange::new(function, clear, set)).collect();
            if self.permits_all(&ports, state.pairs) {
                state.best = Some((cost(union), ports));
            }
            return;
        };
        let mut larger: Vec<(Cost, Union)> = options
            .minimal
            .iter()
            .map(|option| {
                let union = joined(union, option);
                (cost(&union), union)
            })
            .collect();
        // What costs least is tried first, so that the rest can be cut off.
        larger.sort_by_key(|(cost, _)| *cost);
        for (_, union) in larger {
            self.descend(state, depth + 1, &union);
        }
    }

    fn permits_all(&self, ports: &[PortChange], pairs: &[(FunctionId, Target)]) -> bool {
        let Some(changed) = self.with(ports) else { return false };
        let judge = Judge::new(&changed.topology);
        pairs.iter().all(|(from, to)| self.satisfies(&judge.judge(*from, to)) == Permission::Permitted)
    }
}

fn joined(union: &Union, option: &[PortChange]) -> Union {
    let mut joined = union.clone();
    for change in option {
        let bits = joined.entry(change.function).or_insert((AcsBits::empty(), AcsBits::empty()));
        bits.0 |= change.clear();
        bits.1 |= change.set();
    }
    joined
}

fn cost(union: &Union) -> Cost {
    let bits = union.values().map(|(clear, set)| (*clear | *set).bits().count_ones()).sum();
    (union.len(), bits)
}
