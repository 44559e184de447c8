//! What helps one pair.

use super::{PortChange, Search};
use crate::pcie::Fact;
use crate::pcie::acs::{AcsBits, AcsRegisters};
use crate::pcie::express::PortType;
use crate::route::kernel_view::MapType;
use crate::route::{Gate, Judge, PairVerdict, Permission, Reason, Target};
use crate::topology::{FunctionId, Topology};
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

/// Most changes tried for one pair; six functions that can be changed in three ways each
/// take 4096.
const MOST_TRIED: usize = 4096;

/// What one pair can be helped with.
#[derive(Clone, Debug)]
pub(super) struct Options {
    /// Changes that permit it, of which no part would do; one empty change if it is
    /// permitted as it is. Fewest ports first.
    pub(super) minimal: Vec<Vec<PortChange>>,
    /// Whether every combination was tried.
    pub(super) complete: bool,
    /// Fewest ports of which it is unknown whether they permit it; `usize::MAX` if that is
    /// known of all that was tried.
    pub(super) may_do_with: usize,
    /// What stands in the way of a pair that nothing helps.
    pub(super) reasons: Vec<Reason>,
}

impl Options {
    /// Whether something that was tried is neither permitted nor refused.
    pub(super) fn may_hang_on_facts(&self) -> bool {
        self.may_do_with != usize::MAX
    }

    /// Whether the pair needs nothing.
    pub(super) fn satisfied(&self) -> bool {
        self.minimal.first().is_some_and(Vec::is_empty)
    }
}

impl Search<'_> {
    /// Tries changes at the ports above both ends, those of few ports first.
    pub(super) fn options(&self, judge: &Judge<'_>, initiator: FunctionId, target: &Target) -> Options {
        let now = judge.judge(initiator, target);
        let as_it_is = self.satisfies(&now);
        let mut options = Options {
            minimal: Vec::new(),
            complete: true,
            may_do_with: if as_it_is == Permission::Unknown { 0 } else { usize::MAX },
            reasons: Vec::new(),
        };
        if as_it_is == Permission::Permitted {
            options.minimal.push(Vec::new());
            return options;
        }
        let candidates = self.candidates(judge, &now);
        let all_redirects = self.all_redirects(&now, &candidates);
        let mut tried = 0;
        let try_one = |ports: &[PortChange], options: &mut Options| {
            if options.minimal.iter().any(|smaller| is_part_of(smaller, ports)) {
                return;
            }
            match self.outcome(ports, initiator, target) {
                Permission::Permitted => options.minimal.push(ports.to_vec()),
                Permission::Unknown => options.may_do_with = options.may_do_with.min(ports.len()),
                Permission::Refused => {}
            }
        };
        for size in 1..=candidates.len() {
            combinations(&candidates, size, &mut |ports| {
                tried += 1;
                if tried <= MOST_TRIED {
                    try_one(ports, &mut options);
                }
                tried <= MOST_TRIED
            });
        }
        options.complete = tried <= MOST_TRIED;
        if !options.complete {
            try_one(&all_redirects, &mut options);
        }
        if options.minimal.is_empty() {
            options.reasons = self.obstacles(judge, &now, &all_redirects);
        }
        options
    }

    fn outcome(&self, ports: &[PortChange], initiator: FunctionId, target: &Target) -> Permission {
        let Some(changed) = self.with(ports) else { return Permission::Refused };
        self.satisfies(&Judge::new(&changed.topology).judge(initiator, target))
    }

    /// What can be changed where: one list of changes for each function.
    fn candidates(&self, judge: &Judge<'_>, pair: &PairVerdict) -> Vec<Vec<PortChange>> {
        let mut functions: Vec<FunctionId> =
            judge.kernel().way_up(pair.initiator).chain(judge.kernel().way_up(pair.target.function())).collect();
        functions.sort();
        functions.dedup();
        let changes = |&function: &FunctionId| {
            let none = AcsBits::empty();
            let clear = clearable(self.topology, function);
            let set = settable(self.topology, function);
            let all = [(clear, none), (none, set), (clear, set)];
            let mut changes: Vec<PortChange> = all
                .into_iter()
                .filter(|&(clear, set)| !(clear | set).is_empty())
                .map(|(clear, set)| PortChange::new(function, clear, set))
                .collect();
            changes.dedup();
            changes
        };
        functions.iter().map(changes).filter(|changes| !changes.is_empty()).collect()
    }

    /// RR, CR and EC cleared wherever Linux counts them or the hardware obeys them
    /// between the two ends: what the direct route needs.
    fn all_redirects(&self, pair: &PairVerdict, candidates: &[Vec<PortChange>]) -> Vec<PortChange> {
        let walked = |function| pair.kernel.walked.iter().any(|step| step.function == function);
        let clears = candidates.iter().filter_map(|changes| changes.iter().find(|change| !change.clear().is_empty()));
        clears.filter(|change| walked(change.function)).copied().collect()
    }

    /// Why nothing helps: what is left with every redirect cleared, else what there is now.
    fn obstacles(&self, judge: &Judge<'_>, now: &PairVerdict, all_redirects: &[PortChange]) -> Vec<Reason> {
        let mut reasons: Vec<Reason> =
            now.kernel.redirects().filter_map(|function| stuck(self.topology, function)).collect();
        let changed = self.with(all_redirects).filter(|_| !all_redirects.is_empty());
        match &changed {
            Some(changed) => {
                let later = Judge::new(&changed.topology);
                reasons.extend(later.reasons(&later.judge(now.initiator, &now.target)));
            }
            None => reasons.extend(judge.reasons(now)),
        }
        // Where VFIO's IOVAs keep a pair from the direct route the verdict says so.
        let no_route = now.kernel.redirects().next().is_none() && now.kernel.map_type == MapType::ThruHostBridge;
        if no_route && self.options.direct_only {
            let name = |function| self.topology.function(function).address().to_string();
            reasons.push(Reason {
                gate: Gate::HostBridge,
                object: name(now.initiator),
                evidence: format!(
                    "it and {} meet below no common port, so there is no direct route that ACS bits could open",
                    name(now.target.function())
                ),
                fix: None,
            });
        }
        reasons
    }
}

