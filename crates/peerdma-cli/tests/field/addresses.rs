//! The address kind that does not match the route: intel/compute-runtime#942.

use crate::case::{Case, assert_says, reasons};
use crate::parameters::TEN_PORTS;
use serde_json::json;

/// All ten control words are zero and the copies are wrong: the verdict is about the route,
/// so what is wrong must be said beside it.
#[test]
fn all_acs_bits_clear_is_direct_and_says_what_an_iova_does_in_a_translated_domain() {
    let case = Case::read("four-gpus.toml");
    let pair = case.pair("gpu1", "gpu0", 0);
    assert_eq!(pair["verdict"], "direct");
    assert_eq!((&pair["read"], &pair["write"]), (&json!("permitted"), &json!("permitted")));
    assert_eq!((&pair["address"], &pair["iommu"]), (&json!("bus"), &json!("translated")));
    assert_eq!(pair["kernel"]["acs_redirects"], json!([]));
    let mode = reasons(&pair, "iommu_mode");
    assert_eq!(mode.len(), 1, "{pair}");
    assert_says(mode[0]["evidence"].as_str().unwrap(), &["IOVA", "up to the IOMMU", "clear ACS bits alone"]);
    assert_says(mode[0]["fix"].as_str().unwrap(), &["iommu=pt"]);
    assert_says(pair["wrong_address"].as_str().unwrap(), &["IOVA", "upwards"]);
    let text = case.explained("gpu1", "gpu0", 0);
    assert_says(
        &text,
        &["direct", "address    bus 0x", "an IOVA leaves the switch upwards", "fix: boot with iommu=pt"],
    );
}

#[test]
fn all_twelve_directions_take_bus_addresses() {
    let document = Case::read("four-gpus.toml").json(&["matrix"], 0);
    let pairs = document["pairs"].as_array().unwrap();
    let pairs: Vec<_> = pairs.iter().filter(|pair| pair["initiator"] != pair["target"]).collect();
    assert_eq!(pairs.len(), 12);
    assert!(pairs.iter().all(|pair| pair["verdict"] == "direct" && pair["address"] == "bus"), "{document}");
}

/// A virtual machine that owns one of the cards: what it maps are IOVAs, and those go past the switch.
#[test]
fn a_card_that_vfio_owns_goes_through_the_host_bridge_and_has_the_direct_route_on_request() {
    let owned = "bdf = \"13:00.0\"\nmodel = \"gpu\"\ndriver = ";
    let case = Case::read("four-gpus.toml").with(&format!("{owned}\"xe\""), &format!("{owned}\"vfio-pci\""));
    let pair = case.pair("gpu1", "gpu0", 0);
    assert_eq!((&pair["verdict"], &pair["address"]), (&json!("host_bridge"), &json!("iova")));
    assert_eq!(pair["kernel"]["map_type"], "BUS_ADDR");
    for kind in ["write", "read"] {
        let direct = json!({"fate": "arrives", "way": "below_root", "with": "bus"});
        assert_eq!(pair["fabric"]["on_request"][kind], direct, "{pair}");
    }
    assert_eq!(case.pair("gpu0", "gpu1", 0)["fabric"]["on_request"], json!(null));
    assert_says(&case.explained("gpu1", "gpu0", 0), &["on request", "merged"]);
}

/// The reporter's second boot: `iommu=pt` and nothing else.
#[test]
fn with_iommu_pt_nothing_is_left_to_warn_of() {
    let case = Case::read("four-gpus.toml").with("mode = \"translated\"", "mode = \"identity\"");
    let pair = case.pair("gpu3", "gpu0", 0);
    assert_eq!(
        (&pair["verdict"], &pair["address"], &pair["iommu"]),
        (&json!("direct"), &json!("bus"), &json!("identity"))
    );
    assert!(reasons(&pair, "iommu_mode").iter().all(|reason| reason["fix"] == json!(null)), "{pair}");
    assert_says(pair["wrong_address"].as_str().unwrap(), &["same number"]);
    let text = case.explained("gpu3", "gpu0", 0);
    assert!(!text.contains("iommu=pt") && !text.contains("clear ACS bits alone"), "{text}");
}

#[test]
fn whatif_with_an_identity_domain_says_so_before_anybody_boots() {
    let case = Case::read("four-gpus.toml");
    let document = case.json(&["whatif", "gpu3", "gpu0", "--iommu", "identity"], 0);
    let (now, then) = (&document["now"], &document["then"]);
    assert_eq!((&now["verdict"], &then["verdict"]), (&json!("direct"), &json!("direct")));
    assert_eq!((&now["iommu"], &then["iommu"]), (&json!("translated"), &json!("identity")));
    assert!(reasons(now, "iommu_mode").iter().any(|reason| reason["fix"] != json!(null)), "{now}");
    assert!(reasons(then, "iommu_mode").iter().all(|reason| reason["fix"] == json!(null)), "{then}");
    // So does the reporter's line with the one word added.
    let line = format!("{TEN_PORTS} iommu=pt");
    let document = case.json(&["whatif", "gpu3", "gpu0", "--cmdline", &line], 0);
    assert_eq!(document["then"]["verdict"], "direct");
    assert_eq!(document["then"]["iommu"], "identity");
}

/// There is no port to change: what is wrong is not in the fabric.
#[test]
fn fix_has_no_port_to_change_and_names_the_mode_instead() {
    let text = Case::read("four-gpus.toml").text(&["fix", "gpu3", "gpu0"], 0);
    assert_says(&text, &["every pair is permitted as it is", "iommu=pt"]);
}
