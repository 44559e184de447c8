//! What happened to requests, in words.

use super::Booted;
use crate::document::HopDocument;
use peerdma_emu::fabric::{Egress, Ending, HostId, NodeId, Site};
use peerdma_emu::machine::{Event, Happened};
use peerdma_emu::wire::{AddressType, Head, Kind};
use std::collections::BTreeMap;

/// The events of one function's requests, by request.
pub(crate) fn of_function(events: &[Event], from: NodeId) -> BTreeMap<u64, Vec<Event>> {
    let sent = |event: &&Event| matches!(event.what, Happened::Sent { from: Some(node), .. } if node == from);
    let mut requests: BTreeMap<u64, Vec<Event>> =
        events.iter().filter(sent).map(|event| (event.request, Vec::new())).collect();
    for event in events {
        if let Some(request) = requests.get_mut(&event.request) {
            request.push(*event);
        }
    }
    requests
}

/// What happened to one request.
pub(crate) fn hops(booted: &Booted, events: &[Event]) -> Vec<HopDocument> {
    let mut before = None;
    events.iter().map(|event| hop(booted, event.what, &mut before)).collect()
}

fn hop(booted: &Booted, what: Happened, before: &mut Option<Head>) -> HopDocument {
    let (word, node, head, text) = match what {
        Happened::Sent { from, head } => {
            let from_words = from.map_or_else(|| "the processor".to_string(), |node| booted.called(node));
            let at = match head.at {
                AddressType::Untranslated => "",
                AddressType::TranslationRequest => ", asking for a translation",
                AddressType::Translated => ", translated",
            };
            let pasid = head.requester.pasid.map_or_else(String::new, |pasid| format!(", {pasid}"));
            let kind = match head.kind {
                Kind::Write => "a write",
                Kind::Read => "a read",
                Kind::Atomic => "an AtomicOp",
                Kind::PageRequest => "a page request",
            };
            let to = match head.kind {
                Kind::Write | Kind::Read | Kind::Atomic => format!("of {} to {}", head.len, head.address),
                Kind::PageRequest => format!("for {}", head.address),
            };
            ("sent", from, Some(head), format!("{from_words} sends {kind} {to}{at}{pasid}"))
        }
        Happened::Went { egress, head } => {
            let mut text = goes(booted, egress);
            if let Some(before) = before.as_ref() {
                if before.address != head.address {
                    let from = before.address;
                    text.push_str(&format!("; its address is {} now, {from} before", head.address));
                }
                if before.requester.id != head.requester.id {
                    text.push_str(&format!("; its requester is {} now", head.requester.id));
                }
            }
            ("went", node_of(egress), Some(head), text)
        }
        Happened::Overtook { other } => ("overtook", None, None, format!("passes request {other}, sent before it")),
        Happened::AtFunction { node, bar, offset } => {
            let text = format!("arrives at {}, bar{bar}+{:#x}", booted.called(node), offset.as_u64());
            ("at_function", Some(node), None, text)
        }
        Happened::InMemory { at } => ("in_memory", None, None, format!("arrives in memory at {at}")),
        Happened::Interrupted { host } => {
            ("interrupt", None, None, format!("{} takes it as an interrupt", host_name(booted, host)))
        }
        Happened::Translated { host } => {
            ("translated", None, None, format!("the IOMMU of {} answers it", host_name(booted, host)))
        }
        Happened::AllOnes { host } => {
            let text = format!("{} makes up an answer of all ones", host_name(booted, host));
            ("all_ones", None, None, text)
        }
        Happened::Ended(ending) => ("ended", ending.node(), None, format!("ends {}", end_words(booted, ending))),
        Happened::PageRequested { host } => {
            ("page_requested", None, None, format!("the IOMMU of {} has it", host_name(booted, host)))
        }
        Happened::ResponseWent(egress) => ("response_went", node_of(egress), None, goes(booted, egress)),
        Happened::Responded { node, group } => {
            ("responded", Some(node), None, format!("{} has the response to its group {group}", booted.called(node)))
        }
        Happened::CompletionWent(egress) => {
            ("completion_went", node_of(egress), None, format!("its completion {}", goes(booted, egress)))
        }
        Happened::CompletionEnded(ending) => {
            let text = format!("its completion ends {}", end_words(booted, ending));
            ("completion_ended", ending.node(), None, text)
        }
        Happened::Answered => ("answered", None, None, "the requester has its answer".to_string()),
        Happened::Failed(failure) => ("failed", None, None, format!("the requester is told: {failure}")),
        Happened::Struck(fault) => ("other", None, None, format!("the fault {fault} strikes it")),
        _ => ("other", None, None, "something else happens to it".to_string()),
    };
    *before = head.or(*before);
    let function = node.map(|node| booted.machine().fabric().tree().node(node).address.to_string());
    HopDocument {
        what: word,
        function,
        address: head.map(|head| head.address.to_string()),
        requester: head.map(|head| head.requester.id.to_string()),
        text,
    }
}

fn goes(booted: &Booted, egress: Egress) -> String {
    match egress {
        Egress::Up(node) => format!("goes up from {}", booted.called(node)),
        Egress::Down(node) => format!("goes down from {}", booted.called(node)),
        Egress::Into(node) => format!("goes inside the device to {}", booted.called(node)),
        Egress::Memory(host) => format!("goes through {} into memory", host_name(booted, host)),
    }
}

fn node_of(egress: Egress) -> Option<NodeId> {
    match egress {
        Egress::Up(node) | Egress::Down(node) | Egress::Into(node) => Some(node),
        Egress::Memory(_) => None,
    }
}

fn host_name(booted: &Booted, host: HostId) -> String {
    let hosts = booted.platform.host_bridges();
    let name = hosts.get(host.index()).map_or("", |host| host.name.as_str());
    format!("the root complex of {name}")
}

fn end_words(booted: &Booted, ending: Ending) -> String {
    let name = match ending.site() {
        Site::Node(node) => booted.called(node),
        Site::Host(host) => host_name(booted, host),
    };
    format!("at {name}: {ending}")
}
