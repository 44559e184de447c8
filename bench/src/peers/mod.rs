//! Who else does it: published crates, and what everybody writes first.

pub mod first_fit;
pub mod iotlb;
pub mod multiarch;
pub mod vm_alloc;

/// An allocator of page numbers.
pub trait Allocates {
    /// Takes `pages` in a row; `None` if there is no room.
    fn take(&mut self, pages: u64) -> Option<u64>;

    /// Gives back what was taken.
    fn give(&mut self, start: u64, pages: u64);

    /// Takes exactly these, to build a state without the search for it; whether they were free.
    fn place(&mut self, start: u64, pages: u64) -> bool;
}
