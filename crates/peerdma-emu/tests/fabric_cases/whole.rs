//! The same TLPs in a whole machine, sent by devices, with bytes that arrive.

use crate::data::{Case, Data, Tlp};
use crate::hops::Became;
use crate::sender::{Order, Sender, Talk};
use crate::wiring::{Wiring, range};
use crate::words::{End, Trail, completion_text, failure_text};
use peerdma::addr::Bytes;
use peerdma_emu::device::How;
use peerdma_emu::fabric::{Egress, Ending, NodeId};
use peerdma_emu::machine::{Delivery, Event, Happened, Machine, Part, Stretch};
use peerdma_emu::memory::{Memory, Striped};
use peerdma_emu::wire::{AddressType, Atomic, Attributes, Failure, Head, Operand};
use std::sync::{Arc, Mutex};

/// Steps until everything has arrived; far more than any case takes.
const STEPS: u64 = 10_000;

/// A whole machine, and what talks to its devices.
pub(crate) struct Whole {
    pub(crate) wiring: Wiring,
    pub(crate) machine: Machine,
    pub(crate) talks: Vec<Arc<Mutex<Talk>>>,
    ram: Arc<Striped>,
    bars: Vec<Vec<(u8, Arc<Striped>)>>,
}

impl Whole {
    pub(crate) fn new(data: &Data, case: &Case, sent: &Tlp, also: &[(&str, &str)], seed: u64) -> Self {
        let wiring = Wiring::new(data, case, sent, also);
        let again = Wiring::new(data, case, sent, also);
        let (mut parts, mut talks, mut bars) = (Vec::new(), Vec::new(), Vec::new());
        for node in wiring.fabric.tree().ids() {
            let config = wiring.fabric.tree().config(node);
            let lens = config.bar_indices().filter_map(|index| Some((index, config.bar(index)?.len())));
            let sender = Sender::new(lens);
            talks.push(sender.talk.clone());
            bars.push(sender.bars.clone());
            let name = Some(wiring.names.of(node).to_string());
            parts.push(Part { name, device: Some(Box::new(sender)), mask_bits: 64, tdi: None });
        }
        let len = wiring.memory.iter().map(|range| range.len().as_u64()).max().unwrap();
        let ram = Arc::new(Striped::new(Bytes::new(len)));
        let memory = vec![Stretch { range: range(wiring.memory[0].start(), len), memory: ram.clone() }];
        let machine = Machine::new(again.fabric, parts, memory, Delivery::Queued, seed);
        machine.log().keep(true);
        // Tables that the machine's own IOMMU reads live as long as the machine.
        let mut wiring = wiring;
        wiring.tables.extend(again.tables);
        Self { wiring, machine, talks, ram, bars }
    }

    /// Tells a device to send a TLP of a case.
    pub(crate) fn order(&self, sent: &Tlp) {
        let mut talk = self.talks[self.wiring.names.index(&sent.from)].lock().unwrap();
        talk.orders.push_back(self.request(sent));
    }

    fn request(&self, sent: &Tlp) -> Order {
        let at = self.wiring.address(sent);
        let how = How {
            at: if sent.at() == "10" { AddressType::Translated } else { AddressType::Untranslated },
            attributes: Attributes { relaxed: sent.relaxed, ..Attributes::default() },
            ..How::default()
        };
        let operand = Operand::Double(0x5a5a_1234_5678_9abc);
        match sent.what.as_str() {
            "MWr" => Order::Write(how, at, pattern(sent.len())),
            "MRd" if sent.at() == "01" => Order::Translate(how, at),
            "MRd" => Order::Read(how, at, sent.len() as usize),
            "FetchAdd" => Order::Atomic(how, at, Atomic::FetchAdd(operand)),
            "Swap" => Order::Atomic(how, at, Atomic::Swap(operand)),
            "CAS" => Order::Atomic(how, at, Atomic::CompareSwap { expected: Operand::Double(0), new: operand.value() }),
            other => panic!("no device sends {other}"),
        }
    }

    /// Whether the bytes of a write stand in any memory of the machine, and where.
    fn found(&self, head: &Head, end: End, trail: &Trail) -> bool {
        let expected = pattern(head.len.as_u64());
        let mut bytes = vec![0; expected.len()];
        let last = trail.hops.last().map_or(*head, |(_, head)| *head);
        match end {
            End::Memory => self.ram.read(Bytes::new(last.address.as_u64()), &mut bytes).unwrap(),
            End::Function(node) => {
                let hit = self.machine.fabric().tree().config(node).bar_hit(last.address).unwrap();
                let (_, memory) = self.bars[node.index()].iter().find(|(index, _)| *index == hit.index).unwrap();
                memory.read(hit.offset, &mut bytes).unwrap();
            }
            _ => return false,
        }
        bytes == expected
    }

