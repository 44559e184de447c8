//! BARs that are out of reach or too small: ROCm/ROCR-Runtime#355,
//! tinygrad/open-gpu-kernel-modules#16.

use crate::case::{Case, assert_says, reasons};
use serde_json::json;

/// The generation before on such boards, which Linux lists: it stands for the reporter's
/// kernel, patched not to refuse.
fn mapped() -> Case {
    Case::read("broadwell-e.toml").with("first_device = \"8086:6f00\"", "first_device = \"8086:2f00\"")
}

#[test]
fn a_bar_above_the_peers_dma_mask_is_refused_by_name() {
    let case = mapped();
    let pair = case.pair("gpu-a", "gpu-b", 1);
    assert_eq!(pair["kernel"]["map_type"], "THRU_HOST_BRIDGE");
    assert_eq!((&pair["verdict"], &pair["address"]), (&json!("refused"), &json!("none")));
    let width = reasons(&pair, "address_width");
    assert_eq!(width.len(), 1, "{pair}");
    assert_eq!(width[0]["object"], "0000:03:00.0");
    assert_says(width[0]["evidence"].as_str().unwrap(), &["44 bits", "0000:07:00.0 bar0", "46 bits"]);
    let text = case.explained("gpu-a", "gpu-b", 1);
    assert_says(&text, &["the initiator cannot form the address", "0x380", "address_width"]);
}

#[test]
fn the_same_bar_below_the_mask_is_reached() {
    let case = mapped()
        .with("cpu = 0x3800_0000_0000, bus = 0x3800_0000_0000", "cpu = 0x0f00_0000_0000, bus = 0x0f00_0000_0000");
    let pair = case.pair("gpu-a", "gpu-b", 0);
    assert_eq!((&pair["verdict"], &pair["address"]), (&json!("host_bridge"), &json!("cpu_physical")));
    assert_eq!((&pair["read"], &pair["write"]), (&json!("permitted"), &json!("permitted")));
}

/// What the reporter did: a driver with a wider mask.
#[test]
fn a_wider_mask_reaches_the_bar_where_it_is() {
    let pair = mapped().without_masks().pair("gpu-a", "gpu-b", 0);
    assert_eq!(pair["verdict"], "host_bridge");
}

/// The fix that needs no other driver: the IOMMU's addresses fit any mask.
#[test]
fn an_iommu_that_translates_reaches_it_whatever_the_mask() {
    let pair = mapped().with("mode = \"identity\"", "mode = \"translated\"").pair("gpu-a", "gpu-b", 0);
    assert_eq!((&pair["verdict"], &pair["address"]), (&json!("host_bridge"), &json!("iova")));
}

#[test]
fn doctor_finds_a_bar1_of_256_mib_before_24_gib_of_memory() {
    let case = Case::read("small-bar1.toml");
    let text = case.text(&["doctor", "gpu0", "gpu1"], 1);
    let line = text.lines().find(|line| line.starts_with("FAIL") && line.contains("256 MiB"));
    assert_says(line.unwrap_or(&text), &["24 GiB"]);
}
