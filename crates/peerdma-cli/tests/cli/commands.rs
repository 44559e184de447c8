//! What the commands answer, and with which exit code.

use crate::machine::{As, Folder, json_of, peerdma, peerdma_unread, stdout_of, write_tree};
use serde_json::{Value, json};
use std::fs;

fn copied() -> Folder {
    let folder = Folder::new();
    write_tree(folder.path(), As::Root);
    folder
}

#[test]
fn route_exits_with_the_verdict_from_initiator_to_target() {
    let folder = copied();
    let from = folder.join("");
    stdout_of(&["route", "nvme0", "mlx5_0", "--from", &from], 0);
    // 8086:09a2 is listed, so two root ports reach each other through the host bridge.
    let document = json_of(&["route", "nvme0", "card1", "--json", "--from", &from], 0);
    assert_eq!(document["pairs"][0]["verdict"], "host_bridge");
    stdout_of(&["route", "nvme0", "card1", "--from", &from, "--kernel", "5.10"], 3);
    stdout_of(&["route", "nvme0", "card1", "--from", &from, "--kernel", "5.10", "--cpu", "amd:0x19"], 0);
    stdout_of(&["route", "gpu0", "nvme4", "--platform", "two-socket"], 1);
    for need in ["read", "write", "both"] {
        stdout_of(&["route", "gpu0", "nvme4", "--platform", "two-socket", "--need", need], 1);
    }
}

#[test]
fn route_gives_both_directions_and_the_evidence_of_every_step() {
    let folder = copied();
    let document = json_of(&["route", "nvme0", "mlx5_0", "--json", "--from", &folder.join("")], 0);
    let pairs = document["pairs"].as_array().unwrap();
    assert_eq!(pairs.len(), 2);
    assert_eq!((&pairs[0]["initiator"], &pairs[0]["target"]), (&json!("0000:03:00.0"), &json!("0000:04:00.0")));
    assert_eq!((&pairs[1]["initiator"], &pairs[1]["target"]), (&json!("0000:04:00.0"), &json!("0000:03:00.0")));
    assert_eq!(pairs[0]["kernel"]["map_type"], "BUS_ADDR");
    assert_eq!(pairs[0]["kernel"]["distance"], 4);
    // From the target up to the common device, then from the initiator up.
    let path: Vec<(&str, &str)> = pairs[0]["path"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| (step["function"].as_str().unwrap(), step["role"].as_str().unwrap()))
        .collect();
    let expected = [
        ("0000:04:00.0", "target"),
        ("0000:02:01.0", "port"),
        ("0000:01:00.0", "common"),
        ("0000:03:00.0", "initiator"),
        ("0000:02:00.0", "port"),
    ];
    assert_eq!(path, expected);
    let evidence = pairs[0]["path"][1]["evidence"].as_str().unwrap();
    assert!(evidence.contains("0x146") && evidence.contains("0x0000") && evidence.contains("sysfs"), "{evidence}");
    // The command line clears 02:00.0, and it is clear.
    assert!(pairs[0]["boot"][0].as_str().unwrap().contains("0000:02:00.0 and took"));
}

#[test]
fn a_doorbell_page_is_as_good_a_target_as_a_whole_bar() {
    let folder = copied();
    let from = folder.join("");
    let document = json_of(&["route", "nvme0", "mlx5_0/bar0+0x1000,4KiB", "--json", "--from", &from], 0);
    assert_eq!(
        document["pairs"][0]["range"],
        json!({"bar": 0, "offset": 4096, "len": 4096, "cpu_address": "0x4100001000", "bus_address": "0x4100001000"})
    );
    let whole = json_of(&["route", "nvme0", "mlx5_0/bar0", "--json", "--from", &from], 0);
    assert_eq!(whole["pairs"][0]["kernel"], document["pairs"][0]["kernel"]);
    for wrong in ["mlx5_0/bar0+0x2000000,1", "mlx5_0/bar0+0,0", "mlx5_0/bar1", "mlx5_0/rom", "mlx5_0/bar0+1"] {
        let output = peerdma(&["route", "nvme0", wrong, "--from", &from]);
        assert_eq!(output.status.code(), Some(2), "{wrong}");
    }
}

