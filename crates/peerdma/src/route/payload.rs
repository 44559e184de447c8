//! How large packets are, and what the slowest link on the way is.
//!
//! A packet with more data than the receiver's Max_Payload_Size is malformed and
//! dropped, and switches neither split nor merge (PCIe 6.0 §2.2.2, §7.5.3.4). Linux
//! matches each device to the bridge above it, not to its peers, so two devices below
//! one switch may differ. A root complex may split what it forwards (§1.3.1).
//!
//! Max_Read_Request_Size bounds what a requester asks for; the data comes back in
//! pieces of the *completer's* payload size. So a write is judged by the initiator's
//! payload size, a read by the target's.

use super::kernel_view::{Common, KernelView};
use crate::addr::Bytes;
use crate::pcie::Fact;
use crate::pcie::acs::{Acs, AcsBits};
use crate::pcie::express::{Express, Link, LinkSpeed, PortType};
use crate::topology::{FunctionId, Topology};
use alloc::vec::Vec;

/// A sender whose payloads somebody on the way does not take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Clash {
    /// Who sends the data: the initiator of a write, the target of a read.
    pub sender: FunctionId,
    /// Its Max_Payload_Size.
    pub sends: Bytes,
    /// The first function on the way that takes less.
    pub receiver: FunctionId,
    /// Its Max_Payload_Size.
    pub takes: Bytes,
    /// Whether it may arrive all the same, as the receiver is the root port by which a root complex
    /// sends it on, which may cut it there (PCIe 6.0 §1.3.1). On its way up to the root complex nobody
    /// cuts it, and on the way down from the root port nobody does again.
    pub may_be_cut: bool,
    /// Whether it may go another way, on which it fits: a completion goes by itself, and which way may hang
    /// on a register that was not read, or on the name in which a root complex asks.
    pub may_be_avoided: bool,
}

impl Clash {
    /// Whether it is certain that somebody on the way drops such data.
    pub const fn is_certain(&self) -> bool {
        !self.may_be_cut && !self.may_be_avoided
    }
}

/// Payload sizes between two functions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Payload {
    /// What stands against writes.
    pub write: Option<Clash>,
    /// What stands against the completions of reads.
    pub read: Option<Clash>,
    /// Functions on the way, both ends included, whose payload size was not read.
    pub unread: Vec<FunctionId>,
    /// Largest read that the initiator requests, where read.
    pub max_read_request: Option<Bytes>,
    /// The link on the way that carries least, where all that are told are compared.
    pub narrowest: Option<Narrowest>,
}

/// The link that carries least.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Narrowest {
    /// The function at one end of it.
    pub function: FunctionId,
    /// Negotiated speed.
    pub speed: LinkSpeed,
    /// Negotiated width in lanes.
    pub width: u8,
}

/// How data goes between two functions, as far as payload sizes depend on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Between {
    /// From port to port below this function, which hands packets across inside and
    /// whose own link carries nothing.
    Below(FunctionId),
    /// Up to the root complex and down again.
    Root,
    /// Not known, so nothing is compared.
    Unknown,
}

impl Between {
    /// The way of data that turns where the two ways up meet.
    pub fn below(common: Common) -> Self {
        match common {
            Common::At(common) => Self::Below(common),
            Common::Nowhere => Self::Root,
            Common::AtOrBelow(_) | Common::Unknown => Self::Unknown,
        }
    }
}

/// The functions that data of `sender` passes on the way to `receiver`: up, and down from there.
fn legs(view: &KernelView<'_>, sender: FunctionId, receiver: FunctionId, between: Between) -> [Vec<FunctionId>; 2] {
    let below = |function| -> Vec<FunctionId> {
        let up = view.way_up(function);
        match between {
            Between::Below(common) => up.take_while(|&step| step != common).collect(),
            Between::Root => up.collect(),
            Between::Unknown => Vec::new(),
        }
    };
    let mut down = below(receiver);
    down.reverse();
    [below(sender), down]
}

/// The first function on the way that takes less than is sent to it; `cuts` says whether a root complex
/// stands between the legs.
fn clash(topology: &Topology, from: FunctionId, [up, down]: &[Vec<FunctionId>; 2], cuts: bool) -> Option<Clash> {
    let size = |function: FunctionId| in_force(topology, function).max_payload;
    // Conventional PCI knows no payload sizes; what comes from there is made into packets by the bridge.
    let is_conventional = |function| topology.function(function).info().registers.port_type == Fact::Known(None);
    let sender = match is_conventional(from) {
        true => up.iter().copied().find(|&bridge| !is_conventional(bridge))?,
        false => from,
    };
    let sends = size(sender)?;
    let found = |receiver: FunctionId, sends: Bytes, may_be_cut: bool| {
        let takes = size(receiver).filter(|takes| *takes < sends)?;
        Some(Clash { sender, sends, receiver, takes, may_be_cut, may_be_avoided: false })
    };
    let on_the_way = |way: &[FunctionId], sends| way.iter().find_map(|&receiver| found(receiver, sends, false));
    if let Some(clash) = on_the_way(up, sends) {
        return Some(clash);
    }
    let (Some((&root_port, below)), true) = (down.split_first(), cuts) else { return on_the_way(down, sends) };
    // What is cut is as long as the root port sends.
    let sends_on = size(root_port).map_or(sends, |takes| takes.min(sends));
    // Where that was not read, it may be as short as is needed.
    let unread = size(root_port).is_none();
    let below = below.iter().find_map(|&receiver| found(receiver, sends_on, unread));
    below.or_else(|| found(root_port, sends, true))
}

