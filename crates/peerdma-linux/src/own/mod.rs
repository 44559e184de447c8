//! What the kernel tells a process of its own memory.
//!
//! - `maps`: what is mapped where. - `pagemap`: which page frames are behind it. - `smaps`: how much of it is huge pages.
//! - `ring_info`: what is registered with a ring.

pub(crate) mod maps;
pub(crate) mod pagemap;
pub(crate) mod ring_info;
pub(crate) mod smaps;
