//! Who drops whose packets, on machines of a few functions.

use super::*;
use crate::pcie::acs::{Acs, AcsAbsent, AcsRegisters, AcsUnread};
use crate::pcie::decode::{BridgeBuses, HeaderType};
use crate::pcie::express::PortType;
use crate::topology::{Builder, FunctionInfo, Position};
use alloc::string::ToString;

/// A switch with two ports, one device below each; payload sizes of device, port, port, device.
fn switch(sizes: [u64; 4]) -> (Topology, FunctionId, FunctionId) {
    let mut builder = Builder::new();
    let mut add = |address: &str, below: Option<&str>, buses: Option<(u8, u8)>, size: Option<u64>| {
        let position = match below {
            Some(bridge) => Position::Below(bridge.parse().unwrap()),
            None => Position::RootBus { bus: 0 },
        };
        let mut info = FunctionInfo::new(address.parse().unwrap(), position);
        info.registers.header = Some(if buses.is_some() { HeaderType::Bridge } else { HeaderType::Device });
        info.registers.buses =
            buses.map(|(secondary, subordinate)| BridgeBuses { primary: info.address.bus(), secondary, subordinate });
        info.registers.express.max_payload = size.map(Bytes::new);
        info.registers.acs = Acs::Absent(AcsAbsent::WholeListRead);
        info.link = Link {
            speed: LinkSpeed::from_field(if address == "02:01.0" { 3 } else { 4 }),
            width: Some(if address == "01:00.0" { 1 } else { 16 }),
            ..Link::default()
        };
        builder.function(info);
    };
    add("00:01.0", None, Some((1, 4)), Some(128));
    add("01:00.0", Some("00:01.0"), Some((2, 4)), Some(128));
    add("02:00.0", Some("01:00.0"), Some((3, 3)), Some(sizes[1]));
    add("02:01.0", Some("01:00.0"), Some((4, 4)), Some(sizes[2]));
    add("03:00.0", Some("02:00.0"), None, Some(sizes[0]));
    add("04:00.0", Some("02:01.0"), None, Some(sizes[3]));
    let topology = builder.build();
    let at = |address: &str| topology.at(address.parse().unwrap()).unwrap();
    let (a, b) = (at("03:00.0"), at("04:00.0"));
    (topology, a, b)
}

fn between(topology: &Topology, a: FunctionId, b: FunctionId) -> Payload {
    let view = KernelView::new(topology);
    let common = view.decide(b, a).common;
    Payload::between(&view, a, b, Between::below(common))
}

#[test]
fn a_write_must_fit_every_port_and_a_read_is_bounded_by_the_target_s_payload() {
    let (topology, a, b) = switch([512, 512, 512, 256]);
    let payload = between(&topology, a, b);
    let clash = payload.write.unwrap();
    assert_eq!((clash.receiver, clash.sends, clash.takes), (b, Bytes::new(512), Bytes::new(256)));
    assert_eq!(payload.read, None, "completions of 256 bytes fit everywhere");
    let back = between(&topology, b, a);
    assert_eq!(back.write, None);
    assert_eq!(back.read.unwrap().sender, a);
}

#[test]
fn a_virtual_function_sends_what_its_physical_one_is_set_to() {
    let (topology, _, _) = switch([512, 512, 512, 256]);
    let mut builder = topology.to_builder();
    let mut info = FunctionInfo::new("03:00.1".parse().unwrap(), Position::ByBusNumber);
    info.physfn = Some("03:00.0".parse().unwrap());
    // What its reserved fields read as.
    info.registers.express.max_payload = Some(Bytes::new(128));
    info.registers.express.max_read_request = Some(Bytes::new(128));
    builder.function(info);
    let topology = builder.build();
    let at = |address: &str| topology.at(address.parse().unwrap()).unwrap();
    let payload = between(&topology, at("03:00.1"), at("04:00.0"));
    assert_eq!(payload.write.unwrap().sends, Bytes::new(512));
    assert_eq!(payload.max_read_request, None, "nobody read the physical function's");
    let back = between(&topology, at("04:00.0"), at("03:00.1"));
    assert_eq!(back.write, None, "256 bytes fit everywhere");
}

/// The same functions with other registers, and more functions.
fn altered(topology: &Topology, more: Vec<FunctionInfo>, alter: impl Fn(&str, &mut FunctionInfo)) -> Topology {
    let mut builder = Builder::new();
    for (_, function) in topology.functions() {
        let mut info = function.info().clone();
        alter(&info.address.to_string(), &mut info);
        builder.function(info);
    }
    more.into_iter().for_each(|info| builder.function(info));
    builder.build()
}

/// By way of the root complex, each at a root port of its own; payload sizes of device, port, port, device.
fn apart(sizes: [u64; 4]) -> Payload {
    let mut builder = Builder::new();
    for (address, below, bus, size) in [
        ("00:01.0", None, Some(1), sizes[1]),
        ("00:02.0", None, Some(2), sizes[2]),
        ("01:00.0", Some("00:01.0"), None, sizes[0]),
        ("02:00.0", Some("00:02.0"), None, sizes[3]),
    ] {
        let position = below.map_or(Position::RootBus { bus: 0 }, |port| Position::Below(port.parse().unwrap()));
        let mut info = FunctionInfo::new(address.parse().unwrap(), position);
        info.registers.header = Some(if bus.is_some() { HeaderType::Bridge } else { HeaderType::Device });
        info.registers.buses = bus.map(|bus| BridgeBuses { primary: 0, secondary: bus, subordinate: bus });
        info.registers.express.max_payload = Some(Bytes::new(size));
        builder.function(info);
    }
    let topology = builder.build();
    let at = |address: &str| topology.at(address.parse().unwrap()).unwrap();
    Payload::between(&KernelView::new(&topology), at("01:00.0"), at("02:00.0"), Between::Root)
}

