//! Claims about whole texts; claims about single lines are beside what reads them.

mod absent;
mod bytes;
mod cuts;
mod fields;
mod paths;
mod twice;

use super::*;
use peerdma::pcie::acs::{AcsAbsent, AcsUnread};
use peerdma::pcie::{Fact, PciAddr};
use peerdma::route::kernel_view::{KernelView, MapType};
use peerdma::topology::{Function, Topology};

/// A switch with two endpoints below a root port, as `lspci -vv` shows it to root;
/// written for these tests, shortened to lines that matter.
const SWITCH: &str = "\
00:00.0 Host bridge: Intel Corporation Device 09a2 (rev 20)
	Control: I/O- Mem- BusMaster- SpecCycle- MemWINV- VGASnoop- ParErr- Stepping- SERR- FastB2B- DisINTx-
	Status: Cap- 66MHz- UDF- FastB2B- ParErr- DEVSEL=fast >TAbort- <TAbort- <MAbort- >SERR- <PERR- INTx-

00:01.0 PCI bridge: Intel Corporation Device 352a (rev 04) (prog-if 00 [Normal decode])
	Control: I/O- Mem+ BusMaster+ SpecCycle- MemWINV- VGASnoop- ParErr- Stepping- SERR- FastB2B- DisINTx+
	Status: Cap+ 66MHz- UDF- FastB2B- ParErr- DEVSEL=fast >TAbort- <TAbort- <MAbort- >SERR- <PERR- INTx-
	NUMA node: 1
	Bus: primary=00, secondary=01, subordinate=04, sec-latency=0
	Memory behind bridge: fda00000-fe1fffff [size=8M] [32-bit]
	Prefetchable memory behind bridge: [disabled] [64-bit]
	Capabilities: [40] Express (v2) Root Port (Slot+), MSI 00
		DevCap:	MaxPayload 512 bytes, PhantFunc 0
	Capabilities: [110 v1] Access Control Services
		ACSCap:	SrcValid+ TransBlk+ ReqRedir+ CmpltRedir+ UpstreamFwd+ EgressCtrl- DirectTrans-
		ACSCtl:	SrcValid- TransBlk- ReqRedir- CmpltRedir- UpstreamFwd- EgressCtrl- DirectTrans-
	Kernel driver in use: pcieport

01:00.0 PCI bridge: Broadcom / LSI Device c030 (prog-if 00 [Normal decode])
	Control: I/O- Mem+ BusMaster+ SpecCycle- MemWINV- VGASnoop- ParErr- Stepping- SERR- FastB2B- DisINTx+
	Status: Cap+ 66MHz- UDF- FastB2B- ParErr- DEVSEL=fast >TAbort- <TAbort- <MAbort- >SERR- <PERR- INTx-
	Bus: primary=01, secondary=02, subordinate=04, sec-latency=0
	Capabilities: [68] Express (v2) Upstream Port, MSI 00

02:00.0 PCI bridge: Broadcom / LSI Device c030 (prog-if 00 [Normal decode])
	Control: I/O- Mem+ BusMaster+ SpecCycle- MemWINV- VGASnoop- ParErr- Stepping- SERR- FastB2B- DisINTx+
	Status: Cap+ 66MHz- UDF- FastB2B- ParErr- DEVSEL=fast >TAbort- <TAbort- <MAbort- >SERR- <PERR- INTx-
	Bus: primary=02, secondary=03, subordinate=03, sec-latency=0
	Capabilities: [68] Express (v2) Downstream Port (Slot+), MSI 00
	Capabilities: [148 v1] Access Control Services
		ACSCap:	SrcValid+ TransBlk+ ReqRedir+ CmpltRedir+ UpstreamFwd+ EgressCtrl+ DirectTrans+
		ACSCtl:	SrcValid+ TransBlk- ReqRedir+ CmpltRedir+ UpstreamFwd+ EgressCtrl- DirectTrans-

02:01.0 PCI bridge: Broadcom / LSI Device c030 (prog-if 00 [Normal decode])
	Control: I/O- Mem+ BusMaster+ SpecCycle- MemWINV- VGASnoop- ParErr- Stepping- SERR- FastB2B- DisINTx+
	Status: Cap+ 66MHz- UDF- FastB2B- ParErr- DEVSEL=fast >TAbort- <TAbort- <MAbort- >SERR- <PERR- INTx-
	Bus: primary=02, secondary=04, subordinate=04, sec-latency=0
	Capabilities: [68] Express (v2) Downstream Port (Slot+), MSI 00
	Capabilities: [148 v1] Access Control Services
		ACSCap:	SrcValid+ TransBlk+ ReqRedir+ CmpltRedir+ UpstreamFwd+ EgressCtrl+ DirectTrans+
		ACSCtl:	SrcValid- TransBlk- ReqRedir- CmpltRedir- UpstreamFwd- EgressCtrl- DirectTrans-

