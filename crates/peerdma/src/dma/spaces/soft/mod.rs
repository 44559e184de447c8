//! A software IOMMU: page tables of any format, an IOTLB a thread, and fault records.
//!
//! [`SoftIommu`] is the domain and is shared by reference; a [`SoftSpace`] is one party's
//! handle to map in it and implements [`IoSpace`](crate::dma::IoSpace); a [`Tlb`] is one
//! thread's memory of translations.
//!
//! The life of a translation:
//!
//! 1. `link` writes entries. Nobody remembers that an IOVA led nowhere, so `sync` has nothing
//!    to do, and faults are answered from the tables.
//! 2. `translate` finds it in the [`Tlb`], or walks and fills one slot.
//! 3. `unmap` removes the entries, large pages that reach out of the range having been split
//!    before, then raises the domain's generation once, which makes every slot of every
//!    `Tlb` stale, then returns.
//! 4. Tables that lay in the range as a whole are queued and go back to their memory in
//!    [`SoftIommu::reclaim`], while nobody walks. Those emptied piece by piece stay for the next
//!    mapping there, or go in [`SoftIommu::prune`].
//!
//! Not here: waiting for accesses that were translated just before an unmapping.

mod fault;
mod iommu;
mod options;
mod refusal;
mod space;
mod tlb;

pub use fault::{Fault, FaultLog, FaultRecord, InitiatorId};
pub use iommu::SoftIommu;
pub use options::SoftOptions;
pub use space::SoftSpace;
pub use tlb::Tlb;
