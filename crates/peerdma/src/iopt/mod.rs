//! I/O page tables: one walker, formats as descriptions.
//!
//! What a device reaches behind an IOMMU is decided by tables in memory that the IOMMU walks.
//! Here they are built: for an emulated IOMMU, for the software IOMMU of a virtual machine
//! monitor, for kernels and hypervisors. On a running Linux the kernel does it, and
//! [`dma`](crate::dma) asks it.
//!
//! - [`format`](mod@format): what distinguishes formats, as constants and small pure functions; [`formats`] are
//!   VT-d second stage, AMD v1, x86-64 first stage, Arm LPAE stage 1 and 2.
//! - [`shape`], [`entry`]: widths of a table, and what an entry says.
//! - [`memory`]: frames are handed in. Nothing here turns a number into a pointer.
//! - [`table`]: a page table. It maps runs with the largest pages that fit, unmaps with each
//!   format's own answer, splits and replaces, and reads the marks of writes, all through a
//!   shared reference.
//! - [`walk`]: what the IOMMU finds, from a root and memory alone.
//! - [`cursor`]: where the last leaf tables are; [`gather`]: what devices must forget.
//!
//! # In which order
//!
//! Map, and tell devices only then. Unmap, then invalidate what [`Gather`] says, then give the
//! memory and the IOVAs to others, and only then [`reclaim`](PageTable::reclaim) tables. A table
//! is taken out when an unmapping covers all of it, never freed there. One that merely became
//! empty stays, as in Linux, until [`prune`](PageTable::prune).
//!
//! # As Linux, and where not
//!
//! Entries, answers and faults are those of Linux 7.2's `generic_pt` and `io-pgtable-arm`,
//! compared entry by entry. Where those do something that nobody would ask for, this differs:
//!
//! | what Linux does | formats | here |
//! |---|---|---|
//! | an unmap of less than a page removes the page | VT-d, x86, AMD | answers 0, nothing is unmapped |
//! | of a physical range, only the start is checked against the output width | VT-d, x86, AMD, Arm | [`PhysOutOfRange`](MapFaultKind::PhysOutOfRange) |
//! | the page below the upper half is taken, and lands on the last page of the lower half | x86 | [`IovaOutOfRange`](MapFaultKind::IovaOutOfRange) |
//! | a run goes on from the lower half into the upper one | x86 | [`IovaOutOfRange`](MapFaultKind::IovaOutOfRange) |
//! | of a dirty page in several entries, the last entry's part is not reported | AMD | the whole page is |
//! | a block replaces a table in which pages are mapped | Arm | [`AlreadyMapped`](MapFaultKind::AlreadyMapped), unless [`ArmOptions::replace_tables`] |
//! | a question for dirty pages fails at the first hole | Arm stage 1 | holes are passed over |
//! | asked from inside a block, the answer is shifted and the next block missed | Arm stage 1 | each page for its part |
//!
//! Kept, though it surprises: an unmap that ends inside a leaf takes the whole leaf (VT-d, x86,
//! AMD) or nothing of it (Arm); a table of the size that an Arm batch unmaps counts as wholly
//! mapped; an Arm run that leaves the input range fails after what lies before it was mapped and
//! unmapped again; an Arm stage 1 without hardware marks says that nothing is dirty.
//! [`unmap_exactly`](PageTable::unmap_exactly) has none of these surprises.
//!
//! Not here: context, device-table and stream-table entries, invalidation commands, IOTLBs
//! (an emulated IOMMU has them), and which IOVAs to use ([`iova`](crate::iova)).

pub mod cursor;
pub mod dirty;
pub mod entry;
pub mod error;
mod exact;
pub mod format;
pub mod formats;
pub mod gather;
mod map;
pub mod memory;
mod near;
mod reclaim;
pub mod shape;
mod slots;
mod split;
pub mod table;
mod unmap;
pub mod walk;

#[cfg(test)]
mod tests;

pub use cursor::Cursor;
pub use entry::{Entry, Leaf};
pub use error::{CreateError, DirtyFault, MapFault, MapFaultKind, ReplaceError, SplitError};
pub use format::{Family, Format, WriteOnlyIs};
pub use formats::amd::{AmdOptions, AmdV1};
pub use formats::arm::{ArmGranule, ArmOptions, ArmStage1, ArmStage2, Pages4K, Pages16K, Pages64K};
pub use formats::vtd::{VtdOptions, VtdSecondStage};
pub use formats::x86::{X86FirstStage, X86Options};
pub use gather::Gather;
pub use memory::{FRAME_SIZE, Frame, FrameArena, Frames, TableMemory};
pub use near::Near;
pub use reclaim::Quiesced;
pub use shape::{Half, PageSizes, Shape, ShapeError};
pub use table::{PageTable, Root};
pub use walk::{NotTranslated, Translation, Walk, WalkEnd, walk_tables};
