//! From an address to an entry, by the bytes of the tables alone.
//!
//! One file a format, each written from the layouts in its vendor's specification. What is read
//! may have been written by anybody: a walk takes at most as many steps as there are levels,
//! whatever the entries point to, and an entry that its format does not define ends it.
//!
//! - `amd`: AMD v1. `arm`: Arm stages 1 and 2. `tce`: a flat table.
//! - `x86`: x86-64 first stage. `vtd`: VT-d second stage.

mod amd;
mod arm;
mod tce;
mod vtd;
mod x86;

use super::fault::FaultReason;
use super::tables::{TableBytes, TableFormat};
use peerdma::access::Prot;
use peerdma::addr::{BusAddr, PhysAddr};

/// What a walk found: a page and its rights, those of all tables above included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Leaf {
    /// Logarithm of the page's size, below 64.
    pub(super) shift: u32,
    /// Where the page is; a multiple of its size.
    pub(super) base: u64,
    pub(super) read: bool,
    pub(super) write: bool,
    /// Requests without a supervisor's rights may use it.
    pub(super) user: bool,
}

impl Leaf {
    /// What it permits.
    pub(super) fn prot(&self, privileged: bool) -> Option<Prot> {
        match (self.read, self.write) {
            _ if !self.user && !privileged => None,
            (true, true) => Some(Prot::ReadWrite),
            (true, false) => Some(Prot::Read),
            (false, true) => Some(Prot::Write),
            (false, false) => None,
        }
    }
}

/// Reads the tables of a format, from their root.
pub(super) fn walk(
    format: &TableFormat,
    memory: &dyn TableBytes,
    root: PhysAddr,
    at: BusAddr,
) -> Result<Leaf, FaultReason> {
    let (root, at) = (root.as_u64(), at.as_u64());
    match *format {
        TableFormat::VtdSecondStage { levels } => vtd::walk(memory, root, levels, at),
        TableFormat::X86FirstStage { levels, sign_extended } => x86::walk(memory, root, levels, sign_extended, at),
        TableFormat::AmdV1 { levels } => amd::walk(memory, root, levels, at),
        TableFormat::ArmLpae { stage, granule, input_bits, output_bits, access_flag_faults } => {
            arm::Lpae { stage, granule, input_bits, output_bits, access_flag_faults }.walk(memory, root, at)
        }
        TableFormat::Tce { window, page_shift } => tce::walk(memory, root, window, page_shift, at),
    }
}

/// Entry `index` of a table.
fn entry(memory: &dyn TableBytes, table: u64, index: u64) -> Result<u64, FaultReason> {
    let at = table.checked_add(index * 8).ok_or(FaultReason::BadEntry)?;
    memory.word(PhysAddr::new(at)).ok_or(FaultReason::BadEntry)
}

/// Whether bit `n` is set.
const fn bit(entry: u64, n: u32) -> bool {
    entry >> n & 1 != 0
}

/// Bits `low..=high` where they stand.
const fn field(entry: u64, high: u32, low: u32) -> u64 {
    entry & (u64::MAX >> (63 - high)) & (u64::MAX << low)
}
