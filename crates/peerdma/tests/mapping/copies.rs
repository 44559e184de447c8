//! When memory is copied for a device (Linux 7.2 `dma_direct_map_phys`, `iommu_dma_map_phys`).

use super::{depot, frames, ram, soft};
use core::convert::Infallible;
use peerdma::access::Prot;
use peerdma::addr::{AddrRange, BusAddr, Bytes, Granule, Iova, PhysAddr};
use peerdma::dma::bounce::{BouncePool, ByteArrays};
use peerdma::dma::{
    Bouncing, Context, DeviceAddress, DirectSpace, Initiator, IoSpace, LinkError, MapRangesError, Owner, Owners, Peers,
    Span, Windows,
};
use peerdma::iova::IovaRanges;
use peerdma::topology::{HostWindow, IommuMode};

/// Memory at 0..64 KiB and a pool in its last 16 KiB.
fn with_pool<T>(f: impl FnOnce(&ByteArrays, &BouncePool<&ByteArrays>) -> T) -> T {
    let memory = ByteArrays::new();
    memory.add((Owner::Ram, Bytes::ZERO), vec![0; 0x10000]).unwrap();
    let pool =
        BouncePool::new(&memory, (Owner::Ram, Bytes::new(0xc000)), Bytes::new(0x4000), Granule::PAGE_4K).unwrap();
    let result = f(&memory, &pool);
    assert_eq!(pool.left(), pool.size());
    result
}

fn nothing() -> IovaRanges {
    IovaRanges::from_inclusive([(Iova::new(0x1000), Iova::new(0x1fff))]).unwrap()
}

/// What an untranslated initiator is handed for 0x800 bytes at 0x2100.
fn direct(initiator: Initiator, windows: Windows, pool: bool) -> Result<Span, MapRangesError> {
    with_pool(|memory, copies| {
        let (owners, peers, depot) = (Owners::<Infallible>::new(), Peers::none(), depot(&nothing()));
        let space = DirectSpace::new(windows, Iova::new(u64::MAX));
        let mut context = Context::new(initiator, space, &owners, &peers, &depot).unwrap();
        if pool {
            context = context.with_bouncer(copies);
        }
        memory.write((Owner::Ram, Bytes::new(0x2100)), &[7; 0x800]).unwrap();
        let mapping = context.map_one(ram(0x2100, 0x800), Prot::ReadWrite)?;
        let spans: Vec<Span> = mapping.spans().collect();
        assert_eq!(spans.len(), 1);
        if spans[0].bounced {
            check_both_ways(memory, &mapping, spans[0]);
        }
        Ok(spans[0])
    })
}

/// The device reads what was there, and the owner reads what the device wrote.
fn check_both_ways<S: IoSpace, D: peerdma::iova::Depot>(
    memory: &ByteArrays,
    mapping: &peerdma::dma::Mapping<'_, '_, S, D>,
    span: Span,
) {
    let copy = (Owner::Ram, Bytes::new(span.address.as_u64()));
    let original = (Owner::Ram, Bytes::new(0x2100));
    let mut bytes = [0; 0x800];
    memory.read(copy, &mut bytes).unwrap();
    assert_eq!(bytes, [7; 0x800], "copied in before the device sees it");
    memory.write(copy, &[9; 0x400]).unwrap();
    mapping.sync_for_cpu().unwrap();
    memory.read(original, &mut bytes).unwrap();
    assert!(bytes[..0x400] == [9; 0x400] && bytes[0x400..] == [7; 0x400]);
    memory.write(original, &[5; 0x800]).unwrap();
    mapping.sync_for_device().unwrap();
    memory.read(copy, &mut bytes).unwrap();
    assert_eq!(bytes, [5; 0x800]);
}

fn nic() -> Initiator {
    Initiator::new("nic", IommuMode::None)
}

#[test]
fn memory_within_reach_is_handed_out_as_it_is() {
    let span = direct(nic(), Windows::one_to_one(), true).unwrap();
    assert_eq!((span.address, span.bounced), (DeviceAddress::CpuPhysical(PhysAddr::new(0x2100)), false));
}

