//! Whether Linux's refusal is right: intel/compute-runtime#935, ROCm/ROCR-Runtime#355.

use crate::case::{Case, assert_says, reasons};
use serde_json::json;

/// The ports in the kernel's order: from the target up, then from the initiator up.
const FOUR_PORTS: [&str; 4] = ["0000:0d:01.0", "0000:0b:00.0", "0000:11:01.0", "0000:0b:10.0"];

/// lspci text does not tell the CPU.
const CPU: [&str; 2] = ["--cpu", "intel:6"];

#[test]
fn rocket_lake_is_refused_and_the_root_complex_is_known_to_lose_it() {
    let case = Case::read("rocket-lake.toml");
    let pair = case.pair("gpu1", "gpu0", 1);
    assert_eq!((&pair["verdict"], &pair["address"]), (&json!("refused"), &json!("none")));
    assert_eq!((&pair["kernel"]["map_type"], &pair["kernel"]["distance"]), (&json!("NOT_SUPPORTED"), &json!(8)));
    assert_eq!(pair["kernel"]["acs_redirects"], json!(FOUR_PORTS));
    assert_eq!((&pair["fabric"]["write"]["fate"], &pair["fabric"]["read"]["fate"]), (&json!("lost"), &json!("lost")));
    // Linux refuses what would not arrive: the views agree.
    assert_eq!(pair["views_differ"], json!(null));
    assert_says(&case.explained("gpu1", "gpu0", 1), &["intel/compute-runtime#935"]);
}

#[test]
fn rocket_lake_as_lspci_text_gets_the_verdict_of_its_platform_file() {
    let stated = Case::read("rocket-lake.toml").pair("gpu1", "gpu0", 1);
    let document = Case::read("rocket-lake.lspci.txt")
        .json(&["route", "12:00.0", "0e:00.0", CPU[0], CPU[1], "--iommu", "translated"], 1);
    let read = &document["pairs"][0];
    for member in ["verdict", "read", "write", "atomic", "address", "iommu", "fabric", "views_differ"] {
        assert_eq!(read[member], stated[member], "{member}");
    }
    assert_eq!(read["kernel"]["acs_redirects"], stated["kernel"]["acs_redirects"]);
    assert_eq!(read["kernel"]["distance"], stated["kernel"]["distance"]);
}

/// Somebody who has never heard of ACS, with a dump and one command.
#[test]
fn a_newcomer_finds_the_ports_the_fix_and_why_clearing_acs_is_not_enough_in_route_alone() {
    let case = Case::read("rocket-lake.lspci.txt");
    let text = case.text(&["route", "12:00.0", "0e:00.0", CPU[0], CPU[1]], 1);
    let there = text.split("\n\n").next().unwrap();
    let named: Vec<usize> =
        FOUR_PORTS.iter().map(|port| there.find(&format!("acs_redirect {port}")).unwrap()).collect();
    assert!(named.is_sorted(), "{there}");
    assert_says(
        there,
        &[
            "pci=disable_acs_redir=0000:0d:01.0;0000:0b:00.0;0000:11:01.0;0000:0b:10.0",
            "peerdma fix",
            "where the domain translates",
            "clearing ACS is not enough",
            "iommu=pt",
        ],
    );
}

/// The reporter's second state: redirect off, 28 GB/s and every byte right.
#[test]
fn rocket_lake_with_the_four_ports_clear_is_direct() {
    let mut case = Case::read("rocket-lake.toml");
    for port in FOUR_PORTS {
        case = case.acs(port.strip_prefix("0000:").unwrap(), 0);
    }
    let pair = case.pair("gpu1", "gpu0", 0);
    assert_eq!((&pair["verdict"], &pair["address"]), (&json!("direct"), &json!("bus")));
    assert_eq!((&pair["kernel"]["map_type"], &pair["kernel"]["distance"]), (&json!("BUS_ADDR"), &json!(8)));
    assert_eq!((&pair["read"], &pair["write"]), (&json!("permitted"), &json!("permitted")));
    let text = Case::read("rocket-lake.lspci.txt").with_redirects_off().text(&["route", "12:00.0", "0e:00.0"], 0);
    assert_says(&text, &["direct"]);
}

#[test]
fn whatif_tells_the_same_before_anybody_boots() {
    let case = Case::read("rocket-lake.toml");
    let clear = FOUR_PORTS.map(|port| format!("acs:{port}/rr,cr"));
    let mut arguments = vec!["whatif", "gpu1", "gpu0"];
    arguments.extend(clear.iter().flat_map(|change| ["--clear", change]));
    let document = case.json(&arguments, 0);
    assert_eq!((&document["now"]["verdict"], &document["then"]["verdict"]), (&json!("refused"), &json!("direct")));
    case.json(&arguments[..arguments.len() - 2], 1);
}

