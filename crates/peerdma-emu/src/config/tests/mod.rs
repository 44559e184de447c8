//! Claims about registers: what they hold, and what writes do to them.

mod against_decoder;
mod reading;
mod writing;

use super::{BarDescription, Description, Space, Width};
use peerdma::addr::{AddrRange, BusAddr, Bytes};
use peerdma::pcie::express::PortType;
use proptest::prelude::*;

fn bar(index: u8, address: u64, size: u64, is_64_bit: bool) -> BarDescription {
    BarDescription {
        index,
        address: BusAddr::new(address),
        size: Bytes::new(size),
        prefetchable: is_64_bit,
        is_64_bit,
        resizable: Vec::new(),
    }
}

fn range(first: u64, last: u64) -> Option<AddrRange<BusAddr>> {
    AddrRange::from_inclusive(BusAddr::new(first), BusAddr::new(last))
}

fn endpoint(bars: Vec<BarDescription>) -> Space {
    Space::new(&Description { bars, ..Description::express(PortType::Endpoint) })
}

/// Writes of any width anywhere, most of them where registers are.
fn writes() -> impl Strategy<Value = Vec<(u16, Width, u32)>> {
    let offset = prop_oneof![8 => 0u16..0x200, 1 => 0u16..0x1100];
    let width = prop_oneof![Just(Width::One), Just(Width::Two), Just(Width::Four)];
    let value = prop_oneof![any::<u32>(), Just(0), Just(!0)];
    prop::collection::vec((offset, width, value), 0..200)
}
