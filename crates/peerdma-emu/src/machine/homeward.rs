//! The way back: from whoever completes a request to whoever waits for it.
//!
//! Data and refusals find back alike, by the bus number of the requester (PCIe 6.0 §2.2.9), through
//! every port on the way. So whatever stops a completion makes a timeout of any answer, also of the
//! one that says why there is no data. A completion goes behind the writes that wait on its way,
//! which is how it pushes what its completer wrote before (§2.4.1).

use super::Machine;
use super::log::Happened;
use super::travel::Landing;
use crate::fabric::{Above, Completion, CompletionArrival, Egress, Ending, NodeId, Site, Tree};
use crate::wire::{Failure, Head};
use peerdma::addr::Bytes;
use peerdma::pcie::PciAddr;
use peerdma::pcie::express::PortType;

/// The most hops that anything makes; more can only be a circle, which registers that nest cannot form.
pub(super) const MOST_HOPS: usize = 1 << 12;

/// A request as far as it has come, and what its completion needs of the way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trace {
    /// As it is now.
    pub(super) head: Head,
    /// The requester that it had before a root complex or bridge put in its own.
    before: PciAddr,
    /// What it went through last.
    by: Option<Egress>,
    /// The bridge by which it came down to conventional PCI, where it asks for itself and is answered;
    /// the completion is the bridge's (PCI Express to PCI Bridge 1.0 §2.2.2).
    bridge: Option<NodeId>,
}

impl Trace {
    /// A request that has not left yet.
    pub(super) const fn new(head: Head) -> Self {
        Self { head, before: head.requester.id, by: None, bridge: None }
    }

    /// It goes on.
    pub(super) fn goes(&mut self, tree: &Tree, egress: Egress, head: Head) {
        if head.requester.id != self.head.requester.id {
            self.before = self.head.requester.id;
        }
        if let Egress::Down(port) = egress
            && tree.config(port).port_type() == Some(PortType::PciExpressToPci)
        {
            self.bridge = Some(port);
        }
        (self.head, self.by) = (head, Some(egress));
    }
}

/// A request that nobody took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stopped {
    pub(super) ending: Ending,
    pub(super) trace: Trace,
}

/// A non-posted request that has come to somebody.
#[derive(Clone, Debug)]
pub(super) struct Carried {
    pub(super) landing: Landing,
    /// As it arrived.
    pub(super) trace: Trace,
    /// Its completion comes after its requester has given up.
    pub(super) late: bool,
}

impl Machine {
    /// The way of a completion with `len` bytes of data, from where its request ended to `from`, or to a
    /// processor; each egress is handed to `hop` before the completion goes through it.
    ///
    /// Moves nothing. Ends at the function that waits, or in the root complex whose processor does.
    ///
    /// # Errors
    /// How the completion is lost.
    pub(super) fn homeward(
        &self,
        trace: &Trace,
        site: Site,
        len: Bytes,
        from: Option<NodeId>,
        mut hop: impl FnMut(Egress),
    ) -> Result<Site, Ending> {
        let (tree, attributes) = (self.fabric.tree(), trace.head.attributes);
        // A completer repeats the attributes of the request (§2.2.9).
        let (relaxed, id_ordered) = (attributes.relaxed, attributes.id_ordered);
        let mut completion = Completion { requester: trace.head.requester.id, relaxed, id_ordered, len };
        let mut arrival = match site {
            Site::Node(node) => self.completer_sends(trace, node, &mut completion),
            Site::Host(host) => self.fabric.root_completion(host, &completion),
        };
        let mut from_root = matches!(site, Site::Host(_));
        for _ in 0..MOST_HOPS {
            match arrival {
                CompletionArrival::Forward(egress) => {
                    hop(egress);
                    if let Egress::Down(port) = egress
                        && (from_root || self.splits_at(port))
                    {
                        // A root complex cuts what it sends to what its port may, and what it passes on if it
                        // cuts at all.
                        completion.len = cut(completion.len, tree.config(port).max_payload());
                        from_root = false;
                    }
                    arrival = self.fabric.arrive_completion(egress, &completion);
                }
                CompletionArrival::Function(node) if self.waits(node, from) => return Ok(Site::Node(node)),
                CompletionArrival::Function(node) => return Err(Ending::Unexpected(node)),
                CompletionArrival::Root(host) => match from {
                    // The root complex asked in its own name, and now answers in its own.
                    Some(_) if completion.requester != trace.before => {
                        completion.requester = trace.before;
                        from_root = true;
                        arrival = self.fabric.root_completion(host, &completion);
                    }
                    Some(node) => return Err(Ending::Unexpected(node)),
                    None => return Ok(Site::Host(host)),
                },
                CompletionArrival::End(ending) => return Err(ending),
            }
        }
        Err(Ending::UndefinedRoot(from.map_or(crate::fabric::HostId::new(0), |from| tree.host(from))))
    }

