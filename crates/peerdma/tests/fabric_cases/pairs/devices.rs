//! Functions of one device, conventional buses, AtomicOps, enables.

use super::*;

#[test]
fn whether_a_device_routes_inside_is_its_own_affair() {
    let two = |words: &'static [(&'static str, AcsBits)], peer| {
        Setup::with(
            &["A.1"],
            &move |name, info| {
                if let Some((_, bits)) = words.iter().find(|(port, _)| *port == name) {
                    info.registers.acs = acs(*bits, 0);
                }
            },
            peer,
        )
    };
    let plain = two(&[], FORWARDS).pass("A", "A.1", Kind::Write, Handed::Bus);
    assert_eq!((plain.fate, plain.way), (Fate::Undefined, None));
    assert!(plain.reasons.iter().any(|reason| reason.evidence.contains("its own affair")), "{plain:?}");
    let both_ways = two(&[("DSP0", AcsBits::UF), ("RP0", AcsBits::UF)], FORWARDS);
    assert_eq!(both_ways.fates("A", "A.1", Handed::Bus), (Fate::Arrives, Fate::Arrives));
    let out = two(&[("A", AcsBits::RR), ("DSP0", AcsBits::UF), ("RP0", AcsBits::UF)], FORWARDS);
    assert_eq!(out.pass("A", "A.1", Kind::Write, Handed::Bus).way, Some(Way::RootComplex));
    let turned = two(&[("A", AcsBits::RR)], FORWARDS);
    assert_eq!(turned.fates("A", "A.1", Handed::Bus).0, Fate::Undefined);
}

#[test]
fn on_a_conventional_bus_neighbours_reach_each_other_whatever_ports_above_say() {
    let setup = Setup::with(
        &["BR", "P", "Q"],
        &|name, info| {
            if name == "B" {
                // The bridge takes B's place.
                info.address = "0f:00.0".parse().unwrap();
                info.bars.clear();
            }
            if name == "DSP1" {
                info.registers.acs = acs(AcsBits::RR | AcsBits::CR | AcsBits::SV | AcsBits::UF, 0);
            }
        },
        None,
    );
    assert_eq!(setup.fates("P", "Q", Handed::Bus), (Fate::Arrives, Fate::Arrives));
    let atomic = setup.pass("A", "Q", Kind::Atomic, Handed::Bus);
    assert_eq!((atomic.fate, names(&atomic, Gate::Atomics)), (Fate::Lost, vec!["0000:04:00.0"]), "{atomic:?}");
    assert_eq!(setup.pass("A", "Q", Kind::Write, Handed::Bus).fate, Fate::Arrives);
}

/// The resolver took the answer for one on their bus, although the bridge sends it: what the bridge was asked by the
/// root complex it answers there, in the name in which it had asked itself.
#[test]
fn what_neighbours_on_a_conventional_bus_ask_through_the_root_complex_their_bridge_answers() {
    let setup = |forwards: AcsBits| {
        let edit = move |name: &str, info: &mut FunctionInfo| match name {
            "B" => {
                info.address = "0f:00.0".parse().unwrap();
                info.bars.clear();
            }
            "DSP1" => {
                info.registers.acs = acs(forwards, 0);
                info.registers.buses = Some(BridgeBuses { primary: 2, secondary: 4, subordinate: 9 });
            }
            "RP0" => info.registers.acs = acs(forwards, 0),
            _ => {}
        };
        Setup::with(&["BR", "P", "Q"], &edit, FORWARDS)
    };
    // The answer is for a bus below the very port that it comes up to.
    assert_eq!(setup(AcsBits::empty()).fates("P", "Q", Handed::Iova), (Fate::Arrives, Fate::Undefined));
    let turned = setup(AcsBits::empty()).pass("P", "Q", Kind::Read, Handed::Iova);
    assert!(turned.reasons.iter().any(|reason| reason.object == "0000:02:01.0"), "{turned:?}");
    assert_eq!(setup(AcsBits::UF).fates("P", "Q", Handed::Iova), (Fate::Arrives, Fate::Arrives));
    // What stays on their bus is none of the bridge's business, and what comes from beyond goes back beyond.
    assert_eq!(setup(AcsBits::empty()).fates("P", "Q", Handed::Bus), (Fate::Arrives, Fate::Arrives));
    assert_eq!(setup(AcsBits::empty()).fates("A", "Q", Handed::Iova), (Fate::Arrives, Fate::Arrives));
    assert_eq!(setup(AcsBits::empty()).fates("P", "A", Handed::Iova), (Fate::Arrives, Fate::Arrives));
}

#[test]
fn an_atomic_operation_is_permitted_only_where_every_element_is_known_to_take_it() {
    let atomic = |edit: &dyn Fn(&str, &mut FunctionInfo)| Setup::new(edit).pass("A", "B", Kind::Atomic, Handed::Bus);
    let cases: [(Option<bool>, Fate); 2] = [(None, Fate::Unknown), (Some(false), Fate::Lost)];
    for (routing, fate) in cases {
        for port in ["DSP0", "DSP1"] {
            let passage = atomic(&|name, info| {
                if name == port {
                    info.registers.express.atomic_routing = routing;
                }
            });
            assert_eq!((passage.fate, names(&passage, Gate::Atomics).len()), (fate, 1), "{port}: {passage:?}");
        }
        let sizes = routing.map(|_| AtomicSizes::NONE);
        let passage = atomic(&|name, info| {
            if name == "B" {
                info.registers.express.atomic_completer = sizes;
            }
        });
        assert_eq!((passage.fate, names(&passage, Gate::Atomics)), (fate, vec!["0000:04:00.0"]));
    }
    let blocked = atomic(&|name, info| {
        if name == "DSP1" {
            info.registers.express.atomic_egress_blocked = Some(true);
        }
    });
    assert_eq!(blocked.fate, Fate::Lost);
}

#[test]
fn enables_that_drivers_switch_are_said_and_do_not_decide() {
    let off = Setup::new(&|name, info| {
        if ["A", "B", "DSP0", "DSP1"].contains(&name) {
            let command = info.registers.command.as_mut().unwrap();
            (command.memory, command.bus_master) = (false, false);
        }
    });
    let passage = off.pass("A", "B", Kind::Write, Handed::Bus);
    assert_eq!(passage.fate, Fate::Arrives);
    let said: Vec<&str> = passage.assumed.iter().map(|reason| reason.object.as_str()).collect();
    for object in ["0000:03:00.0", "0000:02:00.0", "0000:02:01.0", "0000:04:00.0"] {
        assert!(said.contains(&object), "{said:?}");
    }
}
