//! `copy --platform` and `trace`: bytes and requests in machines that run in the process.

use crate::commands::conforms;
use crate::machine::{Folder, json_of, peerdma, stdout_of};
use serde_json::Value;
use std::fs;

/// A copy of 64 KiB on the server with two sockets.
fn copy(from: &str, to: &str, more: &[&str], code: i32) -> Value {
    let arguments = ["copy", from, to, "--platform", "two-socket", "--size", "64KiB", "--json"];
    json_of(&[&arguments[..], more].concat(), code)
}

fn trace(from: &str, to: &str, more: &[&str], code: i32) -> Value {
    json_of(&[&["trace", from, to, "--json"][..], more].concat(), code)
}

/// A machine of one host bridge, whose root complex does `peer` with requests between its ports.
fn small(folder: &Folder, peer: &str, devices: &[(&str, &str)]) -> String {
    let mut text = format!(
        "schema = 1\n[cpu]\nvendor = \"AuthenticAMD\"\nfamily = 0x19\n[kernel]\nversion = \"7.2\"\n\
         [[ram]]\nbase = 0x0\nsize = \"1GiB\"\n\
         [[host_bridge]]\nname = \"hb0\"\npeer = \"{peer}\"\nfirst_device = \"1022:14d8\"\n\
         windows = [{{ cpu = 0x40_0000_0000, bus = 0x40_0000_0000, size = \"4GiB\", prefetch = true }}]\n"
    );
    for (index, (name, rest)) in devices.iter().enumerate() {
        let (slot, bus) = (index + 1, index + 1);
        text.push_str(&format!(
            "[[port]]\nname = \"rp{index}\"\nparent = \"hb0\"\nkind = \"root\"\nbdf = \"00:{slot:02x}.0\"\nacs = \"none\"\n\
             [[function]]\nname = \"{name}\"\nparent = \"rp{index}\"\nbdf = \"{bus:02x}:00.0\"\n{rest}\n"
        ));
    }
    let path = folder.join("small.toml");
    fs::write(&path, text).unwrap();
    path
}

const GPU: &str = "model = \"gpu\"\nbars = [{ n = 0, size = \"16MiB\", prefetch = true }, { n = 4, size = \"64MiB\", prefetch = true }]";
const PLAIN: &str = "model = \"plain\"\nbars = [{ n = 0, size = \"4MiB\", prefetch = true }]";
const DMA: &str = "model = \"dma\"\nbars = [{ n = 0, size = \"64KiB\", prefetch = true }]";
const ACCEL: &str = "model = \"accel\"\nbars = [{ n = 0, size = \"1MiB\", prefetch = true }]";

#[test]
fn every_kind_of_engine_moves_bytes_that_their_owner_sees() {
    for (from, to, access, address) in [
        ("gpu0", "nvme0/bar2", "write", "bus"),
        ("nvme0", "gpu0", "write", "bus"),
        ("gpu0", "nvme1", "read", "bus"),
        ("nvme0/bar2+0x1000", "gpu1", "read", "iova"),
        ("gpu0", "ram", "write", "iova"),
        ("ram", "nvme2", "read", "iova"),
        ("nic0", "gpu1", "write", "iova"),
        ("gpu1/bar2+1MiB", "nic1", "read", "bus"),
    ] {
        let document = copy(from, to, &[], 0);
        assert_eq!(document["verified"]["verified"], true, "{from} {to}");
        assert_eq!(document["verified"]["checked"], 65536, "{from} {to}");
        assert_eq!(document["moved"], 65536, "{from} {to}");
        assert_eq!(document["initiator"]["access"], access, "{from} {to}");
        assert_eq!(document["granted"]["address"], address, "{from} {to}");
        assert_eq!(document["granted"]["asked"], true, "{from} {to}");
        assert_eq!(document["pair"].is_null(), from == "ram" || to == "ram", "{from} {to}");
    }
}

