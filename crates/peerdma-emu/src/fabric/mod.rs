//! The fabric: what each port and each root complex does with a request or a completion.
//!
//! Written from the PCI Express specification and from the registers of the ports alone
//! ([`config::Space`](crate::config::Space)): bus numbers, windows, enables, payload sizes, access
//! control. Nothing here knows a `Topology` or a line of `peerdma::route`, so that each of the
//! two can find the other wrong.
//!
//! A request is at any time on its way through one [`Egress`]: the link above a function or
//! below a port, or the path from a root complex into memory. [`Fabric::arrive`] says what
//! stands at the other end and does with it: sends it on through another egress, takes it, or ends
//! it. Whoever calls keeps what is on the way, in which order, and the data.
//!
//! ```text
//!  function ── leave ──> Up(function) ── arrive ──> port ──> Up(upstream port) ──> root port ──> root complex
//!                                                    └─────> Down(port beside it)                 │
//!                                      function <── arrive <───────┘             Memory(host) <───┤
//!                                                                                Down(root port) <┘
//! ```
//!
//! - [`tree`]: which function hangs below which port; wires, not registers.
//! - `upstream`: the downstream-facing port that a request comes up to, with access control.
//! - `downstream`: who claims a request on a bus.
//! - `inside`: requests between functions of one device.
//! - `root`: the root complex, its IOMMU, and the way out again.
//! - `message`: what is for the root complex itself.
//! - `completion`: the way back, which goes by bus number.
//!
//! What the specification leaves undefined ends in [`Ending::Undefined`]; it is reported and never guessed.

mod arrival;
mod completion;
mod downstream;
mod inside;
mod message;
mod root;
pub mod tree;
mod upstream;

#[cfg(test)]
mod tests;

pub use arrival::{Arrival, Completion, CompletionArrival, Egress, Ending, Site};
pub use root::{Host, HostWindow, Root};
pub use tree::{Above, HostId, Node, NodeId, Tree};

use crate::wire::{Head, Kind};

/// The ports, functions and root complexes of a machine.
#[derive(Debug)]
pub struct Fabric {
    tree: Tree,
    root: Root,
}

impl Fabric {
    /// A fabric of these wires below these root complexes.
    pub fn new(tree: Tree, root: Root) -> Self {
        Self { tree, root }
    }

    /// The wires.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The root complexes.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Where a request goes that a function sends.
    pub fn leave(&self, from: NodeId, head: Head) -> Arrival {
        match head.kind {
            Kind::PageRequest => Arrival::on(Egress::Up(self.tree.link(from)), head),
            Kind::Write | Kind::Read | Kind::Atomic => self.leave_function(from, head),
        }
    }

    /// What becomes of a request at the end of an egress.
    pub fn arrive(&self, egress: Egress, head: Head) -> Arrival {
        match egress {
            Egress::Up(node) if head.kind == Kind::PageRequest => self.message_above(node, head),
            Egress::Up(node) => self.arrive_above(node, head),
            Egress::Down(port) => self.arrive_below(port, head),
            Egress::Into(node) => self.arrive_inside(node, head),
            Egress::Memory(host) => self.arrive_in_memory(host, head),
        }
    }

    /// Where a completion goes that a function sends.
    pub fn leave_completion(&self, from: NodeId, completion: &Completion) -> CompletionArrival {
        self.completion_leaves(from, completion)
    }

    /// Where a completion goes that a root complex sends.
    pub fn root_completion(&self, host: HostId, completion: &Completion) -> CompletionArrival {
        self.completion_from_root(host, completion)
    }

    /// What becomes of a completion at the end of an egress.
    pub fn arrive_completion(&self, egress: Egress, completion: &Completion) -> CompletionArrival {
        match egress {
            Egress::Up(node) => self.completion_above(node, completion),
            Egress::Down(port) => self.completion_below(port, completion),
            Egress::Into(node) => CompletionArrival::Function(node),
            Egress::Memory(host) => CompletionArrival::Root(host),
        }
    }
}
