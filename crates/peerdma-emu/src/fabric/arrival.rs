//! Places on the way, and ends of it.

use super::tree::{HostId, NodeId};
use crate::iommu::FaultReason;
use crate::wire::{Failure, Head};
use peerdma::addr::{AddrRange, BusAddr, Bytes, PhysAddr};
use peerdma::pcie::PciAddr;
use std::fmt;

/// What a request or completion is on its way through; what leaves by one egress stays in order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Egress {
    /// The link above this function, or above this upstream port, towards the root. All functions of
    /// a device share the link of the first.
    Up(NodeId),
    /// The link or bus below this port.
    Down(NodeId),
    /// Inside a device, to this function of it.
    Into(NodeId),
    /// From this host bridge's root complex into memory, and to interrupts.
    Memory(HostId),
}

/// Where a request ended, and where a completion begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Site {
    /// At this port or function.
    Node(NodeId),
    /// In the root complex below this host bridge.
    Host(HostId),
}

/// What became of a request at one place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrival {
    /// It goes on, with this head.
    Forward {
        /// Where.
        egress: Egress,
        /// As it goes on: a root complex changes address and requester.
        head: Head,
        /// The longest piece that goes on, where the root complex cuts it.
        cut: Option<Bytes>,
        /// Addresses around, as they were before, for which the IOMMU says the same; all, if nothing
        /// was translated.
        holds: Option<AddrRange<BusAddr>>,
    },
    /// A function's own registers or memory.
    Function {
        /// The function, which may be a port.
        node: NodeId,
        /// Index of the BAR.
        bar: u8,
        /// Where in it.
        offset: Bytes,
        /// Bytes from there to the BAR's end.
        left: Bytes,
    },
    /// Memory of the machine.
    Memory {
        /// Whose root complex brought it there.
        host: HostId,
        /// The CPU's address.
        at: PhysAddr,
    },
    /// An interrupt message.
    Interrupt {
        /// Whose root complex took it.
        host: HostId,
        /// The address, which says for whom it is.
        at: BusAddr,
    },
    /// A page request that reached the IOMMU.
    PageRequest {
        /// Whose root complex took it.
        host: HostId,
    },
    /// A translation request that reached the IOMMU.
    Translation {
        /// Whose root complex took it.
        host: HostId,
    },
    /// A read that the root complex answers with all ones although nobody has the data.
    AllOnes {
        /// Whose root complex.
        host: HostId,
    },
    /// It ends here.
    End(Ending),
}

impl Arrival {
    /// Goes on as it is.
    pub(super) const fn on(egress: Egress, head: Head) -> Self {
        Self::Forward { egress, head, cut: None, holds: None }
    }
}

/// How a request or a completion ends that is not taken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Ending {
    /// ACS Violation at this port or function.
    Violation(NodeId),
    /// Unsupported Request at this port or function.
    Unsupported(NodeId),
    /// AtomicOp Egress Blocked at this port.
    EgressBlocked(NodeId),
    /// Malformed TLP at this port or function.
    Malformed(NodeId),
    /// The specification gives no behaviour at this port or function.
    Undefined(NodeId),
    /// Nobody knows what this root complex does with requests between devices.
    UndefinedRoot(HostId),
    /// A completion that nobody there waits for.
    Unexpected(NodeId),
    /// Nothing is connected below this port any more.
    LinkDown(NodeId),
    /// The IOMMU refused it.
    Fault(HostId, FaultReason),
    /// The root complex does not pass it to another device.
    NotForwarded(HostId),
    /// Nothing has this address.
    Nowhere(HostId),
    /// The function that was to take it does not, in the state that it is in.
    Refused(NodeId),
    /// Lost at this port or function, and nobody is told; only what was made to go wrong does that.
    Lost(NodeId),
    /// The same in this root complex.
    LostRoot(HostId),
}

impl Ending {
    /// The port or function where it ended; `None` in a root complex.
    pub const fn node(self) -> Option<NodeId> {
        match self.site() {
            Site::Node(node) => Some(node),
            Site::Host(_) => None,
        }
    }

    /// What the requester of a non-posted request is told (PCIe 6.0 §2.3.1, §6.12.4).
    ///
    /// Where the specification leaves a choice: the IOMMU and the root complex answer Unsupported
    /// Request.
    pub const fn seen(self) -> Failure {
        match self {
            Self::Violation(_) => Failure::CompleterAbort,
            Self::Unsupported(_)
            | Self::EgressBlocked(_)
            | Self::LinkDown(_)
            | Self::Fault(..)
            | Self::NotForwarded(_)
            | Self::Nowhere(_)
            | Self::Refused(_) => Failure::UnsupportedRequest,
            Self::Malformed(_)
            | Self::Undefined(_)
            | Self::UndefinedRoot(_)
            | Self::Unexpected(_)
            | Self::Lost(_)
            | Self::LostRoot(_) => Failure::Timeout,
        }
    }

    /// Where it ends.
    pub const fn site(self) -> Site {
        match self {
            Self::Violation(node)
            | Self::Unsupported(node)
            | Self::EgressBlocked(node)
            | Self::Malformed(node)
            | Self::Undefined(node)
            | Self::Unexpected(node)
            | Self::LinkDown(node)
            | Self::Refused(node)
            | Self::Lost(node) => Site::Node(node),
            Self::UndefinedRoot(host)
            | Self::Fault(host, _)
            | Self::NotForwarded(host)
            | Self::Nowhere(host)
            | Self::LostRoot(host) => Site::Host(host),
        }
    }
}

impl fmt::Display for Ending {
    /// Writes why it ends, as in `ACS violation`; where is [`site`](Self::site), whose name a machine knows.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Violation(_) => "ACS violation",
            Self::Unsupported(_) => "unsupported request",
            Self::EgressBlocked(_) => "AtomicOp egress blocked",
            Self::Malformed(_) => "malformed",
            Self::Undefined(_) => "the specification says nothing about this",
            Self::UndefinedRoot(_) => "nobody knows what it does with requests between devices",
            Self::Unexpected(_) => "nobody there waits for it",
            Self::LinkDown(_) => "nothing is connected below any more",
            Self::Fault(_, reason) => return write!(f, "IOMMU fault, {reason}"),
            Self::NotForwarded(_) => "it passes none on to other devices",
            Self::Nowhere(_) => "nothing has this address",
            Self::Refused(_) => "the function does not take it in its state",
            Self::Lost(_) | Self::LostRoot(_) => "a fault that was asked for loses it",
        })
    }
}

/// A completion with data, or one piece of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Completion {
    /// Who asked; completions go to the function of this ID.
    pub requester: PciAddr,
    /// Relaxed Ordering, which ACS Completion Redirect lets pass.
    pub relaxed: bool,
    /// ID-based ordering.
    pub id_ordered: bool,
    /// Bytes of data in one TLP.
    pub len: Bytes,
}

/// What became of a completion at one place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CompletionArrival {
    /// It goes on.
    Forward(Egress),
    /// It has come to the function of its requester ID, or to the bridge that asked in its place.
    Function(NodeId),
    /// It has come to the root complex, which asked in its own name.
    Root(HostId),
    /// It is lost here.
    End(Ending),
}
