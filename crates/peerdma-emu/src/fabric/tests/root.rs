//! Root complexes: integrated functions, two of them, names, lengths, processors.

use super::*;
use crate::iommu::{Attachment, FaultReason};
use crate::platform::IommuKind;

#[test]
fn an_integrated_function_reaches_memory_and_devices_and_is_reached() {
    let net = Plan::new().build();
    assert_eq!(net.write("I", 0x1234), "memory 0x1234");
    assert_eq!(net.read("I", 0xa000_0000), "C");
    assert_eq!(net.read("C", 0xb000_0000), "I");
    assert_eq!(net.complete("I", "10:00.0", 256), "C");
    assert_eq!(net.complete("C", "00:03.0", 256), "I");
}

#[test]
fn the_same_bus_address_below_two_host_bridges_is_two_places() {
    let net = Plan::new().build();
    // The number 9000_0000 is X's below its own host bridge, and A's at the CPU's 9000_0000.
    assert_eq!(net.write("C", 0x9000_0000), "A");
    let (_, head, end) = net.send("C", net.head(Kind::Write, "C", 0x50_9000_0008, 4));
    assert_eq!((net.end(end), head.address), ("X".into(), BusAddr::new(0x9000_0008)));
    // To X's own port that number is a turn.
    assert_eq!(net.write("X", 0x9000_0000), "undefined at RP2");
    assert_eq!(net.write("X", 0xa000_0000), "C");
    assert_eq!(net.complete("X", "10:00.0", 4), "C");
}

/// The end of a write and of a read between two host bridges, by what each does with such requests.
#[test]
fn between_two_host_bridges_the_one_that_passes_less_decides() {
    use PeerForwarding::{AllOnes, Forwards, None, Unknown, WritesOnly};
    let delivered = ["X"; 2];
    let never = ["not forwarded"; 2];
    let table = [
        (Forwards, Forwards, delivered),
        (Forwards, WritesOnly, ["X", "not forwarded"]),
        (WritesOnly, WritesOnly, ["X", "not forwarded"]),
        (Forwards, AllOnes, ["not forwarded", "ones"]),
        (AllOnes, AllOnes, ["not forwarded", "ones"]),
        (WritesOnly, AllOnes, never),
        (Forwards, None, never),
        (WritesOnly, None, never),
        (AllOnes, None, never),
        (Unknown, None, never),
        (Forwards, Unknown, ["undefined"; 2]),
        (WritesOnly, Unknown, ["undefined", "not forwarded"]),
        (AllOnes, Unknown, ["not forwarded", "undefined"]),
    ];
    for (one, other, expected) in table {
        for (here, there) in [(one, other), (other, one)] {
            let mut plan = Plan::new();
            (plan.hosts[0].peer, plan.hosts[1].peer) = (here, there);
            let net = plan.build();
            let ends = [net.write("C", 0x50_9000_0000), net.read("C", 0x50_9000_0000)];
            assert_eq!(ends, expected, "{here:?} and {there:?}");
        }
    }
}

#[test]
fn a_root_complex_that_asks_in_its_own_name_gets_the_answer() {
    let mut plan = Plan::new();
    plan.hosts[1].replaces_requester = true;
    let net = plan.build();
    let (_, head, end) = net.send("C", net.head(Kind::Read, "C", 0x50_9000_0000, 4));
    assert_eq!(net.end(end), "X");
    assert_eq!(head.requester.id, "1:00:00.0".parse().expect("an address"));
    assert_eq!(net.complete("X", "1:00:00.0", 4), "root 1");
    // The other one keeps the requester's name.
    let (_, head, _) = net.send("X", net.head(Kind::Read, "X", 0xa000_0000, 4));
    assert_eq!(head.requester.id, "1:01:00.0".parse().expect("an address"));
}

