//! x86-64 first stage: VT-d first stage and AMD v2 (Linux 7.2 `generic_pt/fmt/x86_64.h`).
//!
//! The CPU's own format. Accessed and dirty bits are set beforehand, so devices leave no mark;
//! every present entry can be read. VT-d sign-extends IOVAs, AMD does not.

use crate::access::{MemAttrs, Prot};
use crate::addr::PhysAddr;
use crate::iopt::entry::Entry;
use crate::iopt::format::{Family, Format, WriteOnlyIs};
use crate::iopt::shape::{Half, PageSizes, Shape, ShapeError};

const PRESENT: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const PAGE_SIZE: u64 = 1 << 7;
/// Software's: the table was flushed for a walker that does not snoop.
const FLUSHED: u64 = 1 << 9;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const NO_EXECUTE: u64 = 1 << 63;

/// What to build; the default is 48 bits of IOVA, sign-extended as VT-d has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct X86Options {
    /// Bits of IOVA, 39 to 57; above 48 takes a fifth level.
    pub input_bits: u8,
    /// Bits of output address, up to 52.
    pub output_bits: u8,
    /// Page sizes; all if `None`.
    pub page_sizes: Option<PageSizes>,
    /// The topmost bit of the IOVA is repeated upwards (VT-d); else IOVAs start at 0 only (AMD v2).
    pub sign_extend: bool,
    /// The address bit that encrypts (AMD SME); it stands in every entry but those of device memory.
    /// Addresses end below it.
    pub encrypted: Option<PhysAddr>,
    /// The walker does not snoop caches, and table entries say that they were flushed.
    pub incoherent_walk: bool,
}

impl Default for X86Options {
    fn default() -> Self {
        Self {
            input_bits: 48,
            output_bits: 52,
            page_sizes: None,
            sign_extend: true,
            encrypted: None,
            incoherent_walk: false,
        }
    }
}

/// The format of an x86-64 first stage.
#[derive(Clone, Debug)]
pub struct X86FirstStage {
    shape: Shape,
    encrypted: u64,
    table: u64,
}

impl X86FirstStage {
    /// Describes a table with these options.
    ///
    /// # Errors
    /// [`ShapeError`], where no x86-64 table has such widths.
    pub fn new(options: X86Options) -> Result<Self, ShapeError> {
        Shape::check_bits(options.input_bits, 39..=57, options.output_bits, 32..=52)?;
        let page_sizes = Shape::check_sizes(options.page_sizes, PageSizes::X86)?;
        let height = (options.input_bits - 12).div_ceil(9) - 1;
        let encrypted = encryption_bit(options.encrypted, ADDRESS)?;
        let output_bits = bits_below(encrypted, options.output_bits);
        let flushed = if options.incoherent_walk { FLUSHED } else { 0 };
        Ok(Self {
            shape: Shape::new(
                options.input_bits,
                output_bits,
                if options.sign_extend { Half::SignExtended } else { Half::Low },
                height,
                height,
                page_sizes,
            ),
            encrypted,
            table: PRESENT | WRITE | USER | ACCESSED | flushed | encrypted,
        })
    }
}

/// The one bit of an encryption mask; 0 for none.
pub(super) fn encryption_bit(mask: Option<PhysAddr>, address: u64) -> Result<u64, ShapeError> {
    match mask.map_or(0, PhysAddr::as_u64) {
        0 => Ok(0),
        bit if bit.is_power_of_two() && bit & address != 0 => Ok(bit),
        mask => Err(ShapeError::EncryptionBit { mask }),
    }
}

/// How many bits of output address are left below the encryption bit, which no address can have.
pub(super) fn bits_below(encrypted: u64, output_bits: u8) -> u8 {
    // 64 where nothing is encrypted.
    output_bits.min(encrypted.trailing_zeros() as u8)
}

/// What an entry says in formats with a page-size bit at heights 1 and 2.
#[inline]
pub(super) fn decode_large(entry: u64, present: u64, page_size: u64, address: u64, height: u8) -> Entry {
    if entry & present == 0 {
        return Entry::Empty;
    }
    let at = entry & address;
    let size_shift = 12 + 9 * u32::from(height);
    if height == 0 {
        return Entry::Leaf { base: PhysAddr::new(at), size_shift };
    }
    if entry & page_size == 0 {
        return Entry::Table(PhysAddr::new(at));
    }
    // Above 1 GiB there are no pages, and address bits inside a page are reserved.
    if height > 2 || at & ((1 << size_shift) - 1) != 0 {
        return Entry::Bad;
    }
    Entry::Leaf { base: PhysAddr::new(at), size_shift }
}

impl Format for X86FirstStage {
    const PAGE_SHIFT: u32 = 12;
    const INDEX_BITS: u32 = 9;
    const FAMILY: Family = Family::GenericPt;
    const INHERITED: u64 = WRITE | USER;
    const LINEAR: bool = true;
    const GROWS: bool = false;
    const CONCATENATES: bool = false;
    const REPLICATES: bool = false;

    #[inline]
    fn shape(&self) -> &Shape {
        &self.shape
    }

    fn leaf_bits(&self, prot: Prot, attrs: MemAttrs) -> Option<u64> {
        let write = if prot.writes() { WRITE | DIRTY } else { 0 };
        let encrypted = if attrs.contains(MemAttrs::MMIO) { 0 } else { self.encrypted };
        Some(PRESENT | USER | ACCESSED | write | encrypted)
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
        decode_large(entry, PRESENT, PAGE_SIZE, ADDRESS & !self.encrypted, height)
    }

    #[inline]
    fn is_single(&self, entry: u64, _height: u8) -> bool {
        entry & (PAGE_SIZE | PRESENT) == PAGE_SIZE | PRESENT
    }

    #[inline]
    fn bits_of(&self, leaf: u64, _height: u8) -> u64 {
        leaf & (!(ADDRESS | PAGE_SIZE) | self.encrypted)
    }

    #[inline]
    fn prot(&self, leaf: u64) -> Option<Prot> {
        Some(if leaf & WRITE != 0 { Prot::ReadWrite } else { Prot::Read })
    }

    #[inline]
    fn attrs(&self, leaf: u64) -> MemAttrs {
        let mut attrs = MemAttrs::empty();
        attrs.set(MemAttrs::PRIVILEGED, leaf & USER == 0);
        attrs.set(MemAttrs::NO_EXECUTE, leaf & NO_EXECUTE != 0);
        attrs
    }

    fn expresses(&self) -> MemAttrs {
        MemAttrs::MMIO | MemAttrs::NOT_SNOOPED
    }

    fn write_only(&self) -> WriteOnlyIs {
        WriteOnlyIs::MayRead
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
