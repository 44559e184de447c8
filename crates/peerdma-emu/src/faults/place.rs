//! Which places a fault can strike, and what passes them.

use super::{Fault, Place, Plan, Spot};
use crate::fabric::{Above, Egress, Fabric, NodeId, Tree};
use crate::wire::Kind;
use peerdma::addr::Bytes;
use peerdma::pcie::express::PortType;

/// Request Redirect, in the ACS capability register.
const REDIRECTS: u16 = 1 << 2;
/// The payload that `mps` lowers to.
const SMALLEST_PAYLOAD: Bytes = Bytes::new(128);

/// One place on a request's way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stop {
    /// It goes on by this egress.
    By(Egress),
    /// It has come to this function.
    At(NodeId),
}

/// A request under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Passing<'a> {
    /// The function that sent it; none for a processor.
    pub(crate) from: Option<NodeId>,
    /// What it asks for.
    pub(crate) kind: Kind,
    /// Every place up to now, the latest last.
    pub(crate) way: &'a [Stop],
}

impl Passing<'_> {
    /// Whether one device asks another: what a function sent goes down, or is there.
    fn is_peer(&self) -> bool {
        let down = |stop: &Stop| matches!(stop, Stop::By(Egress::Down(_) | Egress::Into(_)) | Stop::At(_));
        self.from.is_some() && self.way.iter().any(down)
    }

    /// Whether it has passed a place, as far as it has come.
    pub(super) fn passes(&self, tree: &Tree, spot: Spot) -> bool {
        let above = |node: NodeId| match tree.node(node).above {
            Above::Root(_) => None,
            Above::Port(port) => Some(port),
        };
        match spot {
            Spot::Iommu => false,
            Spot::Node(wanted) => self.way.iter().enumerate().any(|(position, stop)| {
                let from_above = match position.checked_sub(1).and_then(|before| self.way.get(before)) {
                    Some(before) => matches!(before, Stop::By(Egress::Down(_))),
                    None => self.from.is_none(),
                };
                match *stop {
                    // The port at the upper end receives it.
                    Stop::By(Egress::Up(node)) => node == wanted || above(node) == Some(wanted),
                    Stop::By(Egress::Down(port)) => port == wanted || from_above && above(port) == Some(wanted),
                    Stop::By(Egress::Into(node)) | Stop::At(node) => node == wanted,
                    Stop::By(Egress::Memory(_)) => false,
                }
            }),
            Spot::Host(wanted) => self.way.iter().any(|stop| match *stop {
                Stop::By(Egress::Memory(host)) => host == wanted,
                // Out of a root complex, which the sender's own may not be.
                Stop::By(Egress::Down(node) | Egress::Into(node)) if above(node).is_none() => {
                    tree.host(node) == wanted || self.from.is_some_and(|from| tree.host(from) == wanted)
                }
                Stop::By(_) | Stop::At(_) => false,
            }),
        }
    }

    /// Whether a fault at a place acts on it by now.
    pub(super) fn suffers(&self, tree: &Tree, fault: Fault, spot: Spot) -> bool {
        let kind = match fault {
            Fault::AllOnes => true,
            Fault::DropWrites => self.kind == Kind::Write,
            Fault::DeadReads => !self.kind.is_posted(),
            _ => false,
        };
        kind && self.is_peer() && self.passes(tree, spot)
    }
}

/// What a function has beside its registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Has {
    /// Memory behind a BAR.
    pub(crate) memory: bool,
    /// Somebody who lends it.
    pub(crate) lender: bool,
}

