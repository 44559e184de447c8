//! One machine in every form an input can have: the verdicts are the same.

use crate::machine::{As, Folder, hex_dump, json_of, peerdma, stdout_of, write_tree};
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::Path;

fn pairs(path: &str, extra: &[&str]) -> Value {
    let arguments: Vec<&str> = ["matrix", "--all", "--json", "--from", path].iter().chain(extra).copied().collect();
    json_of(&arguments, 0)["pairs"].take()
}

fn tar_of(root: &Path, prefix: &str) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    builder.follow_symlinks(false);
    for part in ["sys", "proc"] {
        builder.append_dir_all(format!("{prefix}{part}"), root.join(part)).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Verdicts, distances and ports; evidence names the kind of input and may differ.
fn bones(pairs: &Value) -> Vec<String> {
    let bone = |pair: &Value| format!("{} {} {}", pair["initiator"], pair["target"], pair["kernel"]);
    pairs.as_array().unwrap().iter().map(bone).collect()
}

#[test]
fn folder_archives_capture_and_hex_dump_give_the_same_verdicts() {
    let folder = Folder::new();
    let root = folder.path().join("host");
    write_tree(&root, As::Root);
    let expected = bones(&pairs(&folder.join("host"), &[]));
    assert_eq!(expected.len(), 16, "four functions of header type 0, each with each");

    // The folder above, sys itself, and the option for it.
    assert_eq!(bones(&pairs(&folder.join(""), &[])), expected);
    assert_eq!(bones(&pairs(&folder.join("host/sys"), &[])), expected);
    let rooted = json_of(&["matrix", "--all", "--json", "--sysfs-root", &folder.join("host")], 0);
    assert_eq!(bones(&rooted["pairs"]), expected);

    for prefix in ["", "./", "copied/"] {
        let tar = tar_of(&root, prefix);
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&tar).unwrap();
        let mut bz = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bz.write_all(&tar).unwrap();
        // Names without endings: content decides.
        for (name, bytes) in [("plain", tar), ("gz", gz.finish().unwrap()), ("bz", bz.finish().unwrap())] {
            fs::write(folder.path().join(name), bytes).unwrap();
            assert_eq!(bones(&pairs(&folder.join(name), &[])), expected, "{prefix:?} {name}");
            let rooted = json_of(&["matrix", "--all", "--json", "--sysfs-root", &folder.join(name)], 0);
            assert_eq!(bones(&rooted["pairs"]), expected, "{prefix:?} {name}");
        }
    }

    let capture = folder.join("capture");
    stdout_of(&["capture", "-o", &capture, "--sysfs-root", &folder.join("host")], 0);
    assert_eq!(bones(&pairs(&capture, &[])), expected);

    fs::write(folder.path().join("hex"), hex_dump()).unwrap();
    assert_eq!(bones(&pairs(&folder.join("hex"), &["--cpu", "intel:6", "--kernel", "7.2.13"])), expected);
}

#[test]
fn a_capture_of_this_machine_gives_what_live_reading_gives() {
    let live = json_of(&["matrix", "--all", "--json"], 0);
    if live["pairs"].as_array().unwrap().is_empty() {
        // Past the capture of the test's output, so that the run shows it.
        writeln!(std::io::stderr(), "SKIPPED live-capture: this machine has no PCI function").unwrap();
        return;
    }
    let folder = Folder::new();
    stdout_of(&["capture", "-o", &folder.join("capture")], 0);
    assert_eq!(bones(&pairs(&folder.join("capture"), &[])), bones(&live["pairs"]));
}

#[test]
fn a_capture_holds_no_serial_number_and_no_mac_address_unless_told() {
    let folder = Folder::new();
    write_tree(folder.path(), As::Root);
    let holds = |file: &str, hex: &str| {
        let mut text = String::new();
        let bytes = fs::read(file).unwrap();
        std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(bytes.as_slice()), &mut text).unwrap();
        text.contains(hex)
    };
    let serial: String = b"SERIALNO".iter().map(|byte| format!("{byte:02x}")).collect();
    let (redacted, kept) = (folder.join("redacted"), folder.join("kept"));
    stdout_of(&["capture", "-o", &redacted, "--sysfs-root", &folder.join("")], 0);
    stdout_of(&["capture", "-o", &kept, "--keep-serials", "--sysfs-root", &folder.join("")], 0);
    for secret in [serial.as_str(), "00aabbccddee", "00-aa-bb-cc-dd-ee"] {
        assert!(holds(&kept, secret) && !holds(&redacted, secret), "{secret}");
    }
    assert!(!holds(&kept, "builder@host"), "only the release of /proc/version is kept");
    assert_eq!(pairs(&redacted, &[]), pairs(&kept, &[]));
}

