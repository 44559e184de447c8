//! AMD v1 host table (AMD IOMMU 3.10 §2.2.3, Linux 7.2 `generic_pt/fmt/amdv1.h`).
//!
//! Two things no other format here has. A page may be any power of two: an entry whose
//! NextLevel is 7 tells the size in the low bits of its address and stands in every slot the
//! page covers. And the table grows at the top: it starts three levels high and puts another
//! root above the old one when an IOVA needs it, which the device table entry must be told
//! ([`PageTable::root`](crate::iopt::PageTable::root)).

use super::x86::{bits_below, encryption_bit};
use crate::access::{MemAttrs, Prot};
use crate::addr::PhysAddr;
use crate::iopt::entry::Entry;
use crate::iopt::format::{Family, Format, WriteOnlyIs};
use crate::iopt::shape::{Half, PageSizes, Shape, ShapeError};

const PRESENT: u64 = 1 << 0;
const DIRTY: u64 = 1 << 6;
const NEXT_LEVEL: u64 = 0x7 << 9;
/// NextLevel 7: the size stands in the address.
const SIZE_IN_ADDRESS: u64 = 0x7 << 9;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const FORCE_COHERENT: u64 = 1 << 60;
const READ: u64 = 1 << 61;
const WRITE: u64 = 1 << 62;

/// Height of the root of a new table.
const FIRST_TOP: u8 = 2;
/// Height of the highest root, which holds no leaves.
const LAST_TOP: u8 = 5;
/// All sizes from 4 KiB to 2^51 but 512 GiB, which would fill a table with one page.
const SIZES: PageSizes = PageSizes::from_bitmap(0x000f_ff7f_ffff_f000);

/// What to build; the default is 64 bits of IOVA.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AmdOptions {
    /// Bits of IOVA, 32 to 64; the table grows as far as needed.
    pub input_bits: u8,
    /// Bits of output address, up to 52.
    pub output_bits: u8,
    /// Page sizes; all if `None`.
    pub page_sizes: Option<PageSizes>,
    /// The address bit that encrypts (SME); it stands in every entry but those of device memory.
    /// Addresses end below it.
    pub encrypted: Option<PhysAddr>,
}

impl Default for AmdOptions {
    fn default() -> Self {
        Self { input_bits: 64, output_bits: 52, page_sizes: None, encrypted: None }
    }
}

/// The format of an AMD v1 host table.
#[derive(Clone, Debug)]
pub struct AmdV1 {
    shape: Shape,
    encrypted: u64,
}

impl AmdV1 {
    /// Describes a table with these options.
    ///
    /// # Errors
    /// [`ShapeError`], where no AMD table has such widths.
    pub fn new(options: AmdOptions) -> Result<Self, ShapeError> {
        Shape::check_bits(options.input_bits, 32..=64, options.output_bits, 32..=52)?;
        // A page is smaller than half of what the table translates, as Linux reports it.
        let below = PageSizes::from_bitmap((1 << (options.input_bits - 1)) - 1);
        let page_sizes = Shape::check_sizes(options.page_sizes, SIZES.intersection(below))?;
        let encrypted = encryption_bit(options.encrypted, ADDRESS)?;
        Ok(Self {
            shape: Shape::new(
                options.input_bits,
                bits_below(encrypted, options.output_bits),
                Half::Low,
                FIRST_TOP,
                ((options.input_bits - 12).div_ceil(9) - 1).clamp(FIRST_TOP, LAST_TOP),
                page_sizes,
            ),
            encrypted,
        })
    }
}

impl Format for AmdV1 {
    const PAGE_SHIFT: u32 = 12;
    const INDEX_BITS: u32 = 9;
    const FAMILY: Family = Family::GenericPt;
    const INHERITED: u64 = READ | WRITE;
    const LINEAR: bool = true;
    const GROWS: bool = true;
    const CONCATENATES: bool = false;
    const REPLICATES: bool = true;

    #[inline]
    fn shape(&self) -> &Shape {
        &self.shape
    }

    fn leaf_bits(&self, prot: Prot, attrs: MemAttrs) -> Option<u64> {
        let rights = match prot {
            Prot::Read => READ,
            Prot::Write => WRITE,
            Prot::ReadWrite => READ | WRITE,
        };
        let encrypted = if attrs.contains(MemAttrs::MMIO) { 0 } else { self.encrypted };
        Some(PRESENT | FORCE_COHERENT | rights | encrypted)
    }

    #[inline]
    fn leaf_entry(&self, bits: u64, base: PhysAddr, height: u8, size_shift: u32) -> u64 {
        let entry = bits | base.as_u64();
        if size_shift == 12 + 9 * u32::from(height) {
            return entry;
        }
        // Ones up to the bit below half the size: 64 KiB has three, in bits 14:12.
        entry | SIZE_IN_ADDRESS | ((1_u64 << (size_shift - 1)) - (1 << 12))
    }

