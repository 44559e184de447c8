//! The crate's decisions against the oracle's outcomes.

use crate::oracle::{Dev, Guess};
use crate::told::{Home, Machine};
use peerdma::pcie::Fact;
use peerdma::route::kernel_view::{Common, Decision, KernelView, MapType};
use peerdma::route::{Gate, Reason};
use peerdma::topology::{FunctionId, Parent, Topology};

/// What a check came by, so that a test can show that it came by what it is about.
#[derive(Default, Debug)]
pub(crate) struct Seen {
    pub(crate) pairs: usize,
    pub(crate) guesses: usize,
    pub(crate) unknown: usize,
    pub(crate) certain_despite_gaps: usize,
    pub(crate) complete: usize,
}

pub(crate) fn check_places(machine: &Machine, topology: &Topology) {
    let at = |index: usize| topology.at(machine.address(index)).unwrap();
    for index in 0..machine.functions.len() {
        match (machine.home(index), topology.upstream(at(index))) {
            (Home::Root(bus), Parent::Root(host)) => assert_eq!(topology.host_bridge(host).bus(), bus),
            (Home::Below(bridge), Parent::Bridge(found)) => assert_eq!(at(bridge), found),
            (Home::Within(bridge), Parent::Unknown { enclosing: Some(found) }) => assert_eq!(at(bridge), found),
            (Home::Somewhere, Parent::Unknown { enclosing: None }) => {}
            (expected, found) => panic!("{} is placed {found:?}, not {expected:?}", machine.address(index)),
        }
    }
}

pub(crate) fn check(machine: &Machine, seen: &mut Seen) {
    let topology = machine.topology();
    check_places(machine, &topology);
    let view = KernelView::new(&topology);
    for provider in 0..machine.functions.len() {
        for client in 0..machine.functions.len() {
            check_pair(machine, &topology, &view, (provider, client), seen);
        }
    }
}

pub(crate) fn check_pair(
    machine: &Machine,
    topology: &Topology,
    view: &KernelView<'_>,
    (provider, client): (usize, usize),
    seen: &mut Seen,
) {
    let at = |index: usize| topology.at(machine.address(index)).unwrap();
    let decision = view.decide(at(provider), at(client));
    let context = || {
        let (provider, client) = (machine.address(provider), machine.address(client));
        format!("memory of {provider} for {client}\n{decision:?}\n{machine:?}")
    };
    if machine.configured == Some(false) {
        assert_eq!(decision.map_type, MapType::NotSupported, "{}", context());
        return;
    }
    let (mut answers, mut guesses, mut complete) = (Vec::new(), 0, None);
    let mut guess = Some(Guess::first(machine));
    while let Some(mut this) = guess {
        let outcome = this.calc(provider, client);
        guesses += 1;
        assert!(guesses < 500_000, "too many ways of filling in\n{}", context());
        if this.is_possible() {
            if !answers.contains(&outcome.map_type) {
                answers.push(outcome.map_type);
            }
            if decision.hidden_below.is_empty() {
                assert_eq!(decision.distance, outcome.distance, "{}", context());
            } else {
                assert!(decision.distance <= outcome.distance, "{}", context());
            }
            let common_holds = match decision.common {
                Common::At(common) => outcome.common.is_some_and(|dev| dev_id(machine, topology, dev) == Some(common)),
                Common::AtOrBelow(above) => outcome.common.is_some_and(|dev| {
                    let is_above = |index: &usize| at(*index) == above;
                    let above = (0..machine.functions.len()).find(is_above).unwrap();
                    this.is_at_or_above(Dev::Listed(above), dev)
                }),
                Common::Nowhere => outcome.common.is_none(),
                Common::Unknown => true,
            };
            assert!(common_holds, "the ways meet at {:?}\n{}", outcome.common, context());
            if this.made_nothing_up() {
                complete = Some(outcome);
            }
        }
        // Two answers are enough to show that the input cannot tell.
        guess = if answers.len() > 1 { None } else { this.following() };
    }
    let expected = match answers[..] {
        [one] => one,
        _ => MapType::Unknown,
    };
    assert_eq!(decision.map_type, expected, "of {guesses} ways, answers {answers:?}\n{}", context());
    if let Some(outcome) = &complete
        && outcome.common.is_some()
    {
        let redirects: Vec<_> = outcome.redirects.iter().map(|&dev| dev_id(machine, topology, dev)).collect();
        let decided: Vec<_> = decision.redirects().map(Some).collect();
        assert_eq!(decided, redirects, "{}", context());
    }
    seen.pairs += 1;
    seen.guesses += guesses;
    seen.unknown += usize::from(expected == MapType::Unknown);
    seen.complete += usize::from(complete.is_some());
    seen.certain_despite_gaps += usize::from(expected != MapType::Unknown && guesses > 1);
}

pub(crate) fn dev_id(machine: &Machine, topology: &Topology, dev: Dev) -> Option<FunctionId> {
    match dev {
        Dev::Listed(index) => topology.at(machine.address(index)),
        Dev::Unlisted(_) => None,
    }
}

pub(crate) fn check_reasons(view: &KernelView<'_>, decision: &Decision) {
    let reasons = view.reasons(decision);
    let context = || format!("{decision:?}\n{reasons:#?}");
    let missing =
        |reason: &Reason| matches!(reason.gate, Gate::AcsUnknown | Gate::ParentUnknown | Gate::HostBridge | Gate::Cpu);
    match decision.map_type {
        MapType::Unknown => {
            assert!(reasons.iter().any(|reason| missing(reason) && reason.fix.is_some()), "{}", context());
        }
        // A refusal names what refuses, and nothing that was not read decides an answer that is known.
        MapType::NotSupported => assert!(!reasons.is_empty(), "{}", context()),
        MapType::ThruHostBridge => {
            assert!(reasons.iter().any(|reason| matches!(reason.gate, Gate::HostBridge | Gate::Cpu)), "{}", context());
        }
        MapType::BusAddr => assert!(reasons.is_empty(), "{}", context()),
    }
    if decision.map_type != MapType::Unknown {
        let unread = |reason: &Reason| matches!(reason.gate, Gate::AcsUnknown | Gate::ParentUnknown);
        assert!(!reasons.iter().any(unread), "{}", context());
    }
    // What redirects at one meeting only is not a reason while another is possible.
    if decision.goes_up == Fact::Unknown && !matches!(decision.common, Common::AtOrBelow(_)) {
        assert_eq!(decision.redirects().count(), 0, "{}", context());
    }
    for reason in &reasons {
        assert!(!reason.evidence.is_empty() && reason.fix.as_deref() != Some(""), "{}", context());
    }
}
