//! Which addresses a mapping hands out on machines that people reported.

use crate::case::{Case, assert_says};
use serde_json::{Value, json};

fn span(document: &Value) -> &Value {
    &document["chunks"][0]["pieces"][0]["span"]
}

const PEER: [&str; 4] = ["map", "--initiator", "gpu1", "gpu0"];

/// intel/compute-runtime#942: the driver handed out IOVAs of a direct route, and copies were wrong.
#[test]
fn a_direct_route_gets_the_bus_address_in_a_translated_domain_too() {
    let case = Case::read("four-gpus.toml");
    let document = case.json(&PEER, 0);
    assert_eq!((&document["chunks"][0]["route"], &span(&document)["kind"]), (&json!("direct"), &json!("bus")));
    assert_eq!((&document["initiator"]["iommu"], &document["iovas"]), (&json!("translated"), &Value::Null));
    // Memory beside it is translated, in the same mapping.
    let mixed = case.json(&[&PEER[..], &["ram:0x100000000+2M"]].concat(), 0);
    assert_eq!(mixed["chunks"][1]["pieces"][0]["span"]["kind"], "iova");
    assert_eq!(span(&mixed), span(&document), "a bus address is no plan's own");
}

#[test]
fn a_card_that_vfio_owns_gets_iovas_and_the_bus_address_when_it_asks() {
    let owned = "bdf = \"13:00.0\"\nmodel = \"gpu\"\ndriver = ";
    let case = Case::read("four-gpus.toml").with(&format!("{owned}\"xe\""), &format!("{owned}\"vfio-pci\""));
    let document = case.json(&PEER, 0);
    assert_eq!((&document["chunks"][0]["route"], &span(&document)["kind"]), (&json!("host_bridge"), &json!("iova")));
    let asked = case.json(&[&PEER[..], &["--bus-addresses"]].concat(), 0);
    assert_eq!((&asked["chunks"][0]["route"], &span(&asked)["kind"]), (&json!("direct"), &json!("bus")));
}

/// An IOVA with the number of a peer's BAR would go to that peer and never to the IOMMU.
#[test]
fn no_iova_has_a_number_that_means_a_bar_below_the_same_host_bridge() {
    let case = Case::read("four-gpus.toml");
    let bus = |name: &str| {
        let document = case.json(&["map", "--initiator", "gpu1", name], 0);
        let of = |end: &str| {
            let text = span(&document)["address"][end].as_str().unwrap().to_string();
            u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap()
        };
        (of("first"), of("last"))
    };
    let peer = bus("gpu0");
    // A mask whose highest addresses are the BAR's: allocation goes from the top.
    let limit = format!("{:#x}", peer.1);
    let document = case.json(&["map", "--initiator", "gpu1", "ram:0x100000000+2M", "--bus-limit", &limit], 0);
    let first = span(&document)["address"]["first"].as_str().unwrap().to_string();
    let first = u64::from_str_radix(first.trim_start_matches("0x"), 16).unwrap();
    assert!(!(peer.0..=peer.1).contains(&first), "{first:#x} in {:#x}-{:#x}", peer.0, peer.1);
    let text = case.text(&["map", "--initiator", "gpu1", "ram:0x100000000+2M"], 0);
    assert_says(&text, &["this plan's own", "1x2M"]);
}