03:00.0 3D controller: NVIDIA Corporation Device 2330 (rev a1)
	Control: I/O- Mem+ BusMaster+ SpecCycle- MemWINV- VGASnoop- ParErr- Stepping- SERR- FastB2B- DisINTx+
	Status: Cap+ 66MHz- UDF- FastB2B- ParErr- DEVSEL=fast >TAbort- <TAbort- <MAbort- >SERR- <PERR- INTx-
	Region 0: Memory at 218042000000 (64-bit, prefetchable) [size=16M]
	Capabilities: [60] Express (v2) Endpoint, MSI 00
	Kernel driver in use: nvidia

04:00.0 Ethernet controller: Mellanox Technologies MT2910 Family [ConnectX-7]
	Control: I/O- Mem+ BusMaster+ SpecCycle- MemWINV- VGASnoop- ParErr- Stepping- SERR- FastB2B- DisINTx+
	Status: Cap+ 66MHz- UDF- FastB2B- ParErr- DEVSEL=fast >TAbort- <TAbort- <MAbort- >SERR- <PERR- INTx-
	Region 0: Memory at 218000000000 (64-bit, prefetchable) [size=32M]
	Capabilities: [60] Express (v2) Endpoint, MSI 00
	Capabilities: [180 v1] Single Root I/O Virtualization (SR-IOV)
		IOVCap:	Migration-, Interrupt Message Number: 000
		IOVCtl:	Enable+ Migration- Interrupt- MSE+ ARIHierarchy+
		IOVSta:	Migration-
		Initial VFs: 16, Total VFs: 16, Number of VFs: 2, Function Dependency Link: 00
		VF offset: 1, stride: 1, Device ID: 101e

04:00.1 Ethernet controller: Mellanox Technologies ConnectX Family mlx5Gen Virtual Function
	Control: I/O- Mem- BusMaster+ SpecCycle- MemWINV- VGASnoop- ParErr- Stepping- SERR- FastB2B- DisINTx-
	Status: Cap+ 66MHz- UDF- FastB2B- ParErr- DEVSEL=fast >TAbort- <TAbort- <MAbort- >SERR- <PERR- INTx-
	Capabilities: [60] Express (v2) Endpoint, MSI 00

";

/// Registers of a root bus with one port (ACS without a redirect) and one endpoint
/// below it, the first function without extended space: `lspci -xxxx` of it.
fn hex_machine() -> String {
    let mut port = vec![0u8; 4096];
    port[..4].copy_from_slice(&[0x86, 0x80, 0x2a, 0x35]);
    port[0x06] = 0x10;
    port[0x08..0x0c].copy_from_slice(&[4, 0, 4, 6]);
    port[0x0e] = 1;
    port[0x18..0x1b].copy_from_slice(&[0, 1, 1]);
    port[0x34] = 0x40;
    port[0x40..0x44].copy_from_slice(&[0x10, 0, 0x42, 1]);
    port[0x100..0x104].copy_from_slice(&0x0001_000d_u32.to_le_bytes());
    port[0x104] = 0x1f;
    let mut endpoint = vec![0u8; 4096];
    endpoint[..4].copy_from_slice(&[0xde, 0x10, 0x30, 0x23]);
    endpoint[0x06] = 0x10;
    endpoint[0x08..0x0c].copy_from_slice(&[0xa1, 0, 2, 3]);
    endpoint[0x34] = 0x40;
    endpoint[0x40..0x44].copy_from_slice(&[0x10, 0, 0x02, 0]);
    let mut host = vec![0u8; 256];
    host[..4].copy_from_slice(&[0x86, 0x80, 0xa2, 0x09]);
    host[0x08..0x0c].copy_from_slice(&[0x20, 0, 0, 6]);
    [("00:00.0", host), ("00:01.0", port), ("01:00.0", endpoint)]
        .map(|(address, bytes)| format!("{address} Class 0000: x\n{}\n", hex_lines(&bytes)))
        .concat()
}

fn hex_lines(bytes: &[u8]) -> String {
    let line = |(n, bytes): (usize, &[u8])| {
        let bytes: String = bytes.iter().map(|byte| format!(" {byte:02x}")).collect();
        format!("{:02x}:{bytes}\n", 16 * n)
    };
    bytes.chunks(16).enumerate().map(line).collect()
}

fn dump(text: &str) -> Dump {
    read(text, &PciNames::built_in()).unwrap()
}

fn topology(text: &str) -> Topology {
    let mut dump = dump(text);
    dump.builder.machine().cpu = Some("intel:6".parse().unwrap());
    dump.builder.build()
}

