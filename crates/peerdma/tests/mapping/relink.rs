//! One page of a large mapping pointed elsewhere.

use super::{LISTED, Machinery, chunk, depot, frames, ram, soft};
use peerdma::access::Prot;
use peerdma::addr::{Bytes, Iova};
use peerdma::chunk::Chunks;
use peerdma::dma::misuse::{Misuse, Watch};
use peerdma::dma::publish::{Sender, Step};
use peerdma::dma::recording::{Profile, RecordingSpace};
use peerdma::dma::{
    Context, DeviceAddress, Initiator, IoSpace, LinkError, MapError, Mapping, Owner, OwnerId, Owners, Peers,
    RelinkError, Segments,
};
use peerdma::topology::IommuMode;
use std::panic::Location;

fn nic() -> Initiator {
    Initiator::new("nic", IommuMode::Translated)
}

#[test]
fn a_page_inside_a_large_page_leads_elsewhere_and_its_neighbours_stay() {
    let (arena, owners, peers) = (frames(), Owners::new(), Peers::none());
    let domain = soft(&arena);
    let depot = depot(&domain.abilities().usable);
    let context = Context::new(nic(), domain.attach(), &owners, &peers, &depot).unwrap();
    let mut mapping = context.map_one(ram(0x4000_0000, 0x40_0000), Prot::ReadWrite).unwrap();
    let start = mapping.spans().next().unwrap().address.as_u64();
    mapping.relink(Bytes::new(0x23_4000), ram(0x9000, 0x1000), Prot::ReadWrite).unwrap();
    for (at, to) in [(0x23_3000, 0x4023_3000), (0x23_4000, 0x9000), (0x23_5000, 0x4023_5000), (0, 0x4000_0000)] {
        let iova = Iova::new(start + at);
        assert_eq!(domain.table().walk(iova).unwrap().pa.as_u64(), to, "{at:#x}");
    }
    assert_eq!(mapping.spans().count(), 1, "the device sees no difference");
    mapping.unlink().unwrap().release();
    let iova = Iova::new(start + 0x23_4000);
    assert!(domain.table().walk(iova).is_err());
}

#[test]
fn parts_of_granules_and_ranges_outside_are_refused_and_lead_where_they_led() {
    let (arena, owners, peers) = (frames(), Owners::new(), Peers::none());
    let domain = soft(&arena);
    let depot = depot(&domain.abilities().usable);
    let context = Context::new(nic(), domain.attach(), &owners, &peers, &depot).unwrap();
    let mut mapping = context.map_one(ram(0x10_0000, 0x4000), Prot::ReadWrite).unwrap();
    for (at, offset, len) in [
        (0x800, 0x9000, 0x1000),
        (0, 0x9800, 0x1000),
        (0, 0x9000, 0x800),
        (0x3000, 0x9000, 0x2000),
        (u64::MAX, 0x9000, 0x1000),
    ] {
        let refused = mapping.relink(Bytes::new(at), ram(offset, len), Prot::ReadWrite);
        assert!(matches!(refused, Err(RelinkError::NotWhole { .. })), "{at:#x} {offset:#x} {len:#x}: {refused:?}");
    }
    let device = chunk(Owner::Device(OwnerId::new(1)), 0, 0x1000);
    assert!(matches!(mapping.relink(Bytes::ZERO, device, Prot::Read), Err(RelinkError::Link(LinkError::Refused(_)))));
    let start = Iova::new(mapping.spans().next().unwrap().address.as_u64());
    assert_eq!(domain.table().walk(start).unwrap().pa.as_u64(), 0x10_0000);
}

#[test]
fn a_space_that_cannot_relink_says_so() {
    let mut space = RecordingSpace::new(Profile::Type1);
    let range = peerdma::addr::AddrRange::new(peerdma::addr::ProcVa::new(0x7000_0000), Bytes::new(0x10_0000)).unwrap();
    space.add_process(range, peerdma::dma::recording::ProcessKind::Memory);
    let (owners, peers) = (Owners::new(), Peers::none());
    let depot = depot(&space.abilities().usable);
    let context = Context::new(nic(), space, &owners, &peers, &depot).unwrap();
    let mut mapping = context.map_one(chunk(Owner::Process, 0x7000_0000, 0x4000), Prot::Read).unwrap();
    let refused = mapping.relink(Bytes::ZERO, chunk(Owner::Process, 0x7000_8000, 0x1000), Prot::Read);
    assert!(
        matches!(refused, Err(RelinkError::Link(LinkError::Space(MapError::RelinkNotTaken { .. })))),
        "{refused:?}"
    );
}

