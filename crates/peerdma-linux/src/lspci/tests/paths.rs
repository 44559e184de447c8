//! `lspci -P` and `-PP`.

use super::*;
use peerdma::topology::Parent;

fn parent(topology: &Topology, address: &str) -> String {
    match topology.upstream(topology.at(address.parse().unwrap()).unwrap()) {
        Parent::Bridge(id) => topology.function(id).address().to_string(),
        Parent::Root(host) => format!("root {:02x}", topology.host_bridge(host).bus()),
        Parent::Unknown { .. } => "unknown".into(),
    }
}

#[test]
fn whole_paths_say_where_a_function_hangs_without_bus_numbers_of_bridges() {
    let topology = topology(
        "00:00.0 Host bridge: x\n00:1c.0 PCI bridge: x\n00:1c.0/02:00.0 PCI bridge: x\n\
         00:1c.0/02:00.0/03:01.0 PCI bridge: x\n00:1c.0/02:00.0/03:01.0/05:00.0 3D controller: x\n80:00.0 3D controller: x\n",
    );
    assert_eq!(topology.contradictions(), []);
    for (address, above) in
        [("02:00.0", "0000:00:1c.0"), ("05:00.0", "0000:03:01.0"), ("80:00.0", "root 80"), ("00:00.0", "root 00")]
    {
        assert_eq!(parent(&topology, address), above, "{address}");
    }
}

#[test]
fn bridges_that_only_paths_name_are_there_without_registers() {
    let topology = topology("0001:00:1c.0/02:00.0/03:01.0 3D controller: x\n");
    assert_eq!(topology.functions().len(), 3);
    assert_eq!(parent(&topology, "0001:03:01.0"), "0001:02:00.0");
    assert_eq!(parent(&topology, "0001:00:1c.0"), "root 00");
    assert_eq!(function(&topology, "0001:02:00.0").info().origin, Origin::PathOnly);
    assert_eq!(acs("0001:00:1c.0/02:00.0 3D controller: x\n", "0001:00:1c.0"), Acs::Unknown(AcsUnread::NeverSeen));
}

#[test]
fn short_paths_take_the_bus_from_the_bridge_above() {
    let bus = |bus: &str| format!("\tBus: primary=00, secondary={bus}, subordinate=09, sec-latency=0\n\n");
    let text = format!(
        "0000:00:1c.0 PCI bridge: x\n{}0000:00:1c.0/00.0 PCI bridge: x\n{}0000:00:1c.0/00.0/1f.7 3D controller: x\n\n",
        bus("02"),
        bus("05")
    );
    let topology = topology(&text);
    assert_eq!(parent(&topology, "02:00.0"), "0000:00:1c.0");
    assert_eq!(parent(&topology, "05:1f.7"), "0000:02:00.0");
    assert_eq!(topology.functions().len(), 3);
}

#[test]
fn a_short_path_below_a_bridge_without_numbers_is_left_out_with_its_line() {
    let dump = dump("00:1c.0 PCI bridge: x\n00:1c.0/00.0 3D controller: x\n00:1d.0 PCI bridge: x\n");
    assert!(dump.notes[0].starts_with("line 2: 00:1c.0/00.0 "), "{:?}", dump.notes);
    assert_eq!(dump.builder.build().functions().len(), 2);
}

#[test]
fn a_path_that_does_not_lead_downwards_is_left_out() {
    for text in ["00:1c.0/00:1d.0 x: y\n", "05:00.0/03:00.0 x: y\n", "00:01.0/02:00.0/02:01.0 x: y\n"] {
        let dump = dump(text);
        assert_eq!((dump.notes.len(), dump.builder.build().functions().len()), (1, 0), "{text}");
    }
    let long = format!("00:00.0{} x: y\n", "/01:00.0".repeat(100_000));
    assert!(read(&long, &PciNames::built_in()).is_err());
}

#[test]
fn functions_without_a_path_in_another_output_go_by_bus_numbers() {
    let text = "00:1c.0/02:00.0 3D controller: x\n\n\
        00:00.0 Host bridge: x\n\tFlags: fast devsel\n\n\
        00:1b.0 PCI bridge: x\n\tFlags: fast devsel\n\tBus: primary=00, secondary=01, subordinate=01, sec-latency=0\n\n\
        01:00.0 3D controller: x\n\tFlags: fast devsel\n\n";
    assert_eq!(parent(&topology(text), "01:00.0"), "0000:00:1b.0");
}
