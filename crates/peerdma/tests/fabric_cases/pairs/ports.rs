//! What controls of ports make of a pair.

use super::*;

#[test]
fn below_one_switch_with_clear_controls_everything_arrives_without_the_root_complex() {
    let clear = Setup::new(&|_, _| {});
    for kind in [Kind::Write, Kind::Read, Kind::Atomic] {
        let passage = clear.pass("A", "B", kind, Handed::Bus);
        assert_eq!((passage.fate, passage.way), (Fate::Arrives, Some(Way::BelowRoot)), "{passage:?}");
        assert!(passage.reasons.iter().any(|reason| reason.evidence.starts_with("RR=0, EC=0")), "{passage:?}");
    }
    assert!(clear.pass("A", "B", Kind::Write, Handed::Bus).assumed.is_empty());
}

#[test]
fn a_redirected_request_needs_upstream_forwarding_at_the_root_port_and_a_root_complex_that_forwards() {
    let (rr, uf) = (("DSP0", AcsBits::RR), ("RP0", AcsBits::UF));
    let undefined = Setup::controls(&[rr], FORWARDS).pass("A", "B", Kind::Write, Handed::Bus);
    assert_eq!((undefined.fate, undefined.way), (Fate::Undefined, None));
    assert!(undefined.reasons.iter().any(|reason| reason.object == "0000:00:01.0" && reason.evidence.contains("UF=0")));
    for (peer, fates) in [
        (FORWARDS, (Fate::Arrives, Fate::Arrives)),
        (Some(PeerForwarding::WritesOnly), (Fate::Arrives, Fate::Lost)),
        (Some(PeerForwarding::Nothing), (Fate::Lost, Fate::Lost)),
        (None, (Fate::Unknown, Fate::Unknown)),
    ] {
        let setup = Setup::controls(&[rr, uf], peer);
        assert_eq!(setup.fates("A", "B", Handed::Bus), fates, "{peer:?}");
        assert_eq!(setup.pass("A", "B", Kind::Write, Handed::Bus).way, Some(Way::RootComplex));
    }
}

#[test]
fn completion_redirect_on_the_completers_side_loses_reads_to_a_turn_and_writes_not() {
    let setup = Setup::controls(&[("DSP1", AcsBits::CR)], None);
    assert_eq!(setup.fates("A", "B", Handed::Bus), (Fate::Arrives, Fate::Undefined));
    assert_eq!(setup.fates("B", "A", Handed::Bus), (Fate::Arrives, Fate::Arrives), "its own reads are not concerned");
    let held = Setup::new(&|name, info| match name {
        "DSP1" => info.registers.acs = acs(AcsBits::CR, 0),
        "RP0" => info.registers.acs = acs(AcsBits::UF, 0),
        "B" => info.registers.express.relaxed_ordering = Some(true),
        _ => {}
    });
    let read = held.pass("A", "B", Kind::Read, Handed::Bus);
    assert_eq!((read.fate, read.way), (Fate::Arrives, Some(Way::BelowRoot)), "a held completion is sent on");
    assert!(read.assumed.iter().any(|reason| reason.evidence.contains("relaxed ordering")), "{read:?}");
}

#[test]
fn translation_blocking_and_direct_translated_concern_translated_addresses_alone() {
    let with_ats = |controls: AcsBits| {
        Setup::new(&move |name, info| {
            if name == "A" {
                info.registers.ats = Fact::Known(Some(Ats { enabled: true }));
            }
            if name == "DSP0" {
                info.registers.acs = acs(controls, 0);
            }
        })
    };
    let blocked = with_ats(AcsBits::TB | AcsBits::DT);
    assert_eq!(blocked.fates("A", "B", Handed::Translated), (Fate::Lost, Fate::Lost));
    assert_eq!(blocked.fates("A", "B", Handed::Bus), (Fate::Arrives, Fate::Arrives));
    let direct = with_ats(AcsBits::RR | AcsBits::DT);
    assert_eq!(direct.fates("A", "B", Handed::Translated), (Fate::Arrives, Fate::Arrives));
    assert_eq!(direct.fates("A", "B", Handed::Bus), (Fate::Undefined, Fate::Undefined));
}

#[test]
fn an_egress_vector_counts_port_numbers_of_the_ports_on_its_own_bus() {
    let blocks = |bit: u32| {
        Setup::new(&move |name, info| {
            if name == "DSP0" {
                info.registers.acs = acs(AcsBits::EC, 1 << bit);
            }
        })
    };
    assert_eq!(blocks(2).fates("A", "B", Handed::Bus), (Fate::Lost, Fate::Lost));
    assert_eq!(blocks(3).fates("A", "B", Handed::Bus), (Fate::Arrives, Fate::Arrives));
    // E is below port 1 of the inner switch, which is port 3 of the outer one.
    assert_eq!(blocks(3).fates("A", "E", Handed::Bus), (Fate::Lost, Fate::Lost));
    assert_eq!(blocks(1).fates("A", "E", Handed::Bus), (Fate::Arrives, Fate::Arrives));
    let unnumbered = Setup::new(&|name, info| match name {
        "DSP0" => info.registers.acs = acs(AcsBits::EC, 4),
        "DSP1" => info.registers.express.port_number = None,
        _ => {}
    });
    let passage = unnumbered.pass("A", "B", Kind::Write, Handed::Bus);
    assert_eq!((passage.fate, names(&passage, Gate::AcsUnknown)), (Fate::Unknown, vec!["0000:02:00.0"]));
}

