//! Pins into device memory, with limits for each owner.

mod region;

pub use region::RegionId;
