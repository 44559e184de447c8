//! `probe` as far as it goes without devices: what it refuses, and all of it in emulated machines. Real engines move
//! bytes in guests.

use crate::machine::{json_of, peerdma, stdout_of};
use serde_json::Value;

/// Both streams of a run with the wanted exit code.
fn said(arguments: &[&str], code: i32) -> String {
    let output = peerdma(arguments);
    let all = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{all}");
    all
}

/// The three columns of each row, after its direction.
fn rows(document: &Value) -> Vec<[String; 4]> {
    let word = |value: &Value| value.as_str().unwrap().to_string();
    let of = |row: &Value| {
        [&row["direction"], &row["permitted"], &row["granted"]["answer"], &row["verified"]["answer"]].map(word)
    };
    document["rows"].as_array().unwrap().iter().map(of).collect()
}

#[test]
fn what_cannot_be_meant_is_usage() {
    for (arguments, reason) in [
        (&["probe"][..], "<FROM>"),
        (&["probe", "0000:05:00.0"], "<TO"),
        (&["probe", "ffffffff:05:00.0", "ffffffff:06:00.0/bar2"], "ffffffff:05:00.0 is not among"),
        (&["probe", "gpu0", "gpu0/bar2", "--platform", "two-socket"], "needs two"),
        (&["probe", "nvme0", "nvme1", "--platform", "two-socket"], "memory behind another's BAR"),
        (&["probe", "nvme0", "ram", "--platform", "two-socket"], "memory behind another's BAR"),
        (&["probe", "nvme0", "gpu0", "--platform", "two-socket", "--write"], "--write"),
        (&["probe", "nvme0", "gpu0", "--size", "4KiB"], "--platform"),
        (&["probe", "nvme0", "gpu0", "--platform", "two-socket", "--size", "1000"], "whole blocks"),
    ] {
        let errors = said(arguments, 2);
        assert!(errors.contains(reason), "{arguments:?}: {errors}");
    }
}

#[test]
fn a_permitted_pair_is_permitted_granted_and_verified_in_both_directions() {
    let document = json_of(&["probe", "nvme0", "gpu0", "--platform", "two-socket", "--json"], 0);
    let row = |way: &str| [way, "permitted", "yes", "yes"].map(str::to_string);
    assert_eq!(rows(&document), [row("write"), row("read")]);
    assert_eq!(document["failures"].as_array().unwrap().len(), 0);
    let text = stdout_of(&["probe", "gpu0", "nvme2/bar2", "--platform", "two-socket", "--need", "read"], 0);
    assert!(text.contains("engine") && text.contains("every byte arrived") && !text.contains(" write "), "{text}");
}

#[test]
fn a_refused_pair_is_refused_by_the_rules_and_whoever_maps_and_by_force_it_stays_so() {
    let refused = ["probe", "nvme4", "gpu1", "--platform", "two-socket"];
    let document = json_of(&[&refused[..], &["--json"]].concat(), 1);
    for [way, permitted, granted, verified] in rows(&document) {
        assert_eq!([&*permitted, &*granted, &*verified], ["refused", "no", "unknown"], "{way}");
    }
    // The bytes are lost there, which weighs more.
    let text = said(&[&refused[..], &["--force"]].concat(), 4);
    assert!(text.contains("refused    no       no") && text.contains("does not ask"), "{text}");
}

#[test]
fn a_device_without_an_engine_leaves_the_answer_unknown_and_is_listed() {
    let document = json_of(&["probe", "nvme2/bar2", "gpu0", "--platform", "two-socket", "--json"], 3);
    let needs = document["absent"][0]["needs"][0].as_str().unwrap();
    assert!(needs.contains("no engine"), "{needs}");
    assert_eq!(document["rows"][0]["engine"], "none");
}

#[test]
fn the_schema_and_the_help_keep_the_three_statements_apart() {
    let schema = json_of(&["probe", "--schema"], 0);
    for word in ["pair", "rows", "absent", "failures"] {
        assert!(schema["required"].as_array().unwrap().contains(&word.into()), "{word}");
    }
    let help = stdout_of(&["probe", "--help"], 0);
    for word in
        ["permitted", "granted", "verified", "edu", "nvme", "verbs", "4 bytes did not arrive", "peerdma vfio bind"]
    {
        assert!(help.contains(word), "{word}: {help}");
    }
}
