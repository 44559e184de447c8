//! Bridges to conventional PCI, in both directions.

use super::*;

#[test]
fn neighbours_on_a_bus_of_pci_reach_each_other_and_no_port_sees_it() {
    let mut plan = Plan::new();
    plan.control("DSP2", 0x1f);
    let net = plan.build();
    let (hops, head, end) = net.send("P", net.head(Kind::Write, "P", 0x9210_0000, 4096));
    assert_eq!(net.end(end), "Q");
    assert_eq!(hops, [Egress::Up(net.node("P")), Egress::Into(net.node("Q"))]);
    assert_eq!(head.len, Bytes::new(4096));
    assert_eq!(net.complete("Q", "06:01.0", 4096), "P");
}

#[test]
fn a_bridge_to_pci_asks_in_the_name_of_its_bus_and_in_packets_of_its_own() {
    let net = Plan::new().build();
    let (_, head, end) = net.send("P", net.head(Kind::Write, "P", 0x9100_0000, 4096));
    assert_eq!(net.end(end), "B");
    assert_eq!(head.requester.id, "06:00.0".parse().expect("an address"));
    assert_eq!(head.len, Bytes::new(256));
    // The answer is for the bus, and who waits there is the bridge.
    assert_eq!(net.complete("B", "06:00.0", 256), "BR");
}

#[test]
fn source_validation_takes_the_name_of_a_bridges_bus_for_one_below_the_port() {
    let mut plan = Plan::new();
    plan.control("DSP2", 1);
    assert_eq!(plan.build().write("P", 0x9100_0000), "B");
}

#[test]
fn a_translated_address_is_nothing_that_conventional_pci_can_say() {
    let mut plan = Plan::new();
    plan.control("DSP2", 1 << 1);
    let net = plan.build();
    let head = Head { at: AddressType::Translated, ..net.head(Kind::Write, "P", 0x9100_0000, 4) };
    assert_eq!(net.end(net.send("P", head).2), "B");
}

#[test]
fn requests_from_the_other_side_go_down_to_a_device_of_pci_and_its_answers_fit_the_links() {
    let net = Plan::new().build();
    assert_eq!(net.write("A", 0x9210_0000), "Q");
    assert_eq!(net.read("C", 0x9200_0000), "P");
    assert_eq!(net.fabric.completion_payload(net.node("P")), Some(Bytes::new(256)));
    assert_eq!(net.complete("P", "03:00.0", 256), "A");
    assert_eq!(net.complete("P", "10:00.0", 256), "C");
}

#[test]
fn a_device_of_pci_performs_no_atomics() {
    let net = Plan::new().build();
    let end = net.send("A", net.head(Kind::Atomic, "A", 0x9200_0000, 8)).2;
    assert_eq!(net.end(end), "unsupported at P");
}

#[test]
fn an_address_in_the_bridges_window_that_nobody_has_goes_nowhere() {
    let net = Plan::new().build();
    assert_eq!(net.write("P", 0x9270_0000), "unsupported at BR");
    assert_eq!(net.write("A", 0x9270_0000), "unsupported at P");
}

#[test]
fn a_bridge_whose_bus_mastering_is_off_takes_nothing_up() {
    let mut plan = Plan::new();
    plan.part("BR").bus_master = false;
    let net = plan.build();
    assert_eq!(net.write("P", 0x1000), "unsupported at BR");
    assert_eq!(net.write("P", 0x9210_0000), "Q");
}

#[test]
fn a_bridge_between_two_buses_of_pci_passes_both_ways_and_adds_no_name() {
    let net = Plan::new().build();
    assert_eq!(net.write("P", 0x9220_0000), "R");
    assert_eq!(net.write("A", 0x9220_0000), "R");
    let (hops, head, end) = net.send("R", net.head(Kind::Read, "R", 0x9200_0000, 4));
    assert_eq!(net.end(end), "P");
    assert_eq!(
        hops,
        ["R", "PB", "P"].map(|name| if name == "P" {
            Egress::Into(net.node(name))
        } else {
            Egress::Up(net.node(name))
        })
    );
    assert_eq!(head.requester.id, "07:01.0".parse().expect("an address"));
    assert_eq!(net.complete("P", "07:01.0", 4), "R");
    assert_eq!(net.complete("R", "03:00.0", 4), "A");
    // Beyond the bridge to PCI Express it is that bridge's name.
    let (_, head, end) = net.send("R", net.head(Kind::Read, "R", 0x9100_0000, 4));
    assert_eq!((net.end(end), head.requester.id), ("B".into(), "06:00.0".parse().expect("an address")));
}
