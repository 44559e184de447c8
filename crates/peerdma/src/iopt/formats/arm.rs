//! Arm LPAE stage 1 and stage 2 (Arm ARM D8.3, Linux 7.2 `io-pgtable-arm.c`).
//!
//! Three granules, as a type parameter, since they change the size of a table. Levels count
//! from the root down; the leaves are at level 3 and the root starts where the input width
//! says. Stage 2 puts up to sixteen tables side by side instead of another level, where the
//! architecture asks for it. Permissions in table entries (APTable, XNTable) are never written
//! and not looked at.
//!
//! Replacing a block by a table ([`split`](crate::iopt::PageTable::split)) needs FEAT_BBM
//! level 2 of the walker, or an invalidation between; Linux never does it.

use crate::access::{MemAttrs, Prot};
use crate::addr::PhysAddr;
use crate::iopt::entry::Entry;
use crate::iopt::format::{Family, Format, WriteOnlyIs};
use crate::iopt::shape::{Half, PageSizes, Shape, ShapeError};
use core::fmt::Debug;
use core::marker::PhantomData;

const VALID: u64 = 1 << 0;
/// A table at levels above 3, a page at level 3; without it a block above and nothing below.
const TABLE_OR_PAGE: u64 = 1 << 1;
const NON_SECURE: u64 = 1 << 5;
/// AP\[1\]: unprivileged contexts too.
const UNPRIVILEGED: u64 = 1 << 6;
/// AP\[2\] at stage 1: read only.
const READ_ONLY: u64 = 1 << 7;
/// S2AP\[0\].
const STAGE2_READ: u64 = 1 << 6;
/// S2AP\[1\].
const STAGE2_WRITE: u64 = 1 << 7;
const OUTER_SHAREABLE: u64 = 0b10 << 8;
const INNER_SHAREABLE: u64 = 0b11 << 8;
const SHAREABILITY: u64 = 0b11 << 8;
const ACCESS_FLAG: u64 = 1 << 10;
const NOT_GLOBAL: u64 = 1 << 11;
/// Dirty bit modifier: a write clears AP\[2\].
const DIRTY_MODIFIER: u64 = 1 << 51;
const EXECUTE_NEVER: u64 = 0b11 << 53;
/// Software's: the table was flushed for a walker that does not snoop.
const FLUSHED: u64 = 1 << 55;
const NON_SECURE_TABLE: u64 = 1 << 63;

/// AttrIndx of stage 1 (MAIR: 0x44 not cached, 0xff cached, 0x04 device).
const INDEX: u64 = 0b111 << 2;
const INDEX_CACHED: u64 = 1 << 2;
const INDEX_DEVICE: u64 = 2 << 2;

/// MemAttr of stage 2.
const MEM_ATTR: u64 = 0b1111 << 2;
const MEM_DEVICE: u64 = 0b0001 << 2;
const MEM_NOT_CACHED: u64 = 0b0101 << 2;
const MEM_CACHED: u64 = 0b1111 << 2;
/// Write-back under FEAT_S2FWB.
const MEM_CACHED_FORCED: u64 = 0b0110 << 2;

mod sealed {
    pub trait Sealed {}
}

/// A granule: the smallest page, and the size of a table.
pub trait ArmGranule: sealed::Sealed + Copy + Debug {
    /// Logarithm of the page.
    const PAGE_SHIFT: u32;
    /// Largest height with blocks, for outputs of up to 48 bits.
    const BLOCKS_UP_TO: u8;
}

macro_rules! granule {
    ($(#[$doc:meta])* $name:ident, $shift:literal, $blocks:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum $name {}
        impl sealed::Sealed for $name {}
        impl ArmGranule for $name {
            const PAGE_SHIFT: u32 = $shift;
            const BLOCKS_UP_TO: u8 = $blocks;
        }
    };
}

granule! {
    /// 4 KiB pages, blocks of 2 MiB and 1 GiB.
    Pages4K, 12, 2
}
granule! {
    /// 16 KiB pages, blocks of 32 MiB.
    Pages16K, 14, 1
}
granule! {
    /// 64 KiB pages, blocks of 512 MiB, and of 4 TiB with 52 bits of output.
    Pages64K, 16, 1
}

/// What to build; the default is 48 bits in and out.
///
/// What one stage does not have is ignored by it: `non_secure`, `upper_half` and
/// `hardware_dirty` are of stage 1, `forced_write_back` is of stage 2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ArmOptions {
    /// Bits of IOVA: 25 to 48, with 64 KiB pages 52.
    pub input_bits: u8,
    /// Bits of output address: 32 to 48, with 64 KiB pages 52.
    pub output_bits: u8,
    /// Page sizes; all of the granule if `None`.
    pub page_sizes: Option<PageSizes>,
    /// The walker does not snoop caches, and table entries say that they were flushed.
    pub incoherent_walk: bool,
    /// Entries address non-secure memory from a secure context (quirk NS).
    pub non_secure: bool,
    /// The table is TTBR1's: IOVAs whose upper bits are all ones.
    pub upper_half: bool,
    /// Devices mark writes in the entries (quirk HD).
    pub hardware_dirty: bool,
    /// Stage 2 forces write-back (FEAT_S2FWB).
    pub forced_write_back: bool,
    /// A block takes the place of a table even if pages are mapped in it, and they are lost.
    ///
    /// So does Linux (`arm_lpae_init_pte`); without this it is refused.
    pub replace_tables: bool,
}