#[test]
fn a_root_complex_cuts_what_it_sends_on_and_not_what_comes_up_to_it() {
    let on_the_way_up = apart([512, 256, 512, 512]).write.unwrap();
    assert_eq!((on_the_way_up.takes, on_the_way_up.may_be_cut), (Bytes::new(256), false));
    let on_the_way_down = apart([512, 512, 256, 256]).write.unwrap();
    assert_eq!((on_the_way_down.takes, on_the_way_down.may_be_cut), (Bytes::new(256), true));
    let below_that = apart([512, 512, 256, 128]).write.unwrap();
    assert_eq!((below_that.takes, below_that.may_be_cut), (Bytes::new(128), false), "nobody cuts twice");
    assert_eq!(apart([128, 512, 512, 512]).write, None);
    assert!(!apart([512, 512, 256, 512]).read.unwrap().may_be_cut, "completions come up by that port");
}

#[test]
fn a_completion_that_is_redirected_has_to_fit_the_ports_above_too() {
    let (topology, a, b) = switch([256, 256, 256, 256]);
    assert_eq!(between(&topology, a, b).read, None);
    let redirecting = AcsRegisters::standard(None, AcsBits::CR, AcsBits::CR, Vec::new());
    let topology = altered(&topology, Vec::new(), |address, info| {
        if address == "0000:02:01.0" {
            info.registers.acs = Acs::Present(redirecting.clone());
        }
    });
    let at = |address: &str| topology.at(address.parse().unwrap()).unwrap();
    let payload = between(&topology, at("03:00.0"), at("04:00.0"));
    assert_eq!(payload.write, None);
    assert_eq!(payload.read.map(|clash| clash.takes), Some(Bytes::new(128)), "the root port takes 128");
}

#[test]
fn what_comes_from_conventional_pci_is_as_long_as_the_bridge_sends() {
    let (topology, _, _) = switch([512, 256, 256, 256]);
    let mut old = FunctionInfo::new("09:00.0".parse().unwrap(), Position::Below("03:00.0".parse().unwrap()));
    old.registers.port_type = Fact::Known(None);
    let topology = altered(&topology, [old].into(), |address, info| {
        if address == "0000:03:00.0" {
            info.registers.header = Some(HeaderType::Bridge);
            info.registers.buses = Some(BridgeBuses { primary: 3, secondary: 9, subordinate: 9 });
            info.registers.port_type = Fact::Known(Some(PortType::PciExpressToPci));
        }
    });
    let at = |address: &str| topology.at(address.parse().unwrap()).unwrap();
    let clash = between(&topology, at("09:00.0"), at("04:00.0")).write.unwrap();
    assert_eq!((clash.sender, clash.sends, clash.takes), (at("03:00.0"), Bytes::new(512), Bytes::new(256)));
}

#[test]
fn the_port_that_only_joins_the_two_carries_nothing() {
    // The upstream port takes 128 bytes and has one lane.
    let (topology, a, b) = switch([256, 256, 256, 256]);
    let payload = between(&topology, a, b);
    assert_eq!((payload.write, payload.read), (None, None));
    let narrowest = payload.narrowest.unwrap();
    assert_eq!(topology.function(narrowest.function).address().to_string(), "0000:02:01.0");
    assert_eq!(narrowest.width, 16);
}

/// Reads were refused for the ports above a switch, which their completions need not pass: a root complex that asks
/// in the name of the requester has them go across.
#[test]
fn completions_that_may_go_two_ways_clash_for_certain_only_where_they_do_on_both() {
    let read = |sizes, between, acs: &Acs| {
        let (topology, _, _) = switch(sizes);
        let topology = altered(&topology, Vec::new(), |address, info| {
            if address == "0000:02:01.0" {
                info.registers.acs = acs.clone();
            }
        });
        let at = |address: &str| topology.at(address.parse().unwrap()).unwrap();
        let between = between_of(between, &at);
        Payload::between(&KernelView::new(&topology), at("03:00.0"), at("04:00.0"), between).read
    };
    let control = |control| Acs::Present(AcsRegisters::standard(None, AcsBits::CR, control, Vec::new()));
    let (open, redirecting, unread) =
        (control(AcsBits::empty()), control(AcsBits::CR), Acs::Unknown(AcsUnread::NeverSeen));
    // The ports above take 128 bytes.
    let fit_across = [256, 256, 256, 256];
    let certain = |sizes, went_up, acs: &Acs| read(sizes, went_up, acs).map(|clash| clash.is_certain());
    assert_eq!(certain(fit_across, true, &open), Some(false), "by which way depends on the name in the request");
    assert_eq!(certain(fit_across, true, &redirecting), Some(true));
    assert_eq!(certain(fit_across, true, &unread), Some(false));
    assert_eq!(certain(fit_across, false, &open), None);
    assert_eq!(certain(fit_across, false, &redirecting), Some(true));
    assert_eq!(certain(fit_across, false, &unread), Some(false));
    // Where the requester's own port takes less than that, no way helps.
    let fit_nowhere = [256, 128, 256, 256];
    for acs in [&open, &redirecting, &unread] {
        for went_up in [false, true] {
            assert_eq!(certain(fit_nowhere, went_up, acs), Some(true), "{acs:?} {went_up}");
        }
    }
}

fn between_of(went_up: bool, at: &dyn Fn(&str) -> FunctionId) -> Between {
    if went_up { Between::Root } else { Between::Below(at("01:00.0")) }
}
