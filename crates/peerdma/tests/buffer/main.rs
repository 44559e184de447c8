//! Shared buffers through the public API.
//!
//! - [`past_the_end`]: no way of access leads out of a buffer.
//! - [`gone_first`]: what was made of a mapping goes before the buffer is quiet.
//! - [`bar_moves`]: after a BAR has moved, what is mapped anew is where it is.
//! - [`example`]: how little an exporter has to write.

#![cfg(all(test, feature = "std"))]

#[path = "../../examples/export_vram.rs"]
#[expect(unreachable_pub, reason = "it is a program of its own")]
mod export_vram;

mod bar_moves;
mod example;
mod gone_first;
mod past_the_end;

use core::cell::RefCell;
use core::convert::Infallible;
use peerdma::access::Prot;
use peerdma::addr::{AddrRange, Bytes, Granule, PhysAddr};
use peerdma::buffer::Lifetime;
use peerdma::buffer::life::{Answers, Disturbance, Generation};
use peerdma::buffer::physical::Physical;
use peerdma::buffer::pins::RegionId;
use peerdma::buffer::shared::{Attachment, Buffer, Holder, Importer, Receipt};
use peerdma::buffer::terms::{Declaration, Methods, Place, Stays};
use peerdma::dma::{Initiator, Owner, OwnerId, Owners, Peers, Reach, SoftIommu};
use peerdma::iopt::{FrameArena, VtdOptions, VtdSecondStage};
use peerdma::iova::Allocator;
use peerdma::topology::IommuMode;
use std::sync::Arc;

const PAGE: u64 = 0x1000;
const DEVICE: Owner = Owner::Device(OwnerId::new(1));

/// A buffer of four pages in two pieces, with memory of its device before, between and behind them.
struct Exported {
    buffer: Buffer,
    owners: Owners<Infallible>,
    peers: Peers<'static>,
}

impl Exported {
    fn new() -> Self {
        let window = AddrRange::new(PhysAddr::new(0x20_0000_0000), Bytes::new(64 * PAGE)).expect("it is not empty");
        let pieces = [(8, 3), (16, 1)].map(|(page, pages)| (Bytes::new(page * PAGE), Bytes::new(pages * PAGE)));
        let memory = Physical::new(DEVICE, window, pieces).expect("they lie in the window");
        let offer = memory.offer(Stays::UNTIL_REVOKED, Place::Device(RegionId::new(0))).expect("there are pieces");
        let mut exported = Self {
            buffer: Buffer::new("vram", offer.permitting(Methods::all()).to_peers(), Answers::YES),
            owners: Owners::new(),
            peers: Peers::none(),
        };
        memory.register(&mut exported.owners);
        exported.peers.state(DEVICE, Reach::Iova);
        exported
    }

    fn attach(&self, prot: Prot, importer: Arc<dyn Importer>) -> Attachment {
        let wants = Declaration::of_device(nic(), prot).taking_peer_memory().and_by_cpu().and_by_frames();
        self.buffer
            .attach(&wants.taking(Lifetime::Revocable), &self.peers, Holder::here("nic"), importer)
            .expect("every way is offered")
    }
}

fn nic() -> Initiator {
    Initiator::new("nic", IommuMode::Translated)
}

fn arena() -> FrameArena {
    FrameArena::new(PhysAddr::new(0x4000_0000), 64)
}

type Domain<'a> = SoftIommu<VtdSecondStage, &'a FrameArena>;

fn domain(arena: &FrameArena) -> Domain<'_> {
    let format = VtdSecondStage::new(VtdOptions::default()).expect("the defaults are a format");
    SoftIommu::new(format, arena).expect("there are frames")
}

fn depot(domain: &Domain<'_>) -> RefCell<Allocator> {
    RefCell::new(Allocator::new(Granule::PAGE_4K, &domain.abilities().usable).expect("there are IOVAs"))
}

/// Is told, and has nothing to let go of.
struct Told;

impl Importer for Told {
    fn let_go(&self, _: Disturbance, _: Receipt) {}
    fn may_map(&self, _: Generation, _: Receipt) {}
    fn gone(&self) {}
}
