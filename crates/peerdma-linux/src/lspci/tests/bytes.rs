//! Hexadecimal dumps, alone and beside text.

use super::*;
use peerdma::pcie::acs::AcsBits;

#[test]
fn bytes_alone_lead_to_a_verdict() {
    let topology = topology(&hex_machine());
    assert_eq!(topology.contradictions(), []);
    assert_eq!(map_type(&topology, "01:00.0", "01:00.0"), MapType::BusAddr);
    assert_eq!(map_type(&topology, "00:00.0", "00:00.0"), MapType::BusAddr, "256 bytes where others have 4096");
    let port = function(&topology, "00:01.0").info();
    assert_eq!((port.origin, port.registers.buses.unwrap().secondary), (Origin::LspciHex, 1));
    assert_eq!(port.registers.id.unwrap().to_string(), "8086:352a");
}

#[test]
fn a_section_of_256_bytes_proves_nothing_alone_or_at_the_end_of_the_text() {
    let machine = hex_machine();
    let host = machine.split_inclusive("\n\n").next().unwrap();
    assert!(matches!(acs(host, "00:00.0"), Acs::Unknown(_)));
    let last = format!("{}{}", machine.replace("00:00.0", "00:02.0"), host.trim_end());
    assert!(matches!(acs(&format!("{last}\n"), "00:00.0"), Acs::Unknown(_)));
    assert!(matches!(acs(&format!("{last}\n\n"), "00:00.0"), Acs::Absent(_)));
}

#[test]
fn bytes_win_over_text_and_text_fills_in_where_they_end() {
    let text = "00:01.0 PCI bridge: Intel Corporation Device 1234 (prog-if 00 [Normal decode])\n\
        \tControl: I/O- Mem+ BusMaster+\n\tBus: primary=00, secondary=07, subordinate=07, sec-latency=0\n\
        \tCapabilities: [40] Express (v2) Root Port (Slot+), MSI 00\n\
        \tCapabilities: [110 v1] Access Control Services\n\
        \t\tACSCap:\tSrcValid+ TransBlk+ ReqRedir+ CmpltRedir+ UpstreamFwd+ EgressCtrl- DirectTrans-\n\
        \t\tACSCtl:\tSrcValid- TransBlk- ReqRedir+ CmpltRedir- UpstreamFwd- EgressCtrl- DirectTrans-\n";
    let machine = hex_machine();
    let dump = machine.split_inclusive("\n\n").nth(1).unwrap().split_once('\n').unwrap().1;
    let both = topology(&format!("{text}{dump}"));
    let port = &function(&both, "00:01.0").info();
    assert_eq!(port.registers.id.unwrap().device, 0x352a);
    assert_eq!(port.registers.buses.unwrap().secondary, 1);
    assert_eq!(port.registers.acs.redirects_as_linux_reads(), Fact::Known(false));
    let first_lines: String = dump.split_inclusive('\n').take(4).collect();
    let filled = topology(&format!("{text}{first_lines}\n"));
    let port = &function(&filled, "00:01.0").info();
    assert_eq!(port.registers.buses.unwrap().secondary, 1);
    assert_eq!(port.registers.acs.registers().unwrap().control, Fact::Known(AcsBits::RR));
    assert_eq!(port.origin, Origin::LspciText, "where the ACS word was read");
}

#[test]
fn a_gap_in_a_dump_ends_it_and_is_reported() {
    let machine = hex_machine();
    let gap: String = machine.split_inclusive('\n').filter(|line| !line.starts_with("100:")).collect();
    assert_eq!(acs(&gap, "00:01.0"), Acs::Unknown(AcsUnread::Cut(0x100)));
    assert!(dump(&gap).notes[0].contains("does not go on at 0x100"), "{:?}", dump(&gap).notes);
}

#[test]
fn bars_have_the_address_of_the_register_from_bytes_and_the_cpus_from_text() {
    let mut bytes = [0u8; 64];
    bytes[..4].copy_from_slice(&[0xde, 0x10, 0x30, 0x23]);
    bytes[0x10..0x18].copy_from_slice(&0x0000_0060_0000_000c_u64.to_le_bytes());
    let text = "01:00.0 3D controller: x\n\tControl: Mem+ BusMaster-\n\
        \tRegion 0: Memory at 218042000000 (64-bit, prefetchable) [size=16M]\n";
    let topology = topology(&format!("{text}{}\n", hex_lines(&bytes)));
    let bars = &function(&topology, "01:00.0").info().bars;
    assert_eq!(bars.len(), 1);
    assert_eq!(bars[0].bus.unwrap().as_u64(), 0x60_0000_0000);
    assert_eq!(bars[0].cpu.unwrap().start().as_u64(), 0x2180_4200_0000);
}
