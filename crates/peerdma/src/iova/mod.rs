//! I/O virtual addresses: which there are, and which are free.
//!
//! [`IovaRanges`] is what an address space can map. An [`Allocator`] hands that out: its
//! whole state is two bits a granule, in a tree (`tree`) whose nodes know the largest
//! aligned block that is free below them, so that finding one is a walk from the root and
//! neither splits nor merges anything. Each queue may keep ranges it has freed in an
//! [`Arena`] in front of the shared allocator, which it reaches through a [`Depot`].
//!
//! Not here: what a range is mapped to ([`dma`](crate::dma)).

mod allocator;
mod arena;
mod depot;
mod error;
mod tree;
mod usable;
mod want;

pub use allocator::Allocator;
pub use arena::Arena;
pub use depot::Depot;
pub use error::{ClaimError, ExcludeError, Exhausted, FreeError, NothingUsable};
pub use usable::{IovaRanges, RangesError};
pub use want::Want;
