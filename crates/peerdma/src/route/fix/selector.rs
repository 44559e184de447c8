//! Functions as the kernel's parameters name them.

use crate::topology::{FunctionId, Parent, Topology};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write as _;

/// The path from the root bus down to `function`, `dddd:bb:dd.f/dd.f/…`, as Linux's
/// `pci_dev_str_match_path` reads it.
///
/// It names the slot and not bus numbers, which change when cards come and go. `None`
/// where the way up is not known to the end.
pub fn selector(topology: &Topology, function: FunctionId) -> Option<String> {
    let mut steps = Vec::new();
    let mut at = function;
    loop {
        steps.push(topology.function(at).address());
        match topology.upstream(at) {
            Parent::Bridge(bridge) => at = bridge,
            Parent::Root(_) => break,
            Parent::Unknown { .. } => return None,
        }
    }
    let mut text = format!("{}", steps.pop()?);
    for step in steps.iter().rev() {
        let _ = write!(text, "/{:02x}.{:x}", step.devfn().device(), step.devfn().function());
    }
    Some(text)
}
