//! `peerdma whatif`.

use crate::machine::{As, Folder, json_of, peerdma, stdout_of, write_tree};
use serde_json::json;
use std::fs;

/// The built-in machine of two sockets, its switches as an IOMMU's kernel leaves them.
pub(crate) fn redirecting(folder: &Folder) -> String {
    let text = include_str!("../../../peerdma-emu/platforms/two-socket.toml");
    let path = folder.join("redirecting.toml");
    fs::write(&path, text.replace("ctl = 0x00", "ctl = 0x1d").replace(" pci=disable_acs_redir=pci:1000:c030", ""))
        .unwrap();
    path
}

#[test]
fn the_verdict_then_stands_beside_the_verdict_now_with_the_isolation_it_costs() {
    let folder = Folder::new();
    let from = redirecting(&folder);
    let clears = ["--clear", "acs:12:00.0/rr,cr", "--clear", "acs:12:04.0/rr,cr"];
    let arguments = [&["whatif", "gpu0", "nic0", "--from", &from][..], &clears].concat();
    let text = stdout_of(&arguments, 0);
    let row = |title: &str| text.lines().find(|line| line.trim_start().starts_with(title)).unwrap().to_string();
    assert_eq!(row("verdict").split_whitespace().collect::<Vec<_>>(), ["verdict", "host_bridge", "direct"]);
    assert_eq!(row("address").split_whitespace().collect::<Vec<_>>(), ["address", "iova", "bus"]);
    assert!(text.contains("one IOMMU group of what were several: 0000:12:00.0 | 0000:13:00.0"), "{text}");
    let document = json_of(&[&arguments[..], &["--json"]].concat(), 0);
    assert_eq!((&document["now"]["verdict"], &document["then"]["verdict"]), (&json!("host_bridge"), &json!("direct")));
    assert_eq!(document["merged"].as_array().unwrap().len(), 2);
    assert_eq!(document["split"], json!([]));
    let groups = |name: &str| document[name].as_array().unwrap().len();
    assert_eq!(groups("groups_before"), groups("groups_after") + 2);
}

/// Its driver asks for ACS, and without it the words are firmware's, which nobody reads back.
#[test]
fn a_boot_without_the_iommu_leaves_no_groups_and_acs_words_that_are_assumed() {
    let folder = Folder::new();
    let from = redirecting(&folder);
    let arguments = ["whatif", "gpu0", "nic0", "--from", &from, "--cmdline", "iommu=off"];
    let text = stdout_of(&arguments, 0);
    assert!(text.contains("without an IOMMU there are no groups"), "{text}");
    assert!(text.contains("0000:12:00.0") && text.contains("on what firmware leaves; taken to stay"), "{text}");
    let same = ["whatif", "gpu0", "nic0", "--from", &from, "--cmdline", "intel_iommu=on quiet"];
    assert!(!stdout_of(&same, 0).contains("firmware"), "that line boots as the present one");
}

#[test]
fn the_exit_code_is_that_of_the_verdict_then() {
    let folder = Folder::new();
    write_tree(folder.path(), As::Root);
    let from = folder.join("");
    // 8086:09a2 is listed now; 5.10 is older than any list that was read.
    stdout_of(&["whatif", "nvme0", "card1", "--from", &from, "--kernel", "5.10"], 3);
    stdout_of(&["whatif", "nvme0", "card1", "--from", &from, "--kernel", "5.10", "--cpu", "amd:0x19"], 0);
    stdout_of(&["whatif", "gpu0", "nvme4", "--platform", "two-socket", "--iommu", "identity"], 1);
}

/// Elsewhere these three fill gaps; here they are what changes.
#[test]
fn what_the_input_tells_is_changed_and_not_only_completed() {
    let document = json_of(&["whatif", "gpu0", "nic0", "--platform", "two-socket", "--iommu", "identity", "--json"], 0);
    assert_eq!((&document["now"]["iommu"], &document["then"]["iommu"]), (&json!("translated"), &json!("identity")));
    assert_eq!(document["source"]["kernel"], "7.2");
}

#[test]
fn a_command_line_is_booted_with() {
    let folder = Folder::new();
    let from = redirecting(&folder);
    let line = "intel_iommu=on iommu=pt pci=disable_acs_redir=pci:1000:c030";
    let document = json_of(&["whatif", "gpu0", "nic0", "--from", &from, "--cmdline", line, "--json"], 0);
    assert_eq!((&document["then"]["verdict"], &document["then"]["iommu"]), (&json!("direct"), &json!("identity")));
    assert!(document["assumed"].as_array().unwrap().iter().any(|reason| reason["object"] == "0000:12:00.0"));
}

#[test]
fn functions_move_below_other_ports() {
    let moves = ["--move", "nic0=10:01.0"];
    let occupied = peerdma(&[&["whatif", "gpu0", "nic0", "--platform", "two-socket"][..], &moves].concat());
    assert_eq!(occupied.status.code(), Some(2), "the switch is there");
    let moves = ["--move", "switch-b=00:0c.0"];
    let occupied = peerdma(&[&["whatif", "gpu0", "nic1", "--platform", "two-socket"][..], &moves].concat());
    assert_eq!(occupied.status.code(), Some(2), "a drive is there");
    // Below the chipset's port the NIC is where Linux forwards nothing.
    let moves = ["--move", "nvme4=13:00.0"];
    let endpoint = peerdma(&[&["whatif", "gpu0", "nic1", "--platform", "two-socket"][..], &moves].concat());
    assert!(String::from_utf8_lossy(&endpoint.stderr).contains("not a bridge"));
    let text = include_str!("../../../peerdma-emu/platforms/two-socket.toml");
    let free_port = "[[port]]\nname = \"free\"\nparent = \"switch-a\"\nkind = \"downstream\"\nbdf = \"12:10.0\"\n\
                     id = \"1000:c030\"\nmps = 256\nacs = { cap = 0x5f, ctl = 0x00 }\n";
    let folder = Folder::new();
    let path = folder.join("free.toml");
    fs::write(&path, format!("{text}\n{free_port}")).unwrap();
    let arguments = ["whatif", "gpu0", "nic1", "--from", &path, "--move", "nic1=free", "--json"];
    let document = json_of(&arguments, 0);
    assert_eq!((&document["now"]["verdict"], &document["then"]["verdict"]), (&json!("host_bridge"), &json!("direct")));
    assert!(document["assumed"][0]["evidence"].as_str().unwrap().contains("bus number"));
}

#[test]
fn changes_that_cannot_be_are_usage_and_say_why() {
    let folder = Folder::new();
    write_tree(folder.path(), As::Root);
    let from = folder.join("");
    for (change, why) in [
        (&["--clear", "acs:03:00.0/rr"][..], "no ACS capability"),
        (&["--set", "acs:02:00.0/ec"][..], "capability word is"),
        (&["--clear", "acs:02:00.0/rr", "--set", "acs:02:00.0/rr"][..], "both cleared and set"),
        (&["--move", "nvme0=04:00.0"][..], "not a bridge"),
        (&["--move", "nvme0=00:02.0"][..], "0000:05:00.0"),
        (&["--move", "nvme0"][..], "FUNCTION=PORT"),
        (&["--clear", "acs:02:00.0"][..], "acs:BDF/BITS"),
        (&["--clear", "acs:99:00.0/rr"][..], "peerdma topo"),
        (&[][..], "nothing changes"),
    ] {
        let output = peerdma(&[&["whatif", "nvme0", "mlx5_0", "--from", &from][..], change].concat());
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{change:?} {errors}");
        assert!(errors.contains(why), "{change:?} {errors}");
    }
}
