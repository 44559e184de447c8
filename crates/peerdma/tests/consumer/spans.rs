//! Spans to write lists from, and what they come to.

use peerdma::access::Prot;
use peerdma::addr::{BusAddr, Bytes, Iova, PhysAddr};
use peerdma::dma::{Behind, DeviceAddress, Span};
use proptest::collection::vec;
use proptest::prelude::*;

pub(crate) fn iova(at: u64) -> DeviceAddress {
    DeviceAddress::Iova(Iova::new(at))
}

pub(crate) fn bus(at: u64) -> DeviceAddress {
    DeviceAddress::Bus { address: BusAddr::new(at), bridge: None }
}

pub(crate) fn span(address: DeviceAddress, len: u64) -> Span {
    let at = Bytes::ZERO;
    Span {
        at,
        address,
        len: Bytes::new(len),
        behind: Behind::Memory,
        snooped: true,
        prot: Prot::ReadWrite,
        bounced: false,
    }
}

/// Spans one after another, with their places in the list.
pub(crate) fn listed(parts: impl IntoIterator<Item = (DeviceAddress, u64)>) -> Vec<Span> {
    let mut at = 0;
    let place = |(address, len)| {
        let span = Span { at: Bytes::new(at), ..span(address, len) };
        at = at.wrapping_add(len);
        span
    };
    parts.into_iter().map(place).collect()
}

/// Ranges of numbers, those that continue each other as one.
pub(crate) fn ranges(parts: impl IntoIterator<Item = (u64, u64)>) -> Vec<(u64, u64)> {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for (start, len) in parts {
        match ranges.last_mut() {
            Some((first, so_far)) if *first + *so_far == start => *so_far += len,
            _ => ranges.push((start, len)),
        }
    }
    ranges
}

pub(crate) fn numbers(spans: &[Span]) -> Vec<(u64, u64)> {
    ranges(spans.iter().map(|span| (span.address.as_u64(), span.len.as_u64())))
}

/// Lists of up to eight spans around pages of 4 KiB: most of whole pages, some of anything, all kinds of address,
/// often one continuing the other.
pub(crate) fn drawn() -> impl Strategy<Value = Vec<Span>> {
    let start = prop_oneof![
        6 => (0x100..0x100_0000_u64).prop_map(|page| page << 12),
        1 => 0x10_0000..0x1_0000_0000_u64,
    ];
    let len = prop_oneof![
        5 => (1..700_u64).prop_map(|pages| pages << 12),
        1 => 1..0x4000_u64,
    ];
    let inner = vec((start, len, 0..3_u8, prop::bool::weighted(0.3)), 1..8);
    let ends = (prop_oneof![Just(0), 0..0x400_u64], prop_oneof![Just(0), 0..0x1000_u64]);
    (inner, ends).prop_map(|(parts, (head, cut))| {
        let mut list: Vec<(DeviceAddress, u64)> = Vec::new();
        for (start, len, kind, continues) in parts {
            let next = match list.last() {
                Some((last, last_len)) if continues => last.checked_add(Bytes::new(*last_len)).unwrap(),
                _ => match kind {
                    0 => iova(start),
                    1 => bus(start),
                    _ => DeviceAddress::CpuPhysical(PhysAddr::new(start)),
                },
            };
            list.push((next, len));
        }
        // Heads and tails inside pages, as buffers have them.
        let (first, len) = &mut list[0];
        let head = (head << 2).min(*len - 1);
        (*first, *len) = (first.checked_add(Bytes::new(head)).unwrap(), *len - head);
        let (_, len) = list.last_mut().unwrap();
        *len -= cut.min(*len - 1);
        listed(list)
    })
}
