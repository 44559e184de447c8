//! The proximity words that GPU tools print, for people who compare.
//!
//! They tell distance, not permission, and their use differs by vendor; here: PIX at
//! most one bridge in common and nothing further, PXB several bridges but no host
//! bridge, PHB one host bridge, NODE host bridges of one NUMA node, SYS across nodes.

use peerdma::route::kernel_view::{Common, Decision, KernelView};

/// The word for a pair; `None` where the way between them is not known.
pub(crate) fn word(view: &KernelView<'_>, decision: &Decision) -> Option<&'static str> {
    if decision.provider == decision.client {
        return Some("X");
    }
    match decision.common {
        // Two functions right below one port are two hops apart, below one switch four.
        Common::At(_) if decision.distance <= 4 => Some("PIX"),
        Common::At(_) => Some("PXB"),
        Common::AtOrBelow(_) | Common::Unknown => None,
        Common::Nowhere => {
            let host = |function| view.host_bridge_above(function);
            let (a, b) = (host(decision.provider)?, host(decision.client)?);
            if a == b {
                return Some("PHB");
            }
            let node = |function| view.topology().function(function).info().numa_node;
            Some(if node(decision.provider)? == node(decision.client)? { "NODE" } else { "SYS" })
        }
    }
}
