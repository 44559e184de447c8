//! Several outputs of `lspci` in one text.

use super::*;
use peerdma::topology::Contradiction;

#[test]
fn text_and_bytes_pasted_after_each_other_are_one_machine() {
    let text = "00:01.0 PCI bridge: x (prog-if 00 [Normal decode])\n\tControl: I/O- Mem+ BusMaster+\n\
        \tIOMMU group: 5\n\tCapabilities: <access denied>\n\n";
    let both = topology(&format!("{text}{}", hex_machine()));
    assert_eq!(both.contradictions(), []);
    let port = function(&both, "00:01.0").info();
    assert_eq!((port.iommu_group, port.origin), (Some(5), Origin::LspciHex));
    assert_eq!(port.registers.acs.redirects_as_linux_reads(), Fact::Known(false));
}

#[test]
fn a_listing_before_the_details_adds_numbers_and_takes_nothing() {
    let listing = "00:00.0 Host bridge [0600]: Intel Corporation Device [8086:09a2]\n\
        00:01.0 PCI bridge [0604]: Intel Corporation Device [8086:352a]\n\
        04:00.0 Ethernet controller [0200]: Mellanox Technologies MT2910 Family [ConnectX-7] [15b3:1021]\n\n";
    let both = topology(&format!("{listing}{SWITCH}"));
    assert_eq!(both.contradictions(), []);
    assert_eq!(map_type(&both, "03:00.0", "04:00.0"), MapType::ThruHostBridge);
    assert_eq!(map_type(&both, "04:00.1", "04:00.0"), MapType::BusAddr);
    assert_eq!(function(&both, "04:00.0").info().registers.id.unwrap().device, 0x1021);
}

#[test]
fn descriptions_that_contradict_each_other_are_reported_and_believed_neither() {
    let twice = |a: &str, b: &str| {
        let topology = topology(&format!("00:01.0 {a}\n00:01.0 {b}\n"));
        assert_eq!(topology.contradictions(), [Contradiction::DescribedTwice("00:01.0".parse().unwrap())], "{a} {b}");
        assert_eq!(function(&topology, "00:01.0").info().registers.acs, Acs::Unknown(AcsUnread::Contradicted));
    };
    twice("0302: 10de:2330", "0302: 10de:2331");
    twice("0302: 10de:2330", "0200: 10de:2330");
    let redirecting =
        SWITCH.replace("ACSCtl:\tSrcValid- TransBlk- ReqRedir-", "ACSCtl:\tSrcValid- TransBlk- ReqRedir+");
    let topology = topology(&format!("{SWITCH}{redirecting}"));
    assert_eq!(topology.contradictions().len(), 2, "two ports were changed between the dumps");
    assert_eq!(map_type(&topology, "04:00.1", "04:00.0"), MapType::Unknown);
}

#[test]
fn many_descriptions_of_one_function_cost_little() {
    let text: String = (0..20_000).map(|n| format!("00:01.0 0302: 10de:{:04x}\n", n % 3)).collect();
    let topology = topology(&text);
    assert_eq!((topology.functions().len(), topology.contradictions().len()), (1, 1));
}
