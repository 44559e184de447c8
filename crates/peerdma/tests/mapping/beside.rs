//! What stands beside a mapping: the watch over drivers, and what has to happen before a doorbell.

use super::{LISTED, Machinery, chunk, depot, frames, ram, soft};
use peerdma::access::Prot;
use peerdma::addr::Bytes;
use peerdma::dma::misuse::{Misuse, Watch};
use peerdma::dma::publish::{Sender, Step};
use peerdma::dma::{Context, Initiator, Owners, Peers};
use peerdma::topology::IommuMode;
use std::panic::Location;

#[test]
fn a_watch_names_where_a_range_was_mapped_unmapped_and_misused() {
    let (arena, owners, peers, watch) = (frames(), Owners::new(), Peers::none(), Watch::new(8));
    let domain = soft(&arena);
    let depot = depot(&domain.abilities().usable);
    let nic = Initiator::new("nic", IommuMode::Translated);
    let context = Context::new(nic, domain.attach(), &owners, &peers, &depot).unwrap().with_watch(&watch);
    let mapping = context.map_one(ram(0x3000, 0x2000), Prot::Read).unwrap();
    let span = mapping.spans().next().unwrap();
    let here = Location::caller();
    assert_eq!(watch.access(span.address, Bytes::new(8), Prot::Read, here), Ok(()));
    let written = watch.access(span.address, Bytes::new(8), Prot::Write, here).unwrap_err();
    assert!(matches!(written, Misuse::WrongDirection { .. }), "{written}");
    assert!(written.to_string().matches("beside.rs").count() == 2, "both places: {written}");
    let beyond = watch.access(span.address, Bytes::new(0x2001), Prot::Read, here);
    assert!(matches!(beyond, Err(Misuse::Outside { .. })), "{beyond:?}");
    assert_eq!(watch.leaks().len(), 1);
    mapping.unlink().unwrap().release();
    assert!(watch.leaks().is_empty());
    let late = watch.access(span.address, Bytes::new(8), Prot::Read, here);
    assert!(matches!(late, Err(Misuse::UsedAfterUnmap { .. })), "{late:?}");
}

#[test]
fn a_payload_to_memory_and_a_doorbell_across_the_switch_need_a_read_between_them() {
    let machine = Machinery::new(LISTED, IommuMode::Translated, false, 0);
    let (arena, owners, peers) = (frames(), machine.owners(), machine.peers());
    let domain = soft(&arena);
    let depot = depot(&domain.abilities().usable);
    let initiator = Initiator::of(&machine.topology, machine.initiator()).unwrap();
    let context = Context::new(initiator, domain.attach(), &owners, &peers, &depot).unwrap();
    let map = |chunk| context.map_one(chunk, Prot::ReadWrite).unwrap();
    let (memory, direct) = (map(ram(0x10_0000, 0x1000)), map(chunk(machine.near(), 0, 0x1000)));
    let (other, around) = (map(chunk(machine.near(), 0x4000, 0x1000)), map(chunk(machine.far(), 0, 0x1000)));
    let steps = memory.publish(&direct, Sender::device());
    assert_eq!(steps.iter().collect::<Vec<_>>(), [Step::FlushByRead], "{steps}");
    assert!(!Step::FlushByRead.citation().is_empty());
    assert!(direct.publish(&other, Sender::device()).is_nothing(), "one way to one end");
    assert!(direct.publish(&around, Sender::device()).contains(Step::FlushByRead), "two ends");
}
