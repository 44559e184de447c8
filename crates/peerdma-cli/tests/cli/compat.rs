//! Which exporter and importer get along, as `peerdma compat` says it.

use crate::machine::{json_of, peerdma, stdout_of};
use serde_json::json;

#[test]
fn a_pair_exits_with_its_outcome() {
    let asked =
        |pair: [&str; 2], kernel: &str, code: i32| stdout_of(&["compat", pair[0], pair[1], "--kernel", kernel], code);
    assert!(asked(["vfio-pci", "irdma"], "7.2", 0).contains("until revoked, and not beyond"));
    let refused = asked(["vfio-pci", "efa"], "7.2.13", 1);
    assert!(refused.contains("EOPNOTSUPP") && refused.contains("cannot let go"), "{refused}");
    assert!(asked(["udmabuf", "iommufd"], "7.2", 1).contains("VFIO alone"));
    assert!(asked(["uverbs", "efa"], "7.2", 3).contains("nobody has read this pair"));
    let moved = asked(["amdgpu", "net-devmem"], "7.2", 0);
    assert!(moved.contains("moved to system memory without a word"), "{moved}");
}

#[test]
fn of_another_kernel_compat_says_unknown_and_which_one_the_table_is_of() {
    for arguments in [vec!["compat"], vec!["compat", "udmabuf"]] {
        let text = stdout_of(&[arguments, vec!["--kernel", "6.12"]].concat(), 0);
        assert!(text.contains("unknown for Linux 6.12") && text.contains("--kernel 7.2"), "{text}");
        assert!(!text.contains("works"), "{text}");
    }
    let document = json_of(&["compat", "udmabuf", "efa", "--kernel", "7.3", "--json"], 3);
    assert_eq!((&document["holds"], &document["table"]), (&json!(false), &json!("7.2")));
    assert_eq!(document["pairs"][0]["outcome"], "unknown");
}

/// The platform's file names Linux 7.2; a file that names none is taken to run it, and that is said.
#[test]
fn the_kernel_is_the_input_s_unless_one_is_named() {
    let text = stdout_of(&["compat", "--platform", "two-socket"], 0);
    assert!(text.starts_with("Linux 7.2, by the table of 7.2"), "{text}");
    let document = json_of(&["compat", "--platform", "two-socket", "--json", "--kernel", "6.1"], 0);
    assert_eq!(document["kernel"], "6.1");
}

#[test]
fn the_listing_names_every_driver_and_every_pair() {
    let text = stdout_of(&["compat", "--kernel", "7.2"], 0);
    for words in ["exporters", "importers", "vfio-pci to", "io_uring-zcrx", "pinned, lets go once"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let document = json_of(&["compat", "--kernel", "7.2", "--json"], 0);
    let count = |key: &str| document[key].as_array().unwrap().len();
    assert_eq!(count("pairs"), count("exporters") * count("importers"));
    let vfio = json_of(&["compat", "vfio-pci", "--kernel", "7.2", "--json"], 0);
    let works: Vec<&str> = vfio["pairs"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|pair| pair["outcome"] == "works")
        .map(|pair| pair["importer"].as_str().unwrap())
        .collect();
    assert_eq!(works, ["irdma", "iommufd", "mlx5-mr", "gpu"]);
}

#[test]
fn a_driver_that_nobody_knows_is_usage_and_the_answer_lists_those_there_are() {
    for arguments in [["compat", "vfio", "efa"], ["compat", "vfio-pci", "mlx5"]] {
        let output = peerdma(&arguments);
        assert_eq!(output.status.code(), Some(2));
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains("udmabuf") || error.contains("mlx5-devx"), "{error}");
    }
    assert!(json_of(&["compat", "--schema"], 0)["properties"]["pairs"].is_object());
}