/// Whether a fault can strike at a place.
fn can_strike(fabric: &Fabric, has: &dyn Fn(NodeId) -> Has, fault: Fault, spot: Spot) -> bool {
    let tree = fabric.tree();
    let node = match spot {
        Spot::Iommu => return fault == Fault::LostInvalidation && fabric.root().iommu().is_some(),
        Spot::Host(host) => {
            let known = host.index() < fabric.root().hosts().len();
            return known
                && matches!(
                    fault,
                    Fault::AllOnes | Fault::DropWrites | Fault::DeadReads | Fault::LateCompletion | Fault::BitFlip
                );
        }
        Spot::Node(node) if node.index() < tree.len() => node,
        Spot::Node(_) => return false,
    };
    let config = tree.config(node);
    let is_function = config.header() == crate::config::Header::Device;
    match fault {
        Fault::DropWrites | Fault::DeadReads | Fault::LateCompletion | Fault::BitFlip => true,
        Fault::MirrorBar => has(node).memory,
        Fault::LateUnmap | Fault::Revoked | Fault::Migrated => has(node).lender,
        Fault::AcsChange => {
            let is_port = matches!(config.port_type(), Some(PortType::RootPort | PortType::DownstreamPort));
            is_port && config.acs().is_some_and(|acs| acs.capability & REDIRECTS != 0)
        }
        Fault::SurpriseRemoval => matches!(tree.node(node).above, Above::Port(_)),
        Fault::BarOff | Fault::Reset | Fault::StrayWrite => is_function,
        Fault::D3 => is_function && config.has_power_management(),
        Fault::Mps => config.max_payload().is_some_and(|max| max > SMALLEST_PAYLOAD),
        Fault::AllOnes | Fault::LostInvalidation => false,
    }
}

/// Every place that a plan's fault can strike at and that the plan permits.
pub(super) fn candidates(fabric: &Fabric, has: &dyn Fn(NodeId) -> Has, plan: &Plan) -> Vec<Spot> {
    let tree = fabric.tree();
    let spots: Vec<Spot> = match plan.place {
        Place::At(spot) => vec![spot],
        Place::Between(from, to) if from.index() < tree.len() && to.index() < tree.len() => {
            between(tree, plan.fault, from, to)
        }
        Place::Between(..) => Vec::new(),
        Place::Anywhere => {
            let nodes = tree.ids().map(Spot::Node);
            nodes.chain(fabric.root().hosts().map(Spot::Host)).chain([Spot::Iommu]).collect()
        }
    };
    // Where anybody may choose, a card is pulled and not half a switch.
    let fits = |spot: &Spot| match *spot {
        Spot::Node(node) if plan.fault == Fault::SurpriseRemoval && plan.place == Place::Anywhere => {
            tree.config(node).buses_below().is_none()
        }
        _ => true,
    };
    spots.into_iter().filter(fits).filter(|&spot| can_strike(fabric, has, plan.fault, spot)).collect()
}

/// Places on the way from one function to another at which a fault shows.
fn between(tree: &Tree, fault: Fault, from: NodeId, to: NodeId) -> Vec<Spot> {
    let ports = |node: NodeId| {
        let above = |&node: &NodeId| match tree.node(node).above {
            Above::Root(_) => None,
            Above::Port(port) => Some(port),
        };
        std::iter::successors(Some(node), above).skip(1).collect::<Vec<_>>()
    };
    let (up, down) = (ports(from), ports(to));
    // Ports of one and not of the other; what both are below is only on the way if a port redirects.
    let own = |mine: &[NodeId], other: &[NodeId]| {
        let mine = mine.iter().copied().filter(|port| !other.contains(port));
        mine.map(Spot::Node).collect::<Vec<_>>()
    };
    let through_root = !up.iter().any(|port| down.contains(port));
    let mut hosts = vec![Spot::Host(tree.host(from)), Spot::Host(tree.host(to))];
    hosts.dedup();
    let (ups, downs) = (own(&up, &down), own(&down, &up));
    let (from, to) = (Spot::Node(from), Spot::Node(to));
    match fault {
        Fault::AllOnes => hosts,
        Fault::LostInvalidation => vec![Spot::Iommu],
        Fault::MirrorBar | Fault::BarOff | Fault::LateUnmap | Fault::Revoked | Fault::Migrated => vec![to],
        Fault::StrayWrite => vec![from],
        Fault::Reset | Fault::D3 | Fault::SurpriseRemoval => vec![from, to],
        // Where requests come up.
        Fault::AcsChange => ups,
        // Its own payload size makes the sender send shorter packets, and nothing goes wrong.
        Fault::Mps => ups.into_iter().chain(downs).chain([to]).collect(),
        _ => {
            let hosts = hosts.into_iter().filter(|_| through_root);
            ups.into_iter().chain(downs).chain([from, to]).chain(hosts).collect()
        }
    }
}
