//! What an address space behind the emulated IOMMU promises, seen through that IOMMU.

use super::space::{DeviceCaches, DomainSpace, For, SpaceError, SpaceOptions};
use crate::device::PageResponse;
use crate::iommu::tests::{SharedArena, function};
use crate::iommu::{Cached, DomainId, FaultReason, Iommu, PageRequest};
use crate::memory::{Frames, Memory};
use crate::platform::IommuKind;
use crate::wire::{Pasid, Requester};
use peerdma::access::{Access, MemAttrs, Prot};
use peerdma::addr::{AddrRange, BusAddr, Bytes, Iova, PhysAddr};
use peerdma::dma::contract::{self, Fixture, Lent, Verdict};
use peerdma::dma::{IoSpace, MapError, Source, SourceKind};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

const KINDS: [IommuKind; 4] = [IommuKind::Vtd, IommuKind::Amd, IommuKind::Smmu, IommuKind::Window];
const LENT: PhysAddr = PhysAddr::new(0x10_0000_0000);

/// What a cache was told, and where the start of the range led at that moment.
type Seen = (Cached, AddrRange<Iova>, Result<PhysAddr, FaultReason>);

/// Notes what caches are told.
struct Told {
    iommu: Arc<Iommu>,
    seen: Mutex<Vec<Seen>>,
}

impl DeviceCaches for Told {
    fn invalidate(&self, cached: Cached, range: AddrRange<Iova>) {
        let requester = Requester { pasid: cached.pasid, ..Requester::plain(cached.requester) };
        let at = BusAddr::new(range.start().as_u64());
        let now = self.iommu.translate(&requester, at, Access::Read).map(|output| output.to);
        self.seen.lock().unwrap().push((cached, range, now));
    }
}

struct Bench {
    iommu: Arc<Iommu>,
    arena: SharedArena,
    told: Arc<Told>,
    space: DomainSpace,
    requester: Requester,
}

fn range(start: u64, len: u64) -> AddrRange<Iova> {
    AddrRange::new(Iova::new(start), Bytes::new(len)).unwrap()
}

impl Bench {
    /// A space with its requester: function 0, for a process with PASID 5.
    fn new(kind: IommuKind, whose: For) -> Self {
        let iommu = Arc::new(Iommu::new(kind));
        let arena = SharedArena::new(1024);
        let told = Arc::new(Told { iommu: Arc::clone(&iommu), seen: Mutex::default() });
        let caches: Arc<dyn DeviceCaches> = Arc::<Told>::clone(&told);
        let reserved = vec![range(0xfee0_0000, 0x10_0000), range(0x10_0000, 0x800)];
        let options = SpaceOptions { whose, reserved, ..SpaceOptions::default() };
        let space = DomainSpace::new(Arc::clone(&iommu), DomainId::new(1), arena.clone(), caches, &options).unwrap();
        let pasid = (whose == For::Process).then(|| Pasid::new(5).unwrap());
        let requester = Requester { pasid, ..Requester::plain(function(0)) };
        match pasid {
            Some(pasid) => space.bind(function(0), pasid),
            None => space.attach(function(0)),
        }
        Self { iommu, arena, told, space, requester }
    }

    fn map(&mut self, at: AddrRange<Iova>, to: PhysAddr) {
        self.space.map(at, &Source::Physical(to), Prot::ReadWrite, MemAttrs::empty()).unwrap();
    }

    fn leads(&self, at: u64, access: Access) -> Result<PhysAddr, FaultReason> {
        self.iommu.translate(&self.requester, BusAddr::new(at), access).map(|output| output.to)
    }
}

impl Fixture for Bench {
    type Space = DomainSpace;

    fn space(&mut self) -> &mut DomainSpace {
        &mut self.space
    }

    fn lend(&mut self, kind: SourceKind) -> Option<Lent<Infallible>> {
        let lent = Lent { source: Source::Physical(LENT), len: Bytes::new(0x4000), attrs: MemAttrs::empty() };
        (kind == SourceKind::Physical).then_some(lent)
    }

    fn reaches(&mut self, iova: Iova, source: &Source<Infallible>, access: Access) -> Option<bool> {
        let Source::Physical(wanted) = source else { return Some(false) };
        Some(self.leads(iova.as_u64(), access) == Ok(*wanted))
    }
}

