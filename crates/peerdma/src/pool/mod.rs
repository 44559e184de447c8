//! Memory that stays where it is, cut into blocks.
//!
//! A pool is one range of memory at the same address for the CPU and for every device that shares it, so
//! that whoever has a pointer has the device's address too. What is here says which part of the range is
//! whose, and nothing else: bytes, pins and address spaces are `peerdma_linux::pool`'s.
//!
//! - [`Area`]: the range, what of it is free, and whose the rest is. [`Cache`] stands in front of it, one to a thread,
//!   and keeps blocks that were put back.
//! - [`Block`]: a part of the range that is somebody's, until it is put back; it cannot be copied.
//! - [`Owner`]: a name for whoever takes blocks. [`Report`] says what each still has.
//! - [`Reach`] and [`place`]: where a pool can lie so that all its devices reach it, or which of them cannot and why.
//!
//! Free memory is kept by the [allocator of IOVAs](crate::iova): the numbers are the same, since that is what the pool is for.
//! Rejected: an allocator of slabs of our own, which would be a second answer to the same question; and a general
//! allocator on top of pinned memory, which keeps its own words between the blocks, where devices write.

mod area;
mod cache;
mod class;
mod error;
mod owner;
mod place;
mod report;
mod tags;
#[cfg(test)]
mod tests;

pub use area::{Area, Block};
pub use cache::Cache;
pub use error::{AreaError, Full, NoPlace, PutError, Rejected, TooManyOwners};
pub use owner::Owner;
pub use place::{Obstacle, Reach, place};
pub use report::{Live, Report, Share};
