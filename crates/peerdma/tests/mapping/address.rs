//! Which address a peer's range gets, by route, mode and what the driver asked for
//! (kernel behaviour: Linux 7.2 `dma_map_phys`, `dma_direct_map_phys`, `pci_p2pdma_bus_addr_map`).
//!
//! Rows of Linux's answers that have no test here, and why:
//!
//! - `DMA_ATTR_CC_SHARED` (with forced copies the CPU's address, without them an error): no attribute
//!   of ours says that a guest shares a range. Whether an initiator may reach a device's memory in a
//!   guest is asked of a table of rules before anything is mapped (`dma::confidential`).
//! - swiotlb-xen, and the implementations of `dma_map_ops` that refuse device memory (alpha, sparc,
//!   parisc, gart, jazz, ps3, vio): no space of ours stands for them, so there is nothing to refuse.
//! - The errnos of the several callers for a route that is not supported: one [`Refusal`](peerdma::dma::Refusal).

use super::{FAR, LISTED, Machinery, NEAR, UNLISTED, chunk, depot, frames, soft};
use peerdma::access::{Access, Prot};
use peerdma::addr::{AddrRange, Bytes, Iova, PhysAddr};
use peerdma::dma::spaces::TcePage;
use peerdma::dma::{
    Bouncing, Context, DeviceAddress, DirectSpace, Initiator, IoSpace, LinkError, MapRangesError, Owner, OwnerId,
    Peers, PermittedBy, Reach, TceSpace, Why, Windows,
};
use peerdma::iova::IovaRanges;
use peerdma::topology::IommuMode;

const OFFSET: u64 = 0x40_0000_0000;

/// What one peer range becomes for an initiator in this mode, untranslated.
fn untranslated(
    machine: &Machinery,
    owner: Owner,
    change: fn(Initiator) -> Initiator,
) -> Result<DeviceAddress, MapRangesError> {
    let (owners, peers) = (machine.owners(), machine.peers());
    let initiator = change(Initiator::of(&machine.topology, machine.initiator()).unwrap());
    let nothing = depot(&IovaRanges::from_inclusive([(Iova::new(0x1000), Iova::new(0xffff))]).unwrap());
    let space = DirectSpace::new(Windows::one_to_one(), Iova::new(u64::MAX));
    let context = Context::new(initiator, space, &owners, &peers, &nothing).unwrap();
    let mapping = context.map_p2p(chunk(owner, 0x3000, 0x1000), Prot::ReadWrite)?;
    let mut spans = mapping.spans();
    let address = spans.next().unwrap().address;
    assert_eq!(spans.next(), None);
    Ok(address)
}

#[test]
fn a_direct_route_gets_the_bus_address_whatever_the_mode_and_whether_copies_are_forced() {
    for mode in [IommuMode::Identity, IommuMode::None] {
        for change in
            [|initiator: Initiator| initiator, |initiator: Initiator| initiator.with_bouncing(Bouncing::Forced)]
        {
            let machine = Machinery::new(LISTED, mode, false, OFFSET);
            let address = untranslated(&machine, machine.near(), change).unwrap();
            let DeviceAddress::Bus { address, bridge } = address else { panic!("{address}") };
            assert_eq!(address.as_u64(), NEAR - OFFSET + 0x3000);
            assert!(bridge.is_some(), "a bus address names its host bridge");
        }
    }
}

#[test]
fn a_direct_route_of_a_translated_initiator_takes_no_iova() {
    let machine = Machinery::new(LISTED, IommuMode::Translated, false, OFFSET);
    let (arena, owners, peers) = (frames(), machine.owners(), machine.peers());
    let domain = soft(&arena);
    let depot = depot(&domain.abilities().usable);
    let before = depot.borrow().free_bytes();
    let initiator = Initiator::of(&machine.topology, machine.initiator()).unwrap();
    let context = Context::new(initiator, domain.attach(), &owners, &peers, &depot).unwrap();
    let mapping = context.map_p2p(chunk(machine.near(), 0, 0x1000), Prot::Write).unwrap();
    assert_eq!(mapping.spans().next().unwrap().address.as_u64(), NEAR - OFFSET);
    assert_eq!(depot.borrow().free_bytes(), before);
}

#[test]
fn through_the_host_bridge_without_translation_the_cpus_address_goes_and_not_the_buses() {
    for mode in [IommuMode::Identity, IommuMode::None] {
        let machine = Machinery::new(LISTED, mode, false, OFFSET);
        let address = untranslated(&machine, machine.far(), |initiator| initiator).unwrap();
        assert_eq!((address.word(), address.as_u64()), ("cpu_physical", FAR + 0x3000), "{mode:?}");
    }
}

