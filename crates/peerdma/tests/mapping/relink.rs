//! One page of a large mapping pointed elsewhere.

use super::{chunk, depot, frames, ram, soft};
use peerdma::access::Prot;
use peerdma::addr::{Bytes, Iova};
use peerdma::dma::recording::{Profile, RecordingSpace};
use peerdma::dma::{Context, Initiator, IoSpace, LinkError, MapError, Owner, OwnerId, Owners, Peers, RelinkError};
use peerdma::topology::IommuMode;

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
