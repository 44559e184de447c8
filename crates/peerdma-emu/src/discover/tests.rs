//! The registers of a platform, read back, against the platform's own topology.

use super::{ConfigAccess, discover};
use crate::config::{NEUTRAL_VENDOR, Space, Width};
use crate::machine::describe::{Placed, describe};
use crate::platform::{Platform, random};
use peerdma::pcie::acs::{Acs, AcsAbsent};
use peerdma::pcie::caps::ListEnd;
use peerdma::pcie::decode::{BridgeWindows, HeaderType};
use peerdma::pcie::express::PortType;
use peerdma::pcie::virt::Pri;
use peerdma::pcie::{Fact, PciAddr, PciId};
use peerdma::route::kernel_view::KernelView;
use peerdma::topology::{Contradiction, FunctionInfo};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Spaces by address, all of them reachable.
struct Spaces(BTreeMap<PciAddr, Space>);

impl Spaces {
    fn of(placed: &[Placed]) -> Self {
        Self(placed.iter().map(|one| (one.address, Space::new(&one.description))).collect())
    }
}

impl ConfigAccess for Spaces {
    fn read(&self, address: PciAddr, offset: u16, width: Width) -> u32 {
        self.0.get(&address).map_or(width.ones(), |space| space.read(offset, width))
    }

    fn write(&self, address: PciAddr, offset: u16, width: Width, value: u32) {
        if let Some(space) = self.0.get(&address) {
            space.write(offset, width, value);
        }
    }
}

/// What a scan says where the file states this: all that may differ, and why.
fn as_scanned(stated: &FunctionInfo, placed: &Placed) -> FunctionInfo {
    let mut info = stated.clone();
    let described = &placed.description;
    let registers = &mut info.registers;
    // What a file leaves out has a value in a register.
    registers.id = registers.id.or(Some(described.id));
    registers.multifunction = Some(described.multifunction);
    if let Some(express) = &described.express {
        let scanned = &mut registers.express;
        scanned.max_payload_supported = Some(express.max_payload_supported);
        scanned.max_read_request = Some(express.max_read_request);
        scanned.relaxed_ordering = Some(express.relaxed_ordering);
        scanned.no_snoop = Some(express.no_snoop);
        scanned.port_number = Some(express.port_number);
        scanned.atomic_routing = Some(express.atomic_routing);
        scanned.atomic_egress_blocked = Some(express.atomic_egress_blocked);
        scanned.atomic_requester = Some(express.atomic_requester);
        scanned.atomic_completer = Some(express.atomic_completer);
        scanned.link.speed = express.link.map(|link| link.speed);
        scanned.link.width = Some(express.link.map_or(0, |link| link.width));
        scanned.link.max_speed = scanned.link.speed;
        scanned.link.max_width = scanned.link.width;
    }
    // A scan knows why there is no ACS, and where it is; the vector behind double words it does
    // not look for.
    match &mut registers.acs {
        Acs::Present(acs) => {
            acs.offset = Some(0x100);
            if described.acs.as_ref().is_some_and(|acs| acs.double_words) {
                acs.egress.clear();
            }
        }
        Acs::Absent(_) | Acs::Unknown(_) if described.express.is_none() => {
            registers.acs = Acs::Absent(AcsAbsent::SpaceEndsAt256);
        }
        Acs::Absent(_) | Acs::Unknown(_) => registers.acs = Acs::Absent(AcsAbsent::WholeListRead),
    }
    if described.express.is_none() {
        registers.extended_end = ListEnd::NoList;
    }
    registers.pri = Fact::Known(described.pri.map(|enabled| Pri { enabled }));
    // Devices have no windows to read, which a file counts as closed.
    if registers.header == Some(HeaderType::Device) {
        registers.windows = BridgeWindows::default();
    }
    info
}

