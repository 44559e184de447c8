//! Where a guest has to see BARs, as `peerdma guest` says it.

use crate::machine::{As, Folder, json_of, peerdma, stdout_of, write_tree};
use serde_json::{Value, json};
use std::fs;

/// A switch with three devices, whose ports redirect nothing, below a root complex that does `PEER`.
const SWITCH: &str = r#"schema = 1
[iommu]
kind = "vtd"
mode = "translated"
[[host_bridge]]
name = "hb"
peer = "PEER"
windows = [{ cpu = 0x9000_0000, bus = 0x9000_0000, size = "256MiB" }]
[[port]]
name = "rp"
parent = "hb"
kind = "root"
bdf = "00:01.0"
acs = { cap = 0x5f, ctl = 0x1d }
[[port]]
name = "up"
parent = "rp"
kind = "upstream"
bdf = "01:00.0"
[[port]]
name = "d0"
parent = "up"
kind = "downstream"
bdf = "02:00.0"
acs = { cap = 0x5f, ctl = CONTROL }
[[port]]
name = "d1"
parent = "up"
kind = "downstream"
bdf = "02:01.0"
acs = { cap = 0x5f, ctl = CONTROL }
[[function]]
name = "a"
parent = "d0"
bdf = "03:00.0"
bars = [{ n = 0, size = "1MiB" }]
[[function]]
name = "b"
parent = "d1"
bdf = "04:00.0"
bars = [{ n = 0, size = "1MiB" }]
"#;

fn described(peer: &str, control: &str) -> (Folder, String) {
    let folder = Folder::new();
    let path = folder.join("machine.toml");
    fs::write(&path, SWITCH.replace("PEER", peer).replace("CONTROL", control)).unwrap();
    (folder, path)
}

/// The answer and its BARs for `a`.
fn answer(path: &str, more: &[&str], code: i32) -> Value {
    let mut arguments = vec!["guest", "--device", "a", "--from", path, "--json"];
    arguments.extend(more);
    json_of(&arguments, code)
}

/// The bus address of the first BAR of `b`.
fn own(path: &str) -> String {
    let document = answer(path, &["--device", "b"], 0);
    document["bars"][0]["address"].as_str().unwrap().to_string()
}

#[test]
fn below_an_open_switch_the_bar_has_to_be_at_its_own_number_and_the_answer_says_for_whom() {
    let (_folder, path) = described("none", "0");
    let document = answer(&path, &["--device", "b"], 0);
    assert_eq!(document["answer"], "permitted");
    let bars = document["bars"].as_array().unwrap();
    assert_eq!(bars.len(), 2, "each for the other");
    let at = own(&path);
    for (key, expected) in [
        ("initiator", json!("0000:03:00.0")),
        ("function", json!("0000:04:00.0")),
        ("place", json!("identity")),
        ("address", json!(at)),
        ("below", json!("0000:01:00.0")),
        ("elsewhere", json!("refused")),
        ("placed", Value::Null),
    ] {
        assert_eq!(bars[0][key], expected, "{key}");
    }
    let text = stdout_of(&["guest", "--device", "a", "--device", "b", "--from", &path], 0);
    assert!(text.contains(&format!("identity at {at}, as it is reached below 0000:01:00.0")), "{text}");
    assert!(text.contains("an address for every BAR: permitted"), "{text}");
    // Redirected, and sent back or not.
    let (_folder, forwards) = described("forwards", "0x1d");
    assert_eq!(answer(&forwards, &["--device", "b"], 0)["bars"][0]["place"], "any");
    let (_folder, lost) = described("none", "0x1d");
    let document = answer(&lost, &["--device", "b"], 1);
    assert_eq!(document["bars"][0]["place"], "refused");
    assert_eq!(document["bars"][0]["reasons"][0]["gate"], "root_complex");
    let (_folder, open) = described("unknown", "0x1d");
    assert_eq!(answer(&open, &["--device", "b"], 3)["answer"], "unknown");
}

