//! One TLP, taken by hand from one place to the next.

use crate::data::{Case, Data, Tlp};
use crate::wiring::Wiring;
use crate::words::{End, Trail, completion_text, failure_text};
use peerdma::addr::Bytes;
use peerdma::pcie::PciAddr;
use peerdma_emu::fabric::{Arrival, Completion, CompletionArrival, Egress, Ending, Fabric, HostId, NodeId};
use peerdma_emu::wire::{AddressType, Attributes, Failure, Head, Kind, Requester};

/// What became of one TLP.
#[derive(Debug, Default)]
pub(crate) struct Became {
    pub(crate) outcome: String,
    pub(crate) completion: Option<String>,
    pub(crate) sees: Option<&'static str>,
    /// How many completions brought the data.
    pub(crate) completions: u64,
    /// In how many pieces it arrived.
    pub(crate) pieces: usize,
}

/// More hops than this are a circle.
const MOST_HOPS: usize = 64;

/// Sends a TLP of a case through a fabric.
pub(crate) fn send(data: &Data, case: &Case, sent: &Tlp) -> Became {
    let wiring = Wiring::new(data, case, sent, &[]);
    let fabric = &wiring.fabric;
    let from = wiring.node(&sent.from);
    let own = fabric.tree().node(from).address;
    if sent.what == "CplD" {
        let to = wiring.node(sent.to.as_deref().unwrap());
        let len = Bytes::new(sent.len());
        let completion = completion(fabric.tree().node(to).address, sent.relaxed, len);
        // The completer ID, which case 23 forges, is nothing that a port could look at here.
        let (hops, end) = bring(fabric, fabric.leave_completion(from, &completion), completion, own, to);
        return Became { outcome: completion_text(&wiring, &hops, end), ..Became::default() };
    }
    let id: PciAddr = sent.rid.as_deref().map_or(own, |rid| rid.parse().unwrap());
    let head = Head {
        kind: match sent.what.as_str() {
            "MWr" => Kind::Write,
            "MRd" => Kind::Read,
            _ if sent.is_atomic() => Kind::Atomic,
            other => panic!("no TLP {other}"),
        },
        requester: Requester::plain(id),
        at: match sent.at() {
            "00" => AddressType::Untranslated,
            "01" => AddressType::TranslationRequest,
            "10" => AddressType::Translated,
            other => panic!("no AT {other}"),
        },
        attributes: Attributes::default(),
        address: wiring.address(sent),
        len: Bytes::new(sent.len()),
    };
    let mut trails = Vec::new();
    follow(fabric, fabric.leave(from, head), &mut Vec::new(), &mut trails);
    assert!(trails.iter().all(|trail| trail.end == trails[0].end), "case {}: pieces part: {trails:?}", case.id);
    let mut became = Became { outcome: trails[0].text(&wiring), pieces: trails.len(), ..Became::default() };
    if !head.kind.is_posted() {
        answer(&wiring, sent, &head, &trails[0], from, &mut became);
    }
    became
}

/// Follows a request, and its pieces where it is cut.
fn follow(fabric: &Fabric, arrival: Arrival, hops: &mut Vec<(Egress, Head)>, trails: &mut Vec<Trail>) {
    assert!(hops.len() < MOST_HOPS, "a circle: {hops:?}");
    let end = match arrival {
        Arrival::Forward { egress, head, cut, .. } => {
            let piece = cut.map_or(head.len, |cut| cut.min(head.len)).as_u64();
            let starts = (0..head.len.as_u64()).step_by(piece as usize);
            for start in starts {
                let len = piece.min(head.len.as_u64() - start);
                let at = peerdma::addr::BusAddr::new(head.address.as_u64() + start);
                let piece = head.at(at, Bytes::new(len));
                hops.push((egress, piece));
                follow(fabric, fabric.arrive(egress, piece), hops, trails);
                hops.pop();
            }
            return;
        }
        Arrival::Function { node, .. } => End::Function(node),
        Arrival::Memory { .. } => End::Memory,
        Arrival::Interrupt { .. } => End::Interrupt,
        Arrival::Translation { .. } => End::Translation,
        Arrival::AllOnes { .. } => End::AllOnes,
        Arrival::PageRequest { .. } => unreachable!("no case asks for a page"),
        Arrival::End(ending) => End::Ended(ending),
    };
    trails.push(Trail { hops: hops.clone(), end });
}

fn completion(requester: PciAddr, relaxed: bool, len: Bytes) -> Completion {
    Completion { requester, relaxed, id_ordered: false, len }
}

/// Answers a non-posted request from where it came to.
fn answer(wiring: &Wiring, sent: &Tlp, head: &Head, trail: &Trail, from: NodeId, became: &mut Became) {
    let fabric = &wiring.fabric;
    let host = fabric.root().hosts().next().unwrap();
    let arrived = trail.hops.last().map_or(*head, |(_, head)| *head);
    let (at, told, len) = match trail.end {
        End::Function(node) => {
            let own = fabric.tree().config(node).max_payload().unwrap_or(head.len);
            (Some(node), "data", own.min(head.len))
        }
        End::Memory => (None, "data", Bytes::new(64).min(head.len)),
        End::AllOnes => (None, "ones", Bytes::new(64).min(head.len)),
        End::Translation | End::Interrupt => return,
        End::Ended(ending) if ending.seen() == Failure::Timeout => {
            became.sees = Some("CTO");
            return;
        }
        End::Ended(ending) => (ending.node(), failure_text(ending.seen()), Bytes::ZERO),
    };
    let completion = completion(arrived.requester.id, sent.relaxed, len);
    let first = match at {
        Some(node) => fabric.leave_completion(node, &completion),
        None => fabric.root_completion(host, &completion),
    };
    let (hops, end) = bring(fabric, first, completion, head.requester.id, from);
    if told == "data" {
        became.completion = Some(completion_text(wiring, &hops, end));
        became.completions = head.len.as_u64().div_ceil(len.as_u64());
    }
    became.sees = Some(if end.is_ok() { told } else { "CTO" });
}

/// Brings a completion to `to`, who alone waits for one. `asked` is whom a root complex asked for
/// in its own name.
fn bring(
    fabric: &Fabric,
    first: CompletionArrival,
    mut completion: Completion,
    asked: PciAddr,
    to: NodeId,
) -> (Vec<Egress>, Result<NodeId, Ending>) {
    let (mut arrival, mut hops) = (first, Vec::new());
    let end = loop {
        assert!(hops.len() < MOST_HOPS, "a circle: {hops:?}");
        match arrival {
            CompletionArrival::Forward(egress) => {
                hops.push(egress);
                arrival = fabric.arrive_completion(egress, &completion);
            }
            CompletionArrival::Function(node) if node == to => break Ok(node),
            CompletionArrival::Function(node) => break Err(Ending::Unexpected(node)),
            CompletionArrival::Root(host) if completion.requester != asked => {
                completion.requester = asked;
                arrival = fabric.root_completion(host, &completion);
            }
            CompletionArrival::Root(host) => break Err(lost(host)),
            CompletionArrival::End(ending) => break Err(ending),
        }
    };
    (hops, end)
}

/// A completion that a root complex never asked for.
fn lost(host: HostId) -> Ending {
    Ending::Nowhere(host)
}
