//! When the silence of a text proves that ACS is absent, and when it does not.

use super::*;

const VERSIONED: &str = "7f:00.0 3D controller: NVIDIA Corporation Device 2330\n\tControl: I/O- Mem+ BusMaster+\n\
    \tCapabilities: [100 v1] Advanced Error Reporting\n\n";
const TERSE: Acs = Acs::Unknown(AcsUnread::TextTooTerse);

fn block(class: &str, lines: &[&str]) -> String {
    let lines: String = lines.iter().map(|line| format!("\t{line}\n")).collect();
    format!("01:00.0 {class}: NVIDIA Corporation Device 2330\n{lines}\n")
}

fn of(class: &str, lines: &[&str]) -> Acs {
    acs(&block(class, lines), "01:00.0")
}

fn beside_versioned(class: &str, lines: &[&str]) -> Acs {
    acs(&format!("{}{VERSIONED}", block(class, lines)), "01:00.0")
}

#[test]
fn beside_a_versioned_capability_what_is_not_listed_is_not_there() {
    let not_listed = Acs::Absent(AcsAbsent::NotListed);
    let lines = ["Control: I/O- Mem+ BusMaster+", "Capabilities: [40] Express (v2) Endpoint, MSI 00"];
    assert_eq!(beside_versioned("3D controller", &lines), not_listed);
    assert_eq!(beside_versioned("Host bridge", &["Control: I/O- Mem+", "Status: Cap- 66MHz-"]), not_listed);
    assert_eq!(
        beside_versioned("3D controller", &["Region 0: Memory at 6000000000 (64-bit, prefetchable)"]),
        not_listed
    );
    assert_eq!(beside_versioned("3D controller", &[]), not_listed, "a block that was cut down to its first line");
    let denied = ["Control: I/O- Mem+ BusMaster+", "Capabilities: <access denied>"];
    assert_eq!(beside_versioned("3D controller", &denied), Acs::Unknown(AcsUnread::Denied));
}

#[test]
fn without_a_versioned_capability_an_express_function_stays_unknown() {
    let lines =
        ["Control: I/O- Mem+", "Capabilities: [40] Express (v2) Endpoint, MSI 00", "\tDevCap:\tMaxPayload 512 bytes"];
    assert_eq!(of("3D controller", &lines), TERSE);
}

#[test]
fn a_line_of_a_listing_proves_nothing_even_beside_a_versioned_capability() {
    let listing = "00:00.0 Host bridge: x\n01:00.0 3D controller: y\n\tKernel driver in use: nvidia\n\n";
    assert_eq!(acs(&format!("{listing}{VERSIONED}"), "01:00.0"), TERSE);
    assert_eq!(acs(&format!("{listing}{VERSIONED}"), "00:00.0"), TERSE);
    let flags = ["Flags: bus master, fast devsel", "Capabilities: [40] Express Endpoint, MSI 00"];
    assert_eq!(beside_versioned("3D controller", &flags), TERSE, "text of -v");
}

#[test]
fn no_capability_list_proves_absence_except_for_host_bridges() {
    let none = Acs::Absent(AcsAbsent::NoCapabilityList);
    assert_eq!(of("3D controller", &["Flags: fast devsel"]), none);
    assert_eq!(of("3D controller", &["Control: I/O- Mem+", "Status: Cap- 66MHz-"]), none);
    assert_eq!(of("Host bridge", &["Control: I/O- Mem+", "Status: Cap- 66MHz-"]), TERSE);
    assert_eq!(of("Unheard of", &["Control: I/O- Mem+", "Status: Cap- 66MHz-"]), TERSE, "it may be a host bridge");
    let cut_away = ["Control: I/O- Mem+", "Status: Cap+ 66MHz-"];
    assert_eq!(of("3D controller", &cut_away), TERSE, "a list is announced, and somebody cut it away");
    assert_eq!(of("3D controller", &[]), TERSE);
}

#[test]
fn a_list_without_express_proves_absence_except_for_host_bridges() {
    let lines = ["Flags: fast devsel", "Capabilities: [40] Power Management version 3"];
    assert_eq!(of("3D controller", &lines), Acs::Absent(AcsAbsent::NotExpress));
    assert_eq!(of("Host bridge", &lines), TERSE);
    assert_eq!(of("3D controller", &lines[1..]), TERSE, "no sign that all of them are shown");
}

