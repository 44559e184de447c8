//! What an exporter can share: memory of its own, or a BAR.

use super::memory::Memory;
use crate::vfio::shared::{Exported, ShareError};
use crate::vfio::{BarRange, MapBarError, SharedDevice};
use peerdma::access::Prot;
use peerdma::addr::Bytes;
use peerdma::buffer::wire::Carrier;
use rustix::io::Errno;
use std::io;
use std::os::fd::OwnedFd;

/// Memory that an [`Exporter`](super::Exporter) shares: [`Memory`], or a [`Bar`].
pub trait Lend: sealed::Lend {}

impl Lend for Memory {}
impl Lend for Bar {}

pub(super) mod sealed {
    use super::{Bytes, Carrier, OwnedFd, Prot, io};

    /// What an exporter asks of what it shares.
    pub trait Lend {
        /// Its length.
        fn size(&self) -> Bytes;

        /// What importers may do with it at most.
        fn most(&self) -> Prot;

        /// What its descriptor is, and where in it the memory begins.
        fn lies(&self) -> (Carrier, Bytes);

        /// A descriptor for an importer that may do this much. ENODEV once there is no memory any more.
        fn lend(&self, prot: Prot) -> io::Result<OwnedFd>;
    }
}

impl sealed::Lend for Memory {
    fn size(&self) -> Bytes {
        self.len()
    }

    fn most(&self) -> Prot {
        self.prot()
    }

    fn lies(&self) -> (Carrier, Bytes) {
        (Carrier::Memfd, Bytes::ZERO)
    }

    fn lend(&self, prot: Prot) -> io::Result<OwnedFd> {
        self.descriptor(prot)
    }
}

/// Why a BAR is not shared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShareBarError {
    /// Other processes map whole pages.
    #[error("{range} is not whole pages of {page}, and a page is what other processes map; share all of its pages")]
    Pages {
        /// The range.
        range: BarRange,
        /// The page size.
        page: Bytes,
    },
    /// The CPU cannot map it; choose a range that it can.
    #[error(transparent)]
    Range(#[from] MapBarError),
    /// It makes no buffer.
    #[error(transparent)]
    Share(#[from] ShareError),
    /// The kernel gives no descriptors to listen with.
    #[error("cannot listen for importers of a BAR")]
    Io(#[from] io::Error),
}

/// Pages of a BAR as other processes get them: the device's descriptor, and a place in it.
#[derive(Debug)]
pub struct Bar {
    exported: Exported,
    /// All of it: a descriptor and one place in it say where one range is.
    range: BarRange,
    start: Bytes,
}

impl Bar {
    /// Checks what can be checked before a buffer is made of it.
    pub(super) fn place(device: &SharedDevice, range: BarRange) -> Result<Bytes, ShareBarError> {
        let page = crate::memory::page_size();
        if range.whole_pages(page) != Some(range) {
            return Err(ShareBarError::Pages { range, page });
        }
        let closed = || MapBarError::Kernel { device: device.address(), range, errno: peerdma::dma::Errno::ENODEV };
        let (_, start) = device.with(|function| function.cpu_file(range)).ok_or_else(closed)??;
        Ok(Bytes::new(start))
    }

    pub(super) fn new(exported: Exported, range: BarRange, start: Bytes) -> Self {
        Self { exported, range, start }
    }

    pub(super) fn exported(&self) -> &Exported {
        &self.exported
    }
}

impl sealed::Lend for Bar {
    fn size(&self) -> Bytes {
        self.range.len()
    }

    fn most(&self) -> Prot {
        Prot::ReadWrite
    }

    fn lies(&self) -> (Carrier, Bytes) {
        (Carrier::Device, self.start)
    }

    fn lend(&self, _: Prot) -> io::Result<OwnedFd> {
        // Opened anew for each, as one that was kept would keep the device open behind a close.
        let file = self.exported.device().with(|function| function.cpu_file(self.range));
        match file {
            Some(Ok((file, _))) => Ok(file),
            Some(Err(error)) => Err(io::Error::other(error)),
            None => Err(Errno::NODEV.into()),
        }
    }
}
