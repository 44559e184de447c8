//! What all fuzz targets do with what they read: build the tree and decide.
//!
//! A target that only parses would miss the more interesting half: a file that
//! parses into a machine on which a decision panics, does not end, or contradicts
//! itself.

pub mod page_tables;
pub mod readers;
pub mod sharing;

use peerdma::pcie::Fact;
use peerdma::route::Gate;
use peerdma::route::kernel_view::{Common, Decision, KernelView, MapType};
use peerdma::topology::Topology;

/// Most functions that are paired; pairs grow with the square.
const PAIRED: usize = 16;

/// Panics on a marker where the build plants it, to prove that a finding is noticed.
///
/// The marker is `PLAN` and a byte that is not ASCII. Each byte has a branch of its
/// own, as a parser's keywords have; one comparison of all would be found by luck only.
pub fn planted(data: &[u8]) {
    if cfg!(feature = "planted") {
        for window in data.windows(5) {
            match window.iter().zip(b"PLAN").take_while(|(byte, wanted)| byte == wanted).count() {
                0 => {}
                1 => black_box("P"),
                2 => black_box("PL"),
                3 => black_box("PLA"),
                _ => assert!(window[4].is_ascii(), "the planted panic"),
            }
        }
    }
}

/// Keeps a branch that does nothing from being merged with its neighbours.
fn black_box(reached: &str) {
    std::hint::black_box(reached);
}

/// Decides every ordered pair of the first functions and holds the answers against each other.
pub fn decide_all(topology: &Topology) {
    let view = KernelView::new(topology);
    let _ = view.tables().label();
    for contradiction in topology.contradictions() {
        assert!(!contradiction.to_string().is_empty());
    }
    let ids: Vec<_> = topology.functions().map(|(id, _)| id).take(PAIRED).collect();
    for &id in &ids {
        let way_up = view.way_up(id).count();
        assert!(way_up <= topology.functions().len(), "a way up visits no function twice");
        assert!(!view.acs_evidence(id).is_empty());
    }
    for &provider in &ids {
        for &client in &ids {
            let decision = view.decide(provider, client);
            check(&view, &decision);
            let mirrored = view.decide(client, provider);
            assert_eq!(decision.map_type, mirrored.map_type, "the rule does not tell the two ends apart");
            assert_eq!(decision.distance, mirrored.distance, "a way is as long down as up");
        }
    }
}

/// What holds of every decision.
fn check(view: &KernelView<'_>, decision: &Decision) {
    if decision.provider == decision.client {
        assert_eq!(decision.distance, 0, "a function is no hop away from itself");
        assert_eq!(decision.common, Common::At(decision.provider));
    }
    let reasons = view.reasons(decision);
    let refused = matches!(decision.map_type, MapType::NotSupported | MapType::Unknown);
    assert!(!refused || !reasons.is_empty(), "whoever is refused is told why");
    if decision.configured_out {
        assert_eq!(decision.map_type, MapType::NotSupported);
        assert!(reasons.iter().all(|reason| reason.gate == Gate::KernelConfig));
        return;
    }
    if decision.map_type == MapType::BusAddr {
        assert!(matches!(decision.common, Common::At(_)), "what crosses below the root turns somewhere");
        assert!(decision.walked.iter().all(|walked| walked.redirects == Fact::Known(false)));
        assert!(decision.hidden_below.is_empty());
    }
    if decision.map_type == MapType::ThruHostBridge {
        assert!(decision.gate.as_ref().is_some_and(|gate| gate.opens == Fact::Known(true)), "somebody opened the gate");
    }
    for reason in &reasons {
        assert!(!reason.object.is_empty() && !reason.evidence.is_empty(), "a reason names what was looked at");
    }
}