#[test]
fn pcix_proves_absence_only_where_it_is_shown_to_be_slow() {
    let pcix = |status: &str| {
        of("SCSI storage controller", &["Control: Mem+", "Capabilities: [40] PCI-X non-bridge device", status])
    };
    assert_eq!(pcix("\tStatus: Dev=01:00.0 64bit+ 133MHz+ RSCEM- 266MHz- 533MHz-"), Acs::Absent(AcsAbsent::NotExpress));
    assert_eq!(pcix("\tStatus: Dev=01:00.0 64bit+ 133MHz+ RSCEM- 266MHz+ 533MHz-"), TERSE);
    assert_eq!(pcix("\tStatus: Dev=01:00.0 64bit+ 133MHz+"), TERSE);
    assert_eq!(pcix("\tCommand: DPERE-"), TERSE);
}

#[test]
fn a_name_without_its_registers_or_with_half_of_them_is_unknown() {
    let named = "Capabilities: [148] Access Control Services";
    assert_eq!(of("PCI bridge", &["Flags: fast devsel", named]), TERSE);
    assert_eq!(beside_versioned("PCI bridge", &["Control: Mem+", named]), TERSE);
    let half = "\tACSCtl:\tSrcValid- TransBlk- ReqRedir- CmpltRedir-";
    assert_eq!(beside_versioned("PCI bridge", &["Control: Mem+", named, half]), TERSE);
}

#[test]
fn the_last_block_without_its_empty_line_proves_nothing_by_silence() {
    let ends = Acs::Unknown(AcsUnread::TextEnds);
    let lines = ["Control: I/O- Mem+", "Capabilities: [40] Power Management version 3"];
    let cut = |lines: &[&str]| {
        acs(&format!("{VERSIONED}{}", block("3D controller", lines).trim_end_matches("\n\n")), "01:00.0")
    };
    assert_eq!(cut(&lines), ends);
    let text = format!("{VERSIONED}{}", block("3D controller", &lines));
    assert_eq!(acs(&text[..text.len() - 1], "01:00.0"), ends);
    let no_list = ["Control: I/O- Mem+", "Status: Cap- 66MHz-", "Region 0: Memory at fe000000"];
    assert_eq!(cut(&no_list), Acs::Absent(AcsAbsent::NoCapabilityList), "Cap- is said, not left unsaid");
}

#[test]
fn a_block_cut_before_another_dump_proves_nothing_by_silence() {
    let first = block("3D controller", &["Control: I/O- Mem+"]);
    let text = format!("{VERSIONED}{}{}", first.trim_end(), "\n02:00.0 3D controller: x\n\tControl: I/O- Mem+\n\n");
    assert_eq!(acs(&text, "01:00.0"), Acs::Unknown(AcsUnread::TextEnds));
    assert_eq!(acs(&text, "02:00.0"), Acs::Absent(AcsAbsent::NotListed));
}

#[test]
fn a_function_that_answers_all_ones_tells_nothing() {
    let gone = beside_versioned("PCI bridge", &["!!! Unknown header type 7f"]);
    assert_eq!(gone, Acs::Unknown(AcsUnread::NeverSeen));
    let topology = topology(&block("PCI bridge", &["!!! Unknown header type 7f"]));
    assert!(function(&topology, "01:00.0").info().is_bridge(), "by its class; what is below it stays unknown");
}

#[test]
fn an_empty_line_after_every_line_ends_no_block_early() {
    let spaced = |text: &str| text.replace('\n', "\n\n");
    let topology = topology(&spaced(SWITCH));
    assert_eq!(map_type(&topology, "03:00.0", "04:00.0"), MapType::ThruHostBridge);
    assert_eq!(map_type(&topology, "03:00.0", "03:00.0"), MapType::BusAddr);
    let cut = SWITCH.find("\tRegion 0: Memory at 218000000000").unwrap();
    assert_eq!(acs(&spaced(&SWITCH[..cut]), "04:00.0"), Acs::Unknown(AcsUnread::TextEnds));
}

#[test]
fn details_of_a_function_whose_opening_line_is_missing_are_nobodys() {
    let text = SWITCH.replace("02:00.0 PCI bridge: Broadcom / LSI Device c030 (prog-if 00 [Normal decode])\n", "");
    let switch = function(&topology(&text), "01:00.0").info().registers.clone();
    assert_eq!(switch.buses.unwrap().secondary, 2);
    assert!(switch.acs.registers().is_none());
}