#[test]
fn engines_without_memory_of_their_own_work_on_ram() {
    let folder = Folder::new();
    let devices = [("dma0", DMA), ("acc0", ACCEL), ("mem0", PLAIN), ("gpu0", GPU)];
    let file = small(&folder, "forwards", &devices);
    for (from, to) in [("dma0", "mem0"), ("mem0", "dma0"), ("acc0", "mem0"), ("mem0/bar0", "acc0"), ("dma0", "gpu0")] {
        let document = json_of(&["copy", from, to, "--platform", &file, "--size", "5000", "--json"], 0);
        assert_eq!(document["verified"]["verified"], true, "{from} {to}");
        assert_eq!(document["granted"]["address"], "cpu_physical", "{from} {to}");
    }
}

#[test]
fn a_refused_pair_is_not_touched_and_forced_bytes_do_not_arrive() {
    let document = copy("nvme4", "gpu0", &[], 1);
    assert_eq!(document["pair"]["verdict"], "refused");
    for statement in ["granted", "moved", "verified", "speed"] {
        assert!(document[statement].is_null(), "{statement}");
    }
    // The engine says that all is well.
    let document = copy("nvme4", "gpu0", &["--force"], 4);
    assert_eq!(document["granted"]["asked"], false);
    assert_eq!(document["moved"], 65536);
    assert!(document["engine_error"].is_null());
    assert_eq!(document["verified"]["verified"], false);
    assert_eq!(document["verified"]["delivery"]["untouched"], true);
    // Reads are answered, and the answer is no.
    let document = copy("gpu0", "nvme4", &["--force"], 4);
    assert!(document["engine_error"].is_string());
}

#[test]
fn a_root_complex_that_makes_up_all_ones_is_taken_for_data_by_whoever_does_not_look() {
    let folder = Folder::new();
    let file = small(&folder, "all_ones", &[("gpu0", GPU), ("mem0", PLAIN)]);
    let line = ["copy", "mem0", "gpu0", "--platform", &file, "--size", "4096", "--json"];
    json_of(&line, 1);
    let document = json_of(&[&line[..], &["--force"]].concat(), 4);
    assert!(document["engine_error"].is_null());
    let wrong = &document["verified"]["delivery"]["first_wrong"];
    assert_eq!(wrong["seen"], 0xff);
    let document = json_of(&[&line[..], &["--force", "--no-verify"]].concat(), 0);
    assert!(document["verified"].is_null());
    let hops = trace("gpu0", "mem0", &["--platform", &file, "--read"], 1);
    assert_eq!((&hops["arrived"], &hops["failure"]), (&Value::Bool(false), &Value::Null));
    let all_ones = hops["requests"][0]["hops"].as_array().unwrap().iter().any(|hop| hop["what"] == "all_ones");
    assert!(all_ones, "{hops}");
}