fn registers(topology: &Topology, function: FunctionId) -> Option<&AcsRegisters> {
    topology.function(function).info().registers.acs.registers()
}

/// Redirecting bits that are set and can be cleared.
fn clearable(topology: &Topology, function: FunctionId) -> AcsBits {
    registers(topology, function).map_or(AcsBits::empty(), |registers| {
        let control = registers.control.known().unwrap_or(AcsBits::empty());
        control & AcsBits::REDIRECT & registers.capability
    })
}

/// Upstream Forwarding where a downstream or root port offers it and it is clear.
fn settable(topology: &Topology, function: FunctionId) -> AcsBits {
    let info = topology.function(function).info();
    let may_turn = match info.registers.port_type {
        Fact::Known(kind) => matches!(kind, Some(PortType::RootPort | PortType::DownstreamPort)),
        Fact::Unknown => info.is_bridge(),
    };
    registers(topology, function).filter(|_| may_turn).map_or(AcsBits::empty(), |registers| {
        let control = registers.control.known().unwrap_or(AcsBits::all());
        (AcsBits::UF & registers.capability) - control
    })
}

/// Why a function that redirects for Linux goes on doing so.
fn stuck(topology: &Topology, function: FunctionId) -> Option<Reason> {
    let registers = registers(topology, function)?;
    let object = topology.function(function).address().to_string();
    let reason = |evidence| Some(Reason { gate: Gate::AcsRedirect, object, evidence, fix: None });
    if registers.linux_misreads() {
        return reason(format!(
            "Linux reads {:#06x} beside the control register of this root port and takes it for redirection; nothing \
             that is written changes what it reads",
            registers.control_read_by_linux.bits()
        ));
    }
    let wired = (registers.control_read_by_linux & AcsBits::REDIRECT) - registers.capability;
    if wired.is_empty() {
        return None;
    }
    reason(format!(
        "{} read as set although its capability word {:#06x} does not offer them: they are wired",
        crate::route::change::words(wired),
        registers.capability.bits()
    ))
}

/// Whether every change in `part` is made in `whole` too.
fn is_part_of(part: &[PortChange], whole: &[PortChange]) -> bool {
    part.iter().all(|small| {
        whole.iter().any(|large| {
            large.function == small.function
                && large.clear().contains(small.clear())
                && large.set().contains(small.set())
        })
    })
}

/// Every choice of `size` functions and one change for each, until `visit` says no.
fn combinations(candidates: &[Vec<PortChange>], size: usize, visit: &mut impl FnMut(&[PortChange]) -> bool) -> bool {
    fn go(
        rest: &[Vec<PortChange>],
        size: usize,
        chosen: &mut Vec<PortChange>,
        visit: &mut impl FnMut(&[PortChange]) -> bool,
    ) -> bool {
        if chosen.len() == size {
            return visit(chosen);
        }
        for (at, changes) in rest.iter().enumerate() {
            for &change in changes {
                chosen.push(change);
                let go_on = go(&rest[at + 1..], size, chosen, visit);
                chosen.pop();
                if !go_on {
                    return false;
                }
            }
        }
        true
    }
    go(candidates, size, &mut Vec::with_capacity(size), visit)
}
