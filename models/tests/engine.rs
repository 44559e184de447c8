//! Two queues of one domain map and unmap at once, through the whole engine.

#![cfg(peerdma_shuttle)]
#![expect(clippy::unwrap_used, reason = "helpers of models")]

use peerdma::access::{Access, MemAttrs, Prot};
use peerdma::addr::{Bytes, Granule, Iova, PhysAddr};
use peerdma::chunk::{Chunk, Chunks};
use peerdma::dma::spaces::{InitiatorId, SoftIommu, Tlb};
use peerdma::dma::{Context, DeviceAddress, Initiator, Owner, Owners, Peers};
use peerdma::iopt::{VtdOptions, VtdSecondStage};
use peerdma::iova::{Allocator, IovaRanges};
use peerdma::topology::IommuMode;
use peerdma_models::frames::Frames;
use peerdma_models::orders;
use shuttle::thread;
use std::cell::RefCell;
use std::sync::Arc;

const PAGE: u64 = 0x1000;

type Domain = Arc<SoftIommu<VtdSecondStage, Frames>>;

fn domain() -> (Domain, Frames) {
    let frames = Frames::new(24);
    let format = VtdSecondStage::new(VtdOptions { input_bits: 39, ..VtdOptions::default() }).unwrap();
    (Arc::new(SoftIommu::new(format, frames.clone()).unwrap()), frames)
}

/// Maps two scattered pages in IOVAs of its own beside the other queue's, looks where they lead, unmaps them.
fn queue(domain: &Domain, number: u64) {
    let first = 2 * PAGE * (1 + number);
    let last = first + 2 * PAGE - 1;
    let own = IovaRanges::from_inclusive([(Iova::new(first), Iova::new(last))]).unwrap();
    let depot = RefCell::new(Allocator::new(Granule::PAGE_4K, &own).unwrap());
    let (owners, peers) = (Owners::new(), Peers::none());
    let nic = Initiator::new("nic", IommuMode::Translated);
    let context = Context::new(nic, domain.attach(), &owners, &peers, &depot).unwrap();
    let mut list = Chunks::new();
    let memory = [0x10_0000 * (number + 1), 0x80_0000 + 0x10_0000 * number];
    for at in memory {
        list.push(Chunk::new(Owner::Ram, Bytes::new(at), Bytes::new(PAGE), MemAttrs::empty()).unwrap()).unwrap();
    }
    let mut tlb = Tlb::new(InitiatorId::new(number as u32));
    let mapping = context.map(list.view(), Prot::ReadWrite).unwrap();
    let DeviceAddress::Iova(start) = mapping.spans().next().unwrap().address else { panic!("no IOVA") };
    let pages = [start, Iova::new(start.as_u64() + PAGE)];
    for (iova, to) in pages.into_iter().zip(memory) {
        assert_eq!(domain.translate(&mut tlb, iova, Access::Write), Ok(PhysAddr::new(to)));
    }
    mapping.unlink().unwrap().release();
    for iova in pages {
        assert!(domain.translate(&mut tlb, iova, Access::Read).is_err(), "unmapped, and remembered by nobody");
    }
}

#[test]
fn queues_of_one_domain_do_not_see_each_other() {
    orders::some(5000, || {
        let (domain, _) = domain();
        let other = {
            let domain = Arc::clone(&domain);
            thread::spawn(move || queue(&domain, 1))
        };
        queue(&domain, 0);
        other.join().unwrap();
    });
}