#[test]
fn what_nobody_could_move_is_said_by_name() {
    for (line, reason) in [
        (&["nvme0", "nvme1"][..], "go by way of ram"),
        (&["gpu0", "gpu0/bar2"], "one place"),
        (&["ram", "ram"], "one place"),
        (&["gpu0/bar0", "ram"], "bar2 does"),
        (&["gpu0/bar7", "ram"], "barN"),
        (&["rp0", "gpu0"], "is a port"),
        (&["nobody", "gpu0"], "nobody"),
        (&["nvme0", "ram", "--size", "1000"], "whole blocks"),
        (&["nvme0/bar2", "ram", "--size", "1GiB"], "has 256 MiB"),
        (&["gpu0", "ram", "--engine", "edu"], "--engine"),
        (&["gpu0", "ram", "--via", "type1"], "--via"),
        (&["gpu0", "ram", "--size", "0"], "--size"),
        (&["gpu0"], "needs FROM and TO"),
    ] {
        let output = peerdma(&[&["copy", "--platform", "two-socket"][..], line].concat());
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{line:?} {errors}");
        assert!(errors.contains(reason), "{line:?}: {errors}");
    }
    for option in [&["--size", "1MiB"][..], &["--no-verify"], &["--need", "read"]] {
        let output = peerdma(&[&["copy", "gpu0", "gpu1/bar2"][..], option].concat());
        assert_eq!(output.status.code(), Some(2), "{option:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("--platform"), "{option:?}");
    }
}

#[test]
fn a_request_below_one_switch_never_sees_the_root_complex() {
    let document = trace("nic0", "gpu0", &["--read"], 0);
    assert_eq!((&document["foretold"], &document["agrees"]), (&"arrives".into(), &true.into()));
    assert_eq!(document["address_kind"], "bus");
    let hops = document["requests"][0]["hops"].as_array().unwrap();
    let words: Vec<&str> = hops.iter().map(|hop| hop["what"].as_str().unwrap()).collect();
    assert_eq!(words, ["sent", "went", "went", "at_function", "completion_went", "completion_went", "answered"]);
    let ports: Vec<&str> = hops.iter().filter_map(|hop| hop["function"].as_str()).collect();
    assert!(!ports.contains(&"0000:10:01.0"), "{ports:?}");
}

#[test]
fn across_sockets_the_iommu_puts_another_address_on_the_wire() {
    let document = trace("nic0", "gpu1/bar2", &["--at", "1MiB"], 0);
    assert_eq!(document["address_kind"], "iova");
    let hops = document["requests"][0]["hops"].as_array().unwrap();
    let down = hops.iter().find(|hop| hop["function"] == "0000:80:01.0").unwrap();
    assert_eq!(down["address"], "0x216000100000");
    assert_ne!(down["address"], document["address"]);
    // What is longer than a payload is several requests.
    let document = trace("nic0", "gpu1/bar2", &["--len", "1KiB"], 0);
    assert_eq!(document["requests"].as_array().unwrap().len(), 4);
}

#[test]
fn a_refused_request_ends_where_the_hops_say_and_the_fabric_view_said() {
    for kind in ["--write", "--read", "--atomic"] {
        let document = trace("gpu0", "nvme4", &[kind], 1);
        assert_eq!((&document["asked"], &document["arrived"]), (&false.into(), &false.into()));
        assert_eq!((&document["foretold"], &document["agrees"]), (&"lost".into(), &true.into()));
        assert_eq!(document["failure"].is_null(), kind == "--write");
    }
    let text = stdout_of(&["trace", "gpu0", "nvme4"], 1);
    assert!(text.contains("it passes none on to other devices"), "{text}");
    assert!(text.contains("nobody tells the requester"), "{text}");
}

#[test]
fn ram_is_reached_and_answers() {
    let document = trace("gpu0", "ram", &["--atomic", "--platform", "client"], 0);
    assert!(document["pair"].is_null() && document["foretold"].is_null());
    assert_eq!(document["arrived"], true);
}

#[test]
fn where_nobody_knows_what_a_root_complex_does_the_answer_is_unknown() {
    let folder = Folder::new();
    let file = small(&folder, "unknown", &[("gpu0", GPU), ("mem0", PLAIN)]);
    let text = fs::read_to_string(&file).unwrap();
    // A host bridge that neither Linux lists nor anybody has reported about.
    let text = text.replace("AuthenticAMD", "GenuineIntel").replace("0x19", "6").replace("1022:14d8", "8086:7777");
    fs::write(&file, text).unwrap();
    let document = trace("gpu0", "mem0", &["--platform", &file], 3);
    assert_eq!((&document["foretold"], &document["agrees"]), (&"unknown".into(), &Value::Null));
}

#[test]
fn a_seed_repeats_a_run() {
    let run = || stdout_of(&["trace", "nic0", "gpu1", "--len", "4KiB", "--seed", "7", "--json"], 0);
    assert_eq!(run(), run());
}

#[test]
fn documents_keep_to_their_schemas() {
    let schema = json_of(&["copy", "--platform", "two-socket", "--schema"], 0);
    conforms(&schema, &schema, &copy("gpu0", "nvme0/bar2", &[], 0), "copy");
    conforms(&schema, &schema, &copy("nvme4", "gpu0", &[], 1), "copy");
    let schema = json_of(&["trace", "--schema"], 0);
    conforms(&schema, &schema, &trace("nic0", "gpu0", &[], 0), "trace");
    conforms(&schema, &schema, &trace("gpu0", "nvme4", &[], 1), "trace");
}

#[test]
fn the_text_keeps_the_three_statements_apart() {
    let line = ["copy", "nvme0", "gpu0", "--platform", "two-socket", "--size", "64KiB"];
    let text = stdout_of(&line, 0);
    for words in ["initiator  nvme0", "permitted  direct", "granted    bus address", "verified   yes", "of memcpy"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let text = stdout_of(&["copy", "nvme4", "gpu0", "--platform", "two-socket"], 1);
    for words in ["permitted  refused", "nothing was touched", "verified   no"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(stdout_of(&["copy", "--platform", "help"], 0).contains("two-socket"));
    assert!(stdout_of(&["trace", "--platform", "help"], 0).contains("arm-slots"));
}

#[test]
fn a_fault_is_named_struck_and_told_and_its_copy_fails() {
    let lost = copy("nvme0", "gpu0", &["--fault", "drop-writes"], 4);
    assert_eq!((&lost["fault"]["name"], &lost["verified"]["verified"]), (&"drop-writes".into(), &false.into()));
    assert!(lost["fault"]["strikes"].as_u64().unwrap() > 0);
    // A switch takes the bytes across, so that what the root complex does strikes none of them.
    let spared = copy("nvme0", "gpu0", &["--fault", "all-ones"], 0);
    assert_eq!(spared["fault"]["strikes"], 0);
    for (word, says) in [("revoked", "lifetime"), ("thunder", "mirror-bar")] {
        let arguments = ["copy", "nvme0", "gpu0", "--platform", "two-socket", "--fault", word];
        let output = peerdma(&arguments);
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains(says));
    }
}

/// Standard error of a command that ends with `code`.
fn errors_of(arguments: &[&str], code: i32) -> String {
    let output = peerdma(arguments);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
    errors
}

/// These commands have no `--from`, which the advice for others names.
#[test]
fn a_platform_that_is_none_is_told_by_the_option_that_named_it() {
    let folder = Folder::new();
    let dump = folder.join("dump.txt");
    fs::write(&dump, "00:00.0 Host bridge: Intel Corporation Device 09a2\n").unwrap();
    for command in [&["demo"][..], &["copy", "nvme0", "gpu0"], &["trace", "nic0", "gpu0"]] {
        let missing = errors_of(&[command, &["--platform", "nosuch"]].concat(), 2);
        assert!(missing.contains("--platform nosuch is neither a built-in platform nor a file"), "{missing}");
        let foreign = errors_of(&[command, &["--platform", &dump]].concat(), 2);
        assert!(foreign.contains("dump.txt is no platform file but lspci"), "{foreign}");
        for errors in [missing, foreign] {
            assert!(errors.contains("--platform takes two-socket, ") && !errors.contains("--from"), "{errors}");
        }
    }
    // Who only asks about machines can read it all the same.
    let elsewhere = errors_of(&["topo", "--platform", &dump], 2);
    assert!(elsewhere.contains("read it with --from"), "{elsewhere}");
}

#[test]
fn a_machine_with_too_little_ram_is_told_by_file_and_line() {
    let folder = Folder::new();
    let path = small(&folder, "forwards", &[("gpu0", GPU), ("gpu1", GPU)]);
    let whole = fs::read_to_string(&path).unwrap();
    let lines = whole.trim_end().lines().count();
    let ram = "[[ram]]\nbase = 0x0\nsize = \"1GiB\"\n";
    let copy = ["copy", "gpu0", "gpu1", "--platform", path.as_str(), "--size", "64KiB"];
    fs::write(&path, whole.replace(ram, "")).unwrap();
    let none = errors_of(&copy, 4);
    assert!(none.contains(&format!("small.toml:{}: no [[ram]] is stated", lines - 3)), "{none}");
    fs::write(&path, whole.replace("1GiB", "32MiB")).unwrap();
    let little = errors_of(&copy, 4);
    assert!(little.contains("small.toml:8: 32 MiB of this RAM"), "{little}");
    // Enough to start, and not enough for what is copied.
    fs::write(&path, whole.replace("1GiB", "64MiB")).unwrap();
    let full = errors_of(&["copy", "ram", "gpu1", "--platform", path.as_str(), "--size", "64MiB"], 4);
    assert!(full.contains("small.toml:8: ") && full.contains("of RAM are left in one piece"), "{full}");
}