#[test]
fn memory_behind_a_window_at_an_offset_is_handed_out_as_the_bus_counts_it() {
    let cpu = AddrRange::new(PhysAddr::new(0x2000), Bytes::new(0xe000)).unwrap();
    let windows = Windows::new(vec![HostWindow::new(cpu, BusAddr::new(0x1_0000_0000)).unwrap()]);
    let span = direct(nic(), windows, true).unwrap();
    assert_eq!((span.address.word(), span.address.as_u64()), ("bus", 0x1_0000_0100));
}

#[test]
fn forced_copies_are_made_and_synchronised_both_ways() {
    let span = direct(nic().with_bouncing(Bouncing::Forced), Windows::one_to_one(), true).unwrap();
    assert!(span.bounced && span.address.as_u64() >= 0xc000);
}

#[test]
fn memory_above_the_mask_or_behind_no_window_is_copied_below_it() {
    let cpu = AddrRange::new(PhysAddr::new(0xc000), Bytes::new(0x4000)).unwrap();
    let windows = || Windows::new(vec![HostWindow::new(cpu, BusAddr::new(0xc000)).unwrap()]);
    assert!(direct(nic(), windows(), true).unwrap().bounced);
    let refused = direct(nic(), windows(), false);
    assert!(matches!(refused, Err(MapRangesError::Link(LinkError::NoPool { .. }))), "{refused:?}");
    // 13 bits reach neither the memory nor the pool.
    let refused = direct(nic().with_mask_bits(13), Windows::one_to_one(), true);
    assert!(matches!(refused, Err(MapRangesError::Link(LinkError::AboveMask { .. }))), "{refused:?}");
}

#[test]
fn an_initiator_that_wants_no_copies_is_refused_where_one_is_needed() {
    let never = nic().with_bouncing(Bouncing::Never).with_mask_bits(13);
    let refused = direct(never, Windows::one_to_one(), true);
    assert!(matches!(refused, Err(MapRangesError::Link(LinkError::NoBounce { .. }))), "{refused:?}");
}

/// Linux does not ask for forced copies where an IOMMU translates.
#[test]
fn below_a_translating_iommu_only_shared_granules_of_untrusted_initiators_are_copied() {
    let bounced = |initiator: Initiator, at: u64, len: u64| {
        with_pool(|_, pool| {
            let (arena, owners, peers) = (frames(), Owners::new(), Peers::none());
            let domain = soft(&arena);
            let depot = depot(&domain.abilities().usable);
            let context = Context::new(initiator, domain.attach(), &owners, &peers, &depot).unwrap().with_bouncer(pool);
            let mapping = context.map_one(ram(at, len), Prot::ReadWrite).unwrap();
            mapping.spans().any(|span| span.bounced)
        })
    };
    let translated = || Initiator::new("nic", IommuMode::Translated);
    assert!(bounced(translated().untrusted(), 0x2100, 0x800));
    assert!(!bounced(translated().untrusted(), 0x2000, 0x1000));
    assert!(!bounced(translated(), 0x2100, 0x800));
    assert!(!bounced(translated().with_bouncing(Bouncing::Forced), 0x2000, 0x1000));
}

/// Bytes beside the range, in the same granule, are not the device's to see.
#[test]
fn an_untrusted_initiator_sees_zeros_beside_its_bytes() {
    with_pool(|memory, pool| {
        let (arena, owners, peers) = (frames(), Owners::new(), Peers::none());
        let domain = soft(&arena);
        let depot = depot(&domain.abilities().usable);
        let initiator = Initiator::new("nic", IommuMode::Translated).untrusted();
        let context = Context::new(initiator, domain.attach(), &owners, &peers, &depot).unwrap().with_bouncer(pool);
        memory.write((Owner::Ram, Bytes::new(0x2000)), &[0xaa; 0x2000]).unwrap();
        let mapping = context.map_one(ram(0x2400, 0x1000), Prot::ReadWrite).unwrap();
        let span = mapping.spans().next().unwrap();
        let page = Iova::new(span.address.as_u64() & !0xfff);
        let to = domain.table().walk(page).unwrap().pa;
        let mut seen = [0xff; 0x1000];
        memory.read((Owner::Ram, Bytes::new(to.as_u64())), &mut seen).unwrap();
        assert!(seen[..0x400].iter().all(|byte| *byte == 0) && seen[0x400..].iter().all(|byte| *byte == 0xaa));
    });
}
