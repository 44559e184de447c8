//! Ends of owners, of address spaces and of reservations: past them nothing is handed out.

use super::{LISTED, Machinery, NEAR, chunk, depot, frames, ram, soft};
use core::convert::Infallible;
use peerdma::access::{MemAttrs, Prot};
use peerdma::addr::{AddrRange, BusAddr, Bytes, Iova, PhysAddr, ProcVa};
use peerdma::chunk::Chunk;
use peerdma::dma::recording::{Call, ProcessKind, Profile, RecordingSpace};
use peerdma::dma::{
    Context, ContextError, DeviceAddress, DirectSpace, Initiator, IoSpace, LinkError, MapRangesError, Owner, OwnerId,
    Owners, Peers, Reach, ResolveError, Source, Why, Windows,
};
use peerdma::iova::{Allocator, IovaRanges};
use peerdma::topology::{Builder, FunctionInfo, IommuMode, Position, Topology};

fn no_iovas() -> core::cell::RefCell<Allocator> {
    depot(&IovaRanges::from_inclusive([(Iova::new(0x1000), Iova::new(0x1fff))]).unwrap())
}

const DEVICE: Owner = Owner::Device(OwnerId::new(1));

/// What an untranslated initiator is handed for a range of a device or of memory.
fn untranslated(
    initiator: Initiator,
    highest: u64,
    stated: Reach,
    chunk: Chunk<Owner>,
) -> Result<DeviceAddress, MapRangesError> {
    let mut peers = Peers::none();
    peers.state(DEVICE, stated);
    let mut owners = Owners::<Infallible>::new();
    owners.add(DEVICE, Bytes::ZERO, Bytes::new(1 << 40), Source::Physical(PhysAddr::new(u64::MAX - 0xfff)));
    let nothing = no_iovas();
    let space = DirectSpace::new(Windows::one_to_one(), Iova::new(highest));
    let context = Context::new(initiator, space, &owners, &peers, &nothing).unwrap();
    let mapping = context.map_one(chunk, Prot::ReadWrite)?;
    let address = mapping.spans().next().unwrap().address;
    Ok(address)
}

fn nic() -> Initiator {
    Initiator::new("nic", IommuMode::None)
}

/// The next function's BAR begins where this one ends; Linux asks for no bounds at all there.
#[test]
fn a_range_past_the_end_of_a_bar_gets_no_bus_address_of_somebody_else() {
    let machine = Machinery::new(LISTED, IommuMode::Translated, false, 0);
    let (arena, owners, peers) = (frames(), machine.owners(), machine.peers());
    let domain = soft(&arena);
    let depot = depot(&domain.abilities().usable);
    let initiator = Initiator::of(&machine.topology, machine.initiator()).unwrap();
    let context = Context::new(initiator, domain.attach(), &owners, &peers, &depot).unwrap();
    let last = context.map_p2p(chunk(machine.near(), super::BAR - 0x1000, 0x1000), Prot::Read).unwrap();
    assert_eq!(last.spans().next().unwrap().address.as_u64(), NEAR + super::BAR - 0x1000);
    for offset in [super::BAR - 0x1000, super::BAR, 1 << 40] {
        let refused = context.map_p2p(chunk(machine.near(), offset, 0x2000), Prot::Read).err().unwrap();
        let MapRangesError::Link(LinkError::Unresolvable(ResolveError::Outside { offset: first, .. })) = refused else {
            panic!("{refused}")
        };
        assert_eq!(first, Bytes::new(offset.max(super::BAR)));
    }
}

#[test]
fn addresses_that_wrap_are_refused_even_where_all_64_bits_are_driven() {
    let bus = Reach::Bus { start: BusAddr::new(u64::MAX - 0xfff), bridge: None };
    assert!(untranslated(nic(), u64::MAX, bus, chunk(DEVICE, 0, 0x800)).is_ok());
    for stated in [bus, Reach::Physical] {
        let refused = untranslated(nic(), u64::MAX, stated, chunk(DEVICE, 0x800, 0x1000));
        assert!(matches!(refused, Err(MapRangesError::Link(LinkError::AboveMask { .. }))), "{refused:?}");
    }
}

#[test]
fn what_a_dictating_space_does_not_show_is_above_the_highest_address() {
    let within = untranslated(nic(), 0xffff, Reach::Physical, ram(0xf000, 0x1000));
    assert_eq!(within, Ok(DeviceAddress::CpuPhysical(PhysAddr::new(0xf000))));
    let beyond = untranslated(nic(), 0xffff, Reach::Physical, ram(0xf001, 0x1000));
    assert!(matches!(beyond, Err(MapRangesError::Link(LinkError::NoPool { .. }))), "{beyond:?}");
}