#[test]
fn through_the_host_bridge_an_address_above_the_mask_is_refused() {
    let machine = Machinery::new(LISTED, IommuMode::None, false, OFFSET);
    let refused = untranslated(&machine, machine.far(), |initiator| initiator.with_mask_bits(32));
    assert!(matches!(refused, Err(MapRangesError::Link(LinkError::AboveMask { .. }))), "{refused:?}");
}

/// Linux checks no mask there; a device that cannot form the address would write elsewhere.
#[test]
fn a_bus_address_above_the_mask_is_refused_too() {
    let machine = Machinery::new(LISTED, IommuMode::None, false, 0);
    let refused = untranslated(&machine, machine.near(), |initiator| initiator.with_mask_bits(32));
    assert!(matches!(refused, Err(MapRangesError::Link(LinkError::AboveMask { .. }))), "{refused:?}");
}

#[test]
fn device_memory_is_never_copied_so_forced_copies_refuse_it_through_the_host_bridge() {
    let machine = Machinery::new(LISTED, IommuMode::Identity, false, OFFSET);
    let refused = untranslated(&machine, machine.far(), |initiator| initiator.with_bouncing(Bouncing::Forced));
    assert!(matches!(refused, Err(MapRangesError::Link(LinkError::MmioNeverBounces { .. }))), "{refused:?}");
}

/// What a translated initiator is handed for a page of a peer, and where a walk of the tables leads.
fn translated(
    machine: &Machinery,
    owner: Owner,
    change: fn(Initiator) -> Initiator,
    offset: u64,
    len: u64,
) -> Result<u64, MapRangesError> {
    let (arena, owners, peers) = (frames(), machine.owners(), machine.peers());
    let domain = soft(&arena);
    let depot = depot(&domain.abilities().usable);
    let initiator = change(Initiator::of(&machine.topology, machine.initiator()).unwrap());
    let context = Context::new(initiator, domain.attach(), &owners, &peers, &depot).unwrap();
    let mapping = context.map_p2p(chunk(owner, offset, len), Prot::ReadWrite)?;
    let span = mapping.spans().next().unwrap();
    let DeviceAddress::Iova(iova) = span.address else { panic!("{}", span.address) };
    assert_eq!(span.len, Bytes::new(len));
    assert!(!span.snooped);
    Ok(domain.table().walk(iova).unwrap().pa.as_u64())
}

#[test]
fn through_the_host_bridge_a_translated_initiator_gets_an_iova_that_leads_to_the_bar() {
    for redirecting in [false, true] {
        let machine = Machinery::new(LISTED, IommuMode::Translated, redirecting, OFFSET);
        assert_eq!(translated(&machine, machine.far(), |initiator| initiator, 0x3000, 0x1000), Ok(FAR + 0x3000));
    }
    let machine = Machinery::new(LISTED, IommuMode::Translated, true, OFFSET);
    assert_eq!(translated(&machine, machine.near(), |initiator| initiator, 0, 0x1000), Ok(NEAR));
}

/// Forced copies are asked about without translation only (`iommu_dma_map_phys`).
#[test]
fn through_the_host_bridge_a_translated_initiator_gets_an_iova_although_copies_are_forced() {
    let machine = Machinery::new(LISTED, IommuMode::Translated, false, OFFSET);
    let forced = |initiator: Initiator| initiator.with_bouncing(Bouncing::Forced);
    assert_eq!(translated(&machine, machine.far(), forced, 0x3000, 0x1000), Ok(FAR + 0x3000));
}

/// POWER's `iommu_map_phys` makes an entry of any address, device memory or not.
#[test]
fn through_a_window_of_entries_device_memory_is_mapped_as_memory_is() {
    let machine = Machinery::new(LISTED, IommuMode::Translated, true, OFFSET);
    let (arena, owners, peers) = (frames(), machine.owners(), machine.peers());
    let window = AddrRange::new(Iova::new(0x800_0000), Bytes::new(0x40_0000)).unwrap();
    let space = TceSpace::new(&arena, window, TcePage::K4).unwrap();
    let depot = depot(&space.abilities().usable);
    let initiator = Initiator::of(&machine.topology, machine.initiator()).unwrap();
    let context = Context::new(initiator, space, &owners, &peers, &depot).unwrap();
    let mapping = context.map_p2p(chunk(machine.far(), 0x3000, 0x2000), Prot::ReadWrite).unwrap();
    let DeviceAddress::Iova(iova) = mapping.spans().next().unwrap().address else { panic!("no IOVA") };
    assert!(window.start() <= iova && iova <= window.last());
    let to = context.space().translate(Iova::new(iova.as_u64() + 0x1008), Access::Write);
    assert_eq!(to.map(PhysAddr::as_u64), Some(FAR + 0x4008));
}