/// The ways that completions of `target` for `initiator` may go, whose data goes `between`.
///
/// A completion is routed by itself: where the two share a switch, one that is redirected at the port above its
/// completer goes up although the request went across (PCIe 6.0 §6.12.1.1, ACS P2P Completion Redirect); one
/// that nobody redirects goes across, uncut, although the request went up, if the root complex kept its
/// requester's name.
fn ways_back(view: &KernelView<'_>, initiator: FunctionId, target: FunctionId, between: Between) -> Vec<Between> {
    let to: Vec<FunctionId> = view.way_up(initiator).collect();
    let up: Vec<FunctionId> = view.way_up(target).collect();
    let meeting = up.iter().position(|step| to.contains(step));
    let met = meeting.and_then(|position| Some((*up.get(position)?, *up.get(position.checked_sub(1)?)?)));
    let Some((at, below)) = met else { return [between].into() };
    let info = |function| view.topology().function(function).info();
    // On a bus of conventional PCI the answer goes where the request came from.
    let is_to_pci = matches!(info(at).registers.port_type, Fact::Known(None | Some(PortType::PciExpressToPci)));
    let redirected = match &info(below).registers.acs {
        _ if is_to_pci => Fact::Known(between == Between::Root),
        Acs::Absent(_) => Fact::Known(false),
        Acs::Unknown(_) => Fact::Unknown,
        Acs::Present(registers) if !registers.capability.contains(AcsBits::CR) => Fact::Known(false),
        Acs::Present(registers) => match registers.control {
            Fact::Known(control) => Fact::Known(control.contains(AcsBits::CR)),
            Fact::Unknown => Fact::Unknown,
        },
    };
    match (between, redirected) {
        (Between::Unknown, _) => [between].into(),
        (_, Fact::Known(true)) => [Between::Root].into(),
        (Between::Below(_), Fact::Known(false)) => [between].into(),
        (Between::Below(_), Fact::Unknown) | (Between::Root, _) => [Between::Below(at), Between::Root].into(),
    }
}

/// What stands against data that goes one of some ways, nobody knows which.
fn clash_on(
    topology: &Topology,
    ways: impl Iterator<Item = (FunctionId, [Vec<FunctionId>; 2], bool)>,
) -> Option<Clash> {
    let found: Vec<Option<Clash>> = ways.map(|(from, legs, cuts)| clash(topology, from, &legs, cuts)).collect();
    let stops = |clash: &Clash| !clash.may_be_cut;
    let stopped = found.iter().flatten().find(|clash| stops(clash)).copied();
    let all = found.iter().all(|found| found.as_ref().is_some_and(stops));
    match stopped {
        Some(clash) => Some(Clash { may_be_avoided: !all, ..clash }),
        None => found.into_iter().flatten().next(),
    }
}

impl Payload {
    /// Payload sizes and links on the way of data between two functions.
    pub fn between(view: &KernelView<'_>, initiator: FunctionId, target: FunctionId, between: Between) -> Self {
        let topology = view.topology();
        let there = legs(view, initiator, target, between);
        let back = ways_back(view, initiator, target, between).into_iter();
        let back = back.map(|way| (target, legs(view, target, initiator, way), way == Between::Root));
        let way: Vec<FunctionId> = there.iter().flatten().copied().collect();
        let size = |function: FunctionId| in_force(topology, function).max_payload;
        Self {
            write: clash(topology, initiator, &there, between == Between::Root),
            read: clash_on(topology, back),
            unread: way.iter().copied().filter(|&function| size(function).is_none()).collect(),
            max_read_request: in_force(topology, initiator).max_read_request,
            narrowest: narrowest(topology, &way),
        }
    }
}

/// The Express capability whose sizes and enables hold for a function. A virtual
/// function's own are reserved and read as zero, so its physical one's do (PCIe 6.0 §9.3.5).
pub fn in_force(topology: &Topology, function: FunctionId) -> &Express {
    &topology.function(topology.placed_as(function)).info().registers.express
}

fn narrowest(topology: &Topology, way: &[FunctionId]) -> Option<Narrowest> {
    let links = way.iter().filter_map(|&function| {
        let Link { speed, width, .. } = topology.function(function).info().link_state();
        Some(Narrowest { function, speed: speed?, width: width.filter(|&width| width != 0)? })
    });
    links.min_by_key(|link| u32::from(link.speed.tenths()) * u32::from(link.width))
}

#[cfg(test)]
mod tests;