#[test]
fn a_domain_space_keeps_the_contract_of_address_spaces_with_every_kind() {
    for kind in KINDS {
        for whose in [For::Device, For::Process] {
            if (kind, whose) == (IommuKind::Window, For::Process) {
                continue;
            }
            let mut bench = Bench::new(kind, whose);
            let mut broken = Vec::new();
            let tally = contract::run(&mut bench, &mut |outcome| {
                if matches!(outcome.verdict, Verdict::Broken { .. }) {
                    broken.push(outcome.to_string());
                }
            });
            assert!(broken.is_empty() && tally.held >= 18, "{kind} {whose:?}: {tally:?} {broken:#?}");
            let arena = bench.arena.clone();
            drop(bench);
            assert_eq!(arena.0.in_use(), 0, "{kind} {whose:?} leaves no frame behind");
        }
    }
}

#[test]
fn caches_are_told_after_the_iommu_forgot_and_before_an_unmapping_returns() {
    for kind in [IommuKind::Vtd, IommuKind::Amd, IommuKind::Smmu] {
        let mut bench = Bench::new(kind, For::Device);
        bench.iommu.allow_ats(function(0), true);
        let at = range(0x20_0000, 0x20_0000);
        bench.map(at, LENT);
        assert_eq!(bench.leads(0x20_1008, Access::Write), Ok(PhysAddr::new(0x10_0000_1008)));
        // A part of a large page.
        let part = range(0x20_1000, 0x1000);
        assert_eq!(bench.space.unmap(part), Ok(Bytes::new(0x1000)));
        let cached = Cached { requester: function(0), pasid: None };
        assert_eq!(*bench.told.seen.lock().unwrap(), [(cached, part, Err(FaultReason::NotMapped))], "{kind}");
        assert_eq!(bench.leads(0x20_2000, Access::Write), Ok(PhysAddr::new(0x10_0000_2000)));
        let elsewhere = Source::Physical(PhysAddr::new(0x20_0000_0000));
        let rest = range(0x20_2000, 0x1000);
        bench.space.relink(rest, &elsewhere, Prot::Read, MemAttrs::empty()).unwrap();
        let last = bench.told.seen.lock().unwrap().last().copied();
        assert_eq!(last, Some((cached, rest, Ok(PhysAddr::new(0x20_0000_0000)))), "{kind}");
        assert_eq!(bench.leads(0x20_2000, Access::Write), Err(FaultReason::NotPermitted));
    }
}

#[test]
fn a_space_that_forgets_to_invalidate_leaves_devices_where_they_were() {
    for kind in KINDS {
        let mut bench = Bench::new(kind, For::Device);
        let at = range(0x40_0000, 0x1000);
        bench.map(at, LENT);
        assert_eq!(bench.leads(0x40_0000, Access::Read), Ok(LENT));
        bench.space.forget_invalidations(1);
        bench.space.unmap(at).unwrap();
        assert_eq!(bench.leads(0x40_0000, Access::Read), Ok(LENT), "{kind}");
        bench.map(at, LENT);
        bench.space.unmap(at).unwrap();
        assert_eq!(bench.leads(0x40_0000, Access::Read), Err(FaultReason::NotMapped), "{kind}");
    }
}

#[test]
fn a_root_that_grows_is_told_to_the_iommu() {
    let mut bench = Bench::new(IommuKind::Amd, For::Device);
    bench.map(range(0x1000, 0x1000), LENT);
    let before = bench.space.domain().tables.format;
    bench.map(range(1 << 46, 0x1000), LENT);
    assert_ne!(bench.space.domain().tables.format, before);
    assert_eq!((bench.leads(0x1000, Access::Read), bench.leads(1 << 46, Access::Read)), (Ok(LENT), Ok(LENT)));
}

#[test]
fn what_is_reserved_is_never_mapped() {
    for kind in KINDS {
        let mut bench = Bench::new(kind, For::Device);
        for at in [0xfee0_0000, 0x10_0000, 0xff_f000] {
            let outside = at != 0xff_f000;
            let source = Source::Physical(LENT);
            let answer = bench.space.map(range(at, 0x1000), &source, Prot::Read, MemAttrs::empty());
            assert_eq!(matches!(answer, Err(MapError::OutsideUsable { .. })), outside, "{kind} {at:#x}: {answer:?}");
        }
    }
}