/// Whether a scan of the platform's registers finds the platform; returns how many functions.
fn is_found_again(platform: &Platform) -> Result<usize, TestCaseError> {
    let placed = describe(platform);
    let by_address: BTreeMap<PciAddr, &Placed> = placed.iter().map(|one| (one.address, one)).collect();
    let spaces = Spaces::of(&placed);
    let before: Vec<u32> = words(&spaces);
    let (found, stated) = (discover(&spaces, platform), platform.topology());
    prop_assert_eq!(words(&spaces), before, "sizing BARs leaves everything as it was");
    prop_assert_eq!(found.contradictions(), &[] as &[Contradiction]);
    prop_assert_eq!(found.functions().len(), stated.functions().len());
    for ((_, found), (_, stated)) in found.functions().zip(stated.functions()) {
        prop_assert_eq!(found.info(), &as_scanned(stated.info(), by_address[&stated.address()]));
        prop_assert_eq!(found.parent(), stated.parent());
    }
    prop_assert_eq!(found.groups(), stated.groups());
    prop_assert_eq!(found.machine(), stated.machine());
    prop_assert!(found.host_bridges().eq(stated.host_bridges()));
    parents_come_first(&placed)?;
    registers_are_as_described(&placed, &spaces)?;
    Ok(placed.len())
}

fn words(spaces: &Spaces) -> Vec<u32> {
    let of = |space: &Space| -> Vec<u32> { (0..0x200).step_by(4).map(|at| space.read(at, Width::Four)).collect() };
    spaces.0.values().flat_map(of).collect()
}

fn parents_come_first(placed: &[Placed]) -> Result<(), TestCaseError> {
    use crate::machine::describe::Above;
    for (position, one) in placed.iter().enumerate() {
        match one.above {
            Above::Root(_) => {}
            Above::Port(above) => {
                prop_assert!(above < position && placed[above].model.is_none());
                let buses = placed[above].description.buses.unwrap();
                prop_assert_eq!(buses.secondary, one.address.bus());
            }
        }
    }
    Ok(())
}

fn registers_are_as_described(placed: &[Placed], spaces: &Spaces) -> Result<(), TestCaseError> {
    for one in placed {
        let (space, described) = (&spaces.0[&one.address], &one.description);
        prop_assert_eq!(space.bar_indices().count(), described.bars.len());
        for bar in &described.bars {
            let range = space.bar(bar.index).unwrap();
            prop_assert_eq!((range.start(), range.len()), (bar.address, bar.size));
            prop_assert_eq!(spaces.bar_size(one.address, bar.index, bar.is_64_bit), Some(bar.size));
        }
        let windows: Vec<_> = [described.memory_window, described.prefetchable_window].into_iter().flatten().collect();
        prop_assert_eq!(space.windows().collect::<Vec<_>>(), windows);
        let acs = space.acs().map(|acs| (acs.capability, acs.control));
        prop_assert_eq!(acs, described.acs.as_ref().map(|acs| (acs.capability, acs.control)));
        let vector = described.acs.as_ref().map_or(&[] as &[u32], |acs| &acs.egress);
        for bit in 0..=u8::MAX {
            let word = vector.get(usize::from(bit / 32)).copied().unwrap_or(0);
            prop_assert_eq!(space.egress_bit(bit), word >> (bit % 32) & 1 != 0);
        }
        prop_assert!(space.memory_enabled() && space.bus_master());
        prop_assert_eq!(space.max_payload(), described.express.map(|express| express.max_payload));
    }
    Ok(())
}

#[test]
fn every_platform_that_comes_with_peerdma_is_found_again() {
    for (name, _) in Platform::built_in_names() {
        let platform = Platform::built_in(name).unwrap();
        assert!(is_found_again(&platform).unwrap() > 2, "{name}");
    }
    let every_key = include_str!("../../platforms/every-key.toml");
    assert_eq!(is_found_again(&Platform::parse(every_key, "every-key.toml").unwrap()).unwrap(), 8);
}

/// Platforms of the built-in kind state what Linux decides by, so a scan may not change it.
#[test]
fn linux_decides_about_what_was_found_as_about_what_was_stated() {
    for (name, _) in Platform::built_in_names() {
        let platform = Platform::built_in(name).unwrap();
        let (found, stated) = (discover(&Spaces::of(&describe(&platform)), &platform), platform.topology());
        let (from_bytes, from_file) = (KernelView::new(&found), KernelView::new(&stated));
        for (target, _) in stated.functions() {
            for (initiator, _) in stated.functions() {
                let one = from_bytes.decide(target, initiator);
                let other = from_file.decide(target, initiator);
                assert_eq!((one.map_type, one.distance), (other.map_type, other.distance), "{name}");
            }
        }
    }
}

