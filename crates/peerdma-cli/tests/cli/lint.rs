//! `peerdma lint-cmdline`: findings, fixes and exit codes as users see them.

use crate::machine::{As, Folder, hex_dump, json_of, stdout_of, write_tree};
use serde_json::json;
use std::fs;

#[test]
fn commas_in_a_list_are_found_and_the_fix_is_clean() {
    let line = "quiet pci=disable_acs_redir=0000:00:01.0,0000:00:02.0";
    let text = stdout_of(&["lint-cmdline", line], 1);
    assert!(text.starts_with("FINDING\tlist_cut_by_comma\tpci=disable_acs_redir="), "{text}");
    let document = json_of(&["lint-cmdline", "--json", line], 1);
    let fix = document["findings"][0]["fix"].as_str().unwrap();
    assert_eq!(fix, "pci=disable_acs_redir=0000:00:01.0;0000:00:02.0");
    assert_eq!(json_of(&["lint-cmdline", "--json", fix], 0)["findings"], json!([]));
}

#[test]
fn ten_repeated_parameters_of_which_the_last_counts() {
    let line: Vec<String> = (1..=10).map(|n| format!("pci=disable_acs_redir=0000:{n:02x}:00.0")).collect();
    let document = json_of(&["lint-cmdline", "--json", &line.join(" ")], 1);
    let finding = &document["findings"][0];
    assert_eq!(finding["code"], "repeated_list");
    assert!(finding["what"].as_str().unwrap().contains("only 0000:0a:00.0 counts"));
}

#[test]
fn the_line_of_the_input_is_held_against_its_machine() {
    let folder = Folder::new();
    write_tree(folder.path(), As::Root);
    let from = folder.join("");
    // 02:00.0 is there and can be cleared; its bus number may change.
    let document = json_of(&["lint-cmdline", "--json", "--from", &from], 0);
    assert_eq!(document["source"]["kind"], "sysfs");
    assert_eq!(document["findings"].as_array().unwrap().len(), 1);
    assert_eq!(document["findings"][0]["severity"], "advice");
    assert_eq!(document["findings"][0]["fix"], "0000:00:01.0/00.0/00.0");
    for (line, code) in [
        ("pci=disable_acs_redir=0000:00:01.0/00.0", "no_acs"),
        ("pci=disable_acs_redir=0000:00:07.0", "matches_nothing"),
    ] {
        let document = json_of(&["lint-cmdline", "--json", "--from", &from, line], 1);
        assert_eq!(document["findings"][0]["code"], code);
        // As text alone nothing is wrong with it.
        assert_eq!(json_of(&["lint-cmdline", "--json", line], 0)["findings"], json!([]));
    }
    let text =
        stdout_of(&["lint-cmdline", "--from", &from, "--kernel", "6.1", "pci=config_acs=x0x00xx@0000:00:01.0"], 1);
    assert!(text.contains("kernel_too_old"), "{text}");
}

#[test]
fn an_input_without_a_line_is_unknown_and_clean_lines_pass() {
    let folder = Folder::new();
    fs::write(folder.path().join("dump"), hex_dump()).unwrap();
    let text = stdout_of(&["lint-cmdline", "--from", &folder.join("dump")], 3);
    assert!(text.contains("proc/cmdline"), "{text}");
    let document = json_of(&["lint-cmdline", "--json", "--from", &folder.join("dump")], 3);
    assert_eq!(document["line"], json!(null));
    stdout_of(&["lint-cmdline", "--platform", "client"], 0);
    stdout_of(&["lint-cmdline", "--kernel", "6.8", "--cpu", "arm:0", "iommu.passthrough=1"], 1);
    stdout_of(&["lint-cmdline", "--kernel", "6.12", "--cpu", "arm:0", "iommu.passthrough=1"], 0);
    assert_eq!(json_of(&["lint-cmdline", "--schema"], 0)["title"], "LintDocument");
}
