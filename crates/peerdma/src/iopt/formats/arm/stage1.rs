//! Stage 1: rights of privileged and other contexts, memory types by index, marks of writes.

use super::lpae::{ACCESS_FLAG, Lpae, TABLE_OR_PAGE, VALID, attrs_of, execute_never, shareability};
use super::{ArmGranule, ArmOptions, Pages4K};
use crate::access::{MemAttrs, Prot};
use crate::addr::PhysAddr;
use crate::iopt::entry::Entry;
use crate::iopt::format::{Family, Format, WriteOnlyIs};
use crate::iopt::shape::{Half, Shape, ShapeError};

const NON_SECURE: u64 = 1 << 5;
/// AP\[1\]: unprivileged contexts too.
const UNPRIVILEGED: u64 = 1 << 6;
/// AP\[2\] at stage 1: read only.
const READ_ONLY: u64 = 1 << 7;
const NOT_GLOBAL: u64 = 1 << 11;
/// Dirty bit modifier: a write clears AP\[2\].
const DIRTY_MODIFIER: u64 = 1 << 51;
const NON_SECURE_TABLE: u64 = 1 << 63;

/// AttrIndx of stage 1 (MAIR: 0x44 not cached, 0xff cached, 0x04 device).
const INDEX: u64 = 0b111 << 2;
const INDEX_CACHED: u64 = 1 << 2;
const INDEX_DEVICE: u64 = 2 << 2;

/// The format of an Arm stage 1.
#[derive(Clone, Debug)]
pub struct ArmStage1<G = Pages4K> {
    lpae: Lpae<G>,
    leaf: u64,
    dirty: u64,
}

impl<G: ArmGranule> ArmStage1<G> {
    /// Describes a table with these options.
    ///
    /// # Errors
    /// [`ShapeError`], where no table of this granule has such widths.
    pub fn new(options: ArmOptions) -> Result<Self, ShapeError> {
        let half = if options.upper_half { Half::High } else { Half::Low };
        let (leaf, table) = if options.non_secure { (NON_SECURE, NON_SECURE_TABLE) } else { (0, 0) };
        Ok(Self {
            lpae: Lpae::new(&options, half, false, table)?,
            leaf: ACCESS_FLAG | NOT_GLOBAL | leaf,
            dirty: if options.hardware_dirty { DIRTY_MODIFIER } else { 0 },
        })
    }
}

impl<G: ArmGranule> Format for ArmStage1<G> {
    const PAGE_SHIFT: u32 = G::PAGE_SHIFT;
    const INDEX_BITS: u32 = Lpae::<G>::INDEX_BITS;
    const FAMILY: Family = Family::IoPgtable;
    const INHERITED: u64 = 0;
    const LINEAR: bool = G::PAGE_SHIFT < 16;
    const GROWS: bool = false;
    const CONCATENATES: bool = false;
    const REPLICATES: bool = false;

    #[inline]
    fn shape(&self) -> &Shape {
        &self.lpae.shape
    }

    fn level(&self, height: u8) -> u8 {
        3_u8.saturating_sub(height)
    }

    fn leaf_bits(&self, prot: Prot, attrs: MemAttrs) -> Option<u64> {
        let rights = if prot.writes() { self.dirty } else { READ_ONLY };
        let unprivileged = if attrs.contains(MemAttrs::PRIVILEGED) { 0 } else { UNPRIVILEGED };
        let index = if attrs.contains(MemAttrs::MMIO) {
            INDEX_DEVICE
        } else if attrs.contains(MemAttrs::NOT_SNOOPED) {
            0
        } else {
            INDEX_CACHED
        };
        Some(self.leaf | rights | unprivileged | index | shareability(attrs) | execute_never(attrs))
    }

    #[inline]
    fn leaf_entry(&self, bits: u64, base: PhysAddr, height: u8, _size_shift: u32) -> u64 {
        Lpae::<G>::leaf_entry(bits, base, height)
    }

    #[inline]
    fn table_entry(&self, table: PhysAddr, _height: u8) -> u64 {
        self.lpae.table_entry(table)
    }

    #[inline]
    fn decode(&self, entry: u64, height: u8) -> Entry {
        self.lpae.decode(entry, height)
    }

    #[inline]
    fn is_single(&self, entry: u64, _height: u8) -> bool {
        entry & (VALID | TABLE_OR_PAGE) == VALID
    }

    #[inline]
    fn bits_of(&self, leaf: u64, _height: u8) -> u64 {
        Lpae::<G>::bits_of(leaf)
    }

    #[inline]
    fn prot(&self, leaf: u64) -> Option<Prot> {
        // A clean page is written through, and marked by that.
        Some(if leaf & READ_ONLY == 0 || leaf & DIRTY_MODIFIER != 0 { Prot::ReadWrite } else { Prot::Read })
    }

    #[inline]
    fn attrs(&self, leaf: u64) -> MemAttrs {
        let mut attrs = attrs_of(leaf, leaf & INDEX == INDEX_DEVICE);
        attrs.set(MemAttrs::PRIVILEGED, leaf & UNPRIVILEGED == 0);
        attrs
    }

    fn expresses(&self) -> MemAttrs {
        MemAttrs::MMIO | MemAttrs::PRIVILEGED | MemAttrs::NOT_SNOOPED | MemAttrs::NO_EXECUTE
    }

    fn replaces_tables(&self) -> bool {
        self.lpae.replace_tables
    }

    fn write_only(&self) -> WriteOnlyIs {
        WriteOnlyIs::MayRead
    }

    fn tracks_dirty(&self) -> bool {
        self.dirty != 0
    }

    fn answers_dirty(&self) -> bool {
        // Linux answers that nothing is dirty where entries were made without the modifier.
        true
    }

    #[inline]
    fn is_dirty(&self, leaf: u64) -> bool {
        leaf & (DIRTY_MODIFIER | READ_ONLY) == DIRTY_MODIFIER
    }

    fn clean(&self) -> (u64, u64) {
        (0, READ_ONLY)
    }
}
