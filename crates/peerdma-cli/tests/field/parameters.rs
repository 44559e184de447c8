//! Command lines that do less than they say: intel/compute-runtime#942, and a public README
//! of an eight-GPU server.

use crate::case::{Case, assert_says};
use serde_json::{Value, json};

/// The line of the first attempt in intel/compute-runtime#942. One address is mistyped:
/// 19:01.0 for 18:01.0.
const COMMAS: &str = "pci=disable_acs_redir=0000:0c:10.0,0000:0a:00.0,0000:19:01.0,0000:16:08.0,0000:0a:04.0";

/// The line of the second, which took: all ten ports, right. It is the file's.
pub(crate) const TEN_PORTS: &str = "pci=realloc=on pci=disable_acs_redir=0000:0a:00.0;0000:0a:04.0;0000:0c:10.0;\
    0000:0c:18.0;0000:16:00.0;0000:16:08.0;0000:0e:01.0;0000:12:01.0;0000:18:01.0;0000:1c:01.0";

/// The four GPUs booted with the first line: Linux sets the redirects of every port but the first.
fn booted_with_commas() -> Case {
    Case::read("four-gpus.toml").with(TEN_PORTS, COMMAS).acs_everywhere(0x1d).acs("0c:10.0", 0x00)
}

fn codes(document: &Value) -> Vec<&str> {
    document["findings"].as_array().unwrap().iter().map(|finding| finding["code"].as_str().unwrap()).collect()
}

#[test]
fn of_a_list_with_commas_only_the_first_port_counts() {
    let case = booted_with_commas();
    let document = case.json(&["lint-cmdline"], 1);
    assert!(codes(&document).contains(&"list_cut_by_comma"), "{document}");
    let finding =
        &document["findings"].as_array().unwrap().iter().find(|finding| finding["code"] == "list_cut_by_comma");
    assert_eq!(finding.unwrap()["fix"], COMMAS.replace(',', ";"));
    assert_says(&case.text(&["lint-cmdline"], 1), &["FINDING\tlist_cut_by_comma"]);
}

#[test]
fn with_the_commas_mended_the_mistyped_port_is_found() {
    let case = booted_with_commas();
    let document = case.json(&["lint-cmdline", &COMMAS.replace(',', ";")], 1);
    let findings = document["findings"].as_array().unwrap();
    let missed: Vec<_> = findings.iter().filter(|finding| finding["code"] == "matches_nothing").collect();
    assert_eq!(missed.len(), 1, "{document}");
    assert_says(&missed[0].to_string(), &["0000:19:01.0"]);
}

#[test]
fn route_shows_the_one_port_that_took_and_those_that_still_redirect() {
    let case = booted_with_commas();
    let pair = case.pair("gpu1", "gpu0", 0);
    let boot = pair["boot"].as_array().unwrap();
    assert_eq!(boot.len(), 1, "{pair}");
    assert_says(boot[0].as_str().unwrap(), &["0000:0c:10.0", "took"]);
    assert_eq!(pair["kernel"]["acs_redirects"], json!(["0000:0e:01.0", "0000:12:01.0", "0000:0c:18.0"]));
    assert_eq!((&pair["verdict"], &pair["address"]), (&json!("host_bridge"), &json!("iova")));
}

#[test]
fn of_ten_repeated_lists_the_last_one_counts() {
    let case = Case::read("ten-parameters.toml");
    let document = case.json(&["lint-cmdline"], 1);
    assert!(codes(&document).contains(&"repeated_list"), "{document}");
    assert_says(&document.to_string(), &["0000:b0:13.0"]);
}

/// What the README's author saw: the registers he named first were not cleared.
#[test]
fn route_shows_that_only_the_last_of_ten_ports_took() {
    let case = Case::read("ten-parameters.toml");
    let first = case.pair("gpu0", "gpu1", 0);
    assert_eq!((&first["boot"], &first["verdict"]), (&json!([]), &json!("host_bridge")));
    assert_eq!(first["kernel"]["acs_redirects"], json!(["0000:87:11.0", "0000:87:00.0"]));
    let last = case.pair("gpu4", "gpu5", 0);
    assert_says(&last["boot"].to_string(), &["0000:b0:13.0", "took"]);
    assert_eq!(last["boot"].as_array().unwrap().len(), 1);
    assert_eq!(last["kernel"]["acs_redirects"], json!(["0000:b0:11.0"]));
}

/// One list with all ten, which is what was meant.
#[test]
fn one_list_of_the_same_ports_has_no_finding_but_those_without_acs() {
    let case = Case::read("ten-parameters.toml");
    let ports = ["85:00.0", "87:00.0", "87:11.0", "87:13.0", "ae:00.0", "b0:00.0", "b0:11.0", "b0:13.0"];
    let ports: Vec<String> = ports.iter().map(|port| format!("0000:{port}")).collect();
    let line = format!("pci=disable_acs_redir={} intel_iommu=on iommu=pt", ports.join(";"));
    let document = case.json(&["lint-cmdline", &line], 0);
    assert!(
        document["findings"].as_array().unwrap().iter().all(|finding| finding["severity"] == "advice"),
        "{document}"
    );
    // The two upstream ports that the README names as well have no ACS to clear.
    let document = case.json(&["lint-cmdline", "pci=disable_acs_redir=0000:86:00.0"], 1);
    assert!(codes(&document).contains(&"no_acs"), "{document}");
}
