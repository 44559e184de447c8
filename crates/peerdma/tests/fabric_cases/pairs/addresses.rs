//! What the number on the wire and the root complex make of a pair.

use super::*;

#[test]
fn translated_addresses_are_for_those_with_ats_enabled() {
    for (ats, fate) in [
        (Fact::Known(None), Fate::Lost),
        (Fact::Known(Some(Ats { enabled: false })), Fate::Lost),
        (Fact::Known(Some(Ats { enabled: true })), Fate::Arrives),
        (Fact::Unknown, Fate::Arrives),
    ] {
        let setup = Setup::new(&move |name, info| {
            if name == "A" {
                info.registers.ats = ats;
            }
        });
        let passage = setup.pass("A", "B", Kind::Write, Handed::Translated);
        assert_eq!(passage.fate, fate, "{ats:?}");
        assert_eq!(!passage.assumed.is_empty(), ats == Fact::Unknown, "{passage:?}");
    }
}

#[test]
fn between_root_ports_the_root_complex_decides_and_what_is_known_of_it() {
    for handed in [Handed::Bus, Handed::CpuPhysical, Handed::Iova] {
        let unknown = Setup::new(&|_, _| {}).pass("A", "C", Kind::Read, handed);
        assert_eq!((unknown.fate, names(&unknown, Gate::RootComplex).len()), (Fate::Unknown, 1), "{unknown:?}");
        let writes_only = Setup::with(&[], &|_, _| {}, Some(PeerForwarding::WritesOnly));
        assert_eq!(writes_only.fates("A", "C", handed), (Fate::Arrives, Fate::Lost), "{handed:?}");
    }
    let mut topology = Setup::new(&|_, _| {}).topology;
    let mut machine = topology.machine().clone();
    machine.cpu = Some("amd:0x19".parse::<Cpu>().unwrap());
    topology = topology.with_machine(machine);
    let zen = Setup { topology };
    assert_eq!(zen.fates("A", "C", Handed::Iova), (Fate::Arrives, Fate::Arrives));
}

/// The resolver held such requests for lost; a root complex may have a way between its ports on which its IOMMU
/// does not stand, and the emulator can have one.
#[test]
fn a_bare_number_for_a_peer_at_another_root_port_may_get_past_the_iommu() {
    let fate = |controls: &[(&str, AcsBits)], peer, handed| {
        let setup = Setup::controls(controls, peer);
        let mut machine = setup.topology.machine().clone();
        machine.iommu = Some(IommuMode::Translated);
        Setup { topology: setup.topology.with_machine(machine) }.pass("A", "C", Kind::Write, handed)
    };
    let open = fate(&[], FORWARDS, Handed::Bus);
    assert_eq!((open.fate, open.way), (Fate::Undefined, Some(Way::RootComplex)), "{open:?}");
    assert!(open.reasons.iter().any(|reason| reason.evidence.contains("before its IOMMU")), "{open:?}");
    assert_eq!(fate(&[], FORWARDS, Handed::Iova).fate, Fate::Arrives, "an address that the IOMMU knows");
    // Redirection sends it to the IOMMU, and where nothing is forwarded there is no such way.
    assert_eq!(fate(&[("RP0", AcsBits::RR)], FORWARDS, Handed::Bus).fate, Fate::Lost);
    assert_eq!(fate(&[], Some(PeerForwarding::Nothing), Handed::Bus).fate, Fate::Lost);
    assert_eq!(fate(&[], None, Handed::Bus).fate, Fate::Unknown);
}

#[test]
fn an_iova_passes_all_windows_and_asks_no_port_for_a_turn() {
    let setup = Setup::with(&[], &|_, _| {}, FORWARDS);
    let passage = setup.pass("A", "B", Kind::Write, Handed::Iova);
    assert_eq!((passage.fate, passage.way), (Fate::Arrives, Some(Way::RootComplex)));
    // Redirected completions still turn at the root port, unless the root complex took the read over.
    let redirected = Setup::controls(&[("DSP1", AcsBits::CR)], FORWARDS);
    assert_eq!(redirected.fates("A", "B", Handed::Iova), (Fate::Arrives, Fate::Undefined));
}

