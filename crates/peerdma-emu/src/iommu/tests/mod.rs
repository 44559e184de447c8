//! What the IOMMU promises, claim by claim.
//!
//! - `written`: tables that the core writes, of every format, with random mappings.
//! - `literals`: tables written by hand from the specifications.
//! - `hostile`: bytes that are no tables.
//! - `remembering`: the IOTLB and invalidations.
//! - `streams`: who is translated by what; translations given; page requests.

mod hostile;
mod literals;
mod pages;
mod remembering;
mod streams;
mod written;

use super::{Domain, DomainId, TableBytes, TableFormat, Tables};
use peerdma::addr::PhysAddr;
use peerdma::iopt::{Frame, FrameArena, TableMemory};
use peerdma::pcie::{DevFn, PciAddr};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Frames that a page table and an IOMMU share.
#[derive(Clone, Debug)]
pub(crate) struct SharedArena(pub(crate) Arc<FrameArena>);

impl SharedArena {
    pub(crate) fn new(frames: usize) -> Self {
        Self(Arc::new(FrameArena::new(PhysAddr::new(0x4000_0000), frames)))
    }
}

impl TableMemory for SharedArena {
    fn allocate(&self, count: usize) -> Option<PhysAddr> {
        self.0.allocate(count)
    }
    fn frame(&self, at: PhysAddr) -> Option<&Frame> {
        self.0.frame(at)
    }
    fn free(&self, at: PhysAddr, count: usize) {
        self.0.free(at, count);
    }
}

/// Table memory word by word; what is not named is zero, and nothing is there from 2^40 on.
struct Words(BTreeMap<u64, u64>);

impl TableBytes for Words {
    fn word(&self, at: PhysAddr) -> Option<u64> {
        (at.as_u64() >> 40 == 0).then(|| self.0.get(&at.as_u64()).copied().unwrap_or(0))
    }
}

/// A domain of tables at 0x1000, written as pairs of address and entry.
fn domain(format: TableFormat, words: &[(u64, u64)]) -> Domain {
    let memory = Arc::new(Words(words.iter().copied().collect()));
    Domain { id: DomainId::new(1), tables: Tables { format, root: PhysAddr::new(0x1000), memory } }
}

pub(crate) fn function(number: u8) -> PciAddr {
    PciAddr::new(0, 3, DevFn::new(number))
}
