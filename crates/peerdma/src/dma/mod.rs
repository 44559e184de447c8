//! How a device comes to reach memory: address spaces in front of it.
//!
//! Every initiator under an IOMMU sees the machine through an address space that
//! somebody fills: Linux through VFIO type1 or iommufd, later our own software
//! IOMMU. [`IoSpace`] is the one interface to all of them, and the hinge of this
//! library: what lies above asks for mappings and never for ioctls, what lies
//! below says what it takes ([`Abilities`]) and refuses the rest by name.
//!
//! - [`io_space`]: the trait, and what it maps ([`Source`], [`Prot`], [`MemAttrs`]).
//! - [`abilities`]: what a space takes ([`Granule`] and usable [`IovaRanges`] among it), and the
//!   checks that follow from it alone.
//! - [`mapped`]: which ranges are mapped, and the checks that follow from that.
//! - [`permit`]: who answers for it that requests reach another device's memory.
//! - [`error`]: why a mapping or an unmapping was refused.
//! - [`contract`]: what every space promises, as a list of claims to try on any.
//! - [`spaces`]: our own: a software IOMMU, no IOMMU, a small legacy window.
//! - [`recording`]: a space for tests, with the answers of type1 or of iommufd.
//!
//! Not here: whether two devices reach each other at all ([`route`](crate::route)
//! decides that before anything is mapped, and since neither type1 nor iommufd asks,
//! their spaces do), and the system calls (`peerdma-linux`).

pub mod abilities;
pub mod aperture;
pub mod bounce;
pub mod confidential;
pub mod consumer;
pub mod contract;
pub mod engine;
pub mod error;
pub mod initiator;
pub mod io_space;
pub mod mapped;
pub mod misuse;
pub mod owner;
pub mod permit;
pub mod publish;
pub mod reach;
pub mod recording;
pub mod spaces;
pub mod span;
pub mod windows;

pub use crate::access::{MemAttrs, Prot};
pub use crate::addr::Granule;
pub use crate::iova::{Depot, IovaRanges};
pub use abilities::{Abilities, Changes, Mmio, Placement, Sources, WriteOnly};
pub use confidential::Interface;
pub use engine::{
    Context, ContextError, LinkError, LinkManyError, MapRangesError, Mapping, RelinkError, Reservation, ReserveError,
    Spans, Staged, SyncError, UnlinkError,
};
pub use error::{Errno, MapError, UnmapError};
pub use initiator::{Bouncing, Initiator, SegmentLimit, Segments};
pub use io_space::{Delegate, IoSpace, Source, SourceKind};
pub use mapped::Mapped;
pub use owner::{Owner, OwnerId, Owners, ResolveError, Stretch};
pub use permit::{Permit, PermittedBy};
pub use reach::{Peers, Reach, Reached, Refusal, Why};
pub use spaces::{DirectSpace, SoftIommu, SoftSpace, TceSpace};
pub use span::{Behind, DeviceAddress, Span};
pub use windows::Windows;