#[test]
fn a_route_by_iova_is_refused_by_name_where_nothing_translates() {
    let mut peers = Peers::none();
    peers.state(DEVICE, Reach::Iova);
    let refusal = peers.reach(&nic(), DEVICE).unwrap_err();
    assert_eq!(refusal.why, Why::StatedForAnotherMode);
    assert!(refusal.to_string().contains("state the route"), "{refusal}");
}

/// A bus address is a number below one host bridge.
#[test]
fn a_bus_address_that_was_stated_below_another_host_bridge_is_refused() {
    let machine = Machinery::new(LISTED, IommuMode::Translated, false, 0);
    let initiator = Initiator::of(&machine.topology, machine.initiator()).unwrap();
    let mut peers = machine.peers();
    let Reach::Bus { bridge: Some(own), .. } = peers.reach(&initiator, machine.near()).unwrap().reach else {
        panic!("no bus address")
    };
    let other = two_bridges().host_bridges().map(|(bridge, _)| bridge).find(|bridge| *bridge != own).unwrap();
    let start = BusAddr::new(0x1000);
    for (bridge, why) in [(Some(own), None), (None, None), (Some(other), Some(Why::OtherHostBridge))] {
        peers.state(DEVICE, Reach::Bus { start, bridge });
        assert_eq!(peers.reach(&initiator, DEVICE).err().map(|refusal| refusal.why), why);
    }
}

/// Names of host bridges are numbers, so that another machine's stand for one of this.
fn two_bridges() -> Topology {
    let mut builder = Builder::new();
    for address in ["00:01.0", "0001:00:01.0"] {
        builder.function(FunctionInfo::new(address.parse().unwrap(), Position::RootBus { bus: 0 }));
    }
    builder.build()
}

#[test]
fn a_bar_that_the_function_does_not_have_is_refused_and_not_unknown() {
    let machine = Machinery::new(LISTED, IommuMode::Translated, false, 0);
    let Owner::Bar { function, .. } = machine.near() else { panic!("no BAR") };
    let initiator = Initiator::of(&machine.topology, machine.initiator()).unwrap();
    let refusal = machine.peers().reach(&initiator, Owner::Bar { function, bar: 4 }).unwrap_err();
    assert!(refusal.why == Why::NoSuchBar && !refusal.is_unknown(), "{refusal}");
}

/// Linux drops the attributes of what no IOMMU is in front of.
#[test]
fn attributes_that_nothing_on_the_way_can_hold_are_refused_by_name() {
    let with = |owner, attrs| Chunk::new(owner, Bytes::ZERO, Bytes::new(0x800), attrs).unwrap();
    let bus = Reach::Bus { start: BusAddr::new(0x1_0000), bridge: None };
    for attrs in [MemAttrs::NO_EXECUTE, MemAttrs::PRIVILEGED, MemAttrs::from_bits_retain(0x100)] {
        for chunk in [with(Owner::Ram, attrs), with(DEVICE, attrs)] {
            let refused = untranslated(nic(), u64::MAX, bus, chunk);
            let Err(MapRangesError::Link(LinkError::AttrsNotTaken { attrs: named, .. })) = refused else {
                panic!("{refused:?}")
            };
            assert_eq!(named, attrs);
        }
    }
    for chunk in [with(Owner::Ram, MemAttrs::NOT_SNOOPED), with(DEVICE, MemAttrs::MMIO)] {
        assert!(untranslated(nic(), u64::MAX, bus, chunk).is_ok());
    }
    let (owners, peers, depot) = (Owners::<Infallible>::new(), Peers::none(), no_iovas());
    let space = DirectSpace::new(Windows::one_to_one(), Iova::new(u64::MAX));
    let refused = Context::new(nic().privileged(), space, &owners, &peers, &depot).err();
    let attrs = MemAttrs::PRIVILEGED;
    assert_eq!(refused, Some(ContextError::AttrsNotTaken { initiator: "nic".into(), attrs }));
}

