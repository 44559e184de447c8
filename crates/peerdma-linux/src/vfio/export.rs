//! A range of a BAR as a dma-buf, which iommufd and other kernel drivers import.
//!
//! Linux 6.19 and newer (`CONFIG_VFIO_PCI_DMABUF`). The kernel revokes the buffer whenever
//! the device is reset, its memory space is switched off, or it is closed, and gives it back
//! only in the first two cases; nothing tells this process.
//!
//! One range to a dma-buf: iommufd refuses several, and other importers cannot map several through a host bridge with a
//! translating IOMMU (`docs/dma-bufs.md`). A buffer may have several all the same, see
//! [`SharedDevice::export_ranges`](super::SharedDevice::export_ranges).
//!
//! Not here: mapping it; see [`crate::iommufd`].

use super::bar::MapBarError;
use super::device::VfioDevice;
use super::error::errno;
use super::region::BarRange;
use crate::memory::page_size;
use crate::sys::vfio;
use peerdma::addr::Bytes;
use peerdma::dma::Errno;
use peerdma::pcie::PciAddr;
use rustix::fs::OFlags;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Why a range of a BAR could not be exported.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The device has no such range; choose one that it has.
    #[error(transparent)]
    Range(#[from] MapBarError),
    /// The range is not whole pages; export those around it.
    #[error("{device}'s {range} is not whole pages of {page}, which is all that can be exported")]
    NotPages {
        /// The function.
        device: PciAddr,
        /// The range.
        range: BarRange,
        /// The page size.
        page: Bytes,
    },
    /// This kernel or driver exports no BARs; use type1 with a mapping of the BAR.
    #[error(
        "this kernel exports no BARs of {device} ({errno}): that needs Linux 6.19 with CONFIG_VFIO_PCI_DMABUF and plain vfio-pci; VFIO type1 does without"
    )]
    NotSupported {
        /// The function.
        device: PciAddr,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The kernel refused for a reason of its own.
    #[error("export of {device}'s {range} refused with {errno}")]
    Kernel {
        /// The function.
        device: PciAddr,
        /// The range.
        range: BarRange,
        /// The kernel's answer.
        errno: Errno,
    },
}

impl VfioDevice {
    /// Exports a range of a BAR as a dma-buf.
    ///
    /// The descriptor can be cloned and sent; the buffer lives as long as one of them, or an
    /// importer, does. It reaches memory only while this device is open.
    ///
    /// # Errors
    /// [`ExportError::Range`] and [`ExportError::NotPages`] name what could be exported;
    /// [`ExportError::NotSupported`]: use type1 instead.
    pub fn export(&self, range: BarRange) -> Result<Arc<OwnedFd>, ExportError> {
        self.export_as(range, OFlags::RDWR)
    }

    /// Exports a range of a BAR as a dma-buf for devices that are to read it and no more.
    ///
    /// The kernel writes this into the descriptor and does not look at it again (Linux 7.2 `iopt_map_file_pages`,
    /// `dma_buf_map_attachment`). [`IommufdSpace`](crate::iommufd::IommufdSpace) does, and maps it for reading alone; another program
    /// that it is sent to may not.
    ///
    /// # Errors
    /// As [`export`](Self::export).
    pub fn export_read_only(&self, range: BarRange) -> Result<Arc<OwnedFd>, ExportError> {
        self.export_as(range, OFlags::RDONLY)
    }

    fn export_as(&self, range: BarRange, mode: OFlags) -> Result<Arc<OwnedFd>, ExportError> {
        let device = self.address();
        let region = self.present(range.bar())?;
        if range.end() > region.size {
            return Err(MapBarError::Outside { device, range, size: region.size }.into());
        }
        let page = page_size();
        if range.whole_pages(page) != Some(range) {
            return Err(ExportError::NotPages { device, range, page });
        }
        let (offset, len) = (range.offset().as_u64(), range.len().as_u64());
        match vfio::export(self.descriptor(), range.bar().region(), mode, offset, len) {
            Ok(fd) => Ok(Arc::new(fd)),
            Err(error @ (rustix::io::Errno::NOTTY | rustix::io::Errno::OPNOTSUPP)) => {
                Err(ExportError::NotSupported { device, errno: errno(error) })
            }
            Err(error) => Err(ExportError::Kernel { device, range, errno: errno(error) }),
        }
    }
}
