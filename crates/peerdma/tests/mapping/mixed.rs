//! One mapping of several kinds of memory, changing range by range.

use super::{FAR, LISTED, Machinery, NEAR, chunk, depot, frames, ram, soft};
use peerdma::access::Prot;
use peerdma::addr::{Bytes, Iova};
use peerdma::chunk::Chunks;
use peerdma::dma::{Behind, Context, DeviceAddress, Initiator, MapRangesError, Span};
use peerdma::topology::IommuMode;

const OFFSET: u64 = 0x40_0000_0000;

#[test]
fn a_list_of_memory_and_of_bars_by_both_routes_is_one_mapping_of_several_kinds_of_address() {
    let machine = Machinery::new(LISTED, IommuMode::Translated, false, OFFSET);
    let (arena, owners, peers) = (frames(), machine.owners(), machine.peers());
    let domain = soft(&arena);
    let depot = depot(&domain.abilities().usable);
    let initiator = Initiator::of(&machine.topology, machine.initiator()).unwrap();
    let context = Context::new(initiator, domain.attach(), &owners, &peers, &depot).unwrap();
    let list = [
        ram(0x10_0000, 0x3000),
        chunk(machine.near(), 0x1000, 0x2000),
        chunk(machine.far(), 0x8000, 0x1000),
        ram(0x20_0000, 0x1000),
        chunk(machine.near(), 0x7000, 0x1000),
    ];
    let mut chunks = Chunks::new();
    list.into_iter().for_each(|chunk| chunks.push(chunk).unwrap());
    let mapping = context.map(chunks.view(), Prot::ReadWrite).unwrap();
    let spans: Vec<Span> = mapping.spans().collect();
    let words: Vec<_> = spans.iter().map(|span| (span.address.word(), span.len.as_u64(), span.behind)).collect();
    assert_eq!(
        words,
        [
            ("iova", 0x3000, Behind::Memory),
            ("bus", 0x2000, Behind::Mmio),
            ("iova", 0x1000, Behind::Mmio),
            ("iova", 0x1000, Behind::Memory),
            ("bus", 0x1000, Behind::Mmio),
        ]
    );
    assert_eq!(spans[1].address.as_u64(), NEAR - OFFSET + 0x1000);
    let leads = |span: &Span| {
        let iova = Iova::new(span.address.as_u64());
        domain.table().walk(iova).unwrap().pa.as_u64()
    };
    assert_eq!([leads(&spans[0]), leads(&spans[2]), leads(&spans[3])], [0x10_0000, FAR + 0x8000, 0x20_0000]);
    // What goes by IOVA is contiguous for the device, whatever lies between in the list.
    assert_eq!(spans[2].address.as_u64(), spans[0].address.as_u64() + 0x3000);
    assert_eq!(spans.iter().map(|span| span.at.as_u64()).collect::<Vec<_>>(), [0, 0x3000, 0x5000, 0x6000, 0x7000]);
    assert_eq!(mapping.len(), chunks.len());
}

#[test]
fn a_list_that_is_said_to_be_uniform_is_checked_once_for_each_run() {
    let machine = Machinery::new(LISTED, IommuMode::Translated, false, OFFSET);
    let (arena, owners, peers) = (frames(), machine.owners(), machine.peers());
    let domain = soft(&arena);
    let depot = depot(&domain.abilities().usable);
    let initiator = Initiator::of(&machine.topology, machine.initiator()).unwrap();
    let context = Context::new(initiator, domain.attach(), &owners, &peers, &depot).unwrap();
    let mut chunks = Chunks::new();
    [ram(0x1000, 0x1000), ram(0x9000, 0x1000), ram(0x4000, 0x2000)]
        .into_iter()
        .for_each(|chunk| chunks.push(chunk).unwrap());
    let mapping = context.stage_uniform(chunks.view(), Prot::Read).unwrap().sync().unwrap();
    assert_eq!(mapping.spans().count(), 1);
    drop(mapping);
    let before = depot.borrow().free_bytes();
    chunks.push(chunk(machine.far(), 0, 0x1000)).unwrap();
    let refused = context.stage_uniform(chunks.view(), Prot::Read).err();
    assert_eq!(refused, Some(MapRangesError::NotUniform { owner: machine.far(), at: Bytes::new(0x4000) }));
    assert_eq!(depot.borrow().free_bytes(), before);
}

#[test]
fn a_reservation_is_used_again_and_nothing_of_the_mapping_before_is_left() {
    let (arena, owners, peers) = (frames(), peerdma::dma::Owners::new(), peerdma::dma::Peers::none());
    let domain = soft(&arena);
    let depot = depot(&domain.abilities().usable);
    let nic = Initiator::new("nic", IommuMode::Translated);
    let context = Context::new(nic, domain.attach(), &owners, &peers, &depot).unwrap();
    let mut reservation = context.reserve(Bytes::new(0x4000)).unwrap();
    let mut first = None;
    for round in 1..=3_u64 {
        let mut staged = reservation.stage();
        for page in 0..round {
            staged.link(ram(0x10_0000 * round + page * 0x5000, 0x1000), Prot::ReadWrite).unwrap();
        }
        let mapping = staged.sync().unwrap();
        let DeviceAddress::Iova(iova) = mapping.spans().next().unwrap().address else { panic!("no IOVA") };
        assert_eq!(*first.get_or_insert(iova), iova);
        for page in 0..4 {
            let at = Iova::new(iova.as_u64() + page * 0x1000);
            let leads = domain.table().walk(at).ok().map(|to| to.pa.as_u64());
            assert_eq!(
                leads,
                (page < round).then_some(0x10_0000 * round + page * 0x5000),
                "round {round}, page {page}"
            );
        }
        reservation = mapping.unlink().unwrap();
    }
    reservation.release();
}
