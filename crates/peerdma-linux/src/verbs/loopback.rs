//! An adapter connected to itself: an [`Engine`] that moves bytes wherever it has a region.
//!
//! ```text
//! fetch   an RDMA read of the region's bytes into a buffer of this process
//! store   an RDMA write of the buffer to the region
//! ```
//!
//! Two queue pairs of one port, each the other's peer: nothing leaves the adapter, and no other host is needed. What the
//! adapter does to a region of a [dma-buf](Domain::register_dmabuf) it does to the device behind it, which is what
//! [`verified::verify`](crate::verified::verify) looks at.
//!
//! A write that has completed is at the adapter's own other end, and not yet surely in memory. A read of the same bytes by
//! the same queue pair comes after it (InfiniBand Architecture 1.4 §9.4.6, "RDMA READ" ordering), so each store ends with one.

use super::completion::{Completion, Completions};
use super::context::{Context, PortState};
use super::domain::Domain;
use super::error::{NotConnected, ObjectError, RegisterError};
use super::options::{Depths, Options};
use super::queue::Queue;
use super::region::{Part, Region};
use super::rights::Rights;
use crate::engine::{AdapterFailed, Engine, EngineError};
use crate::memory::Pages;
use peerdma::access::Prot;
use peerdma::addr::{AddrRange, Bytes, Iova};
use peerdma::pcie::PciAddr;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Size of the buffer.
const CAPACITY: Bytes = Bytes::new(64 << 10);
/// How long one transfer may take; retries of the adapter's own take half a second.
const PATIENCE: Duration = Duration::from_secs(30);
/// What transfers are called.
const TRANSFER: u64 = 1;
const FLUSH: u64 = 2;

/// An adapter that does work for itself.
pub struct Loopback {
    device: PciAddr,
    /// Goes first: nothing is done to a region any more.
    asking: Queue,
    _answering: Queue,
    completions: Completions,
    regions: Vec<Region>,
    buffer: Region,
    domain: Domain,
    stopped: bool,
}

