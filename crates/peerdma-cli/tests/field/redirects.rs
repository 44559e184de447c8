//! ACS bits that redirect and one that does not: leptonai/gpud#236, NVIDIA/nccl#606.

use crate::case::{Case, assert_says};
use serde_json::json;

/// Tools that look for `SrcValid+` call such a machine broken.
#[test]
fn source_validation_alone_is_harmless() {
    let case = Case::read("rocket-lake.toml").acs_everywhere(0x01);
    let pair = case.pair("gpu1", "gpu0", 0);
    assert_eq!((&pair["verdict"], &pair["address"]), (&json!("direct"), &json!("bus")));
    assert_eq!((&pair["read"], &pair["write"]), (&json!("permitted"), &json!("permitted")));
    assert_eq!(pair["kernel"]["acs_redirects"], json!([]));
    assert_says(&case.explained("gpu1", "gpu0", 0), &["SV+TB-RR-CR-", "no bit that redirects"]);
}
