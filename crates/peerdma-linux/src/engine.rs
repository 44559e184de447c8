//! A device that copies on command: what verifying a route needs of one.
//!
//! An engine has a buffer of its own and moves bytes between it and IOVAs. Both directions
//! are needed: a route that takes writes may still lose the answers to reads.
//!
//! A drive that the kernel drives has no buffer that others could use, and is none of these; [`Kind`] lists it with
//! the rest, and says what each needs.
//!
//! Not here: drivers of particular devices ([`crate::edu`]), and believing them
//! ([`crate::verified`]): that an engine reports completion says nothing about the bytes.

mod kind;

pub use kind::{Kind, Lack};

use crate::verbs::{PostError, WaitError, WorkFailed};
use crate::vfio::{AccessError, ConfigError};
use peerdma::addr::{Bytes, Iova};
use peerdma::pcie::PciAddr;
use std::time::Duration;

/// A DMA engine with a buffer in the device.
pub trait Engine {
    /// Size of the buffer, and so the most that one call moves.
    fn capacity(&self) -> Bytes;

    /// The highest IOVA that the device is sure to address. A transfer that ends above it may be
    /// sent, cut to fewer bits, to an address that nobody named.
    ///
    /// A device may address more than this says where that cannot be read from it, so `fetch` and
    /// `store` take any IOVA; who chooses them stays below.
    fn highest(&self) -> Iova;

    /// The device reads `len` bytes from `from` into the start of its buffer.
    ///
    /// Waits until the device reports completion.
    ///
    /// # Errors
    /// See [`EngineError`]; after any of them the device does no more DMA.
    fn fetch(&mut self, from: Iova, len: Bytes) -> Result<(), EngineError>;

    /// The device writes the first `len` bytes of its buffer to `to`.
    ///
    /// Waits until the device reports completion.
    ///
    /// # Errors
    /// See [`EngineError`]; after any of them the device does no more DMA.
    fn store(&mut self, to: Iova, len: Bytes) -> Result<(), EngineError>;
}

/// Why an engine did not do what it was told.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// More bytes than its buffer holds, or none; move less.
    #[error("{device} moves 1 to {capacity} at a time, not {len}")]
    Length {
        /// The engine.
        device: PciAddr,
        /// What was asked for.
        len: Bytes,
        /// Size of its buffer.
        capacity: Bytes,
    },
    /// It did not report completion; its bus mastering is off now, so it does not go on.
    #[error(
        "{device} did not finish within {} ms; it was stopped by switching its bus mastering off",
        waited.as_millis()
    )]
    NotFinished {
        /// The engine.
        device: PciAddr,
        /// How long it was waited for.
        waited: Duration,
    },
    /// It stopped after an earlier error; open it again.
    #[error("{device} was stopped after an error; open it again")]
    Stopped {
        /// The engine.
        device: PciAddr,
    },
    /// Its registers read as all ones, as those of a function that is not there.
    #[error("{device} reads as all ones: it is gone, or its memory space is off")]
    Gone {
        /// The engine.
        device: PciAddr,
    },
    /// It was given no region that has all of these addresses; register one.
    #[error("{device} has no region with {len} at {at}; register one there")]
    Unregistered {
        /// The engine.
        device: PciAddr,
        /// The first address.
        at: Iova,
        /// How many bytes.
        len: Bytes,
    },
    /// An RDMA adapter did not do its work; its queue pair is taken down.
    #[error("{device}: {why}")]
    Adapter {
        /// The engine.
        device: PciAddr,
        /// What it says.
        why: AdapterFailed,
    },
    /// A register is out of reach.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// Its config space does not answer.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// Why an RDMA adapter did not do its work.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdapterFailed {
    /// It was not taken.
    #[error(transparent)]
    Post(#[from] PostError),
    /// Nothing says any more how it ended.
    #[error(transparent)]
    Wait(#[from] WaitError),
    /// It ended badly.
    #[error(transparent)]
    Work(#[from] WorkFailed),
}