#[test]
fn a_bar_outside_the_windows_above_it_is_out_of_reach() {
    let window = |start, len| Fact::Known(AddrRange::new(BusAddr::new(start), Bytes::new(len)));
    let outside = Setup::new(&move |name, info| {
        if name == "DSP1" {
            info.registers.windows =
                BridgeWindows { memory: window(0x9180_0000, 0x80_0000), prefetchable: Fact::Known(None) };
        }
    });
    let passage = outside.pass("A", "B", Kind::Write, Handed::Bus);
    assert_eq!(passage.fate, Fate::Lost);
    assert!(passage.reasons.iter().any(|reason| reason.evidence.contains("none of its ports")), "{passage:?}");
    let unread = Setup::new(&|name, info| {
        if name == "DSP1" {
            info.registers.windows = BridgeWindows::default();
        }
    });
    let passage = unread.pass("A", "B", Kind::Write, Handed::Bus);
    assert_eq!(passage.fate, Fate::Arrives);
    assert_eq!(passage.assumed.iter().map(|reason| reason.object.as_str()).collect::<Vec<_>>(), ["0000:02:01.0"]);
}

#[test]
fn a_number_that_is_another_ports_goes_there_and_the_target_has_nothing_of_it() {
    // DSP2's window covers B's BAR too, and DSP1's does not.
    let window = |start, len| Fact::Known(AddrRange::new(BusAddr::new(start), Bytes::new(len)));
    let astray = Setup::new(&move |name, info| {
        let memory = match name {
            "DSP1" => window(0x9180_0000, 0x10_0000),
            "DSP2" => window(0x9100_0000, 0x10_0000),
            _ => return,
        };
        info.registers.windows = BridgeWindows { memory, prefetchable: Fact::Known(None) };
    });
    assert_eq!(astray.fates("A", "B", Handed::Bus), (Fate::Lost, Fate::Lost));
}

#[test]
fn a_cpu_address_from_behind_an_offset_hits_no_peer_and_goes_to_the_root_complex() {
    let offset = |peer| {
        Setup::with(
            &[],
            &|name, info| {
                let cpu = AddrRange::new(PhysAddr::new(0x50_9100_0000), Bytes::new(0x10_0000)).unwrap();
                if name == "B" {
                    info.bars[0].cpu = Some(cpu);
                }
            },
            peer,
        )
    };
    let passage = offset(FORWARDS).pass("A", "B", Kind::Write, Handed::CpuPhysical);
    assert_eq!((passage.fate, passage.way), (Fate::Arrives, Some(Way::RootComplex)));
    assert_eq!(offset(None).pass("A", "B", Kind::Write, Handed::Bus).way, Some(Way::BelowRoot));
    // A CPU address that is somebody else's bus address stays below, and goes astray.
    let aliased = Setup::new(&|name, info| {
        if name == "B" {
            info.bars[0].cpu = AddrRange::new(PhysAddr::new(0x9200_0000), Bytes::new(0x10_0000));
        }
    });
    let passage = aliased.pass("A", "B", Kind::Write, Handed::CpuPhysical);
    assert_eq!(passage.fate, Fate::Lost);
    assert!(passage.reasons.iter().any(|reason| reason.object == "0000:07:00.0"), "{passage:?}");
    // Redirected, a bus address is whatever the root complex takes it for.
    let redirected = Setup::new(&|name, info| match name {
        "B" => info.bars[0].cpu = AddrRange::new(PhysAddr::new(0x50_9100_0000), Bytes::new(0x10_0000)),
        "DSP0" => info.registers.acs = acs(AcsBits::RR, 0),
        "RP0" => info.registers.acs = acs(AcsBits::UF, 0),
        _ => {}
    });
    assert_eq!(redirected.fates("A", "B", Handed::Bus).0, Fate::Undefined);
}

#[test]
fn an_address_that_may_be_at_an_offset_is_said_to_be_taken_as_equal() {
    let setup = Setup::new(&|name, info| {
        if name == "B" {
            info.bars[0].bus = None;
        }
    });
    let passage = setup.pass("A", "B", Kind::Write, Handed::CpuPhysical);
    assert_eq!(passage.fate, Fate::Arrives);
    assert!(passage.assumed.iter().any(|reason| reason.evidence.contains("taken to be equal")), "{passage:?}");
}

#[test]
fn what_hangs_somewhere_unknown_has_an_unknown_fate() {
    let mut builder = Setup::new(&|_, _| {}).topology.to_builder();
    let lost =
        FunctionInfo::new("0d:00.0".parse().unwrap(), peerdma::topology::Position::Below("0c:00.0".parse().unwrap()));
    builder.function(lost);
    let topology = builder.build();
    let lost = topology.at("0d:00.0".parse().unwrap()).unwrap();
    let a = topology.at("03:00.0".parse().unwrap()).unwrap();
    let target = Target::largest_bar(&topology, a);
    let passed = Passed::of(&topology, lost, &target, Kind::Write, Handed::Bus);
    assert_eq!((passed.fate, names(&passed, Gate::ParentUnknown)), (Fate::Unknown, vec!["0000:0d:00.0"]));
}
