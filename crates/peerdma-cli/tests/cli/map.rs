//! `peerdma map`: plans of mappings.

use crate::commands::conforms;
use crate::machine::{As, Folder, hex_dump, json_of, peerdma, stdout_of, write_tree};
use serde_json::{Value, json};
use std::fs;

/// A plan for nic0 of the server with two sockets.
fn plan(arguments: &[&str], code: i32) -> Value {
    json_of(&[&["map", "--initiator", "nic0", "--platform", "two-socket", "--json"][..], arguments].concat(), code)
}

fn text(arguments: &[&str], code: i32) -> String {
    stdout_of(&[&["map", "--initiator", "nic0", "--platform", "two-socket"][..], arguments].concat(), code)
}

/// The first piece of a chunk.
fn piece(document: &Value, chunk: usize) -> &Value {
    &document["chunks"][chunk]["pieces"][0]
}

fn number(value: &Value) -> u64 {
    u64::from_str_radix(value.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
}

/// The code of what stands against the only chunk, or the list.
fn refusal(document: &Value) -> &str {
    let chunk = &document["chunks"][0]["refusal"]["code"];
    chunk.as_str().or(document["refusal"]["code"].as_str()).unwrap()
}

#[test]
fn one_list_holds_memory_a_switch_direct_bar_and_one_through_the_host_bridge() {
    let chunks = ["ram:0x100000000+2M", "gpu0/bar2+0,4MiB", "gpu1/bar2+0,4MiB", "nvme0/bar0+0x1000,4KiB:wo"];
    let document = plan(&chunks, 0);
    let of = |chunk: usize| {
        let (row, piece) = (&document["chunks"][chunk], piece(&document, chunk));
        let word = |value: &Value| value.as_str().unwrap().to_string();
        (word(&row["route"]), word(&piece["span"]["kind"]), word(&piece["span"]["behind"]))
    };
    let row = |route: &str, kind: &str, behind: &str| (route.to_string(), kind.to_string(), behind.to_string());
    assert_eq!(of(0), row("memory", "iova", "memory"));
    assert_eq!(of(1), row("direct", "bus", "mmio"));
    assert_eq!(of(2), row("host_bridge", "iova", "mmio"));
    assert_eq!(of(3), row("direct", "bus", "mmio"));
    assert_eq!(piece(&document, 0)["pages"], json!([{"size": 0x20_0000, "count": 1}]));
    assert_eq!(piece(&document, 2)["pages"], json!([{"size": 0x20_0000, "count": 2}]));
    assert_eq!(piece(&document, 1)["pages"], json!([]));
    // The bus address is the BAR's own, whatever the plan.
    assert_eq!(piece(&document, 1)["span"]["address"]["first"], "0x206000000000");
    assert_eq!(piece(&document, 3)["span"]["host_bridge"], "0000:10");
    assert_eq!((&document["chunks"][3]["access"], &document["segments"]), (&json!("w"), &json!(4)));
    assert_eq!(document["tables"]["format"], "vtd");
    assert_eq!((&document["tables"]["count"], &document["tables"]["bytes"]), (&json!(3), &json!(3 * 4096)));
    let iovas = number(&document["iovas"]["last"]) - number(&document["iovas"]["first"]) + 1;
    assert_eq!(iovas, 6 << 20, "bus addresses take none");
}

#[test]
fn without_translation_memory_is_where_the_windows_show_it_and_peers_keep_the_cpu_s_number() {
    let inbound = ["--iommu", "identity", "--inbound", "0x0=0x4000000000+2G"];
    let chunks = ["ram:0x1000+4K", "gpu1/bar0+0,4K"];
    // The mode of this platform is its own; the machine's option fills gaps only where there are some.
    let document = plan(&[&inbound[..], &chunks].concat(), 0);
    assert_eq!(document["initiator"]["iommu"], "identity");
    let address = |chunk| {
        (piece(&document, chunk)["span"]["kind"].clone(), piece(&document, chunk)["span"]["address"]["first"].clone())
    };
    assert_eq!(address(0), (json!("bus"), json!("0x4000001000")));
    assert_eq!(address(1).0, "cpu_physical");
    assert_eq!(document["tables"], Value::Null);
    let above = plan(&[&inbound[..], &["ram:0x100000000+4K"]].concat(), 1);
    assert_eq!(refusal(&above), "no_pool");
    assert!(
        above["chunks"][0]["refusal"]["what"].as_str().unwrap().contains("no window of the host bridge"),
        "{above}"
    );
}

#[test]
fn an_untrusted_device_sees_copies_of_granules_that_it_shares() {
    let chunk = ["ram:0x100000200+8K", "--untrusted"];
    let refused = plan(&chunk, 1);
    assert_eq!((refusal(&refused), &refused["outcome"]), ("no_pool", &json!("refused")));
    let bounced = plan(&[&chunk[..], &["--bounce-pool", "0x10000000+1M"]].concat(), 0);
    let pieces = bounced["chunks"][0]["pieces"].as_array().unwrap();
    let copies: Vec<_> = pieces.iter().map(|piece| piece["span"]["bounced"].as_bool().unwrap()).collect();
    assert_eq!(copies, [true, false, true]);
    assert_eq!(number(&bounced["iovas"]["last"]) - number(&bounced["iovas"]["first"]), 0x2fff, "whole granules");
    // One that is trusted sees the rest of the granules too.
    assert_eq!(plan(&["ram:0x100000200+8K"], 0)["chunks"][0]["pieces"].as_array().unwrap().len(), 1);
}

#[test]
fn a_mask_refuses_what_cannot_be_copied_and_leaves_iovas_below_it() {
    let direct = plan(&["gpu0/bar2+0,4K", "--mask-bits", "32"], 1);
    assert_eq!(refusal(&direct), "above_mask");
    let through = plan(&["gpu1/bar2+0,4K", "--mask-bits", "32"], 0);
    assert!(number(&piece(&through, 0)["span"]["address"]["last"]) <= 0xffff_ffff);
    let limited = plan(&["ram:0x200000000+4K", "--bus-limit", "0xffffff"], 0);
    assert!(number(&piece(&limited, 0)["span"]["address"]["last"]) <= 0xff_ffff);
}

#[test]
fn who_asked_for_no_copies_is_refused_where_one_would_be_needed() {
    let high = ["ram:0x200000000+1M", "--iommu", "none", "--mask-bits", "32"];
    assert_eq!(refusal(&plan(&[&high[..], &["--no-bounce"]].concat(), 1)), "no_bounce");
    let copied = plan(&[&high[..], &["--bounce-pool", "0x10000000+4M"]].concat(), 0);
    assert!(number(&piece(&copied, 0)["span"]["address"]["last"]) < 0x1040_0000, "{copied}");
    let forced = ["--iommu", "none", "--force-bounce", "--bounce-pool", "0x10000000+1M"];
    assert_eq!(piece(&plan(&[&forced[..], &["ram:0x1000+4K"]].concat(), 0), 0)["span"]["bounced"], true);
    assert_eq!(refusal(&plan(&[&forced[..], &["gpu1/bar0+0,4K"]].concat(), 1)), "mmio_never_bounces");
    let small = ["--iommu", "none", "--force-bounce", "--bounce-pool", "0x10000000+8K", "ram:0x1000+64K"];
    assert_eq!(refusal(&plan(&small, 1)), "pool_exhausted");
}

#[test]
fn private_memory_is_for_an_interface_in_run() {
    let refused = plan(&["private:0x100000000+2M"], 1);
    assert_eq!(refusal(&refused), "confidential");
    assert_eq!(refusal(&plan(&["private:0x100000000+2M", "--interface", "locked"], 1)), "confidential");
    plan(&["private:0x100000000+2M", "--interface", "run"], 0);
}

#[test]
fn a_device_that_is_no_function_is_unknown_until_somebody_states_its_route() {
    let chunk = "device:accel@0x90010000+4K";
    let unknown = plan(&[chunk], 3);
    assert_eq!((refusal(&unknown), &unknown["outcome"]), ("unstated", &json!("unknown")));
    assert!(text(&[chunk], 3).contains("device accel is no PCI function"));
    for (state, kind, first) in [
        ("accel=bus:0x5000", "bus", Some("0x5000")),
        ("accel=physical", "cpu_physical", Some("0x90010000")),
        ("accel=iova", "iova", None),
    ] {
        let document = plan(&[chunk, "device:accel@0x90020000+4K", "--state", state], 0);
        let span = &piece(&document, 0)["span"];
        assert_eq!(span["kind"], kind);
        assert!(first.is_none_or(|first| span["address"]["first"] == first), "{span}");
        if kind == "bus" {
            assert_eq!(piece(&document, 1)["span"]["address"]["first"], "0x15000");
        }
    }
}

#[test]
fn an_input_that_is_too_poor_gives_unknown_and_says_what_is_missing() {
    let folder = Folder::new();
    write_tree(folder.path(), As::User);
    let from = folder.join("");
    let arguments = ["map", "--initiator", "nvme0", "mlx5_0/bar0", "--from", &from, "--json"];
    let document = json_of(&arguments, 3);
    assert_eq!((refusal(&document), &document["initiator"]["iommu"]), ("iommu_mode", &Value::Null));
    let document = json_of(&[&arguments[..], &["--iommu", "translated"]].concat(), 3);
    let reasons = document["chunks"][0]["refusal"]["reasons"].as_array().unwrap();
    assert!(reasons.iter().any(|reason| reason["gate"] == "acs_unknown"), "{document}");
}

#[test]
fn one_refused_chunk_refuses_the_plan_and_the_others_are_shown() {
    let document = plan(&["nvme4", "ram:0x1000+4K"], 1);
    assert_eq!(
        (&document["chunks"][0]["outcome"], &document["chunks"][1]["outcome"]),
        (&json!("refused"), &json!("mapped"))
    );
    assert_eq!(document["outcome"], "refused");
    let text = text(&["nvme4", "ram:0x1000+4K"], 1);
    assert!(text.contains("[0] route: ") && text.contains("host_bridge 0000:00"), "{text}");
    assert!(text.contains("1x4K") && text.contains("its other chunks would get"), "{text}");
    let unaligned = plan(&["ram:0x1000+4K", "ram:0x3200+4K"], 1);
    assert_eq!(unaligned["chunks"][1]["refusal"]["code"], "unaligned");
}

#[test]
fn segments_are_cut_as_the_device_takes_them_and_too_many_are_refused() {
    let cut = plan(&["ram:0x100000000+1M", "--max-segment", "64K", "--spans"], 0);
    assert_eq!((&cut["segments"], cut["spans"].as_array().unwrap().len()), (&json!(16), 16));
    assert_eq!(cut["chunks"][0]["pieces"].as_array().unwrap().len(), 1);
    let bound = plan(&["ram:0x100000000+1M", "--boundary", "256K"], 0);
    assert_eq!((&bound["segments"], &bound["spans"]), (&json!(4), &Value::Null));
    let scattered = ["gpu0/bar0+0,4K", "gpu0/bar0+0x4000,4K", "ram:0x1000+4K"];
    plan(&[&scattered[..], &["--max-segments", "3"]].concat(), 0);
    let refused = plan(&[&scattered[..], &["--max-segments", "2"]].concat(), 1);
    assert_eq!((&refused["refusal"]["code"], &refused["segments"]), (&json!("too_many_segments"), &json!(3)));
}

#[test]
fn iovas_that_do_not_fit_below_the_mask_name_the_largest_gap() {
    let document = plan(&["ram:0x100000000+2M", "--mask-bits", "20"], 1);
    assert_eq!((refusal(&document), &document["chunks"][0]["outcome"]), ("no_iovas", &json!("not_placed")));
    assert!(document["refusal"]["what"].as_str().unwrap().contains("the largest gap"), "{document}");
}

#[test]
fn a_doorbell_that_goes_another_way_than_the_payload_waits_for_a_read() {
    let doorbell = ["--doorbell", "nvme0/bar0+0x1000,4K"];
    let document = plan(&[&["ram:0x100000000+4K"][..], &doorbell].concat(), 0);
    assert_eq!(document["ring"]["steps"][0]["step"], "flush_by_read");
    assert_eq!(document["chunks"][1]["access"], "w");
    // Nothing is published that the device only reads.
    assert_eq!(plan(&[&["ram:0x100000000+4K:ro"][..], &doorbell].concat(), 0)["ring"]["steps"], json!([]));
    assert_eq!(plan(&["nvme0/bar2+0,4K", "--doorbell", "nvme0/bar0+0x1000,4K"], 0)["ring"]["steps"], json!([]));
}

#[test]
fn the_format_is_that_of_the_machine_s_iommu_or_cpu_and_is_assumed_aloud_without_either() {
    let folder = Folder::new();
    let dump = folder.join("dump.txt");
    fs::write(&dump, hex_dump()).unwrap();
    let arguments =
        ["map", "--initiator", "03:00.0", "ram:0x1000+4K", "--from", &dump, "--iommu", "translated", "--json"];
    for (more, format, assumed) in [
        (&[][..], "vtd", true),
        (&["--cpu", "amd:0x19"][..], "amd-v1", false),
        (&["--cpu", "arm:0"][..], "arm-s1", false),
        (&["--cpu", "amd:0x19", "--format", "x86-first-stage"][..], "x86-first-stage", false),
        (&["--format", "arm-s2"][..], "arm-s2", false),
    ] {
        let document = json_of(&[&arguments[..], more].concat(), 0);
        assert_eq!((&document["tables"]["format"], &document["tables"]["assumed"]), (&json!(format), &json!(assumed)));
    }
    let arm = json_of(&["map", "--initiator", "gpu0", "ram:0x80000000000+2M", "--platform", "arm-slots", "--json"], 0);
    assert_eq!(arm["tables"]["format"], "arm-s1");
    // No format below has a bit against reading what may be written.
    let stage = plan(&["ram:0x1000+4K:wo", "--format", "x86-first-stage"], 0);
    assert_eq!((&piece(&stage, 0)["entry_access"], &stage["chunks"][0]["access"]), (&json!("rw"), &json!("w")));
}

#[test]
fn memory_that_the_map_does_not_know_is_planned_with_a_note() {
    let notes = |chunk| plan(&[chunk], 0)["source"]["notes"].to_string();
    assert_eq!(notes("ram:0x100000000+2M"), "[]");
    assert!(notes("ram:0x70000000000+4K").contains("no RAM at 0x70000000000"));
    assert!(notes("ram:0x206000001000+4K").contains("bar2 of 0000:13:00.0"));
}

#[test]
fn every_member_of_the_document_is_in_its_schema() {
    let schema = json_of(&["map", "--schema"], 0);
    let mixed = ["ram:0x100000200+8K", "gpu0", "gpu1/bar2+0,2M", "nvme4", "--spans", "--doorbell", "nvme0/bar0+0,4K"];
    conforms(&schema, &schema, &plan(&mixed, 1), "map");
    conforms(&schema, &schema, &plan(&["gpu1/bar2+0,2M", "--spans", "--doorbell", "nvme0/bar0+0,4K"], 0), "map");
}

#[test]
fn what_cannot_be_a_plan_is_usage() {
    for (wrong, why) in [
        (&["ram:0x1000"][..], "ADDRESS+LENGTH"),
        (&["ram:0xffffffffffffffff+1"][..], "2^64"),
        (&["gpu9"][..], "peerdma topo"),
        (&["gpu0/bar1"][..], "no memory BAR 1"),
        (&["gpu0/bar0+0,1G"][..], "do not lie in it"),
        (&["device:@0+1"][..], "device:NAME"),
        (&["ram:0x1000+4K", "--state", "accel=iova"][..], "no chunk does"),
        (&["ram:0x1000+4K", "--boundary", "5K"][..], "power of two"),
        (&["ram:0x1000+4K", "--mask-bits", "65"][..], "65"),
        (&["ram:0x1000+1T", "--max-segment", "1"][..], "more than"),
        (&["ram:0x1000+4K", "--bounce-pool", "0x1001+16"][..], "--bounce-pool"),
        (&["ram:0x1000+4K", "--inbound", "0=0+8K", "--inbound", "0x1000=0x100000+4K"][..], "overlaps"),
        (&["ram:0x1000+4K", "--no-bounce", "--bounce-pool", "0x100000+64K"][..], "cannot be used with"),
        (&[][..], "CHUNK"),
    ] {
        let output = peerdma(&[&["map", "--initiator", "nic0", "--platform", "two-socket"][..], wrong].concat());
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{wrong:?} {errors}");
        assert!(errors.contains(why), "{wrong:?} {errors}");
    }
}

#[test]
fn odd_chunks_never_panic() {
    for chunk in [
        "ram:0xffffffffffffe000+4K",
        "ram:0x0+0xffffffffffffffff",
        "ram:0xfffffffffffffffe+1",
        "private:0x0+0xffffffffffffffff",
        "device:a@0xfffffffffffff000+4095",
        "ram:0x1+1",
        "gpu0/bar2+0x1,1",
    ] {
        for more in [
            &[][..],
            &["--iommu", "none"],
            &["--untrusted", "--bounce-pool", "0x10000000+64K"],
            &["--format", "amd-v1"],
        ] {
            let arguments = [&["map", "--initiator", "nic0", "--platform", "two-socket", chunk][..], more].concat();
            let output = peerdma(&arguments);
            assert!(matches!(output.status.code(), Some(0 | 1 | 3)), "{arguments:?} {output:?}");
        }
    }
}
