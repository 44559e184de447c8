//! `peerdma memlock PLAN`: the need, the answer, the lines, and plans that cannot be.

use crate::machine::{Folder, json_of, peerdma, stdout_of};
use serde_json::{Value, json};
use std::fs;

const MIB: u64 = 1 << 20;

/// The plan of docs/memlock.md, as it stands there.
fn documented() -> String {
    let document = include_str!("../../../../docs/memlock.md");
    let (_, rest) = document.split_once("```toml\n").unwrap();
    rest.split_once("```").unwrap().0.to_string()
}

fn told(plan: &str, more: &[&str], code: i32) -> Value {
    let folder = Folder::new();
    fs::write(folder.path().join("plan.toml"), plan).unwrap();
    let path = folder.join("plan.toml");
    json_of(&[&["memlock", &path, "--json"], more].concat(), code)
}

fn refused(plan: &str) -> String {
    let folder = Folder::new();
    fs::write(folder.path().join("plan.toml"), plan).unwrap();
    let output = peerdma(&["memlock", &folder.join("plan.toml")]);
    assert_eq!(output.status.code(), Some(4), "{plan}");
    String::from_utf8(output.stderr).unwrap()
}

/// A user of whom nobody has processes.
const NOBODY: [&str; 2] = ["--user", "4294967290"];

#[test]
fn the_documented_plan_needs_what_its_document_says() {
    // In a container nobody can tell what the user holds outside.
    let namespace = fs::read_link("/proc/self/ns/pid").unwrap();
    let all_is_seen = namespace.as_os_str() == "pid:[4026531836]";
    let (answer, code) = if all_is_seen { ("suffices", 0) } else { ("may_suffice", 3) };
    let document = told(&documented(), &["--limit", "64GiB", NOBODY[0], NOBODY[1]], code);
    assert_eq!(document["required"], json!(16_u64 << 30));
    assert_eq!(document["answer"], answer);
    let of = |backend: &str| {
        let rows = document["backends"].as_array().unwrap();
        rows.iter().find(|row| row["backend"] == backend).unwrap().clone()
    };
    // Twice through type 1; in one iommufd once; and rings for 64 KiB of queues.
    assert_eq!(of("type1")["charged"], json!(16_u64 << 30));
    assert_eq!(of("io_uring")["charged"], json!((64 << 10) + 7 * 4096));
    assert_eq!(of("udmabuf")["required_if_all"], 0);
    assert_eq!(of("mlock")["counter"], "mm->locked_vm");
}

/// It was compared with the limit of whoever asked.
#[test]
fn another_user_is_asked_for_by_his_own_limit() {
    let folder = Folder::new();
    fs::write(folder.path().join("plan.toml"), documented()).unwrap();
    let output = peerdma(&["memlock", &folder.join("plan.toml"), NOBODY[0], NOBODY[1]]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("no process of user 4294967290 shows what limit") && said.contains("--limit"), "{said}");
}

/// The second overflowed, and a start that did was passed over.
#[test]
fn sizes_and_places_that_no_memory_has_are_refused() {
    let plan =
        |memory: &str| format!("[[memory]]\nname = \"a\"\n{memory}\n[[pin]]\nmemory = \"a\"\nthrough = \"mlock\"\n");
    for memory in [
        "size = \"18446744073709551615\"",
        "size = \"18446742974197923840\"",
        "size = \"4096\"\nbehind = \"18446744073709551615\"",
    ] {
        let said = refused(&plan(memory));
        assert!(said.contains("is no size that memory has beside the others"), "{memory}: {said}");
    }
}

#[test]
fn a_limit_that_does_not_suffice_is_refused_with_the_lines_that_set_it() {
    let plan = "[[memory]]\nname = \"a\"\nsize = \"9 MiB\"\n[[pin]]\nmemory = \"a\"\nthrough = \"mlock\"\n";
    let document = told(plan, &["--limit", "8MiB"], 1);
    assert_eq!((&document["answer"], &document["required"]), (&json!("lacks"), &json!(9 * MIB)));
    let lines: Vec<&str> =
        document["lines"].as_array().unwrap().iter().map(|line| line["line"].as_str().unwrap()).collect();
    assert_eq!(lines[..3], ["USER - memlock 9216", "LimitMEMLOCK=9437184", "--ulimit memlock=9437184:9437184"]);
    told(plan, &["--limit", "unlimited"], 0);
    told(plan, &["--limit", "9MiB"], 0);
    told(plan, &["--limit", "0"], 1);
    let folder = Folder::new();
    fs::write(folder.path().join("plan.toml"), plan).unwrap();
    let text = stdout_of(&["memlock", &folder.join("plan.toml"), "--limit", "8MiB"], 1);
    for words in ["RLIMIT_MEMLOCK of 9 MiB", "1 MiB lacks", "LimitMEMLOCK=9437184", "IPC_LOCK", "by mlock"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert_eq!(json_of(&["memlock", "--schema"], 0)["title"], "MemlockDocument");
}

#[test]
fn a_plan_that_cannot_be_is_refused_with_the_place() {
    let memory = "[[memory]]\nname = \"a\"\nsize = \"1 MiB\"\n";
    let pin = |rest: &str| format!("{memory}[[pin]]\nmemory = \"a\"\nthrough = \"rdma\"\n{rest}\n");
    for (plan, words) in [
        ("size = 1".to_string(), "line 1"),
        (format!("{memory}colour = \"red\""), "unknown field `colour`"),
        ("[[memory]]\nname = \"a\"\nsize = \"much\"".into(), "give a size such as"),
        ("[[memory]]\nname = \"a\"\nsize = 0".into(), "no size that memory has"),
        (format!("{memory}{memory}"), "two memories are called \"a\""),
        (format!("{memory}pages = 3000"), "give a power of two from 4 KiB on"),
        ("[[pin]]\nmemory = \"b\"\nthrough = \"rdma\"".into(), "pin 1: no memory is called \"b\""),
        (pin("").replace("rdma", "glue"), "there are mlock, type1, iommufd"),
        (pin("offset = \"1 MiB\""), "do not lie in \"a\" of 1 MiB"),
        (pin("size = \"2 MiB\""), "do not lie in \"a\" of 1 MiB"),
        (pin("times = 4294967295"), "can be added up"),
        (format!("{memory}[[ring]]\nname = \"r\"\nentries = 70000"), "ring of 70000 entries cannot be"),
    ] {
        let said = refused(&plan);
        assert!(said.contains(words), "{words}: {said}");
    }
    let output = peerdma(&["memlock", "/nowhere/plan.toml"]);
    assert_eq!(output.status.code(), Some(4));
    assert_eq!(peerdma(&["memlock"]).status.code(), Some(2));
    assert_eq!(peerdma(&["memlock", "x", "--limit", "some"]).status.code(), Some(2));
}

#[test]
fn an_empty_plan_needs_nothing() {
    let document = told("", &["--limit", "0"], 0);
    assert_eq!(document["required"], 0);
}
