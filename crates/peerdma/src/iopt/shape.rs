//! Widths of a table: which IOVAs it translates, to which addresses, in which page sizes.

use crate::addr::{AddrRange, Bytes, Iova};

/// The page sizes of a table: bit n of the bitmap stands for 2^n bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct PageSizes(u64);

impl PageSizes {
    /// 4 KiB, 2 MiB and 1 GiB.
    pub const X86: Self = Self(1 << 12 | 1 << 21 | 1 << 30);

    /// The sizes of a bitmap, as `pgsize_bitmap` in Linux and `iova_pgsizes` in VFIO.
    pub const fn from_bitmap(bitmap: u64) -> Self {
        Self(bitmap)
    }

    /// The bitmap.
    pub const fn bitmap(self) -> u64 {
        self.0
    }

    /// The sizes that are in both.
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether pages of 2^`shift` bytes are among them.
    pub const fn contains(self, shift: u32) -> bool {
        shift < 64 && self.0 >> shift & 1 == 1
    }

    /// The largest size (as a shift) that divides `alignment` and is at most `left` bytes.
    #[inline]
    pub(super) const fn best(self, alignment: u64, left: u64) -> Option<u32> {
        let by_alignment = if alignment == 0 { 63 } else { alignment.trailing_zeros() };
        let by_length = 63 - (left | 1).leading_zeros();
        let limit = if by_alignment < by_length { by_alignment } else { by_length };
        let fits = self.0 & (u64::MAX >> (63 - limit));
        if fits == 0 { None } else { Some(63 - fits.leading_zeros()) }
    }

    /// The smallest size above 2^`shift`.
    pub(super) const fn above(self, shift: u32) -> Option<u32> {
        if shift >= 63 {
            return None;
        }
        let larger = self.0 & (u64::MAX << (shift + 1));
        if larger == 0 { None } else { Some(larger.trailing_zeros()) }
    }
}

/// Which part of the 64-bit IOVAs a table translates.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Half {
    /// The lowest 2^input_bits addresses.
    Low,
    /// The highest 2^input_bits addresses (Arm's TTBR1).
    High,
    /// The lowest and the highest 2^(input_bits-1), which must not be crossed (x86 canonical addresses).
    SignExtended,
}

/// Widths of one table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Shape {
    input_bits: u8,
    output_bits: u8,
    half: Half,
    height: u8,
    max_height: u8,
    page_sizes: PageSizes,
    /// An IOVA is translated if `((iova ^ flip) + bias) & outside` is zero, whatever the half.
    flip: u64,
    bias: u64,
    outside: u64,
    last_output: u64,
}

/// Why a table cannot have these widths.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShapeError {
    /// The IOVA width is none of this format.
    #[error("{bits} bits of IOVA: this format translates {least} to {most}")]
    InputBits {
        /// What was asked for.
        bits: u8,
        /// Least number of bits.
        least: u8,
        /// Largest number of bits.
        most: u8,
    },
    /// The output width is none of this format.
    #[error("{bits} bits of output address: this format holds {least} to {most}")]
    OutputBits {
        /// What was asked for.
        bits: u8,
        /// Least number of bits.
        least: u8,
        /// Largest number of bits.
        most: u8,
    },
    /// The smallest page size is missing, without which no table can be mapped exactly.
    #[error("page sizes {asked:#x} do not hold the smallest one; this format has {known:#x}")]
    PageSizes {
        /// What was asked for, as a bitmap.
        asked: u64,
        /// What the format has.
        known: u64,
    },
    /// The encryption bit lies outside the address field of an entry.
    #[error("an encryption mask of {mask:#x} is no single bit of an entry's address field")]
    EncryptionBit {
        /// What was asked for.
        mask: u64,
    },
}

impl Shape {
    /// Widths of a table whose root stands `height` tables above a leaf table, and can grow to `max_height`.
    ///
    /// `input_bits` is at most 64 and counts the bits of `half`; `output_bits` is at most 64.
    pub const fn new(
        input_bits: u8,
        output_bits: u8,
        half: Half,
        height: u8,
        max_height: u8,
        page_sizes: PageSizes,
    ) -> Self {
        let outside = if input_bits >= 64 { 0 } else { u64::MAX << input_bits };
        let (flip, bias) = match half {
            Half::Low => (0, 0),
            Half::High => (u64::MAX, 0),
            Half::SignExtended if input_bits == 0 || input_bits >= 64 => (0, 0),
            Half::SignExtended => (0, 1 << (input_bits - 1)),
        };
        let last_output = if output_bits >= 64 { u64::MAX } else { (1 << output_bits) - 1 };
        Self { input_bits, output_bits, half, height, max_height, page_sizes, flip, bias, outside, last_output }
    }

    /// Number of IOVA bits that are translated, 64 at most.
    pub const fn input_bits(&self) -> u8 {
        self.input_bits
    }

    /// Number of output address bits.
    pub const fn output_bits(&self) -> u8 {
        self.output_bits
    }

    /// Which part of the IOVAs is translated.
    pub const fn half(&self) -> Half {
        self.half
    }

    /// How many tables the root stands above a leaf table at creation.
    pub const fn height(&self) -> u8 {
        self.height
    }

    /// How high the root can grow; [`height`](Self::height) for roots that stay.
    pub const fn max_height(&self) -> u8 {
        self.max_height
    }

    /// Page sizes that are mapped.
    pub const fn page_sizes(&self) -> PageSizes {
        self.page_sizes
    }

    /// The smallest page size.
    pub const fn page(&self) -> Bytes {
        Bytes::new(self.page_sizes.0 & self.page_sizes.0.wrapping_neg())
    }

    /// Whether `iova` is translated, by a root grown as far as it can.
    #[inline]
    pub const fn contains(&self, iova: Iova) -> bool {
        (iova.as_u64() ^ self.flip).wrapping_add(self.bias) & self.outside == 0
    }

    /// Whether all of `range` is translated, within one half.
    pub fn contains_range(&self, range: &AddrRange<Iova>) -> bool {
        let (first, last) = (range.start(), range.last());
        self.contains(first)
            && self.contains(last)
            && (self.half != Half::SignExtended || (first.as_u64() ^ last.as_u64()) >> 63 == 0)
    }

    /// The last address that can be put out.
    #[inline]
    pub(super) const fn last_output(&self) -> u64 {
        self.last_output
    }

    /// The bits of an IOVA that choose an entry below a root of any height.
    #[inline]
    pub(super) const fn translated(&self) -> u64 {
        !self.outside
    }

    /// Refuses widths outside of what a format knows.
    pub(super) fn check_bits(
        input: u8,
        inputs: core::ops::RangeInclusive<u8>,
        output: u8,
        outputs: core::ops::RangeInclusive<u8>,
    ) -> Result<(), ShapeError> {
        if !inputs.contains(&input) {
            return Err(ShapeError::InputBits { bits: input, least: *inputs.start(), most: *inputs.end() });
        }
        if !outputs.contains(&output) {
            return Err(ShapeError::OutputBits { bits: output, least: *outputs.start(), most: *outputs.end() });
        }
        Ok(())
    }

    /// Page sizes that were asked for, as far as the format knows them; the smallest is a must.
    pub(super) fn check_sizes(asked: Option<PageSizes>, known: PageSizes) -> Result<PageSizes, ShapeError> {
        let sizes = asked.map_or(known, |asked| asked.intersection(known));
        if sizes.0 & known.0 & known.0.wrapping_neg() == 0 {
            return Err(ShapeError::PageSizes { asked: asked.map_or(0, PageSizes::bitmap), known: known.0 });
        }
        Ok(sizes)
    }
}
