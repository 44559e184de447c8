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
//!
//! - `lpae`: what both stages share: widths, addresses, tables and blocks.
//! - `stage1`, `stage2`: rights and memory types of each.

mod lpae;
mod stage1;
mod stage2;

pub use stage1::ArmStage1;
pub use stage2::ArmStage2;

use crate::iopt::shape::PageSizes;
use core::fmt::Debug;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{MemAttrs, Prot};
    use crate::iopt::{Format, ShapeError};

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
    fn at_most_sixteen_tables_stand_side_by_side() {
        let with = |input_bits, output_bits| ArmOptions { input_bits, output_bits, ..ArmOptions::default() };
        for (granule, input_bits, output_bits, most) in
            [(4, 43, 42, 43), (4, 44, 40, 43), (16, 40, 40, 40), (16, 41, 40, 40)]
        {
            let options = with(input_bits, output_bits);
            let refused = match granule {
                4 => ArmStage2::<Pages4K>::new(options).err(),
                _ => ArmStage2::<Pages16K>::new(options).err(),
            };
            let expected = ShapeError::InputBits { bits: input_bits, least: 25, most };
            assert_eq!(refused, (input_bits > most).then_some(expected), "{granule} {input_bits} {output_bits}");
        }
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
