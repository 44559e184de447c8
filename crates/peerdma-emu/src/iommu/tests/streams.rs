//! Who is translated by what, and what devices with caches of their own are told.

use super::{domain, function};
use crate::iommu::{Attachment, Cached, Domain, DomainId, FaultReason, Iommu, TableFormat};
use crate::platform::IommuKind;
use crate::wire::{Failure, Pasid, Requester};
use peerdma::access::{Access, Prot};
use peerdma::addr::{BusAddr, PhysAddr};

const X86: TableFormat = TableFormat::X86FirstStage { levels: 4, sign_extended: true };

/// Address 0 leads to this page, for users; the next page is a supervisor's, the one after it read-only.
fn process(number: u32, page: u64) -> Domain {
    let words = [
        (0x1000, 0x2007),
        (0x2000, 0x3007),
        (0x3000, 0x4007),
        (0x4000, page | 7),
        (0x4008, page | 3),
        (0x4010, page | 5),
    ];
    Domain { id: DomainId::new(number), ..domain(X86, &words) }
}

fn pasid(number: u32) -> Pasid {
    Pasid::new(number).unwrap()
}

fn within(number: u32) -> Requester {
    Requester { pasid: Some(pasid(number)), ..Requester::plain(function(0)) }
}

fn read(iommu: &Iommu, requester: &Requester, at: u64) -> Result<u64, FaultReason> {
    iommu.translate(requester, BusAddr::new(at), Access::Read).map(|output| output.to.as_u64())
}

#[test]
fn a_requester_that_was_never_attached_is_blocked() {
    for kind in [IommuKind::Vtd, IommuKind::Amd, IommuKind::Smmu, IommuKind::Window] {
        let iommu = Iommu::new(kind);
        assert_eq!(read(&iommu, &Requester::plain(function(0)), 0), Err(FaultReason::Blocked));
        assert!(!iommu.trusts(function(0)));
        let record = iommu.take_fault().unwrap();
        assert_eq!((record.requester, record.reason), (function(0), FaultReason::Blocked));
    }
}

#[test]
fn without_an_iommu_addresses_are_what_they_are() {
    let iommu = Iommu::new(IommuKind::None);
    let requester = Requester::plain(function(0));
    for at in [0, 0x9000_1234, u64::MAX] {
        let output = iommu.translate(&requester, BusAddr::new(at), Access::Write).unwrap();
        assert_eq!((output.to, output.prot), (PhysAddr::new(at), Prot::ReadWrite));
        assert!(output.holds.start().as_u64() <= at && at <= output.holds.last().as_u64());
    }
    assert!(iommu.trusts(function(0)));
    iommu.allow_ats(function(0), true);
    assert_eq!(iommu.translation(&requester, BusAddr::new(0), false), Err(Failure::UnsupportedRequest));
}

#[test]
fn an_answer_holds_for_its_page_and_tells_the_rights() {
    let iommu = Iommu::new(IommuKind::Vtd);
    iommu.attach(function(0), Attachment::Translated(process(1, 0x8000)));
    let output = iommu.translate(&Requester::plain(function(0)), BusAddr::new(0x2abc), Access::Read).unwrap();
    assert_eq!((output.to, output.prot), (PhysAddr::new(0x8abc), Prot::Read));
    assert_eq!((output.holds.start(), output.holds.last()), (BusAddr::new(0x2000), BusAddr::new(0x2fff)));
    let write = iommu.translate(&Requester::plain(function(0)), BusAddr::new(0x2abc), Access::Write);
    assert_eq!(write, Err(FaultReason::NotPermitted));
}

#[test]
fn address_spaces_of_one_function_are_apart() {
    let iommu = Iommu::new(IommuKind::Vtd);
    iommu.attach(function(0), Attachment::Identity);
    iommu.bind_pasid(function(0), pasid(1), process(1, 0x8000));
    iommu.bind_pasid(function(0), pasid(2), process(2, 0x9000));
    // Twice, so that the second answers are remembered ones.
    for _ in 0..2 {
        assert_eq!(read(&iommu, &Requester::plain(function(0)), 0x10), Ok(0x10));
        assert_eq!((read(&iommu, &within(1), 0x10), read(&iommu, &within(2), 0x10)), (Ok(0x8010), Ok(0x9010)));
        assert_eq!(read(&iommu, &within(3), 0x10), Err(FaultReason::NoPasid));
    }
    let other = Requester { id: function(1), ..within(1) };
    assert_eq!(read(&iommu, &other, 0x10), Err(FaultReason::Blocked));
    iommu.unbind_pasid(function(0), pasid(1));
    assert_eq!(
        (read(&iommu, &within(1), 0x10), read(&iommu, &within(2), 0x10)),
        (Err(FaultReason::NoPasid), Ok(0x9010))
    );
}

