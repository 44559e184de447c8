//! Protection domains: where memory is registered, and queue pairs are made.

use super::completion::Completions;
use super::context::Context;
use super::error::{ObjectError, RegisterError};
use super::options::Depths;
use super::queue::Unconnected;
use super::region::Region;
use super::rights::Rights;
use crate::held;
use crate::memory::page_size;
use crate::pin::Steady;
use crate::sys::verbs;
use peerdma::addr::{AddrRange, Bytes, Iova};
use peerdma::pin::{Charge, OwnerId, Request, SharedLedger, Via};
use rustix::io::Errno;
use std::fmt;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// Whether dma-bufs can be registered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum DmabufSupport {
    /// The adapter's driver takes them. That one is mapped and reached is another matter.
    Yes,
    /// The adapter's driver does not (`EOPNOTSUPP`), as soft-RoCE's.
    NotByDevice,
    /// The kernel has no such call (before Linux 5.12).
    NotByKernel,
    /// The library has no such call (before rdma-core 34).
    NotByLibrary,
    /// It could not be asked.
    Unknown(Errno),
}

impl fmt::Display for DmabufSupport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Yes => f.write_str("its driver registers dma-bufs"),
            Self::NotByDevice => f.write_str("its driver registers no dma-bufs; register memory instead"),
            Self::NotByKernel => f.write_str("this kernel registers no dma-bufs; use Linux 5.12 or newer"),
            Self::NotByLibrary => f.write_str("this libibverbs registers no dma-bufs; use rdma-core 34 or newer"),
            Self::Unknown(errno) => write!(f, "whether it registers dma-bufs cannot be asked ({errno})"),
        }
    }
}

/// A protection domain. Copies are the same; regions and queue pairs keep it.
#[derive(Clone, Debug)]
pub struct Domain {
    raw: verbs::Domain,
    context: Context,
    books: Option<(SharedLedger, OwnerId)>,
}

impl Domain {
    pub(super) fn new(raw: verbs::Domain, context: Context) -> Self {
        Self { raw, context, books: None }
    }

    /// The same domain, whose regions are charged to an owner in a ledger before the kernel is asked.
    ///
    /// The kernel counts what RDMA pins for each process apart (`VmPin`); see [`peerdma::pin::Backend::Rdma`].
    #[must_use]
    pub fn booked(self, ledger: SharedLedger, owner: OwnerId) -> Self {
        Self { books: Some((ledger, owner)), ..self }
    }

    /// The adapter.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Registers memory: the adapter reaches it by its own addresses. Blocks while it is pinned.
    ///
    /// # Errors
    /// [`RegisterError`]; nothing is registered or charged then.
    pub fn register<M: Steady + 'static>(&self, memory: Arc<M>, rights: Rights) -> Result<Region, RegisterError> {
        let range = memory.range();
        let charge = self.charge(Request::new(Via::Rdma, range))?;
        let raw = verbs::Registration::of_memory(&self.raw, range, rights.flags())
            .map_err(|errno| RegisterError::of_memory(self.context.device(), range, errno))?;
        let Some(seen) = AddrRange::new(Iova::new(range.start().as_u64()), range.len()) else {
            unreachable!("a range of one kind of address is one of another")
        };
        Ok(Region::new(raw, seen, memory, charge))
    }

    fn charge(&self, request: Request) -> Result<Option<Charge>, RegisterError> {
        let Some((ledger, owner)) = &self.books else { return Ok(None) };
        Ok(Some(held::asked_twice(ledger, || ledger.charge(*owner, request))?))
    }

    /// Registers a part of a dma-buf, which adapter and peers see from `iova` on. Blocks while its exporter maps it.
    ///
    /// Nothing is charged: the memory is its exporter's. Untested with an adapter that takes it; see the module's head.
    ///
    /// # Errors
    /// [`RegisterError::NoDmabuf`]: adapter, kernel or library cannot, see there. [`RegisterError::Unaligned`]: `iova` and
    /// `offset` lie at different places in their pages.
    pub fn register_dmabuf(
        &self,
        fd: BorrowedFd<'_>,
        offset: Bytes,
        len: Bytes,
        iova: Iova,
        rights: Rights,
    ) -> Result<Region, RegisterError> {
        let page = page_size().as_u64();
        if offset.as_u64() % page != iova.as_u64() % page {
            return Err(RegisterError::Unaligned { offset, iova, page: page_size() });
        }
        let device = self.context.device();
        let seen = AddrRange::new(iova, len).ok_or(RegisterError::Range { len, iova })?;
        match verbs::Registration::of_dmabuf(&self.raw, Some(fd), offset, len, iova, rights.flags()) {
            Ok(raw) => Ok(Region::of_exporter(raw, seen)),
            Err(errno) => Err(match support(errno) {
                Some(support) => RegisterError::NoDmabuf { device: device.into(), support },
                None => RegisterError::of_dmabuf(device, len, errno),
            }),
        }
    }

    /// Asks whether dma-bufs can be registered, by a file that is none.
    ///
    /// A driver that can looks for the file, and a kernel that cannot asks no driver (Linux 7.3
    /// `UVERBS_METHOD_REG_DMABUF_MR`).
    pub fn dmabuf_support(&self) -> DmabufSupport {
        let (at, len) = (Bytes::ZERO, page_size());
        match verbs::Registration::of_dmabuf(&self.raw, None, at, len, Iova::new(0), Rights::local().flags()) {
            // No driver registers nothing; one that says so is not believed.
            Ok(_) => DmabufSupport::Unknown(Errno::BADF),
            Err(Errno::BADF) => DmabufSupport::Yes,
            Err(errno) => support(errno).unwrap_or(DmabufSupport::Unknown(errno)),
        }
    }

    /// Makes a queue pair of a port, whose completions all go to one queue. `rights` is what peers may do at most.
    ///
    /// # Errors
    /// [`ObjectError`]: there is no such port, or the adapter has no more.
    pub fn queue(
        &self,
        completions: &Completions,
        depths: Depths,
        port: u8,
        rights: Rights,
    ) -> Result<Unconnected, ObjectError> {
        let raw = verbs::Queue::create(&self.raw, completions.raw(), depths.sends, depths.receives)
            .map_err(|errno| self.context.error("make a queue pair", errno))?;
        Unconnected::new(raw, self.context.clone(), port, rights)
    }
}

/// What an errno says of support; `None` where it says something else.
fn support(errno: Errno) -> Option<DmabufSupport> {
    match errno {
        Errno::OPNOTSUPP => Some(DmabufSupport::NotByDevice),
        // The kernel knows no such method of no such object.
        Errno::PROTONOSUPPORT | Errno::NOTTY => Some(DmabufSupport::NotByKernel),
        Errno::NOSYS => Some(DmabufSupport::NotByLibrary),
        _ => None,
    }
}
