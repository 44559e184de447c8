//! One chip, two virtual switches: local-inference-lab/rtx6kpro.

use crate::case::{Case, assert_says};
use serde_json::{Value, json};

fn pair<'v>(document: &'v Value, initiator: &str, target: &str) -> &'v Value {
    let mut pairs = document["pairs"].as_array().unwrap().iter();
    pairs.find(|pair| pair["initiator"] == initiator && pair["target"] == target).unwrap()
}

/// gpu0 and gpu1 share a virtual switch, gpu0 and gpu4 a chip only, gpu0 and gpu2 a socket.
#[test]
fn two_virtual_switches_of_one_chip_meet_at_the_root_like_those_of_two_chips() {
    let document = Case::read("virtual-switches.toml").acs_everywhere(0).json(&["matrix", "--proximity"], 0);
    for (target, verdict, proximity) in [
        ("0000:14:00.0", "direct", "PIX"),
        ("0000:73:00.0", "host_bridge", "NODE"),
        ("0000:83:00.0", "host_bridge", "SYS"),
        ("0000:f3:00.0", "host_bridge", "SYS"),
    ] {
        let pair = pair(&document, "0000:13:00.0", target);
        assert_eq!((&pair["verdict"], &pair["proximity"]), (&json!(verdict), &json!(proximity)), "{target}");
    }
}

#[test]
fn route_says_that_the_two_have_no_device_in_common() {
    let case = Case::read("virtual-switches.toml");
    let pair = case.pair("gpu0", "gpu4", 0);
    assert_eq!((&pair["verdict"], &pair["address"]), (&json!("host_bridge"), &json!("cpu_physical")));
    // No redirect is to blame, so none is named.
    assert_eq!(pair["kernel"]["acs_redirects"], json!([]));
    let text = case.explained("gpu0", "gpu4", 0);
    assert_says(&text, &["no common device below the root"]);
    assert!(!text.contains("disable_acs_redir"), "{text}");
}

/// As the machine boots: inside one virtual switch the redirects send everything up.
#[test]
fn inside_a_virtual_switch_the_redirects_decide() {
    let as_booted = Case::read("virtual-switches.toml");
    let up = as_booted.pair("gpu0", "gpu1", 0);
    assert_eq!((&up["verdict"], &up["kernel"]["map_type"]), (&json!("host_bridge"), &json!("THRU_HOST_BRIDGE")));
    assert_eq!(up["kernel"]["acs_redirects"], json!(["0000:12:01.0", "0000:12:00.0"]));
    let direct = as_booted.acs("12:00.0", 0x11).acs("12:01.0", 0x11).pair("gpu0", "gpu1", 0);
    assert_eq!(direct["verdict"], "direct");
}

#[test]
fn what_others_measured_on_these_switches_is_shown_beside() {
    let text = Case::read("virtual-switches.toml").explained("gpu0", "gpu2", 0);
    assert_says(&text, &["local-inference-lab/rtx6kpro", "2.7 GB/s"]);
}
