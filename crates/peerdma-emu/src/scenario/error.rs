//! Why a story did not come to its end.

use crate::device::{accel, dma, gpu, nic, nvme};
use crate::host::{NoRoom, SeatError};
use crate::machine::BuildError;
use crate::memory::Outside;
use crate::platform::PlatformError;
use peerdma::buffer::fence::{NoSlot, ReserveError};
use peerdma::buffer::life::Refused;
use peerdma::buffer::shared::{AttachError, MapRefused, WhyNot};
use peerdma::buffer::terms::OfferError;
use peerdma::dma::MapError;
use peerdma::dma::consumer::rdma::RegionError;
use peerdma::dma::engine::{ContextError, MapRangesError};

/// Why a story did not come to its end; what it is about is never told as an error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScenarioError {
    /// The platform has not who plays in it.
    #[error("the platform lacks {what}, which the built-in two-socket has")]
    Lacks {
        /// Who is missing.
        what: &'static str,
    },
    /// A name is no function of the machine, or a number no range of it.
    #[error("{what} is not there on this machine")]
    NotThere {
        /// What was looked for.
        what: String,
    },
    /// Something in the machine never comes to rest.
    #[error("the machine does not come to rest")]
    Restless,
    /// A platform file that comes with the story is wrong.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// The machine could not be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A driver has no place at its device.
    #[error(transparent)]
    Seat(#[from] SeatError),
    /// No RAM is left.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// Memory is shorter than it was said to be.
    #[error(transparent)]
    Outside(#[from] Outside),
    /// Nothing can be mapped for an initiator.
    #[error(transparent)]
    Context(Box<ContextError>),
    /// The mapping engine refuses a range.
    #[error(transparent)]
    Map(Box<MapRangesError>),
    /// An address space refuses a range.
    #[error(transparent)]
    Space(Box<MapError>),
    /// A region cannot be registered.
    #[error(transparent)]
    Region(Box<RegionError>),
    /// The drive did not do what it was asked.
    #[error(transparent)]
    Drive(#[from] nvme::DriverError),
    /// A GPU did not.
    #[error(transparent)]
    Gpu(#[from] gpu::Error),
    /// A DMA engine did not.
    #[error(transparent)]
    Dma(#[from] dma::DriverError),
    /// A NIC did not.
    #[error(transparent)]
    Nic(#[from] nic::Error),
    /// A work request of a NIC ended with an error.
    #[error("the work request ended: {0}")]
    Work(nic::Status),
    /// Memory cannot be offered as a buffer.
    #[error(transparent)]
    Offer(#[from] OfferError),
    /// An importer and the owner of a buffer cannot agree.
    #[error(transparent)]
    Attach(Box<AttachError>),
    /// An importer may not map a buffer.
    #[error(transparent)]
    MapBuffer(#[from] MapRefused),
    /// Nothing may happen to a buffer.
    #[error(transparent)]
    Disturb(#[from] Refused),
    /// A buffer was not moved.
    #[error(transparent)]
    NotMoved(WhyNot),
    /// No fence more can stand for what a device does with a buffer.
    #[error(transparent)]
    Reserve(#[from] ReserveError),
    /// A fence was added for which there is no room.
    #[error(transparent)]
    NoSlot(#[from] NoSlot),
    /// The accelerator did not do what it was asked.
    #[error(transparent)]
    Accel(#[from] accel::Error),
}

/// Errors that are long are kept in a box, so that good answers stay short.
macro_rules! boxed {
    ($($from:ty => $variant:ident),*) => {$(
        impl From<$from> for ScenarioError {
            fn from(error: $from) -> Self {
                Self::$variant(Box::new(error))
            }
        }
    )*};
}

boxed!(AttachError => Attach, ContextError => Context, MapRangesError => Map, MapError => Space, RegionError => Region);
