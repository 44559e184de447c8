//! VT-d second stage (VT-d 4.1 §9.8, Linux 7.2 `generic_pt/fmt/vtdss.h`).
//!
//! Entries hold rights and an address and no memory type: a device's accesses to another
//! device's memory need no bit. An entry without R and W is not present; Linux takes only an
//! all-zero entry for empty, and neither writes any other.

use crate::access::{MemAttrs, Prot};
use crate::addr::PhysAddr;
use crate::iopt::entry::Entry;
use crate::iopt::format::{Family, Format, WriteOnlyIs};
use crate::iopt::shape::{Half, PageSizes, Shape, ShapeError};

const READ: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
const PAGE_SIZE: u64 = 1 << 7;
const DIRTY: u64 = 1 << 9;
/// Software's: the table was flushed for a walker that does not snoop.
const FLUSHED: u64 = 1 << 10;
const SNOOP: u64 = 1 << 11;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// What to build; the default is 48 bits of IOVA.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VtdOptions {
    /// Bits of IOVA, 31 to 57; above 39 takes a fourth level, above 48 a fifth.
    pub input_bits: u8,
    /// Bits of output address, up to 52.
    pub output_bits: u8,
    /// Page sizes (capability SLLPS); all if `None`.
    pub page_sizes: Option<PageSizes>,
    /// Every access through the domain snoops (Linux's `enforce_cache_coherency`).
    pub force_snoop: bool,
    /// Read-only mappings are refused (nest parent under erratum 772415).
    pub force_writeable: bool,
    /// The walker does not snoop caches, and table entries say that they were flushed.
    pub incoherent_walk: bool,
}

impl Default for VtdOptions {
    fn default() -> Self {
        Self {
            input_bits: 48,
            output_bits: 52,
            page_sizes: None,
            force_snoop: false,
            force_writeable: false,
            incoherent_walk: false,
        }
    }
}

/// The format of a VT-d second stage.
#[derive(Clone, Debug)]
pub struct VtdSecondStage {
    shape: Shape,
    snoop: u64,
    table: u64,
    force_writeable: bool,
}

impl VtdSecondStage {
    /// Describes a table with these options.
    ///
    /// # Errors
    /// [`ShapeError`], where no VT-d table has such widths.
    pub fn new(options: VtdOptions) -> Result<Self, ShapeError> {
        Shape::check_bits(options.input_bits, 31..=57, options.output_bits, 32..=52)?;
        let page_sizes = Shape::check_sizes(options.page_sizes, PageSizes::X86)?;
        let height = (options.input_bits - 12).div_ceil(9) - 1;
        let flushed = if options.incoherent_walk { FLUSHED } else { 0 };
        Ok(Self {
            shape: Shape::new(options.input_bits, options.output_bits, Half::Low, height, height, page_sizes),
            snoop: if options.force_snoop { SNOOP } else { 0 },
            table: READ | WRITE | flushed,
            force_writeable: options.force_writeable,
        })
    }
}

impl Format for VtdSecondStage {
    const PAGE_SHIFT: u32 = 12;
    const INDEX_BITS: u32 = 9;
    const FAMILY: Family = Family::GenericPt;
    const INHERITED: u64 = READ | WRITE;
    const LINEAR: bool = true;
    const GROWS: bool = false;
    const CONCATENATES: bool = false;
    const REPLICATES: bool = false;

    #[inline]
    fn shape(&self) -> &Shape {
        &self.shape
    }

    fn leaf_bits(&self, prot: Prot, _attrs: MemAttrs) -> Option<u64> {
        let rights = match prot {
            Prot::Read if self.force_writeable => return None,
            Prot::Read => READ,
            Prot::Write => WRITE,
            Prot::ReadWrite => READ | WRITE,
        };
        Some(rights | self.snoop)
    }

    #[inline]
    fn leaf_entry(&self, bits: u64, base: PhysAddr, height: u8, _size_shift: u32) -> u64 {
        bits | base.as_u64() | if height == 0 { 0 } else { PAGE_SIZE }
    }

    #[inline]
    fn table_entry(&self, table: PhysAddr, _height: u8) -> u64 {
        table.as_u64() | self.table
    }

    #[inline]
    fn decode(&self, entry: u64, height: u8) -> Entry {
        super::x86::decode_large(entry, READ | WRITE, PAGE_SIZE, ADDRESS, height)
    }

    #[inline]
    fn is_single(&self, entry: u64, _height: u8) -> bool {
        entry & PAGE_SIZE != 0 && entry & (READ | WRITE) != 0
    }

    #[inline]
    fn bits_of(&self, leaf: u64, _height: u8) -> u64 {
        leaf & !(ADDRESS | PAGE_SIZE)
    }

    #[inline]
    fn prot(&self, leaf: u64) -> Option<Prot> {
        match (leaf & READ != 0, leaf & WRITE != 0) {
            (true, true) => Some(Prot::ReadWrite),
            (true, false) => Some(Prot::Read),
            (false, true) => Some(Prot::Write),
            (false, false) => None,
        }
    }

    #[inline]
    fn attrs(&self, _leaf: u64) -> MemAttrs {
        MemAttrs::empty()
    }

    fn expresses(&self) -> MemAttrs {
        if self.snoop == 0 { MemAttrs::MMIO | MemAttrs::NOT_SNOOPED } else { MemAttrs::MMIO }
    }

    fn write_only(&self) -> WriteOnlyIs {
        WriteOnlyIs::Exact
    }

    fn tracks_dirty(&self) -> bool {
        true
    }

    #[inline]
    fn is_dirty(&self, leaf: u64) -> bool {
        leaf & DIRTY != 0
    }

    fn clean(&self) -> (u64, u64) {
        (DIRTY, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_have_no_bits_and_snooping_one() {
        let table = VtdSecondStage::new(VtdOptions { force_snoop: true, ..VtdOptions::default() }).unwrap();
        for attrs in [MemAttrs::empty(), MemAttrs::MMIO, MemAttrs::PRIVILEGED] {
            assert_eq!(table.leaf_bits(Prot::Read, attrs), Some(0x801));
            assert_eq!(table.leaf_bits(Prot::Write, attrs), Some(0x802));
        }
        assert!(!table.expresses().contains(MemAttrs::NOT_SNOOPED));
        let table = VtdSecondStage::new(VtdOptions { incoherent_walk: true, ..VtdOptions::default() }).unwrap();
        assert_eq!(table.table_entry(PhysAddr::new(0x5000), 3), 0x5403);
        assert_eq!(table.leaf_bits(Prot::ReadWrite, MemAttrs::empty()), Some(3));
    }

    #[test]
    fn levels_follow_the_address_width() {
        for (input_bits, height) in [(39, 2), (46, 3), (48, 3), (57, 4)] {
            let table = VtdSecondStage::new(VtdOptions { input_bits, ..VtdOptions::default() }).unwrap();
            assert_eq!(table.shape().height(), height);
        }
        let wide = VtdSecondStage::new(VtdOptions { input_bits: 58, ..VtdOptions::default() });
        assert_eq!(wide.err(), Some(ShapeError::InputBits { bits: 58, least: 31, most: 57 }));
    }

    #[test]
    fn reserved_bits_are_bad() {
        let table = VtdSecondStage::new(VtdOptions::default()).unwrap();
        assert_eq!(table.decode(0x20_1083, 1), Entry::Bad);
        assert_eq!(table.decode(0x83, 3), Entry::Bad);
        assert_eq!(table.decode(0x7000, 0), Entry::Empty);
    }
}
