//! `demo`: everything that it claims was seen, twice the same, and what it needs is named.

use crate::machine::{json_of, peerdma, stdout_of};

#[test]
fn everything_arrives_and_what_is_prevented_happens_when_it_is_asked_for() {
    let demo = json_of(&["demo", "--show-unsafe", "--json"], 0);
    assert_eq!((&demo["verified"], &demo["missing"]), (&true.into(), &serde_json::json!([])));
    let transfers = demo["transfers"].as_array().unwrap();
    assert!(transfers.iter().all(|transfer| transfer["verified"] == true && transfer["bytes"] == 16 << 20));
    let routes: Vec<_> = transfers
        .iter()
        .map(|transfer| (transfer["route"].as_str().unwrap(), transfer["address_kind"].as_str().unwrap()))
        .collect();
    assert_eq!(routes, [&[("direct", "bus"); 6][..], &[("host_bridge", "iova"), ("memory", "iova")]].concat());
    assert_eq!(demo["mapping"]["outcome"], "planned");
    assert_eq!(demo["refused"]["verdict"], "refused");
    assert_eq!(demo["doorbell"]["by_peer"]["places"], serde_json::json!(["gpu0", "a1", "nic0"]));
    for happening in demo["wrong_kind"]["happening"].as_array().unwrap() {
        assert_eq!((&happening["reported_done"], &happening["arrived"]), (&true.into(), &false.into()));
    }
    let forced = &demo["forced_route"];
    assert!(forced["refused"].is_string());
    assert_eq!(forced["happening"]["ones"], forced["happening"]["bytes"]);
    assert_eq!(demo["overtaken"]["overtaken_with_advice"], 0);
    assert!(demo["overtaken"]["overtaken"].as_u64().unwrap() > 0);
    let life = &demo["buffer"];
    assert_eq!((&life["arrived"], &life["left_alone"], &life["batches"]), (&true.into(), &true.into(), &64.into()));
    let deeds: Vec<_> =
        life["disturbances"].as_array().unwrap().iter().map(|deed| deed["what"].as_str().unwrap()).collect();
    assert_eq!(deeds, ["move", "function-reset", "move", "move", "function-reset"]);
    for process in demo["processes"]["processes"].as_array().unwrap() {
        assert_eq!(process["sum"], process["expected"]);
        assert!(process["load_refused"].is_string() && process["store_refused"].is_string());
    }
}

#[test]
fn the_text_goes_from_the_matrix_to_the_table_and_shows_no_harm_unasked() {
    let text = stdout_of(&["demo", "--seed", "3"], 0);
    let headings = [
        "Who reaches whose memory",
        "Why one pair is refused",
        "A mixed list, mapped for nic0",
        "16 MiB from drive to GPU to NIC to GPU and back",
        "gpu0 has work for nic0",
        "Silent corruption 1",
        "Silent corruption 2",
        "A doorbell that overtakes its payload",
        "Two processes on one accelerator",
        "A buffer that nvme0 fills and nic0 empties",
        "All transfers",
    ];
    let places: Vec<_> = headings.iter().map(|heading| text.find(heading)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{text}");
    assert!(!text.contains("happening") && text.contains("--show-unsafe lets it happen"), "{text}");
    assert!(!text.contains("NOT "), "{text}");
}

#[test]
fn a_platform_without_the_cast_is_usage_and_told_what_it_lacks() {
    let output = peerdma(&["demo", "--platform", "client"]);
    assert_eq!(output.status.code(), Some(2));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("two GPUs"), "{errors}");
}

#[test]
fn the_schema_names_every_part() {
    let schema = json_of(&["demo", "--schema"], 0);
    for part in ["matrix", "mapping", "transfers", "doorbell", "wrong_kind", "forced_route", "overtaken", "processes"] {
        assert!(schema["properties"][part].is_object(), "{part}");
    }
}