    /// How many bytes of all memories were ever written to, by stripes.
    fn touched(&self) -> u64 {
        let bars = self.bars.iter().flatten().map(|(_, memory)| memory);
        bars.chain([&self.ram]).map(|memory| memory.resident().as_u64()).sum()
    }
}

/// Whether a write of `len` bytes to the address of a case's TLP arrives as a whole, in C.
pub(crate) fn arrives(data: &Data, case: &Case, sent: &Tlp, len: u64) -> bool {
    let whole = Whole::new(data, case, sent, &[], 3);
    let order = Order::Write(How::default(), whole.wiring.address(sent), pattern(len));
    whole.talks[whole.wiring.names.index(&sent.from)].lock().unwrap().orders.push_back(order);
    assert!(whole.machine.settle(STEPS), "case {}", case.id);
    let mut bytes = vec![0; len as usize];
    whole.bars[whole.wiring.names.index("C")][0].1.read(Bytes::ZERO, &mut bytes).unwrap();
    assert!(bytes == pattern(len) || whole.touched() == 0, "case {}: some of it arrived", case.id);
    bytes == pattern(len)
}

fn pattern(len: u64) -> Vec<u8> {
    (0..len).map(|n| (n % 251) as u8 + 1).collect()
}

/// Whether a device sends such a TLP: in its own name, and no completion that nobody asked for.
pub(crate) fn can_send(sent: &Tlp) -> bool {
    sent.rid.is_none() && sent.completer.is_none() && sent.what != "CplD"
}

/// Sends a TLP of a case in a machine of its own.
pub(crate) fn send(data: &Data, case: &Case, sent: &Tlp, seed: u64) -> Became {
    let whole = Whole::new(data, case, sent, &[], seed);
    whole.order(sent);
    assert!(whole.machine.settle(STEPS), "case {}", case.id);
    let from = whole.wiring.node(&sent.from);
    let answer = whole.talks[from.index()].lock().unwrap().answers.remove(0);
    let events = whole.machine.log().take();
    let mut became = match trail(&events) {
        None => Became { outcome: failure_text(Failure::NotSent).into(), ..Became::default() },
        Some((head, trail)) => {
            let mut became = Became { outcome: trail.text(&whole.wiring), ..Became::default() };
            became.completion = completion(&events, from).map(|(hops, end)| completion_text(&whole.wiring, &hops, end));
            became.pieces = events.iter().filter(|event| end_of(event.what).is_some()).count();
            if sent.what == "MWr" {
                let arrived = matches!(trail.end, End::Memory | End::Function(_));
                assert_eq!(whole.found(&head, trail.end, &trail), arrived, "case {}: bytes", case.id);
                assert_eq!(whole.touched() != 0, arrived, "case {}: bytes where none belong", case.id);
            }
            became
        }
    };
    // A write brings nothing and is told nothing, unless it was never sent.
    match answer {
        Ok(_) if sent.what == "MWr" => {}
        Err(Failure::NotSent) => assert_eq!(became.outcome, "NOT-ISSUED", "case {}", case.id),
        Err(failure) => became.sees = Some(failure_text(failure)),
        Ok(bytes) if bytes.iter().all(|&byte| byte == 0xff) && !bytes.is_empty() => became.sees = Some("ones"),
        Ok(bytes) => {
            became.sees = Some("data");
            let most = whole.wiring.fabric.tree().config(from).max_payload().unwrap();
            became.completions = (bytes.len() as u64).div_ceil(most.as_u64());
        }
    }
    became
}

/// The way of the one request in the log, as it was sent and as it went.
fn trail(events: &[Event]) -> Option<(Head, Trail)> {
    let head = events.iter().find_map(|event| match event.what {
        Happened::Sent { head, .. } => Some(head),
        _ => None,
    })?;
    let mut hops = Vec::new();
    for event in events {
        if let Happened::Went { egress, head } = event.what {
            hops.push((egress, head));
        }
        if let Some(end) = end_of(event.what) {
            return Some((head, Trail { hops, end }));
        }
    }
    panic!("it never arrived: {events:?}")
}

pub(crate) fn end_of(what: Happened) -> Option<End> {
    match what {
        Happened::AtFunction { node, .. } => Some(End::Function(node)),
        Happened::InMemory { .. } => Some(End::Memory),
        Happened::Interrupted { .. } => Some(End::Interrupt),
        Happened::Translated { .. } => Some(End::Translation),
        Happened::AllOnes { .. } => Some(End::AllOnes),
        Happened::Ended(ending) => Some(End::Ended(ending)),
        _ => None,
    }
}

/// The way of the completion in the log, to `from` who asked.
fn completion(events: &[Event], from: NodeId) -> Option<(Vec<Egress>, Result<NodeId, Ending>)> {
    let mut hops = Vec::new();
    for event in events {
        match event.what {
            Happened::CompletionWent(egress) => hops.push(egress),
            Happened::Answered => return Some((hops, Ok(from))),
            Happened::CompletionEnded(ending) => return Some((hops, Err(ending))),
            _ => {}
        }
    }
    None
}