fn function<'a>(topology: &'a Topology, address: &str) -> &'a Function {
    topology.function(topology.at(address.parse().unwrap()).unwrap())
}

fn acs(text: &str, address: &str) -> Acs {
    function(&topology(text), address).info().registers.acs.clone()
}

fn map_type(topology: &Topology, provider: &str, client: &str) -> MapType {
    let at = |address: &str| topology.at(address.parse::<PciAddr>().unwrap()).unwrap();
    KernelView::new(topology).decide(at(provider), at(client)).map_type
}

#[test]
fn a_privileged_dump_of_a_switch_is_understood_to_the_verdict() {
    let topology = topology(SWITCH);
    assert_eq!(topology.contradictions(), []);
    assert_eq!(map_type(&topology, "03:00.0", "03:00.0"), MapType::BusAddr);
    assert_eq!(map_type(&topology, "03:00.0", "04:00.0"), MapType::ThruHostBridge, "02:00.0 redirects");
    assert_eq!(map_type(&topology, "04:00.1", "04:00.0"), MapType::BusAddr);
    assert_eq!(dump(SWITCH).privileged, Some(true));
    assert_eq!(dump(SWITCH).notes, Vec::<String>::new());
}

#[test]
fn line_endings_and_what_stands_in_front_of_a_dump_change_nothing() {
    let plain = topology(SWITCH);
    let prompt =
        format!("\u{feff}root@gpu7:~# lspci -vvv\npcilib: sysfs_read_vpd: read failed\n{SWITCH}root@gpu7:~# \n");
    for text in [SWITCH.replace('\n', "\r\n"), prompt, SWITCH.replace('\t', "    ")] {
        assert!(topology(&text) == plain, "{text}");
    }
    let without_empty_lines = topology(&SWITCH.replace("\n\n", "\n"));
    for (ours, theirs) in plain.functions().zip(without_empty_lines.functions()).take(6) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(map_type(&without_empty_lines, "04:00.1", "04:00.0"), MapType::Unknown, "the text ends there");
}

#[test]
fn a_text_without_functions_says_what_was_expected_and_what_to_do() {
    for text in ["", "\n\n", "-[0000:00]-+-00.0  Intel\n", "Slot:\t00:00.0\nClass:\tHost bridge\n", "{}", "00: 86 80\n"]
    {
        let error = read(text, &PciNames::built_in()).map(|dump| dump.notes).unwrap_err().to_string();
        assert!(error.contains("sudo lspci -vvvnn"), "{error}");
    }
}

#[test]
fn notes_are_few_however_much_is_wrong() {
    let text: String = (0..1000).map(|n| format!("00:1c.0/{:02x}.0 x: y\n", n % 32)).collect();
    let notes = dump(&format!("00:00.0 a: b\n{text}")).notes;
    assert!((2..20).contains(&notes.len()), "{notes:?}");
    assert!(notes[0].starts_with("line 2: 00:1c.0/00.0 leaves out bus numbers"), "{}", notes[0]);
}

#[test]
fn privilege_is_told_by_what_is_shown_and_by_what_is_denied() {
    let privileged = |text: &str| dump(text).privileged;
    assert_eq!(privileged("00:00.0 a: b\n"), None);
    assert_eq!(privileged("00:00.0 a: b\n\tControl: Mem+\n\tCapabilities: <access denied>\n\n"), Some(false));
    assert_eq!(privileged("00:00.0 a: b\n\tCapabilities: [100 v1] Advanced Error Reporting\n\n"), Some(true));
    assert_eq!(privileged("00:00.0 a: b\n\tCapabilities: [100] Advanced Error Reporting\n\n"), None);
    assert_eq!(privileged(&format!("00:00.0 a: b\n{}\n", hex_lines(&[0; 64]))), None);
    assert_eq!(privileged(&format!("00:00.0 a: b\n{}\n", hex_lines(&[0; 256]))), Some(true));
}

#[test]
fn pci_ids_is_read_only_for_names_without_numbers() {
    let read_for = |text: &str| {
        let names = PciNames::from_file("/nowhere/pci.ids");
        read(text, &names).unwrap();
        names.is_read()
    };
    assert!(!read_for("00:00.0 0600: 1022:14d8 (rev 01)\n01:00.0 Host bridge [0600]: AMD Root Complex [1022:14d8]\n"));
    assert!(!read_for(
        "00:00.0 Host bridge: Intel Corporation Device 09a2\n01:00.0 3D controller: NVIDIA Corporation Device 2330\n"
    ));
    assert!(!read_for(
        &hex_machine().replace("Class 0000: x", "Host bridge: Advanced Micro Devices, Inc. [AMD] Raphael")
    ));
    assert!(read_for("00:00.0 Host bridge: Advanced Micro Devices, Inc. [AMD] Raphael\n"));
}
