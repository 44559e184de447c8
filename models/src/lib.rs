//! What threads may do at once to the core's lock-free parts.
//!
//! The core has no lock around page tables: threads map and unmap disjoint ranges whose
//! tables are shared, while an IOMMU walks them. Tests on real threads meet few orders of
//! such accesses and the same ones again and again. Here the core's atomics are shuttle's
//! (`--cfg peerdma_shuttle`, see `peerdma::sync`), each access is a place where another
//! thread may go on, and a model says what holds in every order.
//!
//! `cargo xtask models` runs them. Without the flag this crate is empty, so that
//! `cargo test --workspace` has nothing to wait for.
//!
//! Shuttle runs every order as if memory were sequentially consistent. It finds lost
//! updates and torn sequences, and no missing fence. Where a fence carries the proof, in guards, loom does
//! (`--cfg peerdma_loom`): it tries every order and every value that the memory model lets a load
//! see, which takes models of a few accesses. Other orderings are argued where they stand.

#[cfg(peerdma_shuttle)]
pub mod frames;
#[cfg(peerdma_shuttle)]
pub mod orders;