#[test]
fn names_and_addresses_mean_the_same_function_and_typing_mistakes_are_usage() {
    let folder = copied();
    let from = folder.join("");
    let by_name = stdout_of(&["route", "mlx5_0", "card1", "--from", &from], 0);
    for (a, b) in [("04:00.0", "05:00.0"), ("0000:04:00.0", "0000:05:00.0"), ("enx00aabbccddee", "card1")] {
        assert_eq!(stdout_of(&["route", a, b, "--from", &from], 0), by_name);
    }
    for (a, b) in [("mlx5_1", "card1"), ("0000:99:00.0", "card1")] {
        let output = peerdma(&["route", a, b, "--from", &from]);
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains("peerdma topo"));
    }
    assert_eq!(peerdma(&["matrix", "class:nonsense", "--from", &from]).status.code(), Some(2));
    assert_eq!(peerdma(&["matrix", "--from", &from, "--cpu", "adm:23"]).status.code(), Some(2));
}

#[test]
fn matrix_is_row_major_by_address_and_all_means_all_type_0_functions() {
    let folder = copied();
    let from = folder.join("");
    let names = |document: &Value| -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_string();
        document["pairs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|pair| (text(&pair["initiator"]), text(&pair["target"])))
            .collect()
    };
    let all = names(&json_of(&["matrix", "--all", "--json", "--from", &from], 0));
    let functions = ["0000:00:00.0", "0000:03:00.0", "0000:04:00.0", "0000:05:00.0"];
    let expected: Vec<(String, String)> =
        functions.iter().flat_map(|a| functions.iter().map(|b| (a.to_string(), b.to_string()))).collect();
    assert_eq!(all, expected);
    let default = names(&json_of(&["matrix", "--json", "--from", &from], 0));
    assert_eq!(default.len(), 9, "the host bridge is not worth pairing");
    let filtered = names(&json_of(&["matrix", "class:network", "nvme0", "--json", "--from", &from], 0));
    assert_eq!(filtered.len(), 4);
}

#[test]
fn check_judges_what_is_shown_without_the_diagonal() {
    let folder = copied();
    let from = folder.join("");
    stdout_of(&["matrix", "--check", "--from", &from], 0);
    stdout_of(&["matrix", "--check", "--from", &from, "--kernel", "5.10"], 3);
    // Below one switch nothing is asked of the host bridge.
    stdout_of(&["matrix", "--check", "nvme0", "mlx5_0", "--from", &from, "--kernel", "5.10"], 0);
    stdout_of(&["matrix", "--check", "--platform", "two-socket"], 1);
    stdout_of(&["matrix", "--platform", "two-socket"], 0);
    // One function alone: its own redirects would refuse it to itself, but nothing is judged.
    stdout_of(&["matrix", "--check", "nvme0", "--from", &from], 0);
}

#[test]
fn an_exit_code_is_the_same_where_nobody_reads_the_answer() {
    let two_socket = ["--platform", "two-socket"];
    for (command, code) in [
        (&["route", "gpu0", "nvme4"][..], 1),
        (&["route", "gpu0", "nvme4", "--json"], 1),
        (&["matrix", "--check"], 1),
        (&["matrix", "--check", "--json"], 1),
        (&["matrix", "--check", "--list"], 1),
        (&["matrix"], 0),
        (&["topo"], 0),
    ] {
        let output = peerdma_unread(&[command, &two_socket[..]].concat());
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{command:?}: {errors}");
        assert!(errors.is_empty(), "{command:?}: {errors}");
    }
}

