//! Memory as ranges with an owner, packed.
//!
//! What is mapped for a device is rarely one buffer: RAM from here and there, a slice of
//! a drive's memory, a doorbell page. A [`Chunk`] is one such range, as an offset in
//! whatever owns it, and [`Chunks`] is a list of them in the order in which a device will
//! see them. A scatterlist spends 32 bytes and a `struct page` on every entry; this list
//! spends 8 bytes on a range of whole pages, and at most 64 on each stretch of one owner.
//!
//! ```text
//! groups   [ owner, attributes, head, cut, at, first word ] ...        one per stretch of one owner and attributes
//! words    [ page:40 | count:24 ] [ page:40 | count:24 ] ...           one per range of whole pages
//!          [ high:12 | cut:12 | head:12 | 0:24 ] [ page:40 | count:24 ]   a range that is not, or lies above 2^52
//!          [ 0 ] [ offset ] [ length ]                                 a range of 2^24 pages (64 GiB) or more
//! ```
//!
//! Where a group begins and ends in the middle of a page its header says so (`head`,
//! `cut`), since that is where buffers usually do; only ends inside a group take an
//! escape word. Neighbours are merged as they come, so a list holds no two ranges of one
//! owner and the same attributes that touch, and equal memory makes equal lists.
//!
//! [`View`] is a part of a list and [`Chain`] one list after another; neither copies or
//! allocates. [`Run`] is a stretch of one owner and the same attributes: what it is mapped as
//! has to be decided once for it, and its [`ranges`](Run::ranges) are the inner loop of mapping.
//!
//! ```
//! use peerdma::access::MemAttrs;
//! use peerdma::addr::Bytes;
//! use peerdma::chunk::{Chunk, Chunks};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut list = Chunks::new();
//! for (owner, offset, len, attrs) in [
//!     ("ram", 0x1000, 0x1000, MemAttrs::empty()),
//!     ("ram", 0x2000, 0x1000, MemAttrs::empty()),
//!     ("ram", 0x8000, 0x1000, MemAttrs::empty()),
//!     ("bar", 0x0000, 0x4000, MemAttrs::MMIO),
//! ] {
//!     list.push(Chunk::new(owner, Bytes::new(offset), Bytes::new(len), attrs).ok_or("empty")?)?;
//! }
//! assert_eq!(list.ranges(), 3, "the first two touch");
//! assert_eq!(list.runs().map(|run| run.owner()).collect::<Vec<_>>(), ["ram", "bar"]);
//!
//! let middle = list.slice(Bytes::new(0x2800), Bytes::new(0x1000)).ok_or("outside")?;
//! let offsets: Vec<u64> = middle.iter().map(|chunk| chunk.offset().as_u64()).collect();
//! assert_eq!(offsets, [0x8800, 0x0]);
//! # Ok(())
//! # }
//! ```
//!
//! Not here: which owners there are and what their memory is to a device
//! ([`dma`](crate::dma)), and whether an owner is as long as a chunk says.

mod chain;
mod list;
mod range;
mod run;
mod view;
mod word;

pub use chain::{Chain, ChainRuns, ChunkList};
pub use list::{Chunks, PushError};
pub use range::Chunk;
pub use run::{Iter, Ranges, Run, Runs};
pub use view::View;