/// A page that becomes read-only, and one that becomes another device's: spans and doorbells tell.
#[test]
fn a_page_of_another_protection_or_another_end_is_a_span_of_its_own() {
    let machine = Machinery::new(LISTED, IommuMode::Translated, true, 0);
    let (arena, owners, peers, watch) = (frames(), machine.owners(), machine.peers(), Watch::new(8));
    let domain = soft(&arena);
    let depot = depot(&domain.abilities().usable);
    let initiator = Initiator::of(&machine.topology, machine.initiator()).unwrap();
    let context = Context::new(initiator, domain.attach(), &owners, &peers, &depot).unwrap().with_watch(&watch);
    let mut memory = context.map_one(ram(0x10_0000, 0x4000), Prot::ReadWrite).unwrap();
    let start = memory.spans().next().unwrap().address.as_u64();
    let told = |mapping: &Mapping<'_, '_, _, _>| -> Vec<_> {
        mapping
            .spans()
            .map(|span| (span.at.as_u64(), span.address.as_u64() - start, span.len.as_u64(), span.prot))
            .collect()
    };
    memory.relink(Bytes::new(0x1000), ram(0x9000, 0x1000), Prot::Read).unwrap();
    let (rw, r) = (Prot::ReadWrite, Prot::Read);
    assert_eq!(told(&memory), [(0, 0, 0x1000, rw), (0x1000, 0x1000, 0x1000, r), (0x2000, 0x2000, 0x2000, rw)]);
    let page = DeviceAddress::Iova(Iova::new(start + 0x1000));
    let written = watch.access(page, Bytes::new(8), Prot::Write, Location::caller());
    assert!(matches!(written, Err(Misuse::WrongDirection { .. })), "{written:?}");
    memory.relink(Bytes::new(0x3000), ram(0x8000, 0x1000), Prot::Write).unwrap();
    memory.relink(Bytes::new(0), ram(0x7000, 0x1000), Prot::ReadWrite).unwrap();
    assert_eq!(memory.spans().count(), 4);
    memory.unlink().unwrap().release();

    let map = |chunk| context.map_one(chunk, Prot::ReadWrite).unwrap();
    let (mut payload, bell) = (map(chunk(machine.far(), 0, 0x2000)), map(chunk(machine.far(), 0x8000, 0x1000)));
    assert!(payload.publish(&bell, Sender::device()).is_nothing(), "one way to one end");
    payload.relink(Bytes::new(0x1000), chunk(machine.near(), 0, 0x1000), Prot::ReadWrite).unwrap();
    assert!(payload.publish(&bell, Sender::device()).contains(Step::FlushByRead), "two ends");
    drop((payload, bell));
    assert!(watch.leaks().is_empty() && watch.found().len() == 1, "{:?}", watch.found());
}

#[test]
fn a_page_of_another_kind_is_refused_where_the_device_takes_no_more_segments() {
    let (arena, owners, peers) = (frames(), Owners::new(), Peers::none());
    let domain = soft(&arena);
    let depot = depot(&domain.abilities().usable);
    let initiator = nic().with_segments(Segments { most: Some(2), ..Segments::default() });
    let context = Context::new(initiator, domain.attach(), &owners, &peers, &depot).unwrap();
    let mut mapping = context.map_one(ram(0x10_0000, 0x4000), Prot::ReadWrite).unwrap();
    let error = mapping.relink(Bytes::new(0x1000), ram(0x9000, 0x1000), Prot::Read).unwrap_err();
    assert_eq!(error, RelinkError::TooManySegments { initiator: "nic".into(), segments: 3, most: 2 });
    let start = mapping.spans().next().unwrap().address.as_u64();
    assert_eq!(domain.table().walk(Iova::new(start + 0x1000)).unwrap().pa.as_u64(), 0x10_1000);
    mapping.relink(Bytes::new(0x1000), ram(0x9000, 0x1000), Prot::ReadWrite).unwrap();
    mapping.relink(Bytes::new(0x3000), ram(0x9000, 0x1000), Prot::Read).unwrap();
    assert_eq!(mapping.spans().count(), 2);
}

#[test]
fn copies_and_bus_addresses_are_not_pointed_elsewhere() {
    let machine = Machinery::new(LISTED, IommuMode::Translated, false, 0);
    let (arena, owners, peers) = (frames(), machine.owners(), machine.peers());
    let domain = soft(&arena);
    let depot = depot(&domain.abilities().usable);
    let initiator = Initiator::of(&machine.topology, machine.initiator()).unwrap();
    let context = Context::new(initiator, domain.attach(), &owners, &peers, &depot).unwrap();
    let mut list = Chunks::new();
    [ram(0x10_0000, 0x1000), chunk(machine.near(), 0, 0x1000), chunk(machine.far(), 0, 0x1000)]
        .into_iter()
        .for_each(|chunk| list.push(chunk).unwrap());
    let mut mapping = context.map(list.view(), Prot::ReadWrite).unwrap();
    // The BAR across the switch has no IOVA, and memory and device memory do not take each other's place.
    for (at, to) in [
        (0x1000, chunk(machine.far(), 0, 0x1000)),
        (0, chunk(machine.far(), 0, 0x1000)),
        (0x2000, ram(0, 0x1000)),
        (0x2000, chunk(machine.near(), 0, 0x1000)),
        (0, ram(0x3000, 0x2000)),
    ] {
        let refused = mapping.relink(Bytes::new(at), to, Prot::ReadWrite);
        assert!(matches!(refused, Err(RelinkError::NotWhole { .. })), "{at:#x}: {refused:?}");
    }
    mapping.relink(Bytes::new(0x2000), chunk(machine.far(), 0x5000, 0x1000), Prot::ReadWrite).unwrap();
    assert_eq!(mapping.spans().count(), 3);
}