/// `dma_iova_link` refuses it with EPERM. `dma_map_phys` maps the whole granules around it, so that an
/// untrusted device sees its neighbours' registers; `map_p2p` does not.
#[test]
fn an_untrusted_initiator_gets_whole_granules_of_a_bar_and_no_parts() {
    let machine = Machinery::new(LISTED, IommuMode::Translated, false, OFFSET);
    let untrusted = |initiator: Initiator| initiator.untrusted();
    assert_eq!(translated(&machine, machine.far(), untrusted, 0x3000, 0x1000), Ok(FAR + 0x3000));
    let refused = translated(&machine, machine.far(), untrusted, 0x3200, 0x1000);
    assert!(matches!(refused, Err(MapRangesError::Link(LinkError::MmioNeverBounces { .. }))), "{refused:?}");
}

#[test]
fn a_route_that_linux_refuses_is_refused_with_its_reasons_before_anything_is_mapped() {
    let machine = Machinery::new(UNLISTED, IommuMode::Translated, false, OFFSET);
    let (arena, owners, peers) = (frames(), machine.owners(), machine.peers());
    let domain = soft(&arena);
    let depot = depot(&domain.abilities().usable);
    let initiator = Initiator::of(&machine.topology, machine.initiator()).unwrap();
    let context = Context::new(initiator, domain.attach(), &owners, &peers, &depot).unwrap();
    let before = depot.borrow().free_bytes();
    let Err(MapRangesError::Refused(refusal)) = context.map_p2p(chunk(machine.far(), 0, 0x1000), Prot::Read) else {
        panic!("mapped")
    };
    assert_eq!(refusal.why, Why::Route);
    assert!(refusal.to_string().contains("host_bridge"), "{refusal}");
    assert_eq!(depot.borrow().free_bytes(), before);
}

#[test]
fn device_memory_without_a_pci_function_is_unknown_until_its_route_is_stated() {
    let device = Owner::Device(OwnerId::new(1));
    let initiator = Initiator::new("dma0", IommuMode::Translated);
    let mut peers = Peers::none();
    let refusal = peers.reach(&initiator, device).unwrap_err();
    assert!(refusal.is_unknown() && refusal.why == Why::Unstated, "{refusal}");
    peers.state(device, Reach::Iova);
    assert_eq!(peers.reach(&initiator, device).unwrap().reach, Reach::Iova);
}

#[test]
fn whoever_opened_an_initiator_through_vfio_gets_iovas_unless_it_asks_for_bus_addresses() {
    let machine = Machinery::under_vfio(OFFSET);
    let initiator = Initiator::of(&machine.topology, machine.initiator()).unwrap();
    let reach = |initiator: &Initiator| machine.peers().reach(initiator, machine.near()).unwrap().reach;
    assert_eq!(reach(&initiator), Reach::Iova);
    assert!(matches!(reach(&initiator.with_bus_addresses()), Reach::Bus { .. }));
}

/// For spaces of the kernel, which do not ask.
#[test]
fn a_permit_is_a_verdict_on_iovas_and_there_is_none_of_a_route_that_is_refused() {
    let machine = Machinery::under_vfio(OFFSET);
    let initiator = Initiator::of(&machine.topology, machine.initiator()).unwrap().with_bus_addresses();
    for owner in [machine.near(), machine.far()] {
        let permit = machine.peers().permit(&initiator, owner, Prot::ReadWrite).unwrap();
        assert_eq!((permit.prot(), permit.by()), (Prot::ReadWrite, PermittedBy::Verdict));
    }
    let machine = Machinery::new(UNLISTED, IommuMode::Translated, false, OFFSET);
    let initiator = Initiator::of(&machine.topology, machine.initiator()).unwrap();
    let refusal = machine.peers().permit(&initiator, machine.far(), Prot::Read).unwrap_err();
    assert!(refusal.why == Why::Route && refusal.to_string().contains("host_bridge"), "{refusal}");
}