#[test]
fn a_capture_is_not_replaced_by_accident() {
    let folder = Folder::new();
    write_tree(folder.path(), As::Root);
    let file = folder.join("capture");
    fs::write(&file, "precious").unwrap();
    let output = peerdma(&["capture", "-o", &file, "--sysfs-root", &folder.join("")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--force"));
    assert_eq!(fs::read(&file).unwrap(), b"precious");
    stdout_of(&["capture", "-o", &file, "--force", "--sysfs-root", &folder.join("")], 0);
    assert_ne!(fs::read(&file).unwrap(), b"precious");
}

#[test]
fn what_a_user_may_not_read_is_unknown_and_the_first_line_says_what_to_type() {
    let folder = Folder::new();
    write_tree(folder.path(), As::User);
    let text = stdout_of(&["matrix", "--from", &folder.join("")], 0);
    let first = text.lines().next().unwrap();
    // nvme0 and mlx5_0 with each other: below one switch; with card1 they meet at the root.
    assert!(first.starts_with("2 of 6 verdicts are unknown for lack of privilege: "), "{first}");
    assert!(first.contains("sudo peerdma capture"), "{first}");
    let document = json_of(&["matrix", "--json", "--from", &folder.join("")], 0);
    assert_eq!(document["source"]["privileged"], false);
    let unknown: Vec<&Value> =
        document["pairs"].as_array().unwrap().iter().filter(|pair| pair["verdict"] == "unknown").collect();
    assert!(unknown.iter().all(|pair| pair["reasons"][0]["gate"] == "acs_unknown"));
}

#[test]
fn zero_padding_of_an_unprivileged_archive_is_not_taken_for_clear_bits() {
    let folder = Folder::new();
    let root = folder.path().join("host");
    write_tree(&root, As::User);
    // What tar does to a file that announced 4096 bytes and gave 64.
    for function in crate::machine::functions() {
        let link = root.join("sys/bus/pci/devices").join(function.address).join("config");
        let mut bytes = fs::read(&link).unwrap();
        bytes.resize(function.config.len(), 0);
        fs::write(&link, bytes).unwrap();
    }
    fs::write(folder.path().join("tar"), tar_of(&root, "")).unwrap();
    let text = stdout_of(&["route", "nvme0", "mlx5_0", "--from", &folder.join("tar")], 3);
    assert!(text.contains("acs_unknown"), "{text}");
}

#[test]
fn a_bridge_that_only_a_path_names_still_counts() {
    let folder = Folder::new();
    let root = folder.path();
    write_tree(root, As::Root);
    let lost = root.join("sys/devices/pci0000:00/0000:00:01.0/0000:01:00.0/0000:02:00.0");
    fs::remove_file(root.join("sys/bus/pci/devices/0000:02:00.0")).unwrap();
    fs::remove_file(lost.join("config")).unwrap();
    let document = json_of(&["route", "nvme0", "mlx5_0", "--json", "--from", &folder.join("")], 3);
    let kernel = &document["pairs"][0]["kernel"];
    assert_eq!(kernel["distance"], 4);
    assert_eq!(kernel["acs_unknown"], serde_json::json!(["0000:02:00.0"]));
}

#[test]
fn damaged_and_foreign_files_are_failures_with_a_name_and_a_reason() {
    let folder = Folder::new();
    for (name, bytes, expected) in [
        ("empty", &b""[..], "lspci"),
        ("noise", b"\xff\xfe\x00hello\n", "lspci"),
        ("gz", b"\x1f\x8b\x08\x00broken", "damaged"),
        ("xz", b"\xfd7zXZ\x00aaaa", "xz"),
        ("json", b"{\"kind\":\"peerdma-capture\",\"schema\":7}", "schema 7"),
        ("platform.toml", b"schema = 1\nwrong = 2\n", "platform.toml:2"),
    ] {
        fs::write(folder.path().join(name), bytes).unwrap();
        let output = peerdma(&["matrix", "--from", &folder.join(name)]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(4), "{name}: {errors}");
        assert!(errors.contains(expected) && errors.contains(name), "{name}: {errors}");
    }
    let missing = peerdma(&["topo", "--from", &folder.join("nothing")]);
    assert_eq!(missing.status.code(), Some(4));
    assert_eq!(peerdma(&["topo", "--platform", "nothing"]).status.code(), Some(2));
}

#[test]
fn a_link_in_a_strangers_copy_does_not_lead_out_of_it() {
    let folder = Folder::new();
    let (root, outside) = (folder.path().join("host"), folder.path().join("outside"));
    write_tree(&root, As::Root);
    let config = root.join("sys/devices/pci0000:00/0000:00:02.0/0000:05:00.0/config");
    fs::rename(&config, &outside).unwrap();
    std::os::unix::fs::symlink(&outside, &config).unwrap();
    let document = json_of(&["topo", "--json", "--from", &folder.join("host")], 0);
    let functions = document["functions"].as_array().unwrap();
    let gpu = functions.iter().find(|function| function["address"] == "0000:05:00.0").unwrap();
    assert_eq!((&gpu["ids"], &gpu["acs"]["state"]), (&serde_json::json!([]), &serde_json::json!("unknown")));
}

#[test]
fn a_function_without_its_link_on_the_bus_is_read_where_it_is() {
    let folder = Folder::new();
    write_tree(folder.path(), As::Root);
    let whole = pairs(&folder.join(""), &[]);
    fs::remove_file(folder.path().join("sys/bus/pci/devices/0000:02:00.0")).unwrap();
    assert_eq!(pairs(&folder.join(""), &[]), whole);
    fs::remove_dir_all(folder.path().join("sys/bus")).unwrap();
    assert_eq!(pairs(&folder.join(""), &[]), whole);
}

#[test]
fn what_cannot_become_a_capture_is_refused_by_what_it_is() {
    let folder = Folder::new();
    write_tree(folder.path(), As::Root);
    let (capture, text) = (folder.join("capture"), folder.join("text"));
    stdout_of(&["capture", "-o", &capture, "--sysfs-root", &folder.join("")], 0);
    fs::write(&text, hex_dump()).unwrap();
    for (from, said) in [(&capture, "is a capture already"), (&text, "is no copy of sysfs")] {
        let output = peerdma(&["capture", "-o", &folder.join("new"), "--from", from]);
        assert_eq!(output.status.code(), Some(4));
        assert!(String::from_utf8_lossy(&output.stderr).contains(said), "{said}");
    }
}

#[test]
fn all_pairs_stream_in_memory_that_does_not_grow_with_them() {
    let folder = Folder::new();
    // On one root bus, so that every pair has a reason: 300 functions, 90,000 pairs.
    let text: String =
        (0..300).map(|n| format!("{:02x}:{:02x}.{:x} 0200: 15b3:1021\n", n / 256, n % 256 / 8, n % 8)).collect();
    fs::write(folder.path().join("dump"), text).unwrap();
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_peerdma"))
        .args(["matrix", "--all", "--json", "--from", &folder.join("dump")])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let peak = format!("/proc/{}/status", child.id());
    let (mut written, mut most) = (0u64, 0u64);
    let mut out = child.stdout.take().unwrap();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = std::io::Read::read(&mut out, &mut buffer).unwrap() as u64;
        if read == 0 {
            break;
        }
        written += read;
        let status = fs::read_to_string(&peak).unwrap_or_default();
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        most = most.max(kib.unwrap_or(0) << 10);
    }
    assert!(child.wait().unwrap().success());
    assert!(most > 0, "the program's memory was seen");
    assert!(written > 32 << 20, "{written} bytes");
    assert!(most < written / 2, "{most} bytes of memory for {written} bytes of pairs");
}
