//! The index answers as the walk does: on every pair of machines at random, of trees that
//! it can sum up and of trees that it cannot.

#![cfg(test)]

#[path = "unknown/list.rs"]
#[expect(dead_code, reason = "the list is the unknown's; only its generator is shared")]
mod list;
#[path = "unknown/random.rs"]
mod random;
#[path = "unknown/told.rs"]
mod told;
#[expect(dead_code, reason = "not every tree of the others is needed here")]
mod tree;

use list::UNLISTED;
use peerdma::addr::Bytes;
use peerdma::pcie::acs::{Acs, AcsBits, AcsUnread};
use peerdma::pcie::{Fact, PciAddr};
use peerdma::route::kernel_view::{Answer, KernelView, MapType, PairIndex};
use peerdma::topology::{FunctionId, Machine, Topology};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use random::Maker;
use std::collections::BTreeMap;
use told::{At, Told};
use tree::{Tree, at};

/// What the machines of a test were like.
#[derive(Default, Debug)]
struct Seen {
    pairs: usize,
    /// Answered without walking.
    summed_up: usize,
    /// By map type, of those that were.
    answers: BTreeMap<&'static str, usize>,
    /// Of the others: with a distance that may be larger.
    bounded: usize,
}

/// Compares one pair with the walk.
fn check_pair(index: &PairIndex<'_>, provider: FunctionId, client: FunctionId, seen: &mut Seen) {
    let decision = index.view().decide(provider, client);
    let answer = index.answer(provider, client);
    let walked = Answer {
        map_type: decision.map_type,
        distance: decision.distance,
        distance_is_lower_bound: !decision.hidden_below.is_empty(),
    };
    assert_eq!(answer, walked, "{decision:?}");
    seen.pairs += 1;
    if index.is_summed_up(provider) && index.is_summed_up(client) {
        seen.summed_up += 1;
        *seen.answers.entry(answer.map_type.word()).or_default() += 1;
    } else {
        seen.bounded += usize::from(answer.distance_is_lower_bound);
    }
}

fn check(topology: &Topology, seen: &mut Seen) {
    let view = KernelView::new(topology);
    let index = view.index();
    for (provider, _) in topology.functions() {
        for (client, _) in topology.functions() {
            check_pair(&index, provider, client, seen);
        }
    }
}