impl Default for ArmOptions {
    fn default() -> Self {
        Self {
            input_bits: 48,
            output_bits: 48,
            page_sizes: None,
            incoherent_walk: false,
            non_secure: false,
            upper_half: false,
            hardware_dirty: false,
            forced_write_back: false,
            replace_tables: false,
        }
    }
}

/// What both stages share: widths, addresses, tables and blocks.
#[derive(Clone, Debug)]
struct Lpae<G> {
    shape: Shape,
    table: u64,
    blocks_up_to: u8,
    replace_tables: bool,
    granule: PhantomData<G>,
}

impl<G: ArmGranule> Lpae<G> {
    const INDEX_BITS: u32 = G::PAGE_SHIFT - 3;

    fn new(options: &ArmOptions, half: Half, concatenates: bool, table: u64) -> Result<Self, ShapeError> {
        let widest = if G::PAGE_SHIFT == 16 { 52 } else { 48 };
        Shape::check_bits(options.input_bits, 25..=widest, options.output_bits, 32..=widest)?;
        let blocks_up_to = if options.output_bits == 52 { 2 } else { G::BLOCKS_UP_TO };
        let known = (0..=u32::from(blocks_up_to)).fold(0, |sizes, height| sizes | 1 << Self::shift(height));
        let page_sizes = Shape::check_sizes(options.page_sizes, PageSizes::from_bitmap(known))?;
        let mut height = (u32::from(options.input_bits) - G::PAGE_SHIFT).div_ceil(Self::INDEX_BITS) as u8 - 1;
        if concatenates && must_concatenate(G::PAGE_SHIFT, 3_u8.saturating_sub(height), options) {
            height -= 1;
        }
        let flushed = if options.incoherent_walk { FLUSHED } else { 0 };
        Ok(Self {
            shape: Shape::new(options.input_bits, options.output_bits, half, height, height, page_sizes),
            table: VALID | TABLE_OR_PAGE | table | flushed,
            blocks_up_to,
            replace_tables: options.replace_tables,
            granule: PhantomData,
        })
    }

    const fn shift(height: u32) -> u32 {
        G::PAGE_SHIFT + Self::INDEX_BITS * height
    }

    /// The address field: bits 51:48 stand in 15:12 where pages are 64 KiB.
    #[inline]
    const fn fold(at: PhysAddr) -> u64 {
        let at = at.as_u64();
        if G::PAGE_SHIFT == 16 { (at | at >> 36) & Self::ADDRESS } else { at & Self::ADDRESS }
    }

    const ADDRESS: u64 = if G::PAGE_SHIFT == 16 {
        0x0000_ffff_ffff_f000
    } else {
        0x0000_ffff_ffff_ffff >> G::PAGE_SHIFT << G::PAGE_SHIFT
    };

    #[inline]
    const fn unfold(entry: u64) -> u64 {
        let field = entry & Self::ADDRESS;
        if G::PAGE_SHIFT == 16 { field & !0xf000 | (field & 0xf000) << 36 } else { field }
    }

    #[inline]
    fn leaf_entry(bits: u64, base: PhysAddr, height: u8) -> u64 {
        bits | Self::fold(base) | VALID | if height == 0 { TABLE_OR_PAGE } else { 0 }
    }

    #[inline]
    fn table_entry(&self, table: PhysAddr) -> u64 {
        Self::fold(table) | self.table
    }

    #[inline]
    fn decode(&self, entry: u64, height: u8) -> Entry {
        if entry & VALID == 0 {
            return Entry::Empty;
        }
        let at = Self::unfold(entry);
        let size_shift = Self::shift(u32::from(height));
        match (entry & TABLE_OR_PAGE != 0, height) {
            (true, 0) => {}
            (true, _) => return Entry::Table(PhysAddr::new(at)),
            (false, 0) => return Entry::Bad,
            (false, height) if height <= self.blocks_up_to => {}
            (false, _) => return Entry::Bad,
        }
        if at & ((1 << size_shift) - 1) != 0 {
            return Entry::Bad;
        }
        Entry::Leaf { base: PhysAddr::new(at), size_shift }
    }

    #[inline]
    const fn bits_of(leaf: u64) -> u64 {
        leaf & !(Self::ADDRESS | VALID | TABLE_OR_PAGE)
    }
}

