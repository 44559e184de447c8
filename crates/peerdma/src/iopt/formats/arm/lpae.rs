//! What both stages share: widths, addresses, tables and blocks.

use super::{ArmGranule, ArmOptions};
use crate::access::MemAttrs;
use crate::addr::PhysAddr;
use crate::iopt::entry::Entry;
use crate::iopt::shape::{Half, PageSizes, Shape, ShapeError};
use core::marker::PhantomData;

pub(super) const VALID: u64 = 1 << 0;
/// A table at levels above 3, a page at level 3; without it a block above and nothing below.
pub(super) const TABLE_OR_PAGE: u64 = 1 << 1;
const OUTER_SHAREABLE: u64 = 0b10 << 8;
const INNER_SHAREABLE: u64 = 0b11 << 8;
const SHAREABILITY: u64 = 0b11 << 8;
const EXECUTE_NEVER: u64 = 0b11 << 53;
/// Software's: the table was flushed for a walker that does not snoop.
const FLUSHED: u64 = 1 << 55;
pub(super) const ACCESS_FLAG: u64 = 1 << 10;

/// What both stages share: widths, addresses, tables and blocks.
#[derive(Clone, Debug)]
pub(super) struct Lpae<G> {
    pub(super) shape: Shape,
    table: u64,
    blocks_up_to: u8,
    pub(super) replace_tables: bool,
    granule: PhantomData<G>,
}

impl<G: ArmGranule> Lpae<G> {
    pub(super) const INDEX_BITS: u32 = G::PAGE_SHIFT - 3;

    pub(super) fn new(options: &ArmOptions, half: Half, concatenates: bool, table: u64) -> Result<Self, ShapeError> {
        let widest = if G::PAGE_SHIFT == 16 { 52 } else { 48 };
        Shape::check_bits(options.input_bits, 25..=widest, options.output_bits, 32..=widest)?;
        let mut height = (u32::from(options.input_bits) - G::PAGE_SHIFT).div_ceil(Self::INDEX_BITS) as u8 - 1;
        if concatenates && must_concatenate(G::PAGE_SHIFT, 3_u8.saturating_sub(height), options) {
            height -= 1;
            // Sixteen tables at most, each with what an entry above it would translate.
            let most = (Self::shift(u32::from(height) + 1) + MOST_CONCATENATED.ilog2()) as u8;
            Shape::check_bits(options.input_bits, 25..=most.min(widest), options.output_bits, 32..=widest)?;
        }
        // A block larger than what an entry of the root translates has no entry to stand in.
        let blocks_up_to = if options.output_bits == 52 { 2 } else { G::BLOCKS_UP_TO }.min(height);
        let known = (0..=u32::from(blocks_up_to)).fold(0, |sizes, height| sizes | 1 << Self::shift(height));
        let page_sizes = Shape::check_sizes(options.page_sizes, PageSizes::from_bitmap(known))?;
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
    pub(super) fn leaf_entry(bits: u64, base: PhysAddr, height: u8) -> u64 {
        bits | Self::fold(base) | VALID | if height == 0 { TABLE_OR_PAGE } else { 0 }
    }

    #[inline]
    pub(super) fn table_entry(&self, table: PhysAddr) -> u64 {
        Self::fold(table) | self.table
    }

    #[inline]
    pub(super) fn decode(&self, entry: u64, height: u8) -> Entry {
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
    pub(super) const fn bits_of(leaf: u64) -> u64 {
        leaf & !(Self::ADDRESS | VALID | TABLE_OR_PAGE)
    }
}

/// How many tables stage 2 puts side by side at most (Arm ARM D8.2, Linux `ARM_LPAE_S2_MAX_CONCAT_PAGES`).
const MOST_CONCATENATED: u32 = 16;

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

pub(super) fn shareability(attrs: MemAttrs) -> u64 {
    if attrs.contains(MemAttrs::NOT_SNOOPED) { OUTER_SHAREABLE } else { INNER_SHAREABLE }
}

pub(super) fn execute_never(attrs: MemAttrs) -> u64 {
    if attrs.contains(MemAttrs::NO_EXECUTE) { EXECUTE_NEVER } else { 0 }
}

pub(super) fn attrs_of(leaf: u64, device: bool) -> MemAttrs {
    let mut attrs = MemAttrs::empty();
    attrs.set(MemAttrs::MMIO, device);
    attrs.set(MemAttrs::NOT_SNOOPED, leaf & SHAREABILITY != INNER_SHAREABLE);
    attrs.set(MemAttrs::NO_EXECUTE, leaf & EXECUTE_NEVER != 0);
    attrs
}