/// Why an adapter is not connected to itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoopbackError {
    /// The adapter does not have, or do, what it takes.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// No port of it is up, or none has an address.
    #[error(
        "no port of {adapter} is active with an address; bring its link up, and on Ethernet give its interface one"
    )]
    NoPort {
        /// The adapter.
        adapter: String,
    },
    /// The process has no memory for the buffer.
    #[error("no process memory for the buffer of {adapter}")]
    Memory {
        /// The adapter.
        adapter: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The buffer is not registered.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// The two queue pairs do not connect.
    #[error(transparent)]
    Connect(#[from] NotConnected),
}

impl Loopback {
    /// Connects an adapter to itself, by its first active port. `device` is its function, for messages.
    ///
    /// # Errors
    /// [`LoopbackError`]; everything that was made is gone then.
    ///
    /// # Examples
    /// ```no_run
    /// use peerdma_linux::engine::Engine;
    /// use peerdma_linux::verbs::{Loopback, Verbs};
    ///
    /// let devices = Verbs::load()?.devices()?;
    /// let context = devices.first().ok_or("no adapter")?.open()?;
    /// let loopback = Loopback::open(&context, "0000:41:00.0".parse()?)?;
    /// println!("moves {} at a time", loopback.capacity());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(context: &Context, device: PciAddr) -> Result<Self, LoopbackError> {
        let adapter = || context.device().to_string();
        let ports = 1..=context.limits()?.ports;
        let mut found = None;
        for number in ports {
            let port = context.port(number)?;
            // A routable address if there is one, since that is what is set up with care.
            let mut gids = context.gids(number)?;
            gids.sort_by_key(|gid| !gid.is_routable());
            if let (PortState::Active, Some(gid)) = (port.state, gids.first()) {
                found = Some((port, *gid));
                break;
            }
        }
        let (port, gid) = found.ok_or_else(|| LoopbackError::NoPort { adapter: adapter() })?;
        let domain = context.domain()?;
        let pages = Pages::zeroed(Bytes::new(2 * CAPACITY.as_u64()));
        let pages = pages.map_err(|source| LoopbackError::Memory { adapter: adapter(), source })?;
        let buffer = domain.register(Arc::new(pages), Rights::local())?;
        let completions = context.completions(16)?;
        let rights = Rights::local().remote(Prot::ReadWrite);
        let asking = domain.queue(&completions, Depths::default(), port.number, rights)?;
        let answering = domain.queue(&completions, Depths::default(), port.number, rights)?;
        let end = |queue: &super::Unconnected| queue.endpoint(&gid, port.mtu).at_lid(port.lid);
        let (here, there) = (end(&asking), end(&answering));
        let answering = answering.connect(&there, &here, &Options::default())?;
        let asking = asking.connect(&here, &there, &Options::default())?;
        let regions = Vec::new();
        Ok(Self { device, asking, _answering: answering, completions, regions, buffer, domain, stopped: false })
    }

    /// Where regions for [`reach`](Self::reach) are registered.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// What regions for [`reach`](Self::reach) have to be registered for.
    pub const fn rights() -> Rights {
        Rights::local().remote(Prot::ReadWrite)
    }

    /// Has it reach a region, at the region's own addresses; of regions that overlap the first is taken.
    pub fn reach(&mut self, region: Region) {
        self.regions.push(region);
    }

    fn transfer(&mut self, at: Iova, len: Bytes, writes: bool) -> Result<(), EngineError> {
        let device = self.device;
        if self.stopped {
            return Err(EngineError::Stopped { device });
        }
        if len == Bytes::ZERO || len > CAPACITY {
            return Err(EngineError::Length { device, len, capacity: CAPACITY });
        }
        let result = self.run(at, len, writes);
        if result.is_err() {
            self.stop();
        }
        result
    }

    fn run(&self, at: Iova, len: Bytes, writes: bool) -> Result<(), EngineError> {
        let device = self.device;
        let adapter = |why: AdapterFailed| EngineError::Adapter { device, why };
        let range = AddrRange::new(at, len);
        let inside = range.and_then(|range| self.regions.iter().find(|region| region.range().contains_range(&range)));
        let remote = inside.and_then(|region| {
            let offset = at.as_u64().checked_sub(region.range().start().as_u64())?;
            region.remote().part(Bytes::new(offset), len)
        });
        let remote = remote.ok_or(EngineError::Unregistered { device, at, len })?;
        // The second half takes what a flush brings.
        let (own, aside) = (self.own(Bytes::ZERO, len)?, self.own(CAPACITY, len)?);
        if !writes {
            self.asking.read(TRANSFER, own, remote).map_err(|error| adapter(error.into()))?;
            return self.wait(TRANSFER);
        }
        self.asking.write(TRANSFER, own, remote).map_err(|error| adapter(error.into()))?;
        self.wait(TRANSFER)?;
        self.asking.read(FLUSH, aside, remote).map_err(|error| adapter(error.into()))?;
        self.wait(FLUSH)
    }

    fn own(&self, at: Bytes, len: Bytes) -> Result<Part<'_>, EngineError> {
        let device = self.device;
        self.buffer.part(at, len).map_err(|_| EngineError::Length { device, len, capacity: CAPACITY })
    }

    /// Waits for the one piece of work that is under way.
    fn wait(&self, id: u64) -> Result<(), EngineError> {
        let device = self.device;
        let adapter = |why: AdapterFailed| EngineError::Adapter { device, why };
        let ended = self.completions.wait(Some(PATIENCE)).map_err(|error| adapter(error.into()))?;
        let ended: Option<&Completion> = ended.iter().find(|ended| ended.id == id);
        let ended = ended.ok_or(EngineError::NotFinished { device, waited: PATIENCE })?;
        ended.result().map_err(|error| adapter(error.into()))
    }

    fn stop(&mut self) {
        self.stopped = true;
        // An adapter that has gone does nothing more either.
        let _ = self.asking.stop();
    }
}

impl Engine for Loopback {
    fn capacity(&self) -> Bytes {
        CAPACITY
    }

    /// Addresses are those of regions, which the adapter translates itself.
    fn highest(&self) -> Iova {
        Iova::new(u64::MAX)
    }

    fn fetch(&mut self, from: Iova, len: Bytes) -> Result<(), EngineError> {
        self.transfer(from, len, false)
    }

    fn store(&mut self, to: Iova, len: Bytes) -> Result<(), EngineError> {
        self.transfer(to, len, true)
    }
}

impl Drop for Loopback {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for Loopback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Loopback of {} with {:?}", self.domain.context().device(), self.regions)
    }
}
