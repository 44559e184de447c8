//! RDMA through libibverbs: memory that a network adapter of another host reads and writes.
//!
//! The library is loaded when it is asked for ([`Verbs::load`]), so that programs without it run where there is none.
//!
//! ```no_run
//! use peerdma::access::Prot;
//! use peerdma::addr::Bytes;
//! use peerdma_linux::memory::Pages;
//! use peerdma_linux::verbs::{Depths, Options, Rights, Verbs};
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! # fn write(
//! #     exchange: fn([u8; 28]) -> [u8; 28],
//! #     remote: peerdma_linux::verbs::RemoteRange,
//! # ) -> Result<(), Box<dyn std::error::Error>> {
//! let verbs = Verbs::load()?;
//! let devices = verbs.devices()?;
//! let device = devices.first().ok_or("no device")?;
//! let context = device.open()?;
//! let port = context.port(1)?;
//! let gid = context.gids(1)?.into_iter().find(|gid| gid.is_routable()).ok_or("no GID")?;
//!
//! let domain = context.domain()?;
//! let memory = Arc::new(Pages::zeroed(Bytes::new(1 << 16))?);
//! let region = domain.register(memory, Rights::local().remote(Prot::ReadWrite))?;
//!
//! let completions = context.completions(64)?;
//! let queue = domain.queue(&completions, Depths::default(), 1, Rights::local().remote(Prot::ReadWrite))?;
//! let own = queue.endpoint(&gid, port.mtu);
//! let peer = peerdma_linux::verbs::Endpoint::from_bytes(&exchange(own.to_bytes()))?;
//! let queue = queue.connect(&own, &peer, &Options::default())?;
//! queue.write(7, region.part(Bytes::ZERO, Bytes::new(4096))?, remote)?;
//! for completion in completions.wait(Some(Duration::from_secs(1)))? {
//!     completion.result()?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! - [`Verbs`] is the library, [`Device`] what it finds, [`Context`] an open one with its ports and [`Gid`]s.
//! - [`Domain`] holds what belongs together; [`Region`] is memory registered there, and [`Rights`] what may be done with it.
//! - [`Completions`] says what has ended, with a descriptor to wait for; [`Status`] how.
//! - [`Unconnected`] and [`Queue`] are a reliable connection before and after it has a peer; [`Endpoint`] and
//!   [`RemoteRange`] are what the two sides tell each other, by whatever way they have.
//! - [`Loopback`] is an adapter connected to itself, as an engine that moves bytes.
//! - [`Imported`] is a region that a shared buffer takes back.
//!
//! # What keeps memory in its place
//! Registering pins (Linux `ib_umem_get`), held against `RLIMIT_MEMLOCK` in a counter of the process's own; a domain that
//! is [booked](Domain::booked) asks a ledger first. A region keeps its memory mapped and is deregistered before that goes.
//! Work that is under way then ends with an error of the adapter's, [`Status::LocalProtection`] here or
//! [`Status::RemoteAccess`] at the peer, and touches nothing.
//!
//! # Device memory
//! [`Domain::register_dmabuf`] has the adapter reach another device directly, where its driver can, and
//! [`Domain::dmabuf_support`] asks whether that is so. Soft-RoCE answers no, and no other adapter was at hand: that a
//! registration succeeds and bytes arrive by it is untested.
//!
//! # Fork
//! A forked child must not use anything of here: its adapter mappings are the parent's. Memory of a
//! [`Pool`](crate::pool::Pool) is not in a child at all.
//!
//! Not here: finding the peer and telling it (`librdmacm`), unreliable and multicast transports, and events of ports.

mod completion;
mod context;
mod device;
mod domain;
mod endpoint;
mod error;
mod importing;
mod library;
mod loopback;
mod options;
mod queue;
mod region;
mod rights;
mod status;
#[cfg(test)]
mod tests;

pub use completion::{Completion, Completions, Kind};
pub use context::{Context, Gid, GidKind, Limits, Paging, Port, PortState};
pub use device::Device;
pub use domain::{DmabufSupport, Domain};
pub use endpoint::{BadBytes, Endpoint, Mtu, RemoteRange};
pub use error::{ConnectError, DevicesError, NotConnected, ObjectError, PostError, RegisterError, WaitError};
pub use importing::{ImportError, Imported, Importing};
pub use library::{LoadError, Verbs};
pub use loopback::{Loopback, LoopbackError};
pub use options::{Depths, Options};
pub use queue::{Queue, Unconnected};
pub use region::{BeyondRegion, Part, Region};
pub use rights::Rights;
pub use status::{Status, WorkFailed};
