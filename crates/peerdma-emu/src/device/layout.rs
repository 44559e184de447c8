//! What stands behind a device's BARs.

use super::registers::Registers;
use crate::memory::Memory;
use peerdma::addr::Bytes;
use std::sync::Arc;

/// What answers an access.
#[derive(Clone, Debug)]
pub enum Behind {
    /// Registers; the first is at the region's start.
    Registers(Arc<Registers>),
    /// Memory, from this offset in it on.
    Memory(Arc<dyn Memory>, Bytes),
}

/// A part of a BAR.
#[derive(Clone, Debug)]
pub struct Region {
    /// Index of the BAR's first register, 0 to 5.
    pub bar: u8,
    /// Where in the BAR it starts.
    pub offset: Bytes,
    /// How long it is.
    pub len: Bytes,
    /// What is there.
    pub behind: Behind,
}

/// Everything behind a device's BARs.
///
/// Parts of a BAR that no region covers answer as hardware without registers there does: writes
/// are dropped and reads give zeros. A region that reaches past its BAR's end is cut there, so
/// that a resizable BAR shows as much of a memory as it is set to.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    regions: Vec<Region>,
}

impl Layout {
    /// Nothing behind any BAR.
    pub fn new() -> Self {
        Self::default()
    }

    /// With registers at an offset of a BAR.
    #[must_use]
    pub fn registers(mut self, bar: u8, offset: Bytes, registers: &Arc<Registers>) -> Self {
        let (len, behind) = (registers.len(), Behind::Registers(registers.clone()));
        self.regions.push(Region { bar, offset, len, behind });
        self
    }

    /// With all of a memory at an offset of a BAR.
    #[must_use]
    pub fn memory(mut self, bar: u8, offset: Bytes, memory: Arc<dyn Memory>) -> Self {
        let (len, behind) = (memory.len(), Behind::Memory(memory, Bytes::ZERO));
        self.regions.push(Region { bar, offset, len, behind });
        self
    }

    /// The regions, in the order in which they were added; of two that overlap the first answers.
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }
}
