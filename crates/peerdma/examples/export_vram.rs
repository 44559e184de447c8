//! An exporter of device memory, and importers that reach it in every way: `cargo run -p peerdma --example export_vram`.
//!
//! The exporter says where its window lies and which parts of it are the buffer. Addresses for
//! devices, pages for guests, ranges for the CPU, and the bounds of all of them come from the library.

use std::cell::RefCell;
use std::error::Error;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use peerdma::access::Prot;
use peerdma::addr::{AddrRange, Bytes, Granule, PhysAddr, ProcVa};
use peerdma::buffer::Lifetime;
use peerdma::buffer::life::{Answers, Disturbance, Generation};
use peerdma::buffer::shared::{Buffer, Holder, Importer, Mapped, Part, Receipt};
use peerdma::buffer::terms::{Declaration, Methods};
use peerdma::dma::consumer::stage2::{Guest, GuestFrame};
use peerdma::dma::{Context, Initiator, Owners, Peers, SoftIommu};
use peerdma::iopt::{FrameArena, VtdOptions, VtdSecondStage};
use peerdma::iova::Allocator;
use peerdma::topology::IommuMode;

/// All that an exporter writes. A test counts its lines.
mod exporter {
    use super::{AddrRange, Answers, Buffer, Bytes, Methods, PhysAddr, ProcVa};
    use peerdma::buffer::physical::Physical;
    use peerdma::buffer::pins::RegionId;
    use peerdma::buffer::terms::{Place, Stays};
    use peerdma::dma::{Owner, OwnerId, Owners, Peers, Reach};
    use std::error::Error;

    /// The device's memory, as its driver knows it.
    pub(crate) struct Vram {
        owner: Owner,
        memory: Physical,
    }

    impl Vram {
        /// A frame in two pieces, and the doorbell that says that it is there.
        pub(crate) fn new(window: AddrRange<PhysAddr>, process: ProcVa) -> Result<Self, Box<dyn Error>> {
            let owner = Owner::Device(OwnerId::new(1));
            let parts = [(0x4_0000, 0x2000), (0x8_0000, 0x1000), (0xf_f000, 0x1000)];
            let parts = parts.map(|(offset, len)| (Bytes::new(offset), Bytes::new(len)));
            Ok(Self { owner, memory: Physical::new(owner, window, parts)?.also_at(process) })
        }

        pub(crate) fn export(&self) -> Result<Buffer, Box<dyn Error>> {
            let offer = self.memory.offer(Stays::UNTIL_REVOKED, Place::Device(RegionId::new(0)))?;
            Ok(Buffer::new("frame", offer.permitting(Methods::all()).to_peers(), Answers::YES))
        }

        /// Tells the machine's other drivers where the memory lies.
        pub(crate) fn register<F: Clone>(&self, owners: &mut Owners<F>, peers: &mut Peers<'_>) {
            self.memory.register(owners);
            peers.state(self.owner, Reach::Iova);
        }
    }
}

/// Lets go when it is told to.
#[derive(Default)]
struct Viewer(Mutex<Option<Mapped>>);

impl Importer for Viewer {
    fn let_go(&self, _: Disturbance, _: Receipt) {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
    }
    fn may_map(&self, _: Generation, _: Receipt) {}
    fn gone(&self) {}
}

/// Reaches the buffer in each way, and gives it back.
pub fn main() -> Result<(), Box<dyn Error>> {
    let window = AddrRange::new(PhysAddr::new(0x20_0000_0000), Bytes::new(1 << 20)).ok_or("no window")?;
    let vram = exporter::Vram::new(window, ProcVa::new(0x7f00_0000_0000))?;
    let (mut owners, mut peers) = (Owners::new(), Peers::none());
    vram.register(&mut owners, &mut peers);
    let buffer = vram.export()?;

    let nic = Initiator::new("nic", IommuMode::Translated);
    let wants = Declaration::of_device(nic.clone(), Prot::ReadWrite).taking_peer_memory().and_by_cpu().and_by_frames();
    let viewer = Arc::new(Viewer::default());
    let seat = buffer.attach(&wants.taking(Lifetime::Revocable), &peers, Holder::here("viewer"), viewer.clone())?;
    let mapped = seat.map()?;
    println!("attached: {}", seat.terms());
    let all = Part::new(Bytes::ZERO, mapped.ranges().len());

    // A device, by addresses of its own.
    let tables = FrameArena::new(PhysAddr::new(0x4000_0000), 64);
    let domain = SoftIommu::new(VtdSecondStage::new(VtdOptions::default())?, &tables)?;
    let depot = RefCell::new(Allocator::new(Granule::PAGE_4K, &domain.abilities().usable)?);
    let context = Context::new(nic, domain.attach(), &owners, &peers, &depot)?;
    let by_device = mapped.by_dma(&context, all)?;
    by_device.spans().for_each(|span| println!("for the device: {} at {}", span.len, span.address));
    by_device.unlink()?.release();

    // A guest, by pages of its second stage.
    for run in mapped.by_frames(&owners, all, GuestFrame::new(0x1000), Guest::Plain)? {
        println!("for a guest: {} pages at {}", run.pages(), run.host.start());
    }
    // The CPU, for as long as a closure runs.
    mapped.by_cpu(Prot::Read, all, |ranges| {
        ranges.iter().for_each(|range| println!("for the CPU: {} of {}", range.len(), range.owner()));
    })?;

    *viewer.0.lock().map_err(|_| "poisoned")? = Some(mapped);
    buffer.begin(Disturbance::Reset)?.wait(Duration::from_secs(1))?.done();
    println!("reset, and {}", buffer.phase());
    Ok(())
}