#[test]
fn processes_of_one_function_do_not_reach_each_other() {
    let mut bench = Bench::new(IommuKind::Vtd, For::Process);
    let options = SpaceOptions { whose: For::Process, ..SpaceOptions::default() };
    let (iommu, arena) = (Arc::clone(&bench.iommu), bench.arena.clone());
    let mut other = DomainSpace::new(iommu, DomainId::new(2), arena, Arc::new(()), &options).unwrap();
    let pasid = Pasid::new(6).unwrap();
    other.bind(function(0), pasid);
    bench.map(range(0x1000, 0x1000), LENT);
    let there = PhysAddr::new(0x20_0000_0000);
    other.map(range(0x1000, 0x2000), &Source::Physical(there), Prot::ReadWrite, MemAttrs::empty()).unwrap();
    let within = Requester { pasid: Some(pasid), ..bench.requester };
    let leads = |at| bench.iommu.translate(&within, BusAddr::new(at), Access::Read).map(|output| output.to);
    assert_eq!((leads(0x1000), bench.leads(0x1000, Access::Read)), (Ok(there), Ok(LENT)));
    assert_eq!(bench.leads(0x2000, Access::Read), Err(FaultReason::NotMapped));
    drop(other);
    assert_eq!(leads(0x1000), Err(FaultReason::NoPasid));
}

#[test]
fn an_unbound_process_is_drained() {
    let bench = Bench::new(IommuKind::Vtd, For::Process);
    bench.iommu.allow_ats(function(0), true);
    bench.iommu.allow_pri(function(0), true);
    let request = PageRequest {
        requester: function(0),
        pasid: Pasid::new(5),
        address: BusAddr::new(0x1000),
        read: true,
        write: true,
        privileged: false,
        last: true,
        group: 3,
    };
    assert!(bench.iommu.page_request(request));
    let responses = bench.space.unbind(function(0), Pasid::new(5).unwrap());
    assert_eq!(
        responses.iter().map(|answer| (answer.group, answer.response)).collect::<Vec<_>>(),
        [(3, PageResponse::Invalid)]
    );
    let seen = bench.told.seen.lock().unwrap();
    assert_eq!(
        seen.iter().map(|told| (told.0.pasid, told.2)).collect::<Vec<_>>(),
        [(Pasid::new(5), Err(FaultReason::NoPasid))]
    );
}

#[test]
fn a_stray_write_into_a_page_table_is_met_by_the_next_walk() {
    let frames = Frames::new(PhysAddr::new(0x4000_0000), 64).unwrap();
    let iommu = Arc::new(Iommu::new(IommuKind::Vtd));
    let (id, options) = (DomainId::new(1), SpaceOptions::default());
    let mut space = DomainSpace::new(Arc::clone(&iommu), id, frames.clone(), Arc::new(()), &options).unwrap();
    space.attach(function(0));
    space.map(range(0, 0x3000), &Source::Physical(LENT), Prot::ReadWrite, MemAttrs::empty()).unwrap();
    let leads = |at| {
        let requester = Requester::plain(function(0));
        iommu.translate(&requester, BusAddr::new(at), Access::Read).map(|output| output.to)
    };
    assert_eq!((leads(0), leads(0x1000)), (Ok(LENT), Ok(PhysAddr::new(0x10_0000_1000))));
    let root = space.domain().tables.root.as_u64() - frames.range().start().as_u64();
    frames.write(Bytes::new(root), &0x7ff0_0000_0003_u64.to_le_bytes()).unwrap();
    // What is remembered goes on; what has to be walked ends where there is no table.
    assert_eq!((leads(0), leads(0x2000)), (Ok(LENT), Err(FaultReason::BadEntry)));
}

/// A space that is used for long does not use up its memory.
#[test]
fn tables_are_given_back_while_the_space_is_used() {
    let mut bench = Bench::new(IommuKind::Vtd, For::Device);
    let at = range(0x4000_0000, 0x20_0000);
    let mut most = 0;
    for round in 0..200 {
        // Not aligned to a large page, so that it takes a table.
        bench.map(at, PhysAddr::new(0x10_0000_1000));
        most = most.max(bench.arena.0.in_use());
        assert_eq!(bench.space.unmap(at), Ok(at.len()), "{round}");
    }
    assert!(most <= 6, "{most} frames");
}

#[test]
fn where_nothing_translates_there_is_no_space() {
    let new = |kind, whose| {
        let options = SpaceOptions { whose, ..SpaceOptions::default() };
        let arena = SharedArena::new(512);
        DomainSpace::new(Arc::new(Iommu::new(kind)), DomainId::new(1), arena, Arc::new(()), &options).err()
    };
    assert_eq!(new(IommuKind::None, For::Device), Some(SpaceError::NoIommu));
    assert_eq!(new(IommuKind::Window, For::Process), Some(SpaceError::NoWindow));
    assert_eq!(new(IommuKind::Window, For::Device), None);
}
