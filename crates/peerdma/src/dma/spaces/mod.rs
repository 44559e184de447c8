//! Address spaces of our own, behind the same interface as those of a kernel.
//!
//! - [`soft`]: a software IOMMU: page tables of any format, an IOTLB and fault records.
//! - [`direct`]: no IOMMU, or one that passes everything; memory is where the host bridge
//!   shows it.
//! - [`tce`]: a small window with one table of entries, as POWER has below old bridges.
//!
//! All of them keep the [contract](super::contract), so what was tested above one of them
//! runs on the others, and on VFIO.

pub mod direct;
pub mod soft;
pub mod tce;

pub use direct::DirectSpace;
pub use soft::{Fault, FaultLog, FaultRecord, InitiatorId, SoftIommu, SoftOptions, SoftSpace, Tlb};
pub use tce::{TcePage, TceSpace, WindowError};