    #[inline]
    fn table_entry(&self, table: PhysAddr, height: u8) -> u64 {
        table.as_u64() | PRESENT | READ | WRITE | (u64::from(height) << 9) | self.encrypted
    }

    #[inline]
    fn decode(&self, entry: u64, height: u8) -> Entry {
        if entry & PRESENT == 0 {
            return Entry::Empty;
        }
        let at = entry & ADDRESS & !self.encrypted;
        let own_shift = 12 + 9 * u32::from(height);
        let next = entry & NEXT_LEVEL;
        let size_shift = if next == 0 {
            own_shift
        } else if next == SIZE_IN_ADDRESS {
            (at | 0xfff).trailing_ones() + 1
        } else if height > 0 && next == u64::from(height) << 9 {
            return Entry::Table(PhysAddr::new(at));
        } else {
            // A level that is skipped, or a table below the leaves; neither is ever written.
            return Entry::Bad;
        };
        let replicated = next != 0;
        let base = if replicated { at & !((1 << size_shift) - 1) } else { at };
        let fits = if replicated { own_shift < size_shift && size_shift < own_shift + 9 } else { true };
        if height == LAST_TOP || !fits || base & ((1 << size_shift) - 1) != 0 {
            return Entry::Bad;
        }
        Entry::Leaf { base: PhysAddr::new(base), size_shift }
    }

    #[inline]
    fn is_single(&self, entry: u64, height: u8) -> bool {
        entry & (PRESENT | NEXT_LEVEL) == PRESENT && height != LAST_TOP
    }

    #[inline]
    fn bits_of(&self, leaf: u64, _height: u8) -> u64 {
        leaf & (!(ADDRESS | NEXT_LEVEL) | self.encrypted)
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
    fn attrs(&self, leaf: u64) -> MemAttrs {
        if leaf & FORCE_COHERENT == 0 { MemAttrs::NOT_SNOOPED } else { MemAttrs::empty() }
    }

    fn expresses(&self) -> MemAttrs {
        MemAttrs::MMIO
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

    fn amd() -> AmdV1 {
        AmdV1::new(AmdOptions::default()).unwrap()
    }

    #[test]
    fn the_size_of_a_page_stands_in_its_address() {
        // 64 KiB at 0x123450000, as the manual encodes it, and 8 MiB one level up.
        let bits = amd().leaf_bits(Prot::ReadWrite, MemAttrs::empty()).unwrap();
        assert_eq!(amd().leaf_entry(bits, PhysAddr::new(0x1_2345_0000), 0, 16), 0x7000_0001_2345_7e01);
        assert_eq!(amd().leaf_entry(bits, PhysAddr::new(0x9080_0000), 1, 23), 0x7000_0000_90bf_fe01);
        let page = |base, size_shift| Entry::Leaf { base: PhysAddr::new(base), size_shift };
        assert_eq!(amd().decode(0x7000_0001_2345_7e01, 0), page(0x1_2345_0000, 16));
        assert_eq!(amd().decode(0x7000_0000_90bf_fe41, 1), page(0x9080_0000, 23));
    }

    #[test]
    fn a_size_that_the_level_does_not_have_is_bad() {
        // 4 MiB in a leaf table, 64 KiB above it, and any leaf at the top.
        assert_eq!(amd().decode(0x7000_0000_001f_fe01, 0), Entry::Bad);
        assert_eq!(amd().decode(0x7000_0001_2345_7e01, 1), Entry::Bad);
        assert_eq!(amd().decode(0x7000_0000_0000_0001, 5), Entry::Bad);
        // A level skipped.
        assert_eq!(amd().decode(0x6000_0000_0000_0201, 2), Entry::Bad);
    }

    #[test]
    fn device_memory_is_not_encrypted() {
        let bit = 1 << 47;
        let options = AmdOptions { encrypted: Some(PhysAddr::new(bit)), ..AmdOptions::default() };
        let table = AmdV1::new(options).unwrap();
        assert_eq!(table.leaf_bits(Prot::Read, MemAttrs::MMIO), Some(0x3000_0000_0000_0001));
        assert_eq!(table.leaf_bits(Prot::Read, MemAttrs::empty()), Some(0x3000_0000_0000_0001 | bit));
        let two = AmdOptions { encrypted: Some(PhysAddr::new(3 << 46)), ..AmdOptions::default() };
        assert_eq!(AmdV1::new(two).err(), Some(ShapeError::EncryptionBit { mask: 3 << 46 }));
    }
}
