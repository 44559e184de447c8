//! `peerdma fix`.

use crate::machine::{As, Folder, json_of, peerdma, stdout_of, write_tree};
use crate::whatif::redirecting;
use serde_json::{Value, json};
use std::fs;

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

#[test]
fn the_document_has_the_ports_and_every_way_to_change_them() {
    let folder = Folder::new();
    let from = redirecting(&folder);
    let document = json_of(&["fix", "gpu0", "nic0", "--direct", "--from", &from, "--json"], 0);
    assert_eq!(
        document["ports"],
        json!([
            {"bdf": "0000:12:00.0", "path": "0000:10:01.0/00.0/00.0", "clear": ["rr", "cr"], "set": []},
            {"bdf": "0000:12:04.0", "path": "0000:10:01.0/00.0/04.0", "clear": ["rr", "cr"], "set": []},
        ])
    );
    assert_eq!(document["schema"], 1);
    let parameter = "pci=config_acs=0x10001@0000:10:01.0/00.0/00.0;0x10001@0000:10:01.0/00.0/04.0";
    assert_eq!(document["cmdline"], parameter);
    assert_eq!(
        document["grub"],
        format!("GRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX {}\"", parameter.replace(';', "\\;"))
    );
    assert_eq!(
        strings(&document["setpci"]),
        ["setpci -s 0000:12:00.0 ECAP_ACS+0x6.w=0:c", "setpci -s 0000:12:04.0 ECAP_ACS+0x6.w=0:c"]
    );
    // The kernel's own SV and UF stay with one parameter, and hang on firmware with the other.
    assert_eq!(document["parameters"][0]["leaves"][0]["set"], json!(["sv", "uf"]));
    assert_eq!(document["parameters"][1]["argument"].as_str().unwrap().split('=').nth(1), Some("disable_acs_redir"));
    assert_eq!(document["parameters"][1]["leaves"][0]["firmware"], json!(["sv", "tb", "uf"]));
    assert_eq!(document["iommu"], "iommu=pt");
    assert_eq!(document["proven_smallest"], true);
    let groups = |name: &str| document[name].as_array().unwrap().len();
    assert_eq!(groups("groups_before"), groups("groups_after") + 2);
    assert_eq!(document["merged"][0]["parts"], json!([["0000:12:00.0"], ["0000:13:00.0"]]));
}

#[test]
fn the_line_that_fix_prints_booted_with_gives_the_verdict_that_it_promises() {
    let folder = Folder::new();
    let from = redirecting(&folder);
    let document = json_of(&["fix", "gpu0", "nic0", "--direct", "--from", &from, "--json"], 0);
    let line = document["parameters"][0]["line"].as_str().unwrap();
    let then = json_of(&["whatif", "gpu0", "nic0", "--from", &from, "--cmdline", line, "--json"], 0);
    assert_eq!(then["then"]["verdict"], document["pairs"][0]["then"]);
    assert_eq!(then["merged"], document["merged"]);
}

#[test]
fn exit_codes_tell_found_from_none_and_from_missing_facts() {
    let folder = Folder::new();
    let from = redirecting(&folder);
    assert!(stdout_of(&["fix", "gpu0", "nic0", "--from", &from], 0).contains("permitted as it is"));
    let text = stdout_of(&["fix", "gpu0", "nic0", "--direct", "--from", &from], 0);
    assert!(text.contains("2 ports to change, no smaller set does") && text.contains("stale"), "{text}");
    // No switch in common, and the chipset forwards nothing.
    let text = stdout_of(&["fix", "gpu0", "nvme4", "--from", &from], 1);
    assert!(text.contains("no ACS bits permit this"), "{text}");
    let document = json_of(&["fix", "gpu0", "nvme4", "--from", &from, "--json"], 1);
    assert_eq!((&document["outcome"], &document["cmdline"]), (&json!("none"), &Value::Null));
    // Without root no control word is read.
    let user = Folder::new();
    write_tree(user.path(), As::User);
    let text = stdout_of(&["fix", "nvme0", "mlx5_0", "--from", &user.join("")], 3);
    assert!(text.contains("depends on what was not read"), "{text}");
}

#[test]
fn groups_that_cannot_be_told_are_not_said_to_stay_apart() {
    let folder = Folder::new();
    let text = fs::read_to_string(redirecting(&folder)).unwrap();
    // A root port whose ACS was not read: groups of all below it hinge on it.
    let path = folder.join("unread.toml");
    let marker = "id = \"8086:352a\"";
    let at = text.find(marker).unwrap();
    let acs = at + text[at..].find("acs = ").unwrap();
    let end = acs + text[acs..].find('\n').unwrap();
    fs::write(&path, format!("{}acs = \"unknown\"{}", &text[..acs], &text[end..])).unwrap();
    let text = stdout_of(&["fix", "gpu0", "nic0", "--direct", "--from", &path], 0);
    assert!(text.contains("no IOMMU groups are known to merge") && text.contains("are unknown: they hinge"), "{text}");
    let clears = ["--clear", "acs:12:00.0/rr,cr", "--clear", "acs:12:04.0/rr,cr"];
    let arguments = [&["whatif", "gpu0", "nic0", "--from", &path][..], &clears].concat();
    let text = stdout_of(&arguments, 0);
    assert!(text.contains("no IOMMU groups are known to merge"), "{text}");
    let document = json_of(&[&arguments[..], &["--json"]].concat(), 0);
    assert!(strings(&document["groups_unknown"]).contains(&"0000:13:00.0"), "{document}");
}

#[test]
fn ends_come_in_pairs() {
    for words in [&[][..], &["gpu0"][..], &["gpu0", "nic0", "gpu1"][..]] {
        let output = peerdma(&[&["fix", "--platform", "two-socket"][..], words].concat());
        assert_eq!(output.status.code(), Some(2), "{words:?}");
    }
}

#[test]
fn several_pairs_are_fixed_together() {
    let folder = Folder::new();
    let from = redirecting(&folder);
    let arguments = ["fix", "gpu0", "nic0", "nic0", "gpu0", "gpu1", "nic1", "--direct", "--from", &from, "--json"];
    let document = json_of(&arguments, 0);
    assert_eq!(document["ports"].as_array().unwrap().len(), 4);
    assert_eq!(document["pairs"].as_array().unwrap().len(), 3);
}
