//! Layouts of a guest on the machine of the cases, by the numbered cases that they rest on.

use crate::data::Data;
use crate::machine::Machine;
use peerdma::addr::{AddrRange, Bytes, GuestPhys, Iova, PhysAddr};
use peerdma::pcie::Fact;
use peerdma::pcie::acs::{Acs, AcsBits, AcsRegisters, AcsUnread};
use peerdma::pcie::decode::BridgeWindows;
use peerdma::pcie::virt::Ats;
use peerdma::route::guest::{
    GuestLayout, GuestReport, Initiator, LayoutError, Meant, Place, Proposal, Requests, Stray, check, needed_place,
};
use peerdma::route::{Judge, Permission, Target};
use peerdma::topology::{
    FunctionId, FunctionInfo, HostBridgeFacts, HostWindow, IommuGroup, IommuMode, PeerForwarding, ReservedRegion,
    Topology,
};

const A: u64 = 0x9000_0000;
const B: u64 = 0x9100_0000;
const C: u64 = 0xa000_0000;
/// Outside all windows of the machine.
const FREE: u64 = 0x5_0000_0000;
const MIB: u64 = 1 << 20;
const ANYWHERE: Place = Place::Any { direct: None };

fn at(number: u64) -> GuestPhys {
    GuestPhys::new(number)
}

fn range(start: u64, len: u64) -> AddrRange<GuestPhys> {
    AddrRange::new(at(start), Bytes::new(len)).unwrap()
}

fn acs(control: AcsBits, vector: u32) -> Acs {
    Acs::Present(AcsRegisters::standard(None, AcsBits::from_bits_retain(0x7f), control, vec![vector; 8]))
}

/// The machine with ACS control words, each with the words of its egress vector, and what its root complex does.
struct Setup {
    topology: Topology,
}

impl Setup {
    fn new(words: &[(&str, AcsBits, u32)], peer: Option<PeerForwarding>) -> Self {
        Self::edited(words, &[], peer, &|_, _| {})
    }

    fn edited(
        words: &[(&str, AcsBits, u32)],
        spare: &[&str],
        peer: Option<PeerForwarding>,
        edit: &dyn Fn(&str, &mut FunctionInfo),
    ) -> Self {
        let edit = |name: &str, info: &mut FunctionInfo| {
            if let Some((_, bits, vector)) = words.iter().find(|(port, ..)| *port == name) {
                info.registers.acs = acs(*bits, *vector);
            }
            edit(name, info);
        };
        Self { topology: Machine::edited(&Data::read(), spare, &edit, peer) }
    }

    fn id(&self, name: &str) -> FunctionId {
        let address = Data::read().function.iter().find(|function| function.name == name).unwrap().address.clone();
        self.topology.at(address.parse().unwrap()).unwrap()
    }

    fn sends(&self, name: &str, requests: Requests) -> Initiator {
        Initiator { function: self.id(name), requests }
    }

    fn place(&self, from: &str, to: &str, requests: Requests) -> Place {
        let target = Target::of_bar(&self.topology, self.id(to), 0, None).unwrap();
        Place::of(&Judge::new(&self.topology), self.sends(from, requests), &target)
    }

    fn untranslated(&self, from: &str, to: &str) -> Place {
        self.place(from, to, Requests::Untranslated)
    }

    /// What is found of RAM here, and of first BARs of functions there, for what A sends.
    fn check(&self, requests: Requests, ram: &[AddrRange<GuestPhys>], bars: &[(&str, u64)]) -> GuestReport {
        let bars: Vec<_> = bars.iter().map(|&(name, place)| (self.id(name), 0, at(place))).collect();
        let layout = GuestLayout::new(&self.topology, &[self.sends("A", requests)], ram, &bars).unwrap();
        check(&Judge::new(&self.topology), &layout)
    }

    fn strays(&self, ram: &[AddrRange<GuestPhys>], bars: &[(&str, u64)]) -> Vec<(AddrRange<GuestPhys>, Stray)> {
        let report = self.check(Requests::Untranslated, ram, bars);
        report.findings.into_iter().map(|finding| (finding.range, finding.stray)).collect()
    }

    fn captured(&self, by: &str) -> Stray {
        Stray::Captured { by: self.id(by), bar: Some(0) }
    }
}