#[test]
fn what_a_file_leaves_open_has_a_documented_value() {
    let platform = Platform::parse(
        "schema = 1\n[[host_bridge]]\nname = \"hb\"\n[[port]]\nname = \"rp\"\nparent = \"hb\"\nkind = \"root\"\n\
         bdf = \"00:01.0\"\nacs = \"unknown\"\n[[port]]\nname = \"empty\"\nparent = \"hb\"\nkind = \"root\"\n\
         bdf = \"00:01.1\"\n[[function]]\nname = \"fn\"\nparent = \"rp\"\nbdf = \"01:00.0\"\nmodel = \"accel\"\n\
         ats = true\npasid_bits = 20\n",
        "f",
    );
    let placed = describe(&platform.unwrap());
    let [port, empty, function] = placed.as_slice() else { panic!("{placed:?}") };
    assert_eq!(port.description.id, PciId { vendor: NEUTRAL_VENDOR, device: 1 });
    assert!(port.description.acs.is_none() && port.description.multifunction && !function.description.multifunction);
    let express = port.description.express.unwrap();
    assert!(express.atomic_routing && !express.atomic_egress_blocked);
    assert_eq!((express.port_type, express.link.unwrap().width), (PortType::RootPort, 16));
    assert_eq!(empty.description.express.unwrap().link, None);
    assert_eq!(function.description.id, PciId { vendor: NEUTRAL_VENDOR, device: 0x15 });
    let express = function.description.express.unwrap();
    assert!(express.atomic_requester && express.atomic_completer.of_16_bytes && express.relaxed_ordering);
    assert_eq!(express.link, port.description.express.unwrap().link);
    assert_eq!((function.description.pri, function.description.message_interrupts), (Some(true), 32));
}

#[test]
fn ports_that_say_nothing_of_atomics_route_them_and_bridges_to_pci_do_not() {
    let routes = |platform: &Platform| -> BTreeMap<String, bool> {
        let ports = describe(platform).into_iter().filter(|one| one.model.is_none());
        ports.filter_map(|one| Some((one.name?, one.description.express?.atomic_routing))).collect()
    };
    assert!(routes(&Platform::built_in("two-socket").unwrap()).into_values().all(|routes| routes));
    let every_key = Platform::parse(include_str!("../../platforms/every-key.toml"), "f").unwrap();
    assert_eq!(routes(&every_key).into_values().collect::<Vec<_>>(), [true, true, false, true]);
}

/// Either end of a link may state it, and the other end's registers say the same.
#[test]
fn a_link_is_the_same_at_both_ends() {
    let every_key = include_str!("../../platforms/every-key.toml");
    let placed = describe(&Platform::parse(every_key, "f").unwrap());
    let width = |name: &str| {
        let one = placed.iter().find(|one| one.name.as_deref() == Some(name)).unwrap();
        one.description.express.and_then(|express| express.link).map(|link| link.width)
    };
    assert_eq!([width("root"), width("up")], [Some(8), Some(8)]);
    assert_eq!([width("down"), width("to-pci"), width("accel0")], [Some(4), Some(4), Some(4)]);
    assert_eq!([width("old"), width("dma0")], [None, None]);
}

/// A program may write anything to a bridge, and a scan must end.
#[test]
fn bus_numbers_that_lead_in_circles_are_not_followed() {
    let platform = Platform::built_in("two-socket").unwrap();
    let placed = describe(&platform);
    let bridges: Vec<_> = placed.iter().filter(|one| one.model.is_none()).map(|one| one.address).collect();
    for secondary in [0, 0x10, 0x11, 0x12, 0x13, 0x7f, 0xff] {
        let spaces = Spaces::of(&placed);
        for &bridge in &bridges {
            spaces.write(bridge, 0x19, Width::One, secondary);
        }
        let found = discover(&spaces, &platform);
        assert!(found.functions().len() < placed.len());
        assert!(found.functions().len() >= platform.host_bridges().len());
    }
}

#[test]
fn what_does_not_answer_is_not_found() {
    let platform = Platform::built_in("client").unwrap();
    let mut spaces = Spaces::of(&describe(&platform));
    let gone = platform.functions()[0].address;
    spaces.0.remove(&gone);
    assert_eq!(discover(&spaces, &platform).at(gone), None);
    assert!(discover(&Spaces(BTreeMap::new()), &platform).functions().next().is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_platform_is_found_again(numbers in prop::collection::vec(any::<u32>(), 0..600)) {
        let text = random::file(numbers);
        let platform = Platform::parse(&text, "f");
        prop_assert!(platform.is_ok(), "{}\n{text}", platform.unwrap_err());
        is_found_again(&platform.unwrap())?;
    }
}