#[test]
fn a_write_that_is_too_long_for_the_way_down_is_cut_where_the_root_complex_cuts() {
    for (splits, expected) in [(true, "C"), (false, "not forwarded")] {
        let mut plan = Plan::new();
        plan.payload(&["A", "DSP0", "USP", "RP0"], 512);
        plan.hosts[0].splits = splits;
        let net = plan.build();
        let (_, head, end) = net.send("A", net.head(Kind::Write, "A", 0xa000_0000, 512));
        assert_eq!(net.end(end), expected);
        assert_eq!(head.len, Bytes::new(if splits { 256 } else { 512 }));
        // What fits is left alone, and so is a read, whose length is no payload.
        assert_eq!(net.write("A", 0xa000_0000), "C");
        assert_eq!(net.send("A", net.head(Kind::Read, "A", 0xa000_0000, 4096)).1.len, Bytes::new(4096));
    }
}

#[test]
fn root_ports_with_a_path_of_their_own_decide_by_their_access_control() {
    let sent = |control: u16| {
        let mut plan = Plan::new();
        plan.hosts[0].between_ports = true;
        plan.hosts[0].peer = PeerForwarding::None;
        plan.part("RP0").acs.as_mut().expect("a port").egress = vec![1 << 2];
        plan.control("RP0", control);
        plan.build().write("A", 0xa000_0000)
    };
    assert_eq!(sent(0), "C");
    assert_eq!(sent(1 << 2), "not forwarded");
    assert_eq!(sent(1 << 5), "violation at RP0");
    assert_eq!(sent(1 << 5 | 1 << 2), "not forwarded");
}

#[test]
fn an_interrupt_is_a_write_of_an_untranslated_address_and_nothing_else() {
    let net = Plan::new().build();
    let head = net.head(Kind::Write, "A", 0xfee0_1000, 4);
    assert!(matches!(net.send("A", head).2, Arrival::Interrupt { at, .. } if at == head.address));
    assert_eq!(net.read("A", 0xfee0_1000), "nowhere");
    let translated = Head { at: AddressType::Translated, ..head };
    assert_eq!(net.end(net.send("A", translated).2), "nowhere");
}

#[test]
fn a_translated_address_that_is_not_believed_is_recorded_as_a_fault() {
    let iommu = Arc::new(Iommu::new(IommuKind::Vtd));
    let mut plan = Plan::new();
    plan.iommu = Some(iommu.clone());
    let net = plan.build();
    let requester = "03:00.0".parse().expect("an address");
    iommu.attach(requester, Attachment::Identity);
    let head = Head { at: AddressType::Translated, ..net.head(Kind::Write, "A", 0x1000, 4) };
    let ended = |reason| Arrival::End(Ending::Fault(HostId::new(0), reason));
    assert_eq!(net.send("A", head).2, ended(FaultReason::NotTrusted));
    let record = iommu.take_fault().expect("a refusal is a fault");
    assert_eq!((record.requester, record.address, record.reason), (requester, head.address, FaultReason::NotTrusted));
    iommu.allow_ats(requester, true);
    assert_eq!(net.end(net.send("A", head).2), "memory 0x1000");
    assert_eq!(iommu.take_fault(), None);
}

#[test]
fn a_processor_reaches_devices_through_windows_and_finds_nobody_between_them() {
    let net = Plan::new().build();
    let store = |at: u64| {
        let asked = net.fabric.cpu_request(PhysAddr::new(at), Kind::Write, Bytes::new(4));
        asked.map(|(host, head)| net.end(net.follow(net.fabric.leave_cpu(host, head), head).2))
    };
    assert_eq!(store(0x50_9000_0010).as_deref(), Some("X"));
    assert_eq!(store(0x9210_0000).as_deref(), Some("Q"));
    assert_eq!(store(0xb000_0000).as_deref(), Some("I"));
    assert_eq!(store(0xb800_0000).as_deref(), Some("nowhere"));
    // Memory is no window's.
    assert_eq!(store(0x1000), None);
}