const NOTHING: Option<PeerForwarding> = Some(PeerForwarding::Nothing);
const FORWARDS: Option<PeerForwarding> = Some(PeerForwarding::Forwards);
const WRITES: Option<PeerForwarding> = Some(PeerForwarding::WritesOnly);
const RR: AcsBits = AcsBits::RR;
const UF: AcsBits = AcsBits::UF;
const EC: AcsBits = AcsBits::EC;
const DT: AcsBits = AcsBits::DT;

/// Cases 01, 04 to 06, 24 to 32, 39, 46, 47, 68 and 69, and what each makes of the place of a BAR.
#[test]
fn where_requests_turn_below_the_root_complex_says_where_the_guest_must_see_the_bar() {
    let identity = |number, elsewhere| Place::Identity { at: at(number), elsewhere };
    let lost = Permission::Refused;
    let open = Permission::Unknown;
    let either = |number| Place::Any { direct: Some(at(number)) };
    type Row<'r> =
        (&'r str, &'r [(&'r str, AcsBits, u32)], Option<PeerForwarding>, &'r str, &'r str, Result<Place, Permission>);
    let rows: [Row<'_>; 19] = [
        ("01", &[], NOTHING, "A", "B", Ok(identity(B, lost))),
        ("01, reads do not come back", &[], WRITES, "A", "B", Ok(identity(B, lost))),
        ("01, root complex not known", &[], None, "A", "B", Ok(identity(B, open))),
        ("01, root complex forwards", &[], FORWARDS, "A", "B", Ok(either(B))),
        ("04", &[("DSP0", RR, 0), ("RP0", UF, 0)], NOTHING, "A", "B", Err(lost)),
        ("05", &[("DSP0", RR, 0), ("RP0", UF, 0)], FORWARDS, "A", "B", Ok(ANYWHERE)),
        ("05, not known", &[("DSP0", RR, 0), ("RP0", UF, 0)], None, "A", "B", Err(open)),
        ("06", &[("DSP0", RR, 0)], NOTHING, "A", "B", Err(open)),
        ("24", &[("DSP0", EC, 1 << 2)], NOTHING, "A", "B", Err(lost)),
        ("26", &[("DSP0", EC, 1 << 3)], NOTHING, "A", "B", Ok(identity(B, lost))),
        ("27", &[("DSP0", EC, 1 << 3)], NOTHING, "A", "E", Err(lost)),
        ("29", &[("DSP0", EC.union(RR), 1 << 3)], NOTHING, "A", "B", Ok(identity(B, lost))),
        ("32", &[("DSP1", EC, 1 << 1)], NOTHING, "A", "B", Ok(identity(B, lost))),
        ("32, other way", &[("DSP1", EC, 1 << 1)], NOTHING, "B", "A", Err(lost)),
        ("34: the completion cannot come back", &[("DSP1", AcsBits::CR, 0)], NOTHING, "A", "B", Err(open)),
        ("45", &[("DSP2", RR.union(UF), 0)], NOTHING, "E", "F", Ok(identity(0x9280_0000, lost))),
        ("46", &[("DSP20", RR, 0)], NOTHING, "E", "B", Ok(identity(B, lost))),
        ("47", &[("DSP2", RR, 0), ("RP0", UF, 0)], NOTHING, "E", "B", Err(lost)),
        ("69", &[("RP0", RR, 0)], NOTHING, "A", "C", Err(lost)),
    ];
    for (case, words, peer, from, to, expected) in rows {
        let place = Setup::new(words, peer).untranslated(from, to);
        match expected {
            Ok(expected) => assert_eq!(place, expected, "case {case}"),
            Err(expected) => {
                assert_eq!(place.permission(), expected, "case {case}: {place:?}");
                let (Place::Refused(reasons) | Place::Unknown(reasons)) = &place else {
                    panic!("case {case}: {place:?}")
                };
                assert!(!reasons.is_empty(), "case {case}");
            }
        }
    }
    // Case 73: past all windows, and in by another root port.
    assert_eq!(Setup::new(&[("RP0", RR, 0)], FORWARDS).untranslated("A", "C"), ANYWHERE);
}

/// Cases 01 and 73: at its own number a BAR is reached, elsewhere the root complex would have to send requests back.
#[test]
fn a_bar_that_is_moved_from_its_own_number_is_lost_where_the_root_complex_does_not_forward() {
    let setup = Setup::new(&[], NOTHING);
    let ram = range(0, 2 << 30);
    let good = setup.check(Requests::Untranslated, &[ram], &[("B", B)]);
    assert_eq!((good.permission(), good.findings.len()), (Permission::Permitted, 0));
    assert_eq!((good.bars.len(), good.bars[0].standing), (1, Permission::Permitted));
    let moved = setup.check(Requests::Untranslated, &[ram], &[("B", FREE)]);
    assert_eq!(moved.permission(), Permission::Refused);
    assert_eq!(moved.bars[0].standing, Permission::Refused);
    assert_eq!(moved.bars[0].place, Place::Identity { at: at(B), elsewhere: Permission::Refused });
    let [finding] = moved.findings.as_slice() else { panic!("{:?}", moved.findings) };
    let function = setup.topology.function(setup.id("B")).address();
    assert_eq!((finding.range, finding.meant), (range(FREE, MIB), Meant::Bar { function, bar: 0 }));
    assert!(matches!(finding.stray, Stray::Lost(_)), "{finding:?}");
    // Case 68: the same move under a root complex that forwards.
    assert_eq!(Setup::new(&[], FORWARDS).strays(&[ram], &[("B", FREE)]), []);
}

/// Case 74 (and 75 with redirection): the number of a peer's BAR leads to the peer, whatever the guest means by it.
#[test]
fn ram_at_the_number_of_a_bar_below_the_same_switch_loses_its_writes_to_the_bar() {
    let setup = Setup::new(&[], NOTHING);
    let found = setup.strays(&[range(B - 2 * MIB, 0x400_0000)], &[]);
    let stopped = |name: &str| Stray::Stopped { at: setup.id(name) };
    // DSP0's own window before it: a U-turn that nothing specifies.
    assert!(matches!(&found[0], (part, Stray::Undefined(_)) if *part == range(B - 2 * MIB, 2 * MIB)), "{found:?}");
    assert_eq!(found[1], (range(B, MIB), setup.captured("B")));
    assert_eq!(found[2], (range(B + MIB, 0xf0_0000), stopped("B")), "no device has the rest of DSP1's window");
    assert_eq!(found[3], (range(0x9200_0000, MIB), setup.captured("E")));
    assert_eq!(found[5], (range(0x9280_0000, MIB), setup.captured("F")));
    // Case 64: a hole. What lies past the windows comes up.
    assert_eq!(found.last().unwrap(), &(range(0x9300_0000, 0x100_0000), stopped("DSP0")));
    let redirected = Setup::new(&[("DSP0", RR.union(UF), 0), ("RP0", UF, 0)], NOTHING);
    assert_eq!(redirected.strays(&[range(B, 0x200_0000)], &[]), []);
}

/// Case 72 and C3: whether root ports reach each other by the bare number no register tells.
#[test]
fn ram_at_the_number_of_another_root_ports_window_is_undefined_until_the_port_redirects() {
    let strays = Setup::new(&[], FORWARDS).strays(&[range(C, MIB)], &[]);
    assert!(matches!(strays.as_slice(), [(_, Stray::Undefined(_))]), "{strays:?}");
    assert_eq!(Setup::new(&[("RP0", RR, 0)], FORWARDS).strays(&[range(C, MIB)], &[]), []);
}

#[test]
fn a_bar_at_the_number_of_another_bar_goes_astray_and_so_does_one_beside_its_own_number() {
    let setup = Setup::new(&[], FORWARDS);
    assert_eq!(setup.strays(&[], &[("B", 0x9200_0000)]), [(range(0x9200_0000, MIB), setup.captured("E"))]);
    // A large BAR, moved by less than its size: its second half's number is its own first half's.
    let wide = Setup::edited(&[], &[], FORWARDS, &|name, info| {
        if name == "B" {
            info.bars[0].size = Some(Bytes::new(3 * MIB));
        }
    });
    let found = wide.strays(&[], &[("B", B + MIB)]);
    assert_eq!(found[0], (range(B + MIB, 2 * MIB), wide.captured("B")));
    assert_eq!(found[1], (range(B + 3 * MIB, MIB), Stray::Stopped { at: wide.id("B") }));
}

/// Cases 49 to 53 and 55: within a device.
#[test]
fn what_a_device_does_between_its_functions_is_its_own_affair() {
    let inside = Setup::edited(&[], &["A.1"], NOTHING, &|_, _| {});
    let place = inside.untranslated("A", "A.1");
    assert_eq!(place.permission(), Permission::Unknown, "{place:?}");
    let out = Setup::edited(&[("A", RR, 0), ("DSP0", UF, 0), ("RP0", UF, 0)], &["A.1"], FORWARDS, &|_, _| {});
    assert_eq!(out.untranslated("A", "A.1"), ANYWHERE);
}

/// Cases 09, 11, 12, 14, 16 and 76.
#[test]
fn an_initiator_with_translations_may_have_the_bar_anywhere_but_where_the_fabric_takes_the_question() {
    let with = |words: &[(&str, AcsBits, u32)], peer| {
        Setup::edited(words, &[], peer, &|name, info| {
            if name == "A" {
                info.registers.ats = Fact::Known(Some(Ats { enabled: true }));
            }
        })
    };
    let direct = with(&[("DSP0", RR.union(DT), 0), ("RP0", UF, 0)], NOTHING);
    assert_eq!(direct.place("A", "B", Requests::Translated), ANYWHERE);
    for number in [FREE, B] {
        let report = direct.check(Requests::Translated, &[range(0, 2 << 30)], &[("B", number)]);
        assert_eq!(report.findings, [], "{number:#x}");
    }
    // Nothing redirects the question for a translation of B's own number: B has it.
    let clear = with(&[], NOTHING);
    assert_eq!(clear.place("A", "B", Requests::Translated), ANYWHERE);
    let asked = clear.check(Requests::Translated, &[], &[("B", B)]).findings;
    assert_eq!(asked[0].stray, clear.captured("B"));
    assert_eq!(clear.check(Requests::Translated, &[], &[("B", FREE)]).findings, []);
    let blocked = with(&[("DSP0", AcsBits::TB.union(DT), 0)], NOTHING);
    assert_eq!(blocked.place("A", "B", Requests::Translated).permission(), Permission::Refused);
    let asked = blocked.check(Requests::Translated, &[range(0, MIB)], &[]).findings;
    assert_eq!(asked[0].stray, Stray::Stopped { at: blocked.id("DSP0") });
    // What it sends is not told: translated it arrives, untranslated it does not.
    let untold = Initiator::of(&direct.topology, direct.id("A"));
    assert_eq!(untold.requests, Requests::Untold);
    let Place::Unknown(reasons) = direct.place("A", "B", untold.requests) else { panic!("a guess") };
    assert!(reasons[0].evidence.contains("no register tells"), "{reasons:?}");
    let report = direct.check(Requests::Untold, &[range(0, 2 << 30)], &[("B", FREE)]);
    assert_eq!((report.permission(), report.findings.len()), (Permission::Unknown, 1));
    assert_eq!(with(&[], FORWARDS).place("A", "B", Requests::Untold), ANYWHERE);
    assert_eq!(Initiator::of(&clear.topology, clear.id("B")).requests, Requests::Untranslated);
}

#[test]
fn what_was_not_read_is_unknown_by_its_name_and_never_a_guess() {
    let reason = |setup: &Setup, ram: AddrRange<GuestPhys>| -> (String, String) {
        let strays = setup.strays(&[ram], &[]);
        let [(_, Stray::Unknown(reasons))] = strays.as_slice() else { panic!("{strays:?}") };
        (reasons[0].object.clone(), reasons[0].evidence.clone())
    };
    let edited = |edit: &dyn Fn(&str, &mut FunctionInfo)| Setup::edited(&[], &[], NOTHING, edit);
    let unread = edited(&|name, info| {
        if name == "DSP0" {
            info.registers.acs = Acs::Unknown(AcsUnread::NeverSeen);
        }
    });
    let (object, evidence) = reason(&unread, range(B, MIB));
    assert_eq!(object, "0000:02:00.0");
    assert!(evidence.contains("RR, CR and EC were not read"), "{evidence}");
    assert_eq!(unread.untranslated("A", "B").permission(), Permission::Unknown);
    // UF decides about a U-turn, and nothing about what leads past all windows.
    let (object, evidence) = reason(&unread, range(A + 8 * MIB, MIB));
    assert!(object == "0000:02:00.0" && evidence.contains("ACS controls were not read"), "{evidence}");
    assert_eq!(unread.strays(&[range(FREE, MIB)], &[]), []);
    let windows = edited(&|name, info| {
        if name == "DSP2" {
            info.registers.windows = BridgeWindows { memory: Fact::Unknown, prefetchable: Fact::Unknown };
        }
    });
    let (object, evidence) = reason(&windows, range(FREE, MIB));
    assert!(object == "0000:02:02.0" && evidence.contains("windows were not all read"), "{object} {evidence}");
    let unsized_bar = edited(&|name, info| {
        if name == "B" {
            info.bars[0].size = None;
        }
    });
    let (object, evidence) = reason(&unsized_bar, range(B + MIB, MIB));
    assert!(object == "0000:04:00.0" && evidence.contains("size of bar0"), "{object} {evidence}");
    // A bar of which nobody knows where it is.
    let unnumbered = edited(&|name, info| {
        if name == "B" {
            info.bars[0].bus = None;
        }
    });
    assert_eq!(unnumbered.untranslated("A", "B").permission(), Permission::Unknown);
}

#[test]
fn what_an_iommu_keeps_or_cannot_hold_is_named_and_without_one_nothing_is_a_guests() {
    let base = Setup::new(&[], NOTHING);
    let keep = |kind: &str| {
        let mut topology = Machine::edited(
            &Data::read(),
            &[],
            &|name, info: &mut FunctionInfo| {
                if name == "A" {
                    info.iommu_group = Some(7);
                }
            },
            NOTHING,
        );
        let msi = AddrRange::new(Iova::new(0xfee0_0000), Bytes::new(MIB)).unwrap();
        let group = IommuGroup { id: 7, kind: None, reserved: vec![ReservedRegion { range: msi, kind: kind.into() }] };
        let mut builder = topology.to_builder();
        builder.group(group);
        topology = builder.build();
        Setup { topology }
    };
    let ram = [range(0xf000_0000, 1 << 28)];
    let kept = keep("msi").strays(&ram, &[]);
    assert!(matches!(kept.as_slice(), [(part, Stray::Reserved { group: 7, .. })] if *part == range(0xfee0_0000, MIB)));
    assert_eq!(keep("direct-relaxable").strays(&ram, &[]), []);
    let machine = |change: &dyn Fn(&mut peerdma::topology::Machine)| {
        let mut machine = base.topology.machine().clone();
        change(&mut machine);
        Setup { topology: base.topology.clone().with_machine(machine) }
    };
    let narrow = machine(&|machine| machine.iommu_address_bits = Some(39));
    assert_eq!(
        narrow.strays(&[range((1 << 39) - MIB, 3 * MIB)], &[]),
        [(range(1 << 39, 2 * MIB), Stray::TooWide { bits: 39 })]
    );
    let without = machine(&|machine| machine.iommu = Some(IommuMode::None));
    assert_eq!(without.strays(&[range(0, MIB)], &[]), [(range(0, MIB), Stray::NotTranslated)]);
    assert_eq!(without.untranslated("A", "B"), Place::Identity { at: at(B), elsewhere: Permission::Refused });
}

/// Cases 86 and 88: a guest sees the number of the bus, which is not the CPU's where windows are at an offset.
#[test]
fn behind_windows_at_an_offset_the_place_is_the_buss_number() {
    let setup = Setup::new(&[], NOTHING);
    let mut builder = setup.topology.to_builder();
    let cpu = AddrRange::new(PhysAddr::new(0x50_9000_0000), Bytes::new(0x2000_0000)).unwrap();
    let windows = vec![HostWindow::new(cpu, peerdma::addr::BusAddr::new(0x9000_0000)).unwrap()];
    builder.host_bridge(0, 0, HostBridgeFacts { windows, peer: NOTHING, ..HostBridgeFacts::default() });
    let setup = Setup { topology: builder.build() };
    assert_eq!(setup.untranslated("A", "B"), Place::Identity { at: at(B), elsewhere: Permission::Refused });
    assert_eq!(setup.strays(&[], &[("B", B)]), []);
    assert_eq!(setup.strays(&[], &[("B", 0x50_9100_0000)]).len(), 1);
}

/// Case 82 and P2: a switch splits nothing.
#[test]
fn a_payload_that_does_not_fit_across_is_lost_at_its_own_number_too() {
    let setup = Setup::edited(&[], &[], NOTHING, &|name, info| {
        if name == "A" {
            info.registers.express.max_payload = Some(Bytes::new(512));
        }
    });
    let strays = setup.strays(&[], &[("B", B)]);
    let [(_, Stray::Lost(reasons))] = strays.as_slice() else { panic!("{strays:?}") };
    assert!(reasons[0].evidence.contains("512"), "{reasons:?}");
}

#[test]
fn a_proposed_address_fits_or_names_who_needs_which_or_what_goes_astray() {
    let setup = Setup::new(&[], NOTHING);
    let judge = Judge::new(&setup.topology);
    let initiators = ["A", "B", "E"].map(|name| setup.sends(name, Requests::Untranslated));
    let target = Target::of_bar(&setup.topology, setup.id("B"), 0, None).unwrap();
    let needed = needed_place(&judge, &initiators, &target);
    assert_eq!(needed.places.len(), 2, "B itself is not asked");
    assert_eq!(needed.propose(at(B)).unwrap(), Proposal::Fits);
    let must = Proposal::MustBe { at: at(B), needed_by: vec![setup.id("A"), setup.id("E")] };
    for number in [FREE, 0x9200_0000, C] {
        assert_eq!(needed.propose(at(number)).unwrap(), must, "{number:#x}");
    }
    assert!(matches!(needed.propose(at(B + 0x1000)), Err(LayoutError::Misaligned { .. })));
    let forwards = Setup::new(&[], FORWARDS);
    let judge = Judge::new(&forwards.topology);
    let needed = needed_place(&judge, &[forwards.sends("A", Requests::Untranslated)], &target);
    assert_eq!(needed.propose(at(FREE)).unwrap(), Proposal::Fits);
    assert!(matches!(needed.propose(at(0x9200_0000)).unwrap(), Proposal::Refused(found) if found.len() == 1));
    let unknown = Setup::new(&[], None);
    let judge = Judge::new(&unknown.topology);
    let needed = needed_place(&judge, &[unknown.sends("A", Requests::Untranslated)], &target);
    assert_eq!(needed.propose(at(B)).unwrap(), Proposal::Fits);
    assert!(matches!(needed.propose(at(FREE)).unwrap(), Proposal::Unknown(_)));
}

#[test]
fn a_layout_that_cannot_be_is_refused_by_name() {
    let setup = Setup::edited(&[], &[], NOTHING, &|name, info| {
        if name == "C" {
            info.bars[0].size = None;
        }
        if name == "A" {
            info.registers.ats = Fact::Known(None);
        }
    });
    let (a, b, c) = (setup.id("A"), setup.id("B"), setup.id("C"));
    let refused = |initiators: &[Initiator], ram: &[AddrRange<GuestPhys>], bars: &[(FunctionId, u8, GuestPhys)]| {
        GuestLayout::new(&setup.topology, initiators, ram, bars).unwrap_err().to_string()
    };
    let sends = |name, requests| setup.sends(name, requests);
    let says = |text: String, words: &[&str]| assert!(words.iter().all(|word| text.contains(word)), "{text}");
    says(
        refused(&[], &[range(0, 2 * MIB)], &[(b, 0, at(MIB))]),
        &["RAM at 0x0-0x1fffff", "0000:04:00.0 bar0", "overlap"],
    );
    says(refused(&[], &[range(0, MIB), range(0xf_ffff, 2)], &[]), &["overlap"]);
    says(refused(&[], &[], &[(b, 1, at(0))]), &["no memory BAR 1", "bar0, bar2"]);
    says(refused(&[], &[], &[(b, 0, at(0x1000))]), &["aligned to its size"]);
    says(refused(&[], &[], &[(b, 0, at(u64::MAX - 0xffe))]), &["past 2^64"]);
    says(refused(&[], &[], &[(c, 0, at(0))]), &["does not tell its size"]);
    let both = [sends("A", Requests::Untold), sends("A", Requests::Untranslated)];
    says(refused(&both, &[], &[]), &["0000:03:00.0", "twice"]);
    says(refused(&[sends("RP0", Requests::Untold)], &[], &[]), &["bridge"]);
    says(refused(&[sends("A", Requests::Translated)], &[], &[]), &["no ATS capability"]);
    let layout = GuestLayout::new(&setup.topology, &[], &[range(0, MIB)], &[(a, 0, at(FREE)), (a, 0, at(FREE + MIB))]);
    assert_eq!(layout.unwrap().bars().len(), 2, "a BAR may be shown twice");
}

/// A range up to the last number of all neither wraps nor hangs, and costs no walk per page.
#[test]
fn the_whole_of_the_address_space_is_a_layout_too() {
    let setup = Setup::new(&[("RP0", RR.union(UF), 0)], NOTHING);
    let found = setup.strays(&[range(1, u64::MAX)], &[]);
    let total: u64 = found.iter().map(|(part, _)| part.len().as_u64()).sum();
    // All that the switch has windows for, and nothing else.
    assert_eq!(total, 0x400_0000 + 0x1000_0000, "{found:?}");
}
