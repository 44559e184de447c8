//! Page requests and responses among everything else that travels.

use super::*;
use crate::config::PasidDescription;
use crate::device::{How, PageResponse};
use crate::iommu::{Attachment, Iommu, PageRequest};
use crate::platform::IommuKind;
use crate::wire::Pasid;

const SOURCE_VALIDATION: u16 = 1 << 0;
const TRANSLATION_BLOCKING: u16 = 1 << 1;

/// A machine whose devices ask for translations and pages.
fn asking(delivery: Delivery, seed: u64) -> (Bench, Arc<Iommu>) {
    let iommu = Arc::new(Iommu::new(IommuKind::Vtd));
    let bench = bench_with(delivery, seed, Some(iommu.clone()), |function| {
        (function.ats, function.pri) = (Some(true), Some(true));
        function.pasid = Some(PasidDescription { enabled: true, width: 20 });
    });
    for &device in &bench.devices {
        let requester = bench.machine.fabric().tree().node(device).address;
        iommu.attach(requester, Attachment::Identity);
        iommu.allow_ats(requester, true);
        iommu.allow_pri(requester, true);
    }
    (bench, iommu)
}

const PAGE: u64 = 0x7000;

fn asks(bench: &Bench, group: u16) -> Result<(), Failure> {
    let how = How { pasid: Pasid::new(5), ..How::default() };
    bench.port(0).request_page(how, BusAddr::new(PAGE), true, group)
}

fn expected(bench: &Bench, group: u16) -> PageRequest {
    let requester = bench.machine.fabric().tree().node(bench.devices[0]).address;
    let (pasid, address) = (Pasid::new(5), BusAddr::new(PAGE));
    PageRequest { requester, pasid, address, read: true, write: true, privileged: false, last: true, group }
}

#[test]
fn a_page_request_comes_to_the_iommu_as_it_was_sent() {
    for delivery in [Delivery::Queued, Delivery::AtOnce] {
        let (bench, iommu) = asking(delivery, 1);
        asks(&bench, 511).unwrap();
        assert!(bench.machine.settle(100));
        assert_eq!(iommu.next_page_request(), Some(expected(&bench, 511)));
        assert_eq!(asks(&bench, 512), Err(Failure::NotSent), "an index has nine bits");
    }
}

#[test]
fn a_page_request_waits_and_passes_no_write_before_it() {
    let mut waited = false;
    for seed in 0..40 {
        let (bench, iommu) = asking(Delivery::Queued, seed);
        // Up to the root port both go the same way; into memory the write goes on alone.
        bench.port(0).write(How::default(), BusAddr::new(0x1000), &[1; 8]).unwrap();
        asks(&bench, 0).unwrap();
        bench.machine.log().keep(true);
        while iommu.next_page_request().is_none() {
            waited = true;
            assert!(bench.machine.step());
        }
        let mut went = bench.machine.log().take().into_iter().map(|event| event.what);
        let into_memory = |what| matches!(what, Happened::Went { egress: Egress::Memory(_), .. });
        assert!(went.any(into_memory), "the write came to the root complex first");
    }
    assert!(waited);
}

#[test]
fn ports_look_at_the_name_of_a_page_request_and_at_nothing_else() {
    let arrives = |prepare: &dyn Fn(&Bench)| {
        let (bench, iommu) = asking(Delivery::Queued, 1);
        prepare(&bench);
        asks(&bench, 0).unwrap();
        assert!(bench.machine.settle(100));
        (iommu.next_page_request().is_some(), bench.machine.counts())
    };
    let never = Counts::new();
    assert_eq!(arrives(&|bench| bench.set_acs(bench.ports[0], SOURCE_VALIDATION)), (true, never.clone()));
    let all_but = !(SOURCE_VALIDATION | 1 << 7);
    assert_eq!(arrives(&|bench| bench.set_acs(bench.ports[0], all_but)), (true, never.clone()));
    // Neither is a message a memory request, nor is its address one that a port routes by.
    assert_eq!(arrives(&|bench| bench.disable(bench.ports[0], 2)), (true, never.clone()));
    assert_eq!(arrives(&|bench| bench.disable(bench.devices[0], 2)), (true, never));
    for above in [false, true] {
        let port = |bench: &Bench| if above { bench.root } else { bench.ports[0] };
        let (came, counts) = arrives(&|bench| {
            bench.set_acs(port(bench), SOURCE_VALIDATION);
            bench.set_buses(port(bench), 0, 9, 9);
        });
        assert!(!came);
        assert!(counts.keys().all(|ending| matches!(ending, Ending::Violation(_))) && counts.len() == 1);
    }
}

#[test]
fn a_translation_request_is_a_read_to_every_port() {
    let ask = |prepare: &dyn Fn(&Bench)| {
        let (bench, _) = asking(Delivery::Queued, 1);
        prepare(&bench);
        let answer = bench.port(0).translate(How::default(), BusAddr::new(PAGE), false);
        answer.map(|found| found.is_some())
    };
    assert_eq!(ask(&|_| {}), Ok(true));
    let port = |bench: &Bench| bench.ports[0];
    assert_eq!(ask(&|bench| bench.set_acs(port(bench), TRANSLATION_BLOCKING)), Err(Failure::CompleterAbort));
    assert_eq!(ask(&|bench| bench.disable(port(bench), 2)), Err(Failure::UnsupportedRequest));
    // By its bare number it is a peer's, who gives no translations.
    let (bench, _) = asking(Delivery::Queued, 1);
    let peers = bench.port(0).translate(How::default(), Bench::at(1, 0), false);
    assert_eq!(peers, Err(Failure::UnsupportedRequest));
    // Its answer comes back by bus numbers.
    assert_eq!(ask(&|bench| bench.set_buses(port(bench), 2, 9, 9)), Err(Failure::Timeout));
}

#[test]
fn a_response_goes_behind_what_waits_on_its_way_and_only_where_buses_lead() {
    for seed in 0..20 {
        let (bench, _) = asking(Delivery::Queued, seed);
        asks(&bench, 7).unwrap();
        let at = PhysAddr::new(BAR + 0x40);
        bench.machine.cpu().store(at, &[3; 8]);
        bench.machine.respond(bench.devices[0], 7, PageResponse::Success);
        assert_eq!(bench.holds(0, 0x40, 8), [3; 8]);
        assert_eq!(bench.port(0).next_page_response(), Some((7, PageResponse::Success)));
    }
    let (bench, _) = asking(Delivery::Queued, 1);
    asks(&bench, 7).unwrap();
    bench.set_buses(bench.ports[0], 2, 9, 9);
    bench.machine.respond(bench.devices[0], 7, PageResponse::Success);
    assert_eq!(bench.port(0).next_page_response(), None);
    assert_eq!(bench.machine.counts().len(), 1);
}

#[test]
fn who_may_not_ask_is_answered_with_failure() {
    let (bench, iommu) = asking(Delivery::Queued, 1);
    iommu.allow_pri(bench.machine.fabric().tree().node(bench.devices[0]).address, false);
    asks(&bench, 3).unwrap();
    assert_eq!(bench.port(0).next_page_response(), None, "it is still on its way");
    // The device has an answer that it does not take, so that there is always something to do.
    bench.machine.settle(100);
    assert_eq!(bench.port(0).next_page_response(), Some((3, PageResponse::Failure)));
    assert_eq!(iommu.next_page_request(), None);
}
