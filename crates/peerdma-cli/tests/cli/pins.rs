//! `peerdma pins`: who holds what, read from a procfs that the test wrote, and from this machine's.

use crate::machine::{Folder, json_of, peerdma, stdout_of};
use serde_json::json;
use std::fs;

/// A process in the lines that matter.
fn process(folder: &Folder, pid: u32, uid: u32, (locked, pinned): (u64, u64), limit: &str) {
    let path = folder.path().join(pid.to_string());
    fs::create_dir_all(path.join("fd")).unwrap();
    let status = format!(
        "Name:\tworker\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\nVmLck:\t{locked} kB\nVmPin:\t{pinned} kB\nCapEff:\t0\n"
    );
    fs::write(path.join("status"), status).unwrap();
    fs::write(path.join("limits"), format!("Max locked memory         {limit}   {limit}   bytes\n")).unwrap();
}

fn proc() -> Folder {
    let folder = Folder::new();
    process(&folder, 10, 1000, (0, 6144), "8388608");
    process(&folder, 11, 1000, (512, 0), "8388608");
    process(&folder, 12, 0, (0, 0), "unlimited");
    std::os::unix::fs::symlink("anon_inode:[io_uring]", folder.path().join("10/fd/3")).unwrap();
    fs::create_dir_all(folder.path().join("10/fdinfo")).unwrap();
    fs::write(folder.path().join("10/fdinfo/3"), "UserBufs:\t1\n    0: 0x7f0000000000/6291456\n").unwrap();
    folder
}

#[test]
fn holders_are_listed_with_limit_and_share_and_their_users_are_summed() {
    let folder = proc();
    let text = stdout_of(&["pins", "--proc", &folder.join("")], 0);
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[1], ["10", "1000", "worker", "-", "6", "MiB", "1", "(6", "MiB)", "8", "MiB", "75.0", "%"]);
    assert_eq!(rows[2], ["11", "1000", "worker", "512", "KiB", "-", "-", "8", "MiB", "6.2", "%"]);
    assert_eq!(rows[5], ["1000", "2", "512", "KiB", "6", "MiB", "about", "6", "MiB", "8", "MiB", "75.0", "%"]);
    assert_eq!(rows.len(), 6, "who holds nothing is not listed: {text}");
}

#[test]
fn json_says_the_same_in_bytes() {
    let folder = proc();
    let document = json_of(&["pins", "--json", "--all", "--proc", &folder.join("")], 0);
    assert_eq!(document["complete"], true);
    assert_eq!(document["processes"].as_array().unwrap().len(), 3);
    let first = &document["processes"][0];
    assert_eq!((&first["pid"], &first["pinned"], &first["share"]), (&json!(10), &json!(6 << 20), &json!(0.75)));
    assert_eq!(first["registered"], json!({"rings": 1, "buffers": 1, "bytes": 6 << 20}));
    assert_eq!(document["processes"][2]["limit"], json!({"soft": null, "hard": null}));
    assert_eq!(document["users"][1]["counted"], 6 << 20);
    let document = json_of(&["pins", "--json", "--user", "0", "--all", "--proc", &folder.join("")], 0);
    assert_eq!(document["processes"].as_array().unwrap().len(), 1);
    assert_eq!(json_of(&["pins", "--schema"], 0)["title"], "PinsDocument");
}

#[test]
fn what_could_not_be_read_ends_with_unknown_and_says_so() {
    let folder = proc();
    fs::create_dir_all(folder.path().join("13")).unwrap();
    fs::write(folder.path().join("13/status"), "Name:\tcut").unwrap();
    let output = peerdma(&["pins", "--proc", &folder.join("")]);
    assert_eq!(output.status.code(), Some(3));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("1 processes may not be read") && said.contains("lower bounds"), "{said}");
    let output = peerdma(&["pins", "--proc", &folder.join("nowhere")]);
    assert_eq!(output.status.code(), Some(4));
}

#[test]
fn this_machine_is_told_of() {
    let output = peerdma(&["pins", "--all", "--json"]);
    // 3 where /proc hides others.
    assert!(matches!(output.status.code(), Some(0 | 3)), "{output:?}");
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let own = u64::from(std::process::id());
    assert!(document["processes"].as_array().unwrap().iter().any(|process| process["pid"] == own));
}
