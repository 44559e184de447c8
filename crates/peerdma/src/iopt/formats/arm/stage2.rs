//! Stage 2: rights for reads and writes apart, and memory types in the entry.

use super::lpae::{ACCESS_FLAG, Lpae, TABLE_OR_PAGE, VALID, attrs_of, execute_never, shareability};
use super::{ArmGranule, ArmOptions, Pages4K};
use crate::access::{MemAttrs, Prot};
use crate::addr::PhysAddr;
use crate::iopt::entry::Entry;
use crate::iopt::format::{Family, Format, WriteOnlyIs};
use crate::iopt::shape::{Half, Shape, ShapeError};

/// S2AP\[0\].
const STAGE2_READ: u64 = 1 << 6;
/// S2AP\[1\].
const STAGE2_WRITE: u64 = 1 << 7;

/// MemAttr of stage 2.
const MEM_ATTR: u64 = 0b1111 << 2;
const MEM_DEVICE: u64 = 0b0001 << 2;
const MEM_NOT_CACHED: u64 = 0b0101 << 2;
const MEM_CACHED: u64 = 0b1111 << 2;
/// Write-back under FEAT_S2FWB.
const MEM_CACHED_FORCED: u64 = 0b0110 << 2;

/// The format of an Arm stage 2.
#[derive(Clone, Debug)]
pub struct ArmStage2<G = Pages4K> {
    lpae: Lpae<G>,
    cached: u64,
}

impl<G: ArmGranule> ArmStage2<G> {
    /// Describes a table with these options.
    ///
    /// # Errors
    /// [`ShapeError`], where no table of this granule has such widths.
    pub fn new(options: ArmOptions) -> Result<Self, ShapeError> {
        Ok(Self {
            lpae: Lpae::new(&options, Half::Low, true, 0)?,
            cached: if options.forced_write_back { MEM_CACHED_FORCED } else { MEM_CACHED },
        })
    }
}

impl<G: ArmGranule> Format for ArmStage2<G> {
    const PAGE_SHIFT: u32 = G::PAGE_SHIFT;
    const INDEX_BITS: u32 = Lpae::<G>::INDEX_BITS;
    const FAMILY: Family = Family::IoPgtable;
    const INHERITED: u64 = 0;
    const LINEAR: bool = G::PAGE_SHIFT < 16;
    const GROWS: bool = false;
    const CONCATENATES: bool = true;
    const REPLICATES: bool = false;

    #[inline]
    fn shape(&self) -> &Shape {
        &self.lpae.shape
    }

    fn level(&self, height: u8) -> u8 {
        3_u8.saturating_sub(height)
    }

    fn leaf_bits(&self, prot: Prot, attrs: MemAttrs) -> Option<u64> {
        let rights = match prot {
            Prot::Read => STAGE2_READ,
            Prot::Write => STAGE2_WRITE,
            Prot::ReadWrite => STAGE2_READ | STAGE2_WRITE,
        };
        let memory = if attrs.contains(MemAttrs::MMIO) {
            MEM_DEVICE
        } else if attrs.contains(MemAttrs::NOT_SNOOPED) {
            MEM_NOT_CACHED
        } else {
            self.cached
        };
        Some(ACCESS_FLAG | rights | memory | shareability(attrs) | execute_never(attrs))
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
        match (leaf & STAGE2_READ != 0, leaf & STAGE2_WRITE != 0) {
            (true, true) => Some(Prot::ReadWrite),
            (true, false) => Some(Prot::Read),
            (false, true) => Some(Prot::Write),
            (false, false) => None,
        }
    }

    #[inline]
    fn attrs(&self, leaf: u64) -> MemAttrs {
        attrs_of(leaf, leaf & MEM_ATTR == MEM_DEVICE)
    }

    fn expresses(&self) -> MemAttrs {
        MemAttrs::MMIO | MemAttrs::NOT_SNOOPED | MemAttrs::NO_EXECUTE
    }

    fn replaces_tables(&self) -> bool {
        self.lpae.replace_tables
    }

    fn write_only(&self) -> WriteOnlyIs {
        WriteOnlyIs::Exact
    }

    fn tracks_dirty(&self) -> bool {
        false
    }

    #[inline]
    fn is_dirty(&self, _leaf: u64) -> bool {
        false
    }

    fn clean(&self) -> (u64, u64) {
        (0, 0)
    }
}