#[test]
fn unread_acs_is_unknown_where_it_decides_and_not_where_both_ways_arrive() {
    let unread = |ports: &'static [&'static str], peer| {
        Setup::with(
            &[],
            &move |name, info| {
                if ports.contains(&name) {
                    info.registers.acs = UNREAD;
                }
            },
            peer,
        )
    };
    let passage = unread(&["DSP0"], FORWARDS).pass("A", "B", Kind::Write, Handed::Bus);
    assert_eq!((passage.fate, passage.way), (Fate::Unknown, None));
    assert_eq!(names(&passage, Gate::AcsUnknown), ["0000:02:00.0"]);
    assert!(passage.assumed.iter().any(|reason| reason.evidence.contains("SV, TB, UF and DT")));
    // The target's port decides about completions alone.
    let target_side = unread(&["DSP1"], FORWARDS);
    assert_eq!(target_side.fates("A", "B", Handed::Bus), (Fate::Arrives, Fate::Unknown));
    // An IOVA is for no peer, so nothing that was not read decides.
    assert_eq!(unread(&["DSP0", "RP0"], FORWARDS).fates("A", "B", Handed::Iova), (Fate::Arrives, Fate::Arrives));
    assert_eq!(unread(&["DSP0"], FORWARDS).fates("A", "C", Handed::Bus), (Fate::Arrives, Fate::Arrives));
    // A port with neither EC nor a turn above: redirected or not, it arrives.
    let either = Setup::with(
        &[],
        &|name, info| match name {
            "DSP0" => {
                let mut registers = AcsRegisters::standard(None, AcsBits::RR, AcsBits::empty(), vec![]);
                registers.control = Fact::Unknown;
                info.registers.acs = Acs::Present(registers);
            }
            "RP0" => info.registers.acs = acs(AcsBits::UF, 0),
            _ => {}
        },
        FORWARDS,
    );
    let passage = either.pass("A", "B", Kind::Write, Handed::Bus);
    assert_eq!((passage.fate, passage.way), (Fate::Arrives, None), "{passage:?}");
}

#[test]
fn source_validation_stops_functions_whose_bus_the_port_does_not_have() {
    let setup = Setup::new(&|name, info| {
        if name == "DSP0" {
            info.registers.acs = acs(AcsBits::SV, 0);
            let buses = info.registers.buses.as_mut().unwrap();
            (buses.secondary, buses.subordinate) = (0x0e, 0x0e);
        }
    });
    assert_eq!(setup.fates("A", "B", Handed::Iova).0, Fate::Lost);
}

#[test]
fn egress_control_of_a_root_port_is_undefined_where_it_blocks_and_nothing_where_it_does_not() {
    let setup = |vector| {
        Setup::with(
            &[],
            &move |name, info| {
                if name == "RP0" {
                    info.registers.acs = acs(AcsBits::EC, vector);
                }
            },
            FORWARDS,
        )
    };
    assert_eq!(setup(1 << 2).fates("A", "C", Handed::Bus).0, Fate::Undefined);
    assert_eq!(setup(1 << 3).fates("A", "C", Handed::Bus).0, Fate::Arrives);
    assert_eq!(setup(1 << 2).fates("A", "C", Handed::Iova).0, Fate::Arrives);
}

#[test]
fn what_a_root_port_blocks_for_certain_is_lost_and_an_unread_vector_is_unknown() {
    let blocking = Setup::controls(&[("RP0", AcsBits::TB)], FORWARDS);
    assert_eq!(blocking.fates("A", "C", Handed::Translated).0, Fate::Lost);
    assert_eq!(blocking.fates("A", "C", Handed::Bus).0, Fate::Arrives);
    let vector_unread = Setup::with(
        &[],
        &|name, info| {
            if name == "RP0" {
                let all = AcsBits::from_bits_retain(0x7f);
                info.registers.acs = Acs::Present(AcsRegisters::standard(None, all, AcsBits::EC, vec![]));
            }
        },
        FORWARDS,
    );
    let passage = vector_unread.pass("A", "C", Kind::Write, Handed::Bus);
    assert_eq!((passage.fate, names(&passage, Gate::AcsUnknown)), (Fate::Unknown, vec!["0000:00:01.0"]));
}

#[test]
fn a_port_of_unread_type_matters_only_where_something_turns_at_it() {
    let setup = Setup::with(
        &["A.1"],
        &|name, info| {
            if name == "RP0" || name == "RP1" {
                info.registers.port_type = Fact::Unknown;
                info.registers.acs = UNREAD;
            }
        },
        FORWARDS,
    );
    assert_eq!(setup.fates("A", "C", Handed::Bus), (Fate::Arrives, Fate::Arrives));
    assert_eq!(setup.fates("A", "B", Handed::Bus), (Fate::Arrives, Fate::Arrives));
    // What sits on a switch's internal bus is a downstream port, read or not.
    let inside = Setup::new(&|name, info| {
        if name == "DSP0" || name == "DSP1" {
            info.registers.port_type = Fact::Unknown;
        }
    });
    assert_eq!(inside.fates("A", "B", Handed::Bus), (Fate::Arrives, Fate::Arrives));
    let redirected = Setup::with(
        &[],
        &|name, info| match name {
            "RP0" => info.registers.port_type = Fact::Unknown,
            "DSP0" => info.registers.acs = acs(AcsBits::RR, 0),
            _ => {}
        },
        FORWARDS,
    );
    let passage = redirected.pass("A", "B", Kind::Write, Handed::Bus);
    assert_eq!((passage.fate, names(&passage, Gate::ParentUnknown)), (Fate::Unknown, vec!["0000:00:01.0"]));
}