#[test]
fn a_supervisors_page_is_for_those_who_ask_as_one() {
    let iommu = Iommu::new(IommuKind::Vtd);
    iommu.bind_pasid(function(0), pasid(1), process(1, 0x8000));
    let supervisor = Requester { privileged: true, ..within(1) };
    assert_eq!((read(&iommu, &supervisor, 0x1000), read(&iommu, &supervisor, 0)), (Ok(0x8000), Ok(0x8000)));
    assert_eq!(read(&iommu, &within(1), 0x1000), Err(FaultReason::NotPermitted));
    let without_pasid = Requester { privileged: true, ..Requester::plain(function(0)) };
    iommu.attach(function(0), Attachment::Translated(process(1, 0x8000)));
    assert_eq!(read(&iommu, &without_pasid, 0x1000), Err(FaultReason::NotPermitted));
}

#[test]
fn a_window_knows_no_pasids_and_gives_no_translations() {
    let iommu = Iommu::new(IommuKind::Window);
    iommu.bind_pasid(function(0), pasid(1), process(1, 0x8000));
    iommu.attach(function(0), Attachment::Identity);
    iommu.allow_ats(function(0), true);
    assert_eq!(read(&iommu, &within(1), 0), Err(FaultReason::NoPasid));
    assert!(!iommu.trusts(function(0)));
}

#[test]
fn translations_are_given_to_those_who_may_have_them() {
    let iommu = Iommu::new(IommuKind::Vtd);
    let requester = Requester::plain(function(0));
    let ask = |requester: &Requester, at, write| iommu.translation(requester, BusAddr::new(at), write);
    iommu.attach(function(0), Attachment::Translated(process(1, 0x8000)));
    assert_eq!(ask(&requester, 0, false), Err(Failure::UnsupportedRequest));
    assert_eq!(iommu.take_fault().map(|record| record.reason), Some(FaultReason::NotTrusted));
    iommu.allow_ats(function(0), true);
    assert!(iommu.trusts(function(0)));
    let told = |answer: Result<Option<(crate::iommu::Output, bool)>, Failure>| {
        answer.map(|found| found.map(|(output, write)| (output.to.as_u64(), write)))
    };
    assert_eq!(told(ask(&requester, 0x10, true)), Ok(Some((0x8010, true))));
    assert_eq!(told(ask(&requester, 0x2010, true)), Ok(Some((0x8010, false))), "W is clear on a page to be read");
    // Neither is a fault: the device can ask for the page.
    assert_eq!((told(ask(&requester, 0x1000, false)), told(ask(&requester, 0x9000, true))), (Ok(None), Ok(None)));
    assert_eq!(iommu.take_fault(), None);
    assert_eq!(told(ask(&within(9), 0, false)), Err(Failure::CompleterAbort));
    iommu.attach(function(0), Attachment::Blocked);
    assert_eq!(told(ask(&requester, 0, false)), Err(Failure::UnsupportedRequest));
    assert!(!iommu.trusts(function(0)));
    assert_eq!(iommu.faults().records.len(), 2);
}

#[test]
fn damaged_tables_abort_a_translation() {
    let iommu = Iommu::new(IommuKind::Amd);
    let damaged = domain(TableFormat::AmdV1 { levels: 3 }, &[(0x1000, 0x7010_0000_0000_0001)]);
    iommu.attach(function(0), Attachment::Translated(damaged));
    iommu.allow_ats(function(0), true);
    let answer = iommu.translation(&Requester::plain(function(0)), BusAddr::new(0), false);
    assert_eq!(answer, Err(Failure::CompleterAbort));
    assert_eq!(iommu.take_fault().map(|record| record.reason), Some(FaultReason::BadEntry));
}

#[test]
fn an_invalidation_names_every_cache_that_may_hold_the_domain() {
    let iommu = Iommu::new(IommuKind::Smmu);
    let (shared, other) = (process(1, 0x8000), process(2, 0x9000));
    for number in 0..3 {
        iommu.attach(function(number), Attachment::Translated(shared.clone()));
        iommu.allow_ats(function(number), number != 1);
    }
    iommu.bind_pasid(function(0), pasid(7), shared.clone());
    iommu.bind_pasid(function(2), pasid(8), other.clone());
    let cached = |number, space: Option<u32>| Cached { requester: function(number), pasid: space.map(pasid) };
    assert_eq!(iommu.invalidate_all(shared.id), [cached(0, None), cached(0, Some(7)), cached(2, None)]);
    assert_eq!(iommu.invalidate_all(other.id), [cached(2, Some(8))]);
    assert_eq!(iommu.attach(function(0), Attachment::Blocked), Some(cached(0, None)));
    assert_eq!(iommu.unbind_pasid(function(0), pasid(7)).caches, [cached(0, Some(7))]);
    assert_eq!(iommu.remove(shared.id), [cached(2, None)]);
    assert!(matches!(iommu.attachment(function(1)), Attachment::Blocked));
}
