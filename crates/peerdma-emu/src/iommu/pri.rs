//! Page requests, as the IOMMU takes them from devices and responses for them.

use super::lock::{lock, read};
use super::page_request::{GroupResponse, PageRequest};
use super::unit::Iommu;
use crate::device::PageResponse;
use crate::platform::IommuKind;
use crate::wire::Pasid;
use peerdma::pcie::PciAddr;

impl Iommu {
    /// Lets a requester ask for pages, or not. Has no effect where [`allow_ats`](Self::allow_ats) has none.
    pub fn allow_pri(&self, requester: PciAddr, allowed: bool) {
        let has_pri = matches!(self.kind(), IommuKind::Vtd | IommuKind::Amd | IommuKind::Smmu);
        self.change(requester, |stream| stream.pri = allowed && has_pri);
    }

    /// Queues a page request.
    ///
    /// `false`: it is not queued, because the queue is full, or this requester may not ask, or its
    /// group is complete or has no such index; its group is to be answered
    /// with [`PageResponse::Failure`]. A stop marker is taken and not queued, as nothing answers it.
    pub fn page_request(&self, request: PageRequest) -> bool {
        let allowed = read(&self.streams).get(&request.requester).is_some_and(|stream| stream.pri);
        allowed && (request.is_stop_marker() || lock(&self.pages).push(request))
    }

    /// Takes the page request that waited longest.
    pub fn next_page_request(&self) -> Option<PageRequest> {
        lock(&self.pages).pop()
    }

    /// Ends a group of page requests, and answers what is to be delivered.
    ///
    /// `None` where no such group waits, or its last request is not there yet: a response now would
    /// be one that the device does not expect.
    pub fn respond(
        &self,
        requester: PciAddr,
        pasid: Option<Pasid>,
        group: u16,
        response: PageResponse,
    ) -> Option<GroupResponse> {
        lock(&self.pages).respond((requester, pasid, group), response)
    }
}