#[test]
fn fix_finds_the_four_ports_and_no_fifth() {
    let document = Case::read("rocket-lake.toml").json(&["fix", "gpu1", "gpu0"], 0);
    let mut ports: Vec<&str> =
        document["ports"].as_array().unwrap().iter().map(|port| port["bdf"].as_str().unwrap()).collect();
    ports.sort_unstable();
    assert_eq!(ports, ["0000:0b:00.0", "0000:0b:10.0", "0000:0d:01.0", "0000:11:01.0"]);
}

#[test]
fn three_ports_of_the_four_are_not_enough() {
    let case = Case::read("rocket-lake.toml").acs_everywhere(0).acs("0b:10.0", 0x0c);
    let pair = case.pair("gpu1", "gpu0", 1);
    assert_eq!(pair["kernel"]["acs_redirects"], json!(["0000:0b:10.0"]));
}

/// A CPU of which Linux takes any root complex to forward: it stands for the reporter's
/// kernel, patched to list this one.
const FORCED: (&str, &str) = ("vendor = \"intel\"\nfamily = 6", "vendor = \"amd\"\nfamily = 0x19");

#[test]
fn two_root_ports_of_rocket_lake_are_refused_and_known_to_hold_all_ones() {
    let pair = Case::read("rocket-lake-two-ports.toml").pair("gpu1", "gpu0", 1);
    assert_eq!((&pair["verdict"], &pair["kernel"]["map_type"]), (&json!("refused"), &json!("NOT_SUPPORTED")));
    assert_eq!((&pair["fabric"]["write"]["fate"], &pair["fabric"]["read"]["fate"]), (&json!("lost"), &json!("lost")));
}

/// The copy succeeded and every element was wrong: mapped is not delivered.
#[test]
fn a_whitelist_that_is_forced_open_does_not_make_the_root_complex_carry_it() {
    for file in ["rocket-lake-two-ports.toml", "rocket-lake.toml"] {
        let case = Case::read(file).with(FORCED.0, FORCED.1);
        let pair = case.pair("gpu1", "gpu0", 1);
        assert_eq!(pair["kernel"]["map_type"], "THRU_HOST_BRIDGE", "{file}");
        assert_eq!((&pair["verdict"], &pair["address"]), (&json!("refused"), &json!("none")), "{file}");
        assert_eq!(pair["views_differ"]["code"], "mapped_but_lost", "{file}");
        let text = case.explained("gpu1", "gpu0", 1);
        assert_says(
            &text,
            &["the hardware loses reads and writes", "nobody reports an error", "intel/compute-runtime#935"],
        );
    }
}

/// Redirected without an IOMMU, a request turns round at one root port that has no upstream
/// forwarding. No specification says what becomes of it, and the reporter saw all ones.
#[test]
fn a_turn_at_one_root_port_is_never_promised_and_the_report_stands_beside() {
    let case =
        Case::read("rocket-lake.toml").with(FORCED.0, FORCED.1).with("mode = \"translated\"", "mode = \"identity\"");
    let document = case.json(&["matrix"], 0);
    let pairs = document["pairs"].as_array().unwrap();
    let mut pairs = pairs.iter().filter(|pair| pair["initiator"] != pair["target"]);
    assert!(pairs.all(|pair| pair["read"] != "permitted" && pair["write"] != "permitted"), "{document}");
    let known = case.known("gpu1", "gpu0");
    assert_says(&known, &["all ones", "intel/compute-runtime#935"]);
}

/// Not listed, and works once the check is patched out.
#[test]
fn broadwell_e_is_refused_although_its_root_complex_is_known_to_forward() {
    // The mask is another gate, that of `bars.rs`.
    let case = Case::read("broadwell-e.toml").without_masks();
    let pair = case.pair("gpu-a", "gpu-b", 1);
    assert_eq!((&pair["verdict"], &pair["kernel"]["map_type"]), (&json!("refused"), &json!("NOT_SUPPORTED")));
    assert_eq!(pair["views_differ"]["code"], "refused_but_forwarded");
    assert_eq!(reasons(&pair, "host_bridge").len(), 1);
    let text = case.explained("gpu-a", "gpu-b", 1);
    assert_says(&text, &["8086:6f00", "ROCm/ROCR-Runtime#355", "a kernel that lists it would map the pair"]);
}