#[test]
fn every_document_has_the_members_its_schema_requires_and_no_others() {
    let folder = copied();
    let from = folder.join("");
    let capture = folder.join("capture");
    let runs: [(&str, Vec<&str>); 4] = [
        ("topo", vec!["topo", "--json", "--from", &from]),
        ("matrix", vec!["matrix", "--json", "--proximity", "--from", &from]),
        ("route", vec!["route", "nvme0", "mlx5_0/bar0", "--json", "--from", &from]),
        ("capture", vec!["capture", "-o", &capture, "--json", "--from", &from]),
    ];
    for (command, arguments) in runs {
        let schema = json_of(&[command, "--schema"], 0);
        let document = json_of(&arguments, 0);
        assert_eq!(document["schema"], 1);
        conforms(&schema, &schema, &document, command);
    }
}

/// Checks members against `properties` and `required`, through references.
pub(crate) fn conforms(root: &Value, schema: &Value, value: &Value, at: &str) {
    let schema = match schema["$ref"].as_str() {
        Some(reference) => root.pointer(reference.trim_start_matches('#')).unwrap(),
        None => schema,
    };
    match value {
        Value::Object(members) if schema["properties"].is_object() => {
            for required in schema["required"].as_array().into_iter().flatten() {
                assert!(members.contains_key(required.as_str().unwrap()), "{at} lacks {required}");
            }
            for (name, member) in members {
                let property = &schema["properties"][name];
                assert!(!property.is_null(), "{at}.{name} is not in the schema");
                conforms(root, property, member, &format!("{at}.{name}"));
            }
        }
        Value::Array(items) => {
            for item in items {
                conforms(root, &schema["items"], item, at);
            }
        }
        _ => {}
    }
}

#[test]
fn a_described_machine_shows_all_three_routes() {
    let document = json_of(&["matrix", "--json", "--platform", "two-socket"], 0);
    let verdict = |a: &str, b: &str| {
        let address = |name: &str| -> Value {
            let topology = json_of(&["topo", "--json", "--platform", "two-socket"], 0);
            let functions = topology["functions"].as_array().unwrap();
            functions.iter().find(|function| function["names"][0] == name).unwrap()["address"].clone()
        };
        let (a, b) = (address(a), address(b));
        let pairs = document["pairs"].as_array().unwrap();
        pairs.iter().find(|pair| pair["initiator"] == a && pair["target"] == b).unwrap()["verdict"].clone()
    };
    assert_eq!(verdict("nic0", "gpu0"), "direct");
    assert_eq!(verdict("nic0", "gpu1"), "host_bridge");
    assert_eq!(verdict("nvme4", "gpu0"), "refused");
    let help = stdout_of(&["matrix", "--platform", "help"], 0);
    for name in ["two-socket", "shared-switch", "client", "arm-slots"] {
        assert!(help.contains(name), "{help}");
        stdout_of(&["topo", "--platform", name], 0);
    }
}

#[test]
fn this_machine_always_gets_an_answer() {
    // Whatever it has: pairs of its own, or the described machine instead.
    let text = stdout_of(&["matrix"], 0);
    assert!(text.contains("By Linux's rules and the hardware's"), "{text}");
    stdout_of(&["topo"], 0);
    let document = json_of(&["matrix", "--json"], 0);
    assert_eq!(document["source"]["kind"], "live");
}

#[test]
fn the_readme_shows_what_the_program_prints() {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md")).unwrap();
    let mut shown = 0;
    for block in readme.split("```").skip(1).step_by(2) {
        let Some((command, expected)) = block.split_once('\n').and_then(|(_, body)| body.split_once('\n')) else {
            continue;
        };
        let Some(arguments) = command.strip_prefix("$ peerdma ") else { continue };
        let arguments: Vec<&str> = arguments.split_whitespace().collect();
        let printed = String::from_utf8(peerdma(&arguments).stdout).unwrap();
        assert_eq!(printed.trim_end(), expected.trim_end(), "{command}");
        shown += 1;
    }
    assert!(shown >= 2, "the README shows real output");
}
