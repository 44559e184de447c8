//! Page requests, their groups, and what an unbound address space still gets.

use super::{domain, function};
use crate::device::PageResponse;
use crate::iommu::{GroupResponse, Iommu, PageRequest, TableFormat};
use crate::platform::IommuKind;
use crate::wire::Pasid;
use peerdma::addr::BusAddr;

fn request(pasid: u32, group: u16, last: bool) -> PageRequest {
    PageRequest {
        requester: function(0),
        pasid: Pasid::new(pasid),
        address: BusAddr::new(0x5000),
        read: true,
        write: false,
        privileged: false,
        last,
        group,
    }
}

fn iommu() -> Iommu {
    let iommu = Iommu::new(IommuKind::Vtd);
    iommu.allow_pri(function(0), true);
    iommu
}

fn answered(pasid: u32, group: u16, response: PageResponse) -> GroupResponse {
    GroupResponse { requester: function(0), pasid: Pasid::new(pasid), group, response }
}

#[test]
fn a_requester_that_may_not_ask_for_pages_is_not_heard() {
    let iommu = Iommu::new(IommuKind::Vtd);
    assert!(!iommu.page_request(request(1, 0, true)));
    assert_eq!(iommu.next_page_request(), None);
}

#[test]
fn a_group_gets_one_response_after_its_last_request() {
    let iommu = iommu();
    let respond = |group| iommu.respond(function(0), Pasid::new(1), group, PageResponse::Success);
    assert!(iommu.page_request(request(1, 4, false)));
    assert_eq!(respond(4), None, "its last request is not there");
    assert!(iommu.page_request(request(1, 4, true)));
    assert!(!iommu.page_request(request(1, 4, true)), "the group is complete");
    assert_eq!(iommu.next_page_request(), Some(request(1, 4, false)));
    assert_eq!(iommu.next_page_request(), Some(request(1, 4, true)));
    assert_eq!((respond(5), respond(4)), (None, Some(answered(1, 4, PageResponse::Success))));
    assert_eq!(respond(4), None);
    assert!(iommu.page_request(request(1, 4, true)), "its index may be used again");
}

#[test]
fn an_unbound_address_space_leaves_no_request_behind() {
    let iommu = iommu();
    let tables = domain(TableFormat::X86FirstStage { levels: 4, sign_extended: true }, &[]);
    for number in [1, 2] {
        iommu.bind_pasid(function(0), Pasid::new(number).unwrap(), tables.clone());
    }
    assert!(iommu.page_request(request(1, 0, true)));
    assert!(iommu.page_request(request(1, 1, false)));
    assert!(iommu.page_request(request(2, 0, true)));
    assert_eq!(iommu.next_page_request(), Some(request(1, 0, true)));
    let unbound = iommu.unbind_pasid(function(0), Pasid::new(1).unwrap());
    // Answered as invalid, also the one that was taken and the group that was not complete.
    assert_eq!(unbound.responses, [0, 1].map(|group| answered(1, group, PageResponse::Invalid)));
    assert_eq!(iommu.next_page_request(), Some(request(2, 0, true)));
    assert_eq!(iommu.respond(function(0), Pasid::new(1), 0, PageResponse::Success), None);
}

#[test]
fn a_full_queue_takes_no_more_and_a_stop_marker_takes_no_room() {
    let iommu = iommu();
    assert!((0..512).all(|group| iommu.page_request(request(1, group, true))));
    assert!(!iommu.page_request(request(2, 0, true)));
    assert!(iommu.page_request(PageRequest { read: false, ..request(1, 0, true) }));
    assert!(iommu.next_page_request().is_some());
    assert!(iommu.page_request(request(2, 0, true)));
    assert!(!iommu.page_request(request(3, 512, true)), "an index has nine bits");
}
