//! Requests for pages on their way up, and the responses on their way down (PRI, PCIe 6.0 §10.4).
//!
//! A request is a posted message: it waits in queues as writes do, behind those that it may not pass.
//! A response is routed by the function's ID, and goes behind what waits for any egress on its way.

use super::Machine;
use super::bus::Port;
use super::homeward::Trace;
use super::log::Happened;
use super::queue::Posted;
use crate::device::{How, PageResponse};
use crate::fabric::{HostId, NodeId, Site};
use crate::iommu::PageRequest;
use crate::wire::{AddressType, Attributes, Failure, Head, Kind, Requester};
use peerdma::addr::{BusAddr, Bytes};

impl Port<'_> {
    /// Sends a page request.
    pub(super) fn send_page_request(&self, how: How, at: BusAddr, write: bool, group: u16) -> Result<(), Failure> {
        let how = How { at: AddressType::Untranslated, attributes: Attributes::default(), ..how };
        let head = self.head(how, Kind::PageRequest, at, Bytes::ZERO)?;
        let Requester { id: requester, pasid, privileged, .. } = head.requester;
        let request = PageRequest { requester, pasid, address: at, privileged, read: true, write, group, last: true };
        let message = request.message().ok_or(Failure::NotSent)?;
        let config = self.machine.fabric.tree().config(self.node);
        if !config.pri_enabled() || !self.goes_on() {
            return Err(Failure::NotSent);
        }
        if !self.function().pages.ask(group, u64::from(config.page_requests_allocated())) {
            return Err(Failure::NotSent);
        }
        let number = self.machine.log.number();
        let first = self.machine.fabric.leave(self.node, head);
        let data = Box::new(message);
        self.machine.post(Posted { number, from: Some(self.node), head, data, way: Vec::new() }, first);
        Ok(())
    }
}

impl Machine {
    /// Hands a page request to the IOMMU; what it does not take is answered at once.
    pub(super) fn page_requested(&self, posted: &Posted, host: HostId) {
        let message = posted.data.first_chunk();
        let request = message.map(|message| PageRequest::of_message(&posted.head.requester, message));
        let (Some(request), Some(iommu)) = (request, self.fabric.root().iommu()) else {
            return self.ended(posted.number, crate::fabric::Ending::Nowhere(host));
        };
        self.log.note(posted.number, Happened::PageRequested { host });
        if !iommu.page_request(request)
            && let Some(node) = posted.from
        {
            self.respond(node, request.group, PageResponse::Failure);
        }
    }

    /// Answers a function's page request.
    ///
    /// A response for a group that the function does not wait for is dropped there, and noted in its page
    /// request status register.
    ///
    /// The response goes down to it as every message does, behind the writes that wait on its way, and is
    /// there when this returns; unless a port's bus numbers do not lead to the function, which then waits
    /// for it in vain.
    pub fn respond(&self, node: NodeId, group: u16, response: PageResponse) {
        let tree = self.fabric.tree();
        let number = self.log.number();
        let head = Head {
            kind: Kind::PageRequest,
            requester: Requester::plain(tree.node(node).address),
            at: AddressType::Untranslated,
            attributes: Attributes::default(),
            address: BusAddr::new(0),
            len: Bytes::ZERO,
        };
        let hop = |egress| {
            self.log.note(number, Happened::ResponseWent(egress));
            self.flush(egress);
        };
        match self.homeward(&Trace::new(head), Site::Host(tree.host(node)), Bytes::ZERO, Some(node), hop) {
            Ok(_) => {
                self.log.note(number, Happened::Responded { node, group });
                self.responded(node, group, response);
            }
            Err(ending) => self.ended(number, ending),
        }
    }
}
