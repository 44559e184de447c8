//! Where the page tables of a domain are, and how to read them.

use super::fault::FaultReason;
use super::walk::{self, Leaf};
use peerdma::addr::{AddrRange, BusAddr, Iova, PhysAddr};
use peerdma::iopt::{FRAME_SIZE, TableMemory};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Memory that page tables are read from.
pub trait TableBytes: Send + Sync {
    /// The eight bytes at `at`, which is a multiple of 8; `None` where no table can be.
    fn word(&self, at: PhysAddr) -> Option<u64>;
}

/// Whatever tables are written to can be read from.
impl<M: TableMemory + Send + Sync> TableBytes for M {
    fn word(&self, at: PhysAddr) -> Option<u64> {
        let within = at.as_u64() % FRAME_SIZE.as_u64();
        let frame = self.frame(PhysAddr::new(at.as_u64() - within))?;
        frame.get((within / 8) as usize).map(|word| word.load(Ordering::Acquire))
    }
}

/// Stage of an Arm translation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum ArmStage {
    /// Stage 1, with rights for privileged and other requests.
    One {
        /// The table is TTBR1's: the bits above the input width are ones.
        upper_half: bool,
        /// A clear AP\[2\] stands for a clean page where DBM is set (FEAT_HAFDBS, `CD.HD`).
        hardware_dirty: bool,
    },
    /// Stage 2, with rights for reads and writes apart.
    Two {
        /// Level of the root, 0 to 3; up to sixteen tables stand side by side where the input
        /// width asks for more than one table of that level holds (`STE.S2SL0`).
        start_level: u8,
    },
}

/// Smallest page of an Arm table, and with it the size of a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum ArmGranule {
    /// 4 KiB.
    K4,
    /// 16 KiB.
    K16,
    /// 64 KiB.
    K64,
}

/// How the bytes of a table are to be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TableFormat {
    /// VT-d second stage (VT-d 4.1 §9.8).
    VtdSecondStage {
        /// Levels, 3 to 5 (the context entry's AW), for 39, 48 or 57 bits.
        levels: u8,
    },
    /// x86-64 first stage (VT-d 4.1 §9.7, Intel SDM 3A §4.5; AMD calls it v2).
    X86FirstStage {
        /// Levels, 3 to 5, for 39, 48 or 57 bits.
        levels: u8,
        /// Addresses have to be canonical (VT-d); else those bits have to be zero (AMD).
        sign_extended: bool,
    },
    /// AMD v1 (AMD IOMMU 3.10 §2.2.3).
    AmdV1 {
        /// Mode of the device table entry, 1 to 6: level of the root.
        levels: u8,
    },
    /// Arm VMSAv8-64 (Arm ARM D8.3).
    ArmLpae {
        /// Stage, and what only that stage has.
        stage: ArmStage,
        /// Smallest page.
        granule: ArmGranule,
        /// Bits of an address that are translated, 16 to 52.
        input_bits: u8,
        /// Bits that an output address may have, 32 to 52.
        output_bits: u8,
        /// An entry whose access flag is clear faults, rather than being taken as it is.
        access_flag_faults: bool,
    },
    /// A flat table of big-endian entries, one a page (POWER).
    Tce {
        /// The addresses that have entries; starts at a multiple of the page.
        window: AddrRange<Iova>,
        /// Logarithm of the page, 12 or more.
        page_shift: u8,
    },
}

/// Page tables: format, root and memory.
#[derive(Clone)]
pub struct Tables {
    /// How to read them.
    pub format: TableFormat,
    /// Where they begin.
    pub root: PhysAddr,
    /// Where they are.
    pub memory: Arc<dyn TableBytes>,
}

impl fmt::Debug for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tables").field("format", &self.format).field("root", &self.root).finish_non_exhaustive()
    }
}

impl Tables {
    /// Walks, and remembers nothing.
    pub(super) fn walk(&self, at: BusAddr) -> Result<Leaf, FaultReason> {
        walk::walk(&self.format, &*self.memory, self.root, at)
    }
}
