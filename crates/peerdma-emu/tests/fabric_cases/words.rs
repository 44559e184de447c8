//! What became of a TLP, in the words of the data file.

use crate::wiring::{Names, Wiring};
use peerdma::access::Access;
use peerdma_emu::fabric::{Above, Egress, Ending, Fabric, NodeId};
use peerdma_emu::wire::{AddressType, Failure, Head, Kind};

/// Where a request came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    Function(NodeId),
    Memory,
    Interrupt,
    Translation,
    AllOnes,
    Ended(Ending),
}

/// The way of a request: each egress with the head that went through it, and the end.
#[derive(Clone, Debug)]
pub(crate) struct Trail {
    pub(crate) hops: Vec<(Egress, Head)>,
    pub(crate) end: End,
}

impl Trail {
    pub(crate) fn text(&self, wiring: &Wiring) -> String {
        let Wiring { fabric, names, .. } = wiring;
        let ended = match self.end {
            End::Ended(ending) => Some(ending),
            _ => None,
        };
        let egresses: Vec<Egress> = self.hops.iter().map(|(egress, _)| *egress).collect();
        let in_root = enters_root(fabric, &egresses, ended);
        let end = match self.end {
            End::Function(node) if in_root.is_none() => format!("DIRECT({})", names.of(node)),
            End::Function(node) => names.of(node).into(),
            End::Memory => "RAM".into(),
            End::Interrupt => "INTERRUPT".into(),
            End::Translation => "TRANSLATION".into(),
            End::AllOnes => "ONES".into(),
            End::Ended(ending) => ending_text(names, ending),
        };
        match in_root.map(|hop| self.translated(fabric, hop)) {
            None => end,
            Some(None) => format!("RC > {end}"),
            Some(Some(to)) => format!("RC > XLATE({to:#x}) > {end}"),
        }
    }

    /// What the IOMMU made of the address, if it was asked; `entry` is the hop into the root complex.
    fn translated(&self, fabric: &Fabric, entry: usize) -> Option<u64> {
        let (iommu, head) = (fabric.root().iommu()?, self.hops[entry].1);
        let asked = head.at == AddressType::Untranslated
            && !matches!(self.end, End::Interrupt | End::Translation | End::Ended(Ending::Fault(..)));
        let from_windows = |bus: u64| {
            let host = fabric.root().host(fabric.root().hosts().next()?);
            let inside = |window: &peerdma_emu::fabric::HostWindow| bus.wrapping_sub(window.bus.start().as_u64());
            let window = host.windows.iter().find(|window| inside(window) < window.bus.len().as_u64())?;
            Some(window.cpu.start().as_u64() + inside(window))
        };
        match self.hops.get(entry + 1) {
            _ if !asked => None,
            Some((Egress::Memory(_), onward)) => Some(onward.address.as_u64()),
            Some((_, onward)) => from_windows(onward.address.as_u64()),
            // What ends in the root complex shows no address, so the IOMMU is asked once more.
            None => {
                let access = if head.kind == Kind::Write { Access::Write } else { Access::Read };
                Some(iommu.translate(&head.requester, head.address, access).unwrap().to.as_u64())
            }
        }
    }
}

/// The hop that brought a TLP into the root complex: up the link of a root port that did not end it
/// itself.
fn enters_root(fabric: &Fabric, hops: &[Egress], ended: Option<Ending>) -> Option<usize> {
    let tree = fabric.tree();
    let up_to_root_port = |egress: &Egress| match *egress {
        Egress::Up(node) => match tree.node(node).above {
            Above::Port(port) if matches!(tree.node(port).above, Above::Root(_)) => Some(port),
            _ => None,
        },
        _ => None,
    };
    let (hop, port) = hops.iter().enumerate().find_map(|(hop, egress)| Some((hop, up_to_root_port(egress)?)))?;
    let stopped = hop + 1 == hops.len() && ended.and_then(Ending::node) == Some(port);
    (!stopped).then_some(hop)
}

/// The file's word for an ending, and where it is; the fabric's own words where the file has none.
fn ending_text(names: &Names, ending: Ending) -> String {
    let word = match ending {
        Ending::Violation(_) => "ACSV",
        Ending::Unsupported(_) => "UR",
        Ending::EgressBlocked(_) => "EGB",
        Ending::Malformed(_) => "MALF",
        Ending::Undefined(_) | Ending::UndefinedRoot(_) => "UNDEF",
        Ending::Fault(..) => "FAULT",
        Ending::NotForwarded(_) | Ending::Nowhere(_) => "DROPPED",
        Ending::Unexpected(_) => "UNEXPECTED",
        other => &other.to_string(),
    };
    ending.node().map_or_else(|| word.into(), |node| format!("{word}@{}", names.of(node)))
}

/// A completion's way: `end` is the function that it came to, or how it was lost.
pub(crate) fn completion_text(wiring: &Wiring, hops: &[Egress], end: Result<NodeId, Ending>) -> String {
    let through_root = enters_root(&wiring.fabric, hops, end.err()).is_some();
    match (end, through_root) {
        (Ok(node), false) => format!("DIRECT({})", wiring.names.of(node)),
        (Ok(node), true) => format!("RC > {}", wiring.names.of(node)),
        (Err(ending), false) => ending_text(&wiring.names, ending),
        (Err(ending), true) => format!("RC > {}", ending_text(&wiring.names, ending)),
    }
}

/// What a requester is told.
pub(crate) fn failure_text(failure: Failure) -> &'static str {
    match failure {
        Failure::UnsupportedRequest => "UR",
        Failure::CompleterAbort => "CA",
        Failure::Timeout => "CTO",
        Failure::Poisoned => "poison",
        Failure::NotSent => "NOT-ISSUED",
    }
}

/// Whether one of the expected texts is this one, or how it begins. `@switch` stands for any port
/// of the switch below RP0.
pub(crate) fn is_among(text: &str, expected: &[String]) -> bool {
    expected.iter().any(|expected| match expected.strip_suffix("@switch") {
        Some(word) => ["USP", "DSP0", "DSP1", "DSP2"].iter().any(|port| text == format!("{word}@{port}")),
        None => text == expected || text.strip_prefix(expected.as_str()).is_some_and(|rest| rest.starts_with(" > ")),
    })
}
