//! Ports: their own memory, windows, links.

use super::*;

/// The control field of ACS Enhanced, at the shift of downstream or of upstream ports.
fn field(shift: u16, value: u16) -> u16 {
    value << shift
}

#[test]
fn memory_of_downstream_ports_is_guarded_by_its_own_field_at_the_port_of_entry() {
    for (value, expected) in [
        (0b00, ["DSP1", "DSP0"]),
        (0b01, ["violation at DSP0"; 2]),
        (0b10, ["undefined at RP0"; 2]),
        (0b11, ["undefined at DSP0"; 2]),
    ] {
        let mut plan = Plan::new();
        plan.part("DSP1").bars = vec![bar(0x9380_0000)];
        plan.part("DSP0").bars = vec![bar(0x9390_0000)];
        plan.control("DSP0", field(8, value));
        let net = plan.build();
        let ends = [net.write("A", 0x9380_0000), net.write("A", 0x9390_0000)];
        assert_eq!(ends, expected, "{value:#b}");
        // The field of another port has no say.
        assert_eq!(net.write("B", 0x9380_0000), "DSP1");
    }
}

#[test]
fn memory_of_the_upstream_port_has_a_field_of_its_own() {
    for (bits, expected) in [(field(10, 0b01), "violation at DSP0"), (field(8, 0b01), "USP")] {
        let mut plan = Plan::new();
        plan.part("USP").bars = vec![bar(0x9380_0000)];
        plan.control("DSP0", bits);
        assert_eq!(plan.build().write("A", 0x9380_0000), expected);
    }
}

#[test]
fn a_root_port_guards_its_own_memory_too() {
    for (value, expected) in [(0b00, "RP1"), (0b01, "violation at RP1"), (0b11, "undefined at RP1")] {
        let mut plan = Plan::new();
        plan.part("RP1").bars = vec![bar(0xa800_0000)];
        plan.control("RP1", field(8, value));
        assert_eq!(plan.build().write("C", 0xa800_0000), expected, "{value:#b}");
    }
}

#[test]
fn a_redirected_request_for_a_ports_memory_turns_in_the_root_port() {
    let mut plan = Plan::new();
    plan.part("USP").bars = vec![bar(0x9380_0000)];
    plan.control("DSP0", field(10, 0b10));
    plan.control("RP0", 1 << 4);
    let net = plan.build();
    let (hops, _, end) = net.send("A", net.head(Kind::Write, "A", 0x9380_0000, 4));
    assert_eq!(net.end(end), "USP");
    assert_eq!(hops, [Egress::Up(net.node("A")), Egress::Up(net.node("USP")), Egress::Down(net.node("RP0"))]);
}

#[test]
fn a_port_with_both_windows_closed_claims_nothing() {
    let mut plan = Plan::new();
    plan.part("DSP1").memory_window = None;
    let net = plan.build();
    assert_eq!(net.write("A", 0x9100_0000), "unsupported at DSP0");
    // From below too nothing is its own: the address is a hole there as well.
    assert_eq!(net.write("B", 0x9100_0000), "unsupported at DSP1");
}

#[test]
fn the_base_of_a_window_is_in_it_and_so_is_its_last_byte() {
    let net = Plan::new().build();
    for (address, expected) in [
        (0x90ff_ffff, "undefined at DSP0"),
        (0x9100_0000, "B"),
        (0x91ff_ffff, "unsupported at B"),
        (0x92ff_ffff, "unsupported at BR"),
        (0x9300_0000, "unsupported at DSP0"),
        (0x9400_0000, "nowhere"),
    ] {
        assert_eq!(net.end(net.send("A", net.head(Kind::Write, "A", address, 1)).2), expected, "{address:#x}");
    }
}

#[test]
fn a_port_whose_memory_decoding_is_off_claims_nothing_on_the_way_down_either() {
    for port in ["RP0", "USP", "DSP0"] {
        let mut plan = Plan::new();
        plan.part(port).memory_enabled = false;
        let end = plan.build().write("C", 0x9000_0000);
        // Who does not claim leaves it to who asked it.
        let expected = match port {
            "RP0" => "nowhere",
            _ => "unsupported at USP",
        };
        assert_eq!(end, expected, "{port}");
    }
}

#[test]
fn an_egress_vector_has_as_many_bits_as_its_capability_says() {
    for (size, expected) in [(8_u16, "B"), (16, "violation at DSP0")] {
        let mut plan = Plan::new();
        plan.part("DSP1").express.as_mut().expect("a port").port_number = 9;
        plan.part("DSP0").acs = Some(AcsDescription {
            capability: 0x7f | size << 8,
            control: 1 << 5,
            egress: vec![!0],
            double_words: false,
        });
        assert_eq!(plan.build().write("A", 0x9100_0000), expected, "{size} bits");
    }
}

#[test]
fn what_is_on_its_way_to_a_device_that_was_pulled_ends_at_the_port_above() {
    let net = Plan::new().build();
    net.fabric.tree().set_present(net.node("B"), false);
    assert_eq!(net.write("A", 0x9100_0000), "link down at DSP1");
    assert_eq!(net.complete("A", "04:00.0", 4), "link down at DSP1");
    net.fabric.tree().set_present(net.node("USP"), false);
    assert_eq!(net.write("C", 0x9000_0000), "link down at RP0");
    net.fabric.tree().set_present(net.node("USP"), true);
    net.fabric.tree().set_present(net.node("B"), true);
    assert_eq!(net.write("A", 0x9100_0000), "B");
}

#[test]
fn a_request_across_4_kib_or_an_atomic_off_its_alignment_is_malformed() {
    let net = Plan::new().build();
    let end = |kind, address, len| net.end(net.send("A", net.head(kind, "A", address, len)).2);
    assert_eq!(end(Kind::Read, 0x9100_0000, 4096), "B");
    assert_eq!(end(Kind::Read, 0x9100_0001, 4096), "malformed at DSP0");
    assert_eq!(end(Kind::Write, 0x9100_0ffe, 4), "malformed at DSP0");
    assert_eq!(end(Kind::Atomic, 0x9100_0008, 8), "B");
    assert_eq!(end(Kind::Atomic, 0x9100_0004, 8), "malformed at DSP0");
}

#[test]
fn a_completion_longer_than_a_port_takes_is_malformed_there_and_brings_nothing() {
    let mut plan = Plan::new();
    plan.payload(&["B"], 512);
    let net = plan.build();
    assert_eq!(net.fabric.completion_payload(net.node("B")), Some(Bytes::new(512)));
    assert_eq!(net.complete("B", "03:00.0", 512), "malformed at DSP1");
    assert_eq!(net.complete("B", "03:00.0", 256), "A");
}

#[test]
fn a_completion_for_a_function_that_is_not_there_is_unexpected_where_its_bus_ends() {
    let net = Plan::new().build();
    assert_eq!(net.complete("B", "03:1f.7", 4), "unexpected at A");
    assert_eq!(net.complete("B", "09:00.0", 4), "undefined at RP0");
    // The same bus number of another segment is another bus.
    assert_eq!(net.complete("B", "1:01:00.0", 4), "X");
}
