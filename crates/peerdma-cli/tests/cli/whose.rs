//! Whose an address is, as `peerdma whose` says it.

use crate::machine::{As, Folder, json_of, peerdma, stdout_of, write_tree};
use serde_json::{Value, json};
use std::fs;

/// A device behind a window that the CPU sees elsewhere, RAM, and an IOMMU without groups.
const OFFSET: &str = r#"schema = 1
[cpu]
vendor = "intel"
family = 6
[[ram]]
base = 0x0
size = "2GiB"
[[host_bridge]]
name = "hb0"
windows = [{ cpu = 0x50_9000_0000, bus = 0x9000_0000, size = "256MiB" }]
[[port]]
name = "rp0"
parent = "hb0"
kind = "root"
bdf = "00:01.0"
[[function]]
name = "fn0"
parent = "rp0"
bdf = "01:00.0"
bars = [{ n = 0, size = "64KiB" }]
"#;

fn described(text: &str) -> (Folder, String) {
    let folder = Folder::new();
    let path = folder.join("machine.toml");
    fs::write(&path, text).unwrap();
    (folder, path)
}

fn kinds(reading: &Value) -> Vec<&str> {
    reading["owners"].as_array().unwrap().iter().map(|owner| owner["kind"].as_str().unwrap()).collect()
}

#[test]
fn a_byte_of_a_bar_is_found_with_the_windows_around_it_and_its_other_address() {
    let (_folder, path) = described(OFFSET);
    let document = json_of(&["whose", "0x5090000010", "--from", &path, "--json"], 0);
    assert_eq!(document["answer"], "something");
    let reading = &document["readings"][0];
    assert_eq!((&reading["as"], kinds(reading)), (&json!("cpu"), vec!["host_window", "port_window", "bar"]));
    let bar = &reading["owners"][2];
    assert_eq!((&bar["object"], &bar["names"], &bar["offset"]), (&json!("0000:01:00.0"), &json!(["fn0"]), &json!(16)));
    assert_eq!(bar["bus"], json!({"first": "0x90000000", "last": "0x9000ffff"}));
    assert_eq!(reading["also"], json!([{"as": "bus", "host_bridge": "0000:00", "address": "0x90000010"}]));
    let text = stdout_of(&["whose", "0x5090000010", "--from", &path], 0);
    assert!(text.contains("fn0") && text.contains("bar0 at offset 0x10"), "{text}");
    assert!(text.contains("bus address 0x90000010 below host bridge 0000:00"), "{text}");
}

#[test]
fn the_same_number_below_the_host_bridge_is_something_else() {
    let (_folder, path) = described(OFFSET);
    let text = stdout_of(&["whose", "0x90000010", "--from", &path], 0);
    assert!(text.contains("0x90000010 as a CPU address\n  nothing"), "{text}");
    assert!(text.contains("as a bus address below host bridge 0000:00") && text.contains("fn0"), "{text}");
    stdout_of(&["whose", "0x90000010", "--from", &path, "--as", "cpu"], 1);
    stdout_of(&["whose", "0x90000010", "--from", &path, "--as", "bus"], 0);
    stdout_of(&["whose", "0x5090000010", "--from", &path, "--as", "bus"], 1);
}

#[test]
fn nothing_is_claimed_only_where_the_memory_map_was_read() {
    let (_folder, path) = described(OFFSET);
    assert!(stdout_of(&["whose", "0x100000000", "--from", &path], 1).contains("nothing is there"));
    assert!(stdout_of(&["whose", "0x1000", "--from", &path], 0).contains("System RAM"));
    let without_ram = OFFSET.replace("[[ram]]\nbase = 0x0\nsize = \"2GiB\"\n", "");
    let (_folder, path) = described(&without_ram);
    let document = json_of(&["whose", "0x100000000", "--from", &path, "--json"], 3);
    assert_eq!(document["answer"], "unknown");
    let missing = document["readings"][0]["missing"][0].as_str().unwrap();
    assert!(missing.contains("/proc/iomem"), "{missing}");
    // What an IOMMU keeps is not told by this file.
    stdout_of(&["whose", "0xfee00000", "--from", &path, "--as", "iova"], 3);
    stdout_of(&["whose", "0xfee00000", "--from", &path, "--as", "iova", "--iommu", "none"], 1);
}

#[test]
fn a_copied_sysfs_tells_bars_and_no_more() {
    let folder = Folder::new();
    write_tree(folder.path(), As::Root);
    let from = folder.join("");
    let document = json_of(&["whose", "0x4100001000+4KiB", "--from", &from, "--json"], 0);
    let bars: Vec<&Value> = document["readings"][0]["owners"].as_array().unwrap().iter().collect();
    assert!(bars.iter().any(|owner| owner["kind"] == "bar" && owner["object"] == "0000:04:00.0"), "{bars:?}");
    stdout_of(&["whose", "0x10000000", "--from", &from, "--as", "bus"], 3);
}

#[test]
fn what_is_no_address_is_usage() {
    for wrong in ["mlx5_0", "0x", "0x10+", "0x10+0", "0xffffffffffffffff+2", "12ab"] {
        assert_eq!(peerdma(&["whose", wrong, "--platform", "client"]).status.code(), Some(2), "{wrong}");
    }
    assert!(json_of(&["whose", "--schema"], 0)["properties"]["readings"].is_object());
}

#[test]
fn a_memory_map_s_names_are_no_commands_to_a_terminal() {
    let folder = Folder::new();
    write_tree(folder.path(), As::Root);
    fs::write(folder.path().join("proc/iomem"), "00001000-00001fff : \x1b]0;x\x07RAM\n").unwrap();
    let text = stdout_of(&["whose", "0x1000", "--from", &folder.join("")], 0);
    assert!(text.contains("RAM") && !text.contains(['\x1b', '\x07']), "{text:?}");
}