/// A forest of up to 64 functions: chains far deeper than real ones, bushes, leaves on
/// several root buses and domains, virtual functions, a way up in ten that is not told.
fn forest(bytes: &[u8]) -> Topology {
    let mut dice = bytes.iter().map(|&byte| usize::from(byte));
    let mut roll = |sides: usize| dice.next().unwrap_or(0) % sides;
    let mut machine = told::Machine {
        functions: vec![],
        cpu: [Some("intel:6"), Some("amd:0x19"), None, Some("intel:6")][roll(4)],
        kernel: [Some("7.2"), Some("6.18"), Some("7.3"), Some("5.10"), None][roll(5)],
        configured: [None, Some(true), None, None, Some(true), Some(false)][roll(6)],
    };
    let roots = [(0, 0), (0, 0x80), (1, 0), (1, 0x40), (0x10000, 0)];
    let (roots, is_deep) = (&roots[..1 + roll(5)], roll(2) == 1);
    // Functions with this redirecting, or unread, word in a hundred.
    let (redirecting, unread) = (roll(40), roll(3) * roll(20));
    let mut taken: BTreeMap<(u32, u8), u16> = BTreeMap::new();
    // The bridge with the most above it.
    let mut deepest = None;
    for nth in 0..64 {
        let any = (roll(nth + 1)..nth).find(|&index| machine.functions[index].bridge.is_some());
        let above = match roll(12) {
            0 => None,
            1..=8 if is_deep => deepest,
            _ => any,
        };
        let (domain, bus, at) = match above {
            Some(bridge) => (machine.functions[bridge].domain, machine.functions[bridge].bus + 1, At::Below(bridge)),
            None => {
                let (domain, bus) = roots[roll(roots.len())];
                (domain, bus, At::Root(bus))
            }
        };
        let slot = taken.entry((domain, bus)).or_default();
        let mut told = Told::new(domain, bus, *slot as u8, at);
        *slot += 1;
        let chance = roll(100);
        told.acs = match chance {
            _ if chance < redirecting => Some(Some(0x1d)),
            _ if chance < redirecting + unread => None,
            _ => Some(None),
        };
        told.ids = [vec![UNLISTED], vec![(0x8086, 0x09a2)], vec![(0x8086, 0x3c00)], vec![], vec![(0x10de, 0x2f95)]]
            [roll(5)]
        .clone();
        told.bridge = (roll(3) != 1).then_some(None);
        if nth > 0 && told.bridge.is_none() && roll(6) == 1 {
            let physical = roll(nth);
            let of = &machine.functions[physical];
            told.physical = (of.domain == domain && of.physical.is_none()).then_some(physical);
        }
        if told.bridge.is_some() && (deepest.is_none() || above == deepest) {
            deepest = Some(nth);
        }
        machine.functions.push(told);
    }
    machine.build()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_index_answers_as_the_walk_does_on_machines_with_missing_facts(
        bytes in prop::collection::vec(any::<u8>(), 0..120),
    ) {
        check(&Maker::machine(&bytes).topology(), &mut Seen::default());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_index_answers_as_the_walk_does_on_deep_and_on_bushy_forests(
        bytes in prop::collection::vec(any::<u8>(), 0..700),
    ) {
        check(&forest(&bytes), &mut Seen::default());
    }
}

/// Generators of machines that all fit, or that none does, would prove nothing.
#[test]
fn machines_and_forests_at_random_are_of_all_kinds() {
    let mut runner = TestRunner::deterministic();
    let mut bytes = |len| prop::collection::vec(any::<u8>(), len).new_tree(&mut runner).unwrap().current();
    let (mut machines, mut forests) = (Seen::default(), Seen::default());
    for _ in 0..200 {
        check(&Maker::machine(&bytes(120)).topology(), &mut machines);
    }
    for _ in 0..40 {
        check(&forest(&bytes(700)), &mut forests);
    }
    for seen in [machines, forests] {
        assert!(seen.summed_up * 4 > seen.pairs && seen.summed_up < seen.pairs, "{seen:?}");
        for word in ["BUS_ADDR", "THRU_HOST_BRIDGE", "NOT_SUPPORTED", "UNKNOWN"] {
            assert!(seen.answers[word] > seen.summed_up / 100, "{seen:?}");
        }
    }
}

/// Bridges one below the other, `bridges` of them, and two functions below the last.
fn chain(bridges: u8) -> Topology {
    let mut tree = Tree::new("intel:6", "7.2.13").device("00:00.0");
    for bus in 0..bridges {
        tree = tree.port(&format!("{bus:02x}:01.0"), bus + 1, bridges);
    }
    tree.device(&format!("{bridges:02x}:01.0")).device(&format!("{bridges:02x}:01.1")).topology()
}

#[test]
fn sixteen_bridges_above_are_summed_up_and_seventeen_are_walked() {
    let most = PairIndex::MOST_BRIDGES as u8;
    for (bridges, fits) in [(most - 1, true), (most, true), (most + 1, false), (80, false)] {
        let topology = chain(bridges);
        let (view, mut seen) = (KernelView::new(&topology), Seen::default());
        let index = view.index();
        let lowest = at(&topology, &format!("{bridges:02x}:01.1"));
        assert_eq!(index.is_summed_up(lowest), fits, "{bridges}");
        check(&topology, &mut seen);
        let other = at(&topology, &format!("{bridges:02x}:01.0"));
        let answer = index.answer(lowest, other);
        assert_eq!((answer.map_type, answer.distance), (MapType::BusAddr, 2));
        // To the root and back down the same way, the top port itself included.
        assert_eq!(index.answer(lowest, at(&topology, "00:01.0")).distance, u32::from(bridges));
    }
}

#[test]
fn a_redirecting_port_counts_at_every_depth_and_on_either_side() {
    let bridges = PairIndex::MOST_BRIDGES as u8;
    for redirecting in 0..bridges {
        let mut tree = Tree::new("intel:6", "7.2.13").device("00:00.0");
        for bus in 0..bridges {
            tree = tree.port(&format!("{bus:02x}:01.0"), bus + 1, bridges).device(&format!("{bus:02x}:02.0"));
        }
        let tree = tree.device(&format!("{bridges:02x}:01.0"));
        check(&tree.acs(&format!("{redirecting:02x}:01.0"), AcsBits::RR).topology(), &mut Seen::default());
    }
}

/// `bridges` bridges on root bus 0, each with one function below it on bus 1.
fn bush(bridges: u16) -> told::Machine {
    let mut machine = told::Machine { cpu: Some("intel:6"), kernel: Some("7.2"), ..told::Machine::default() };
    for devfn in 0..bridges {
        let mut bridge = Told::new(0, 0, devfn as u8, At::Root(0));
        bridge.bridge = Some(None);
        machine.functions.push(bridge);
    }
    for below in 0..bridges {
        machine.functions.push(Told::new(0, 1, below as u8, At::Below(usize::from(below))));
    }
    machine
}

#[test]
fn the_256th_bridge_beside_others_is_walked_and_so_is_all_below_it() {
    for (bridges, walked) in [(255, vec![]), (256, vec!["0000:00:1f.7", "0000:01:1f.7"])] {
        let topology = bush(bridges).build();
        let (view, mut seen) = (KernelView::new(&topology), Seen::default());
        let index = view.index();
        let not_summed_up = topology.functions().filter(|&(id, _)| !index.is_summed_up(id));
        assert_eq!(not_summed_up.map(|(_, function)| function.address().to_string()).collect::<Vec<_>>(), walked);
        for (provider, _) in topology.functions().step_by(15) {
            for (client, _) in topology.functions() {
                check_pair(&index, provider, client, &mut seen);
                check_pair(&index, client, provider, &mut seen);
            }
        }
        assert!(seen.answers["BUS_ADDR"] > 0 && seen.answers["NOT_SUPPORTED"] > 0, "{seen:?}");
    }
}

/// 4 × 256 virtual functions on the bus below one bridge and the buses after it.
#[test]
fn a_thousand_virtual_functions_are_siblings_that_fit() {
    let mut machine = told::Machine { cpu: Some("intel:6"), kernel: Some("7.2"), ..told::Machine::default() };
    machine.functions.push(Told::new(0, 0, 8, At::Root(0)));
    machine.functions[0].bridge = Some(Some((1, 5)));
    machine.functions.push(Told::new(0, 1, 0, At::Below(0)));
    for nth in 0..1024u16 {
        let mut virtual_one = Told::new(0, 2 + (nth >> 8) as u8, nth as u8, At::Below(0));
        virtual_one.physical = Some(1);
        machine.functions.push(virtual_one);
    }
    let topology = machine.topology();
    let (view, mut seen) = (KernelView::new(&topology), Seen::default());
    let index = view.index();
    assert!(topology.functions().all(|(id, _)| index.is_summed_up(id)));
    for (provider, _) in topology.functions().step_by(41) {
        for (client, _) in topology.functions() {
            check_pair(&index, provider, client, &mut seen);
        }
    }
    let virtuals = ["02:00.0", "05:1f.7"].map(|address| at(&topology, address));
    let answer = index.answer(virtuals[0], virtuals[1]);
    assert_eq!((answer.map_type, answer.distance), (MapType::BusAddr, 2));
    assert_eq!(index.answer(virtuals[0], virtuals[0]).distance, 0);
}

#[test]
fn an_unread_word_on_the_way_makes_the_answer_unknown_and_keeps_the_distance() {
    // The common port, a port of either, and a function itself; but not what is above.
    for (unread, map_type) in [
        ("01:00.0", MapType::Unknown),
        ("02:00.0", MapType::Unknown),
        ("02:01.0", MapType::Unknown),
        ("03:00.0", MapType::Unknown),
        ("00:01.0", MapType::BusAddr),
    ] {
        let tree = Tree::switch("intel:6", "8086:7d00");
        let topology = tree.edit(unread, |info| info.registers.acs = Acs::Unknown(AcsUnread::Denied)).topology();
        let view = KernelView::new(&topology);
        let answer = view.index().answer(at(&topology, "03:00.0"), at(&topology, "04:00.0"));
        assert_eq!(answer, Answer { map_type, distance: 4, distance_is_lower_bound: false }, "{unread}");
    }
}

#[test]
fn a_function_without_a_known_parent_is_walked_and_its_distance_is_a_lower_bound() {
    // Bus 5 lies below 00:01.0, but the switch that leads there is not listed.
    let topology = Tree::new("intel:6", "7.2.13").port("00:01.0", 1, 8).device("01:00.0").device("05:00.0").topology();
    let view = KernelView::new(&topology);
    let index = view.index();
    let (known, hidden) = (at(&topology, "01:00.0"), at(&topology, "05:00.0"));
    assert!(index.is_summed_up(known) && !index.is_summed_up(hidden));
    assert!(index.answer(known, hidden).distance_is_lower_bound);
    check(&topology, &mut Seen::default());
}

#[test]
fn a_kernel_without_p2pdma_refuses_every_pair_and_still_counts_hops() {
    let topology = Tree::switch("amd:0x19", "1022:14d8").topology();
    let machine = Machine { p2pdma_configured: Fact::Known(false), ..topology.machine().clone() };
    let topology = topology.with_machine(machine);
    let view = KernelView::new(&topology);
    let answer = view.index().answer(at(&topology, "03:00.0"), at(&topology, "04:00.0"));
    let expected = Answer { map_type: MapType::NotSupported, distance: 4, distance_is_lower_bound: false };
    assert_eq!(answer, expected);
    check(&topology, &mut Seen::default());
}

/// Host bridges that pass on their own only, among others, in the older table only, never.
#[test]
fn host_bridges_of_one_class_pass_each_other_as_the_gate_says() {
    let ids = ["8086:3c00", "8086:09a2", "8086:0b25", "8086:7d00"];
    // Between 6.12 and 7.2 the third one's entry came.
    for kernel in ["6.18", "7.2", "5.10"] {
        let mut tree = Tree::new("intel:6", kernel);
        for nth in 0..8u32 {
            let root = |slot| PciAddr::new(nth, 0, peerdma::pcie::DevFn::new(slot)).to_string();
            tree = tree.device(&root(0)).id(&root(0), ids[nth as usize % 4]).device(&root(8));
        }
        let mut seen = Seen::default();
        check(&tree.topology(), &mut seen);
        assert_eq!(seen.summed_up, seen.pairs);
    }
}

#[test]
fn a_summary_is_at_most_32_bytes() {
    assert!(PairIndex::SUMMARY <= Bytes::new(32));
}
