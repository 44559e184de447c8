//! What the kernel tells a process of its own memory.
//!
//! - `maps`: what is mapped where. - `pagemap`: which page frames are behind it. - `smaps`: how much of it is huge pages.

pub(crate) mod maps;
pub(crate) mod pagemap;
pub(crate) mod smaps;
