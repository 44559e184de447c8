//! The IOMMU of a machine: what becomes of an address that a device sent up.
//!
//! An [`Iommu`] knows its streams by requester ID. Each has an [`Attachment`]: it is blocked,
//! which is how every stream begins, passed through, or translated by the page tables of a
//! [`Domain`]; and beside that one domain for each PASID that was bound to it. A domain is a
//! number, which tags what the IOTLB remembers, and the place and format of [`Tables`], whose
//! bytes are read from memory at each miss, so that whatever stands there is what counts.
//!
//! The life of an untranslated request: its stream and PASID name a domain; the IOTLB answers, or
//! a walk does and its answer is remembered; an answer that refuses is a fault, which is recorded.
//! What is remembered stays until it is invalidated, whatever becomes of the table's bytes, so a
//! program that forgets to invalidate sees what it would see on hardware. Refusals are never
//! remembered: what was not mapped, or not for this, can be mapped without an invalidation.
//!
//! A device with a cache of its own (ATS) asks for translations ([`Iommu::translation`]) and
//! sends translated addresses, which are taken at their word if the stream may do so
//! ([`Iommu::trusts`]). [`Iommu::invalidate`] says whose caches have to be told, and whoever
//! called it tells them: the IOMMU has no way to a device. A device that may ask for pages
//! (PRI) has its requests queued until somebody takes them and responds.
//!
//! The walkers ([`walk`]) are written from the specifications of the vendors and share no line
//! with the code that writes tables, so that each can find the other wrong. They set no accessed
//! and no dirty bits: tables are read and never written.
//!
//! - [`unit`](mod@unit): the IOMMU itself; [`stream`]: what it knows of a requester.
//! - [`domain`], [`tables`]: what translates.
//! - [`fault`], [`page_request`]: what it tells whoever runs it.
//!
//! Not here: interrupt messages and what lies behind an output address, which are the root
//! complex's, and nested translation.

mod ats;
pub mod domain;
pub mod fault;
mod iotlb;
pub(crate) mod lock;
pub mod page_request;
mod pri;
pub mod stream;
pub mod tables;
pub mod unit;
pub mod walk;

#[cfg(test)]
pub(crate) mod tests;

pub use domain::{Attachment, Domain, DomainId};
pub use fault::{FaultReason, FaultRecord, Faults};
pub use page_request::{GroupResponse, PageRequest};
pub use stream::Cached;
pub use tables::{ArmGranule, ArmStage, TableBytes, TableFormat, Tables};
pub use unit::{Iommu, Output, Passage, Unbound};
