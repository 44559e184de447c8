//! A BAR gets another bus address while a buffer of its memory is imported.

use super::{DEVICE, Exported, PAGE, Told, arena, depot, domain, nic};
use peerdma::access::{Access, Prot};
use peerdma::addr::{AddrRange, Bytes, Iova, PhysAddr};
use peerdma::buffer::life::{Disturbance, Phase};
use peerdma::buffer::physical::Physical;
use peerdma::buffer::shared::{MapRefused, Mapped, Part};
use peerdma::dma::consumer::stage2::{Guest, GuestFrame};
use peerdma::dma::spaces::{InitiatorId, Tlb};
use peerdma::dma::{Context, DeviceAddress, Owners};
use std::convert::Infallible;
use std::sync::Arc;

/// The second of its pages, which is the window's tenth.
const PART: Part = Part::new(Bytes::new(PAGE), Bytes::new(PAGE));

/// Where a page of the mapping is, for a device behind an IOMMU and for a guest.
fn reached(exported: &Exported, owners: &Owners<Infallible>, mapped: Mapped) -> [PhysAddr; 2] {
    let arena = arena();
    let domain = domain(&arena);
    let depot = depot(&domain);
    let context = Context::new(nic(), domain.attach(), owners, &exported.peers, &depot).expect("it is within reach");
    let frames = mapped.by_frames(owners, PART, GuestFrame::new(0x100), Guest::Plain).expect("it is within reach");
    let by_guest = frames.map(|run| run.host.start()).next().expect("it is within reach");
    let mapping = mapped.by_dma(&context, PART).expect("it is within reach");
    let iova = mapping.spans().find_map(|span| match span.address {
        DeviceAddress::Iova(at) => Some(at),
        _ => None,
    });
    let at = iova.expect("it is translated");
    let translate = |at: Iova| domain.translate(&mut Tlb::new(InitiatorId::new(1)), at, Access::Write);
    let by_device = translate(at).expect("it is within reach");
    let in_use = mapped.with(mapping);
    // What was made of a mapping leads nowhere once that is over.
    drop(in_use);
    assert!(translate(at).is_err());
    [by_device, by_guest]
}

/// The buffer's ranges count from the start of the BAR and stay as they are; what is made of them follows the register.
#[test]
fn who_maps_anew_after_a_bar_has_moved_reaches_it_at_its_new_address() {
    let exported = Exported::new();
    let seat = exported.attach(Prot::ReadWrite, Arc::new(Told));
    let at = |start: u64| [PhysAddr::new(start + 9 * PAGE); 2];
    let before = seat.map().unwrap();
    assert_eq!(reached(&exported, &exported.owners, seat.map().unwrap()), at(0x20_0000_0000));

    let announced = exported.buffer.begin(Disturbance::BarMove).unwrap();
    assert!(!announced.is_quiet(), "somebody's addresses lead to the old place");
    assert!(matches!(seat.map(), Err(MapRefused::Life(_))));
    let generation = before.generation();
    drop(before);
    let quiet = announced.try_proceed().unwrap();
    assert_eq!(exported.buffer.phase(), Phase::Moving);
    // The register is written, and the exporter says where the window is from now on.
    let window = AddrRange::new(PhysAddr::new(0x38_0000_0000), Bytes::new(64 * PAGE)).unwrap();
    let mut owners = Owners::new();
    Physical::whole(DEVICE, window).unwrap().register(&mut owners);
    quiet.done();

    let again = seat.map().unwrap();
    assert!(again.is_current() && again.generation() > generation);
    assert_eq!(reached(&exported, &owners, again), at(0x38_0000_0000));
}
