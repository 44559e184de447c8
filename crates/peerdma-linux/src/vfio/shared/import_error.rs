//! Why an import is not mapped.

use super::super::bar::MapBarError;
use super::super::export::ExportError;
use peerdma::addr::{AddrRange, Bytes, Iova};
use peerdma::buffer::shared::{AttachError, MapRefused};
use peerdma::dma::{MapError, Refusal, UnmapError};

/// Why an import is not mapped.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The two sides do not agree.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The buffer is out of reach.
    #[error(transparent)]
    Buffer(#[from] MapRefused),
    /// The BAR is not mapped for the CPU, which type1 needs.
    #[error(transparent)]
    Bar(#[from] MapBarError),
    /// The BAR is not exported, which iommufd needs.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The address space refuses it.
    #[error(transparent)]
    Space(#[from] MapError),
    /// The address space does not let go of it.
    #[error(transparent)]
    Unmap(#[from] UnmapError),
    /// No verdict permits the initiator to reach the memory; see its reasons, or vouch for the route.
    #[error(transparent)]
    Route(#[from] Refusal),
    /// The declaration is of tables or a CPU, on which there is no verdict; declare the device, or give a permit.
    #[error(
        "{name} names no device that would reach {buffer}, so nobody can be asked whether requests arrive; declare the device, or give a permit"
    )]
    NoDevice {
        /// The import.
        name: String,
        /// The buffer.
        buffer: String,
    },
    /// The IOVAs are more or fewer than the buffer's bytes.
    #[error("{iova} is not as long as the buffer of {buffer}; give it as many IOVAs")]
    Length {
        /// What was given.
        iova: AddrRange<Iova>,
        /// The buffer's length.
        buffer: Bytes,
    },
    /// The device is closed.
    #[error("the device is closed; open it anew, and import then")]
    Closed,
}
