//! One list of bounds for every way of access: a way that is added without a row here fails the last test.

use super::{Exported, PAGE, Told, arena, depot, domain, nic};
use peerdma::access::Prot;
use peerdma::addr::{Bytes, Granule};
use peerdma::buffer::shared::{AccessError, Mapped, Part};
use peerdma::buffer::terms::{Declaration, Methods};
use peerdma::buffer::{Lifetime, shared::Holder};
use peerdma::dma::consumer::stage2::{Guest, GuestFrame};
use peerdma::dma::{Context, Owner};
use std::sync::Arc;

/// One way of access, and how it answers for a part: how many bytes it leads to.
struct Way {
    name: &'static str,
    method: Methods,
    reads: bool,
    writes: bool,
    reach: fn(&Exported, &Mapped, Part) -> Result<u64, AccessError>,
}

const WAYS: [Way; 5] = [
    Way { name: "a device's addresses", method: Methods::DMA, reads: true, writes: true, reach: by_dma },
    Way { name: "one page for a mirror", method: Methods::DMA, reads: true, writes: true, reach: by_page },
    Way { name: "pages of a guest", method: Methods::FRAMES, reads: true, writes: true, reach: by_frames },
    Way { name: "reads of the CPU", method: Methods::CPU, reads: true, writes: false, reach: by_cpu_reading },
    Way { name: "writes of the CPU", method: Methods::CPU, reads: false, writes: true, reach: by_cpu_writing },
];

fn by_dma(exported: &Exported, mapped: &Mapped, part: Part) -> Result<u64, AccessError> {
    let arena = arena();
    let domain = domain(&arena);
    let depot = depot(&domain);
    let context = Context::new(nic(), domain.attach(), &exported.owners, &exported.peers, &depot)
        .expect("the initiator and the space fit");
    let mapping = mapped.by_dma(&context, part)?;
    Ok(mapping.spans().map(|span| span.len.as_u64()).sum())
}

fn by_page(_: &Exported, mapped: &Mapped, part: Part) -> Result<u64, AccessError> {
    let size = Granule::new(part.len).unwrap_or(Granule::PAGE_4K);
    mapped.page(part.at, size).map(|page| page.len().as_u64())
}

fn by_frames(exported: &Exported, mapped: &Mapped, part: Part) -> Result<u64, AccessError> {
    let runs = mapped.by_frames(&exported.owners, part, GuestFrame::new(0x100), Guest::Plain)?;
    Ok(runs.map(|run| run.host.len().as_u64()).sum())
}

fn by_cpu_reading(_: &Exported, mapped: &Mapped, part: Part) -> Result<u64, AccessError> {
    mapped.by_cpu(Prot::Read, part, |ranges| ranges.len().as_u64())
}

fn by_cpu_writing(_: &Exported, mapped: &Mapped, part: Part) -> Result<u64, AccessError> {
    mapped.by_cpu(Prot::Write, part, |ranges| ranges.len().as_u64())
}

fn pages(at: u64, count: u64) -> Part {
    Part::new(Bytes::new(at * PAGE), Bytes::new(count * PAGE))
}

#[test]
fn one_page_past_the_end_is_refused_for_every_way_of_access() {
    let exported = Exported::new();
    let mapped = exported.attach(Prot::ReadWrite, Arc::new(Told)).map().unwrap();
    let len = mapped.ranges().len();
    assert_eq!(len, Bytes::new(4 * PAGE));
    for way in WAYS {
        assert_eq!((way.reach)(&exported, &mapped, pages(3, 1)), Ok(PAGE), "{}: the last page", way.name);
        // Beyond it there is memory of the device, which is not this buffer's.
        for part in [pages(4, 1), pages(1 << 40, 1), Part::new(Bytes::new(u64::MAX - 1), Bytes::new(PAGE))] {
            let refused = (way.reach)(&exported, &mapped, part);
            assert_eq!(refused, Err(AccessError::Beyond { part, buffer: len }), "{}: {part}", way.name);
        }
        let over = pages(2, 4);
        let refused = (way.reach)(&exported, &mapped, over);
        assert_eq!(refused, Err(AccessError::Beyond { part: over, buffer: len }), "{}: over the end", way.name);
    }
}

#[test]
fn what_was_not_settled_is_refused_for_every_way_of_access() {
    let exported = Exported::new();
    for way in WAYS {
        let wants = match way.method {
            // One of the others.
            Methods::DMA => Declaration::of_process("other", Prot::ReadWrite),
            _ => Declaration::of_device(nic(), Prot::ReadWrite).taking_peer_memory(),
        };
        let wants = wants.taking(Lifetime::Revocable);
        let seat = exported.buffer.attach(&wants, &exported.peers, Holder::here("other"), Arc::new(Told)).unwrap();
        let refused = (way.reach)(&exported, &seat.map().unwrap(), pages(0, 1)).unwrap_err();
        let AccessError::Method { needed, settled } = refused else { panic!("{}: {refused}", way.name) };
        assert!(needed == way.method && !settled.contains(needed), "{}: {refused}", way.name);
    }
}

#[test]
fn what_is_not_permitted_is_refused_for_every_way_that_needs_it() {
    let exported = Exported::new();
    for prot in [Prot::Read, Prot::Write] {
        let mapped = exported.attach(prot, Arc::new(Told)).map().unwrap();
        for way in WAYS {
            let answer = (way.reach)(&exported, &mapped, pages(0, 1));
            // Ways that do both do as much as the mapping is for; but no table of a guest says "only writes".
            let both = way.reads && way.writes;
            let can = if both { way.method != Methods::FRAMES || prot.reads() } else { prot.reads() == way.reads };
            match can {
                true => assert_eq!(answer, Ok(PAGE), "{} of a mapping for {prot}", way.name),
                false => assert!(matches!(answer, Err(AccessError::Permission { .. })), "{}: {prot}", way.name),
            }
        }
    }
}

#[test]
fn a_page_over_two_pieces_of_memory_is_no_page() {
    let exported = Exported::new();
    let mapped = exported.attach(Prot::ReadWrite, Arc::new(Told)).map().unwrap();
    let two = Granule::new(Bytes::new(2 * PAGE)).unwrap();
    assert_eq!(mapped.page(Bytes::ZERO, two).map(|page| page.len()), Ok(two.bytes()));
    let refused = mapped.page(Bytes::new(2 * PAGE), two);
    assert_eq!(refused, Err(AccessError::Scattered { part: pages(2, 2), ranges: 2 }));
    assert!(matches!(mapped.ranges().iter().next().map(|range| range.owner()), Some(Owner::Device(_))));
}

/// A way of access that is added to the terms needs rows above.
#[test]
fn every_method_of_the_terms_has_a_way_here() {
    let covered = WAYS.iter().fold(Methods::empty(), |all, way| all | way.method);
    assert_eq!(covered, Methods::all());
}
