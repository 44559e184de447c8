//! Devices that work on buffers for a [`Driver`](super::driver::Driver).
//!
//! - [`DmaWorker`]: a DMA engine that fills, or one that only reads, as a display does.
//! - [`MirrorWorker`]: a DMA engine behind a table of pages that come and go one by one.
//! - [`RegionWorker`]: an RDMA adapter with a region that is registered with its pages, or on demand.
//! - [`BlockWorker`]: a drive that reads blocks into the buffer.

mod blocks;
mod dma;
mod mirror;
mod region;

pub use blocks::BlockWorker;
pub use dma::DmaWorker;
pub(crate) use dma::write_and_read;
pub use mirror::MirrorWorker;
pub use region::{Adapter, RegionWorker};

use super::soak::SoakError;
use crate::device::Shared;
use crate::host::{Kernel, Space, wire_address};
use peerdma::access::{MemAttrs, Prot};
use peerdma::addr::{BusAddr, Bytes};
use peerdma::chunk::Chunk;
use peerdma::dma::engine::{Context, Mapping};
use peerdma::dma::{DeviceAddress, Owner, Span};
use peerdma::iova::Allocator;
use std::cell::RefCell;

/// What a device's mappings are made from.
pub type Desk<'a> = Context<'a, Space, RefCell<Allocator>>;
/// One of them.
pub type Mapped<'c, 'a> = Mapping<'c, 'a, Space, RefCell<Allocator>>;

/// RAM that a device and its driver share, for as long as this lives.
#[derive(Debug)]
pub struct Lent<'c, 'a> {
    /// As both see it.
    pub shared: Shared,
    mapping: Mapped<'c, 'a>,
}

impl<'c, 'a> Lent<'c, 'a> {
    /// `len` bytes of RAM for the device of this desk.
    ///
    /// # Errors
    /// [`SoakError`]: there is no RAM, or the device does not reach it.
    pub fn new(kernel: &Kernel, desk: &'c Desk<'a>, len: Bytes) -> Result<Self, SoakError> {
        let lacks = || SoakError::Lacks { what: "RAM for a device".to_string() };
        let buffer = kernel.allocate(len).map_err(|_| lacks())?;
        let at = Bytes::new(buffer.range().start().as_u64());
        let chunk = Chunk::new(Owner::Ram, at, len, MemAttrs::empty()).ok_or_else(lacks)?;
        let mapping = desk.map_one(chunk, Prot::ReadWrite)?;
        let device = mapping.spans().next().map(|span| wire_address(&span)).ok_or_else(lacks)?;
        Ok(Self { shared: buffer.shared(device), mapping })
    }

    /// Where the device finds it.
    pub fn at(&self) -> BusAddr {
        self.shared.device()
    }

    /// How it was mapped.
    pub fn spans(&self) -> impl Iterator<Item = Span> + Clone {
        self.mapping.spans()
    }
}

/// Where byte `at` of a mapping is for its device, and the rest of its span; none behind its end.
fn part_of(mapping: &Mapped<'_, '_>, at: Bytes) -> Option<Span> {
    let mut before = Bytes::ZERO;
    for span in mapping.spans() {
        let skip = at.as_u64().saturating_sub(before.as_u64());
        if skip < span.len.as_u64() {
            let address = span.address.checked_add(Bytes::new(skip))?;
            return Some(Span { address, len: Bytes::new(span.len.as_u64() - skip), ..span });
        }
        before = before.checked_add(span.len)?;
    }
    None
}

/// Where byte `at` of a mapping is on the wire.
fn wire_at(mapping: Option<&Mapped<'_, '_>>, at: Bytes) -> Option<BusAddr> {
    part_of(mapping?, at).map(|span| wire_address(&span))
}

/// Where a mapping begins, if an IOMMU stands before it.
fn translated(mapping: Option<&Mapped<'_, '_>>) -> Option<BusAddr> {
    let span = mapping?.spans().next()?;
    matches!(span.address, DeviceAddress::Iova(_)).then(|| wire_address(&span))
}