/// Whether stage 2 must put tables side by side instead of starting a level higher (Arm ARM
/// D8.2, Linux `arm_lpae_concat_mandatory`).
fn must_concatenate(page_shift: u32, start_level: u8, options: &ArmOptions) -> bool {
    let (input, output) = (options.input_bits, options.output_bits);
    match (page_shift, start_level) {
        (12, 0) => output == 40 || output == 42,
        (14, 0) => output == 48 || input == 48,
        (14, 1) => output == 40,
        _ => false,
    }
}

fn shareability(attrs: MemAttrs) -> u64 {
    if attrs.contains(MemAttrs::NOT_SNOOPED) { OUTER_SHAREABLE } else { INNER_SHAREABLE }
}

fn execute_never(attrs: MemAttrs) -> u64 {
    if attrs.contains(MemAttrs::NO_EXECUTE) { EXECUTE_NEVER } else { 0 }
}

fn attrs_of(leaf: u64, device: bool) -> MemAttrs {
    let mut attrs = MemAttrs::empty();
    attrs.set(MemAttrs::MMIO, device);
    attrs.set(MemAttrs::NOT_SNOOPED, leaf & SHAREABILITY != INNER_SHAREABLE);
    attrs.set(MemAttrs::NO_EXECUTE, leaf & EXECUTE_NEVER != 0);
    attrs
}

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

#[cfg(test)]
mod tests {
    use super::*;

    /// Rights and attributes against the fields of the architecture, address left out.
    #[test]
    fn rights_and_memory_types_are_the_architectures() {
        let stage1 = ArmStage1::<Pages4K>::new(ArmOptions::default()).unwrap();
        let stage2 = ArmStage2::<Pages4K>::new(ArmOptions::default()).unwrap();
        let (mmio, memory) = (MemAttrs::MMIO, MemAttrs::empty());
        let bare = MemAttrs::NOT_SNOOPED;
        for (prot, attrs, first, second) in [
            (Prot::ReadWrite, bare, 0xe40, 0x6d4),
            (Prot::ReadWrite, memory, 0xf44, 0x7fc),
            (Prot::ReadWrite, mmio | bare, 0xe48, 0x6c4),
            (Prot::ReadWrite, mmio, 0xf48, 0x7c4),
            (Prot::Read, bare, 0xec0, 0x654),
            (Prot::Write, bare, 0xe40, 0x694),
            (Prot::Read, bare | MemAttrs::PRIVILEGED, 0xe80, 0x654),
            (Prot::ReadWrite, bare | MemAttrs::NO_EXECUTE, 0x60_0000_0000_0e40, 0x60_0000_0000_06d4),
        ] {
            assert_eq!(stage1.leaf_bits(prot, attrs), Some(first), "{prot} {attrs}");
            assert_eq!(stage2.leaf_bits(prot, attrs), Some(second), "{prot} {attrs}");
        }
        let forced = ArmOptions { forced_write_back: true, ..ArmOptions::default() };
        let stage2 = ArmStage2::<Pages4K>::new(forced).unwrap();
        assert_eq!(stage2.leaf_bits(Prot::ReadWrite, memory), Some(0x7d8));
    }

    #[test]
    fn the_root_starts_where_the_widths_say() {
        let root = |granule: u8, input_bits, output_bits| {
            let options = ArmOptions { input_bits, output_bits, ..ArmOptions::default() };
            let shape = match granule {
                4 => *ArmStage2::<Pages4K>::new(options).unwrap().shape(),
                16 => *ArmStage2::<Pages16K>::new(options).unwrap().shape(),
                _ => *ArmStage2::<Pages64K>::new(options).unwrap().shape(),
            };
            3 - shape.height()
        };
        assert_eq!((root(4, 48, 48), root(4, 39, 40), root(4, 42, 44)), (0, 1, 0));
        // Side by side: 40 and 42 bits of output with 4 KiB, 48 and 40 with 16 KiB.
        assert_eq!((root(4, 40, 40), root(4, 42, 42), root(4, 40, 44)), (1, 1, 0));
        assert_eq!((root(16, 48, 48), root(16, 40, 40), root(16, 47, 48)), (1, 2, 1));
        assert_eq!((root(64, 48, 48), root(64, 52, 52)), (1, 1));
    }

    #[test]
    fn widths_that_no_table_has_are_refused() {
        let with = |input_bits, output_bits| ArmOptions { input_bits, output_bits, ..ArmOptions::default() };
        assert!(ArmStage1::<Pages4K>::new(with(49, 48)).is_err());
        assert!(ArmStage1::<Pages16K>::new(with(48, 52)).is_err());
        let none = ArmOptions { page_sizes: Some(PageSizes::from_bitmap(1 << 21)), ..ArmOptions::default() };
        let answer = ArmStage1::<Pages4K>::new(none).err();
        assert_eq!(answer, Some(ShapeError::PageSizes { asked: 1 << 21, known: 0x4020_1000 }));
    }
}
