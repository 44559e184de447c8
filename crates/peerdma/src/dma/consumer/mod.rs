//! Mappings in the form in which hardware reads them, without a scatterlist in between.
//!
//! Each consumer takes [`Span`](super::Span)s as a mapping yields them and writes what its
//! device wants to read, into memory of the caller's. None allocates, none asks what lies
//! behind a span, and none leads from an address of a device back to where it goes.
//!
//! - [`nvme`]: PRP lists and SGLs of a command.
//! - [`rdma`]: the page list of a memory region, from spans of any kind side by side.
//! - [`stage2`]: runs of physical pages for the second stage of a guest. It starts from the
//!   chunks and their owners, since a guest's page tables translate to physical addresses
//!   and have no use for those of a device.
//! - [`mirror`]: a table of pages that come and go one by one, as a device with page
//!   faults of its own wants it.

mod joined;
pub mod mirror;
pub mod nvme;
pub mod rdma;
pub mod stage2;

pub use mirror::Mirror;
pub use rdma::Region;
pub use stage2::Stage2;
