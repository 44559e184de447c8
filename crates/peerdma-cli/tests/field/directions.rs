//! Writes that work and reads that fail: NVIDIA/open-gpu-kernel-modules#1253.

use crate::case::{Case, assert_says};
use serde_json::json;

const STATED: (&str, &str) = ("peer = \"unknown\"", "peer = \"writes_only\"");
/// A CPU of which Linux takes any root complex to forward, so that it maps the pair.
const MAPPED: (&str, &str) = ("vendor = \"intel\"\nfamily = 6\nmodel = 0xc6", "vendor = \"amd\"\nfamily = 0x19");

/// The reporter's driver never asked Linux, which would have refused; what the hardware
/// does is known from the report, and shown beside.
#[test]
fn arrow_lake_is_refused_by_linux_and_known_to_take_writes_only() {
    let case = Case::read("arrow-lake.toml");
    let pair = case.pair("nic0", "gpu0", 1);
    assert_eq!((&pair["verdict"], &pair["kernel"]["map_type"]), (&json!("refused"), &json!("NOT_SUPPORTED")));
    assert_eq!(
        (&pair["fabric"]["write"]["fate"], &pair["fabric"]["write"]["way"]),
        (&json!("arrives"), &json!("root_complex"))
    );
    assert_eq!(pair["fabric"]["read"]["fate"], "lost");
    let text = case.explained("nic0", "gpu0", 1);
    assert_says(&text, &["write arrives through the root complex", "read lost", "NVIDIA/open-gpu-kernel-modules#1253"]);
}

#[test]
fn a_machine_stated_to_take_writes_only_gets_the_answer_that_the_knowledge_base_gives() {
    let known = Case::read("arrow-lake.toml").pair("nic0", "gpu0", 1);
    let stated = Case::read("arrow-lake.toml").with(STATED.0, STATED.1).pair("nic0", "gpu0", 1);
    assert_eq!(known["fabric"], stated["fabric"]);
    assert_eq!(known["verdict"], stated["verdict"]);
}

#[test]
fn where_linux_maps_it_a_write_only_root_complex_is_a_host_bridge_route_without_reads() {
    let case = Case::read("arrow-lake.toml").with(STATED.0, STATED.1).with(MAPPED.0, MAPPED.1);
    let document = case.json(&["route", "nic0", "gpu0", "--need", "write"], 0);
    let pair = &document["pairs"][0];
    assert_eq!(pair["verdict"], "host_bridge");
    assert_eq!(
        (&pair["write"], &pair["read"], &pair["atomic"]),
        (&json!("permitted"), &json!("refused"), &json!("refused"))
    );
    assert_eq!(pair["views_differ"]["code"], "mapped_but_half_lost");
    case.text(&["route", "nic0", "gpu0", "--need", "read"], 1);
    case.text(&["route", "nic0", "gpu0", "--need", "both"], 1);
    case.text(&["route", "nic0", "gpu0"], 1);
    let matrix = case.text(&["matrix", "--check", "--need", "write"], 0);
    assert_says(&matrix, &["H4w", "writes only"]);
    case.text(&["matrix", "--check"], 1);
}

/// The report does not give the root complex's ID. Without one Linux's answer is not known,
/// but a read is lost whatever Linux says.
#[test]
fn without_the_root_complexs_id_the_verdict_is_unknown_and_reads_are_refused_all_the_same() {
    let case = Case::read("arrow-lake.toml").with("first_device = \"8086:fffe\"\n", "");
    let document = case.json(&["route", "nic0", "gpu0", "--need", "write"], 3);
    let pair = &document["pairs"][0];
    assert_eq!((&pair["verdict"], &pair["kernel"]["map_type"]), (&json!("unknown"), &json!("UNKNOWN")));
    assert_eq!((&pair["write"], &pair["read"]), (&json!("unknown"), &json!("refused")));
}