    /// Where a completion goes first for a request that ended at `node`.
    fn completer_sends(&self, trace: &Trace, node: NodeId, completion: &mut Completion) -> CompletionArrival {
        let tree = self.fabric.tree();
        let completer = trace.bridge.unwrap_or(node);
        completion.len = cut(completion.len, self.fabric.completion_payload(completer));
        // On conventional PCI a bridge that takes a request from the bus below answers on that bus.
        if let Some(Egress::Up(below)) = trace.by
            && tree.node(below).above == Above::Port(completer)
            && tree.has_conventional_bus(completer)
        {
            return CompletionArrival::Forward(Egress::Down(completer));
        }
        self.fabric.leave_completion(completer, completion)
    }

    /// Whether a port is a root complex's that cuts what is too long for it.
    fn splits_at(&self, port: NodeId) -> bool {
        let tree = self.fabric.tree();
        matches!(tree.node(port).above, Above::Root(host) if self.fabric.root().host(host).splits)
    }

    /// Whether `from` is who waits at `node`: itself, or a device behind that bridge.
    fn waits(&self, node: NodeId, from: Option<NodeId>) -> bool {
        let above = |&id: &NodeId| match self.fabric.tree().node(id).above {
            Above::Root(_) => None,
            Above::Port(port) => Some(port),
        };
        std::iter::successors(from, above).any(|id| id == node)
    }

    /// Brings a completion back, pushing what it may not pass.
    fn bring(
        &self,
        request: u64,
        trace: &Trace,
        site: Site,
        len: Bytes,
        from: Option<NodeId>,
    ) -> Result<Site, Failure> {
        let hop = |egress| {
            self.log.note(request, Happened::CompletionWent(egress));
            if !trace.head.attributes.relaxed {
                self.flush(egress);
            }
        };
        self.homeward(trace, site, len, from, hop).map_err(|ending| self.completion_lost(request, ending))
    }

    /// Brings the data of a request that was carried to its end back to who asked.
    ///
    /// # Errors
    /// [`Failure::Timeout`]: the completion is lost, or comes when nobody waits for it any more.
    pub(super) fn bring_back(&self, request: u64, carried: &Carried, from: Option<NodeId>) -> Result<(), Failure> {
        // Only writes are taken as interrupts, and nobody waits for those.
        let site = carried.landing.site().ok_or(Failure::Timeout)?;
        let came = self.bring(request, &carried.trace, site, carried.trace.head.len, from)?;
        match (carried.late, came) {
            (false, _) => {
                self.log.note(request, Happened::Answered);
                Ok(())
            }
            (true, Site::Node(node)) => Err(self.completion_lost(request, Ending::Unexpected(node))),
            (true, Site::Host(host)) => Err(self.completion_lost(request, Ending::LostRoot(host))),
        }
    }

    /// Tells who asked that there is no data: what it sees, which is `failure` if that gets there.
    pub(super) fn told(
        &self,
        request: u64,
        trace: &Trace,
        site: Option<Site>,
        failure: Failure,
        from: Option<NodeId>,
    ) -> Failure {
        match (failure, site) {
            (Failure::UnsupportedRequest | Failure::CompleterAbort, Some(site)) => {
                self.bring(request, trace, site, Bytes::ZERO, from).err().unwrap_or(failure)
            }
            // Nobody answers what is malformed or lost, and what was not sent was not asked.
            _ => failure,
        }
    }

    /// Ends a request that nobody took, and tells who asked.
    pub(super) fn refused(&self, request: u64, stopped: &Stopped, from: Option<NodeId>) -> Failure {
        let Stopped { ending, trace } = stopped;
        self.ended(request, *ending);
        self.told(request, trace, Some(ending.site()), ending.seen(), from)
    }

    /// Notes that a completion is lost, of which its requester sees nothing.
    pub(super) fn completion_lost(&self, request: u64, ending: Ending) -> Failure {
        self.log.note(request, Happened::CompletionEnded(ending));
        self.count(ending);
        Failure::Timeout
    }
}

/// Data as long as somebody sends at once.
fn cut(len: Bytes, most: Option<Bytes>) -> Bytes {
    most.map_or(len, |most| len.min(most))
}