#[test]
fn more_than_64_bits_of_bytes_are_refused_before_their_sum_wraps() {
    let (owners, peers, depot) = (Owners::<Infallible>::new(), Peers::none(), no_iovas());
    let space = DirectSpace::new(Windows::one_to_one(), Iova::new(u64::MAX));
    let context = Context::new(nic(), space, &owners, &peers, &depot).unwrap();
    let mut staged = context.reserve(Bytes::new(1)).unwrap().stage();
    let half = ram(0, 1 << 63);
    staged.link(half, Prot::Read).unwrap();
    let refused = staged.link(half, Prot::Read);
    assert!(matches!(refused, Err(LinkError::TooLong { .. })), "{refused:?}");
    assert_eq!(staged.sync().unwrap().len(), Bytes::new(1 << 63));
}

/// Memory of a machine that a process holds somewhere: where in a granule it starts is the process's.
#[test]
fn memory_that_is_known_as_a_processes_is_reserved_for_where_the_process_has_it() {
    let mut space = RecordingSpace::new(Profile::Type1);
    let range = AddrRange::new(ProcVa::new(0x7000_0000), Bytes::new(0x10_0000)).unwrap();
    space.add_process(range, ProcessKind::Memory);
    let mut owners = Owners::new();
    owners.add(Owner::Ram, Bytes::ZERO, Bytes::new(0x8000), Source::Process(ProcVa::new(0x7000_0800)));
    let peers = Peers::none();
    let depot = depot(&space.abilities().usable);
    let context = Context::new(Initiator::new("nic", IommuMode::Translated), space, &owners, &peers, &depot).unwrap();
    let mapping = context.map_one(ram(0x1000, 0x1000), Prot::Read).unwrap();
    assert_eq!(mapping.spans().next().unwrap().address.as_u64() & 0xfff, 0x800);
    let calls = context.space().take_calls();
    assert!(
        matches!(&calls[..], [Call::Map { iova, answer: Ok(()), .. }] if iova.len() == Bytes::new(0x2000)),
        "{calls:?}"
    );
}

#[test]
fn what_is_left_of_a_reservation_is_counted_from_where_the_range_would_start() {
    let (arena, owners, peers) = (frames(), Owners::new(), Peers::none());
    let domain = soft(&arena);
    let depot = depot(&domain.abilities().usable);
    let context = Context::new(Initiator::new("nic", IommuMode::Translated), domain.attach(), &owners, &peers, &depot);
    let context = context.unwrap();
    let mut staged = context.reserve(Bytes::new(0x1000)).unwrap().stage();
    let left = Bytes::new(0xe00);
    let refused = staged.link(ram(0x3200, 0x1000), Prot::Read);
    assert_eq!(refused, Err(LinkError::OutOfRoom { owner: Owner::Ram, len: Bytes::new(0x1000), left }));
    staged.link(ram(0x3200, 0xe00), Prot::Read).unwrap();
}

/// Pieces of an owner that do not end where granules do cannot lie side by side for a device.
#[test]
fn an_owner_in_pieces_is_mapped_where_they_are_whole_granules_and_refused_where_not() {
    let (arena, peers, file) = (frames(), Peers::none(), Owner::Memfd(OwnerId::new(1)));
    let domain = soft(&arena);
    let depot = depot(&domain.abilities().usable);
    let map = |pieces: &[(u64, u64, u64)], offset, len| {
        let mut owners = Owners::new();
        for (offset, len, at) in pieces {
            owners.add(file, Bytes::new(*offset), Bytes::new(*len), Source::Physical(PhysAddr::new(*at)));
        }
        let nic = Initiator::new("nic", IommuMode::Translated);
        let context = Context::new(nic, domain.attach(), &owners, &peers, &depot).unwrap();
        let mapping = context.map_one(chunk(file, offset, len), Prot::Read)?;
        let start = mapping.spans().next().unwrap().address.as_u64();
        let at = |by| domain.table().walk(Iova::new(start + by)).unwrap().pa.as_u64();
        assert_eq!(mapping.spans().count(), 1);
        Ok::<_, MapRangesError>((at(0), at(len - 1)))
    };
    // The first piece starts inside a granule, and everything after it at one.
    let whole = [(0, 0x800, 0x5800), (0x800, 0x2000, 0x9000), (0x2800, 0x1000, 0x7000)];
    assert_eq!(map(&whole, 0x100, 0x3000), Ok((0x5900, 0x78ff)));
    let torn = map(&[(0, 0x1800, 0x5000), (0x1800, 0x1000, 0x9000)], 0, 0x2000);
    assert!(matches!(torn, Err(MapRangesError::Link(LinkError::Unaligned { .. }))), "{torn:?}");
    let short = map(&[(0, 0x1000, 0x5000)], 0, 0x2000);
    assert!(matches!(short, Err(MapRangesError::Link(LinkError::Unresolvable(_)))), "{short:?}");
}