#[test]
fn a_layout_is_permitted_at_the_own_number_and_refused_where_bytes_go_astray() {
    let (_folder, path) = described("none", "0");
    let at = own(&path);
    let placed = |number: &str| format!("b/bar0@{number}");
    let good = answer(&path, &["--ram", "0+2G", "--ram", "1T+1G", "--bar", &placed(&at)], 0);
    assert_eq!((&good["bars"][0]["standing"], &good["findings"]), (&json!("permitted"), &json!([])));
    assert_eq!(good["ram"][0], json!({"first": "0x0", "last": "0x7fffffff"}));
    assert_eq!(good["ram"][1], json!({"first": "0x10000000000", "last": "0x1003fffffff"}));
    let moved = answer(&path, &["--bar", &placed("0x2000000000")], 1);
    assert_eq!((&moved["answer"], &moved["bars"][0]["standing"]), (&json!("refused"), &json!("refused")));
    assert_eq!(moved["findings"][0]["becomes"], "lost");
    let ram = format!("{at}+64K");
    let taken = answer(&path, &["--ram", &ram], 1);
    let finding = &taken["findings"][0];
    for (key, expected) in [("meant", json!("RAM")), ("becomes", json!("captured")), ("by", json!("0000:04:00.0"))] {
        assert_eq!(finding[key], expected, "{key}");
    }
    let text = stdout_of(&["guest", "--device", "a", "--ram", &ram, "--from", &path], 1);
    assert!(text.contains("meant for RAM: captured by 0000:04:00.0 b (plain device) bar0"), "{text}");
    assert!(text.contains("the layout: refused"), "{text}");
}

#[test]
fn a_layout_that_is_none_is_refused_by_name_and_what_is_no_layout_is_usage() {
    let (_folder, path) = described("none", "0");
    let overlap = answer(&path, &["--ram", "0+2G", "--bar", "b/bar0@0x100000"], 1);
    let words = overlap["impossible"].as_str().unwrap();
    assert!(words.contains("RAM at") && words.contains("0000:04:00.0 bar0") && words.contains("overlap"), "{words}");
    assert!(answer(&path, &["--bar", "b/bar0@0x1000"], 1)["impossible"].as_str().unwrap().contains("aligned"));
    for wrong in [
        ["--ram", "0"],
        ["--ram", "0+0"],
        ["--ram", "4Q+1G"],
        ["--ram", "0xffffffffffffffff+2"],
        ["--bar", "b/bar0"],
        ["--bar", "b@0x90000000"],
        ["--bar", "b/bar0+0,4096@0x90000000"],
        ["--bar", "b/bar1@0x90000000"],
        ["--bar", "nobody/bar0@0x90000000"],
        ["--device", "a"],
        ["--device", "rp"],
        ["--translated", "b"],
        ["--translated", "a"],
    ] {
        let arguments = [["guest", "--device", "a", "--from", path.as_str()].as_slice(), &wrong].concat();
        assert_eq!(peerdma(&arguments).status.code(), Some(2), "{wrong:?}");
    }
    let twice = ["guest", "--device", "a", "--untranslated", "a", "--untranslated", "a", "--from", &path];
    assert_eq!(peerdma(&twice).status.code(), Some(2));
    assert_eq!(peerdma(&["guest"]).status.code(), Some(2));
    assert_eq!(peerdma(&["guest", "--platform", "client"]).status.code(), Some(2));
    assert!(json_of(&["guest", "--schema"], 0)["properties"]["findings"].is_object());
    let help = stdout_of(&["guest", "--help"], 0);
    assert!(help.contains("Examples:") && help.contains("Exit codes:"), "{help}");
}

#[test]
fn a_device_with_ats_is_asked_for_both_until_somebody_says_what_it_sends() {
    let (_folder, path) = described("none", "0x45");
    let text = fs::read_to_string(&path).unwrap();
    let device = "bdf = \"03:00.0\"\n";
    fs::write(&path, text.replace(device, &format!("{device}ats = true\n"))).unwrap();
    let place = |more: &[&str], code: i32| {
        let document = answer(&path, &[&["--device", "b"], more].concat(), code);
        (document["devices"][0]["requests"].clone(), document["bars"][0]["place"].clone())
    };
    let second = ["--untranslated", "b"];
    // Redirected unless translated: one kind is lost in the root complex and the other one goes across.
    assert_eq!(place(&[&second[..], &["--translated", "a"]].concat(), 1), (json!("translated"), json!("any")));
    assert_eq!(place(&[&second[..], &["--untranslated", "a"]].concat(), 1).1, json!("refused"));
    assert_eq!(place(&second, 1), (json!("untold"), json!("unknown")));
}

#[test]
fn a_copied_sysfs_without_privilege_is_too_little_and_says_what_was_not_read() {
    let folder = Folder::new();
    write_tree(folder.path(), As::User);
    let from = folder.join("");
    let document = json_of(&["guest", "--device", "nvme0", "--ram", "0+2G", "--from", &from, "--json"], 3);
    assert_eq!(document["answer"], "unknown");
    let told = document["findings"].as_array().unwrap();
    assert!(told.iter().all(|finding| finding["becomes"] == "unknown"), "{told:?}");
    let fixes: Vec<&str> =
        told[0]["reasons"].as_array().unwrap().iter().filter_map(|one| one["fix"].as_str()).collect();
    assert!(fixes.iter().any(|fix| fix.contains("root")), "{told:?}");
}
