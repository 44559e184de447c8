//! I/O virtual addresses: which there are, and which are free.

mod usable;

pub use usable::{IovaRanges, RangesError};
