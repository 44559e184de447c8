//! Stores of a processor, which may be on their way for a while.

use super::witness::Stamp;
use crate::machine::Machine;
use peerdma::addr::{Bytes, PhysAddr};

/// Bytes that are stored at a time.
pub(super) const STRIDE: u64 = 256;

/// Fills memory with a stamp, a stride at a time, and pushes what is under way.
#[derive(Debug, Default)]
pub(super) struct Stores {
    /// How far it has come.
    done: u64,
    /// Where the last store went that nothing has pushed.
    under_way: Option<PhysAddr>,
}

impl Stores {
    /// Where the next stride goes, from the start of what is filled.
    pub(super) fn next(&self) -> Bytes {
        Bytes::new(self.done)
    }

    /// Stores a stride at `at`.
    pub(super) fn store(&mut self, machine: &Machine, at: PhysAddr, stamp: Stamp) {
        machine.cpu().store(at, &stamp.word().to_le_bytes().repeat(STRIDE as usize / 8));
        self.done += STRIDE;
        self.under_way = Some(at);
    }

    /// Loads a stride at `at`, where nothing may be stored.
    pub(super) fn load(&mut self, machine: &Machine, at: PhysAddr) {
        machine.cpu().load(at, &mut [0; STRIDE as usize]);
        self.done += STRIDE;
    }

    /// Brings to memory what was stored: a load from there does not overtake it (PCIe 6.0 §2.4.1).
    pub(super) fn push(&mut self, machine: &Machine) {
        if let Some(at) = self.under_way.take() {
            machine.cpu().load(at, &mut [0; 8]);
        }
    }

    /// Begins anew.
    pub(super) fn begin(&mut self) {
        self.done = 0;
    }
}
