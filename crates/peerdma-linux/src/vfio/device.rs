//! One open device.
//!
//! Not here: its BARs' contents ([`BarMapping`]), config space ([`super::config`]), exporting
//! ([`super::export`]), interrupts ([`super::interrupts`]), what is done to it and others at once ([`super::hot_reset`]).

use super::bar::{BarMapping, MapBarError};
use super::error::{OpenError, errno};
use super::interrupts::Enabled;
use super::region::{Bar, BarIndex, BarRange, Mappable, Region};
use crate::sys::vfio;
use peerdma::dma::Errno;
use peerdma::pcie::PciAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use vfio_bindings::bindings::vfio as uapi;

/// A PCI function that this process drives through VFIO.
///
/// *What holding this tells you:* the function was bound to VFIO and nobody else drives it;
/// there is an IOMMU in front of it; its regions were described consistently. It may go away
/// at any time, which shows as an error of the next call and as all ones in its registers.
///
/// Dropping it closes the descriptor; the kernel closes the device, which ends its DMA, once
/// no [`BarMapping`] of it is left either.
#[derive(Debug)]
pub struct VfioDevice {
    fd: OwnedFd,
    address: PciAddr,
    bars: [Region; 6],
    config: Region,
    has_reset: bool,
    /// Which interrupts were switched on through this value.
    enabled: Mutex<Enabled>,
}

/// Why a device was not reset.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResetError {
    /// The function can only be reset together with others on its bus.
    #[error("{device} has no reset of its own (no FLR, no bus of its own)")]
    NoReset {
        /// The function.
        device: PciAddr,
    },
    /// The kernel refused.
    #[error("reset of {device} refused with {errno}")]
    Kernel {
        /// The function.
        device: PciAddr,
        /// The kernel's answer.
        errno: Errno,
    },
}

impl VfioDevice {
    /// Takes the descriptor of a device that the caller opened, through a group or, bound to
    /// an iommufd, through its node. `address` is what errors call it.
    ///
    /// # Errors
    /// [`OpenError::NotPci`] for a descriptor of something else; [`OpenError::DamagedRegion`]
    /// and [`OpenError::Kernel`] where it cannot be described.
    ///
    /// # Examples
    /// ```
    /// use peerdma_linux::vfio::{OpenError, VfioDevice};
    ///
    /// // What another program sent; here it is no device.
    /// let received = std::fs::File::open("/dev/null")?.into();
    /// match VfioDevice::from_fd(received, "0000:05:00.0".parse()?) {
    ///     Ok(device) => println!("{} is open", device.address()),
    ///     Err(OpenError::NotPci { device }) => println!("{device}: no device of VFIO"),
    ///     Err(error) => return Err(error.into()),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn from_fd(fd: OwnedFd, address: PciAddr) -> Result<Self, OpenError> {
        let info = vfio::device_info(fd.as_fd()).map_err(|error| match error {
            rustix::io::Errno::NOTTY | rustix::io::Errno::BADF => OpenError::NotPci { device: address },
            error => OpenError::kernel("VFIO_DEVICE_GET_INFO", address, error),
        })?;
        let is_pci = info.flags & uapi::VFIO_DEVICE_FLAGS_PCI != 0;
        if !is_pci || info.num_regions <= uapi::VFIO_PCI_CONFIG_REGION_INDEX {
            return Err(OpenError::NotPci { device: address });
        }
        let region = |index| region(fd.as_fd(), address, index);
        let bar = |index| region(uapi::VFIO_PCI_BAR0_REGION_INDEX + index);
        Ok(Self {
            address,
            bars: [bar(0)?, bar(1)?, bar(2)?, bar(3)?, bar(4)?, bar(5)?],
            config: region(uapi::VFIO_PCI_CONFIG_REGION_INDEX)?,
            has_reset: info.flags & uapi::VFIO_DEVICE_FLAGS_RESET != 0,
            enabled: Mutex::default(),
            fd,
        })
    }

    /// Another handle of the same open device, as for a part of the program that has a wrapper of its own.
    ///
    /// What one does to the device the other sees; interrupts are known to the handle that enabled them.
    ///
    /// # Errors
    /// [`OpenError::Kernel`], where there are no descriptors left; and those of [`from_fd`](Self::from_fd).
    pub fn try_clone(&self) -> Result<Self, OpenError> {
        let fd = rustix::io::fcntl_dupfd_cloexec(&self.fd, 0);
        Self::from_fd(fd.map_err(|error| OpenError::kernel("dup", self.address, error))?, self.address)
    }

    /// Its address.
    pub fn address(&self) -> PciAddr {
        self.address
    }

    /// One of its BARs; `None` if it does not have it.
    pub fn bar(&self, bar: BarIndex) -> Option<Bar> {
        let region = self.bars.get(usize::from(bar.as_u8()))?;
        let size = region.size;
        (size.as_u64() > 0).then(|| Bar { size, mappable: region.mappable.clone() })
    }

    /// The BARs that it has.
    pub fn bars(&self) -> impl Iterator<Item = (BarIndex, Bar)> + '_ {
        BarIndex::all().filter_map(|index| Some((index, self.bar(index)?)))
    }

    /// Maps the pages of a BAR that hold `range`.
    ///
    /// Memory space must be on before anybody accesses the mapping; see
    /// [`set_command`](Self::set_command).
    ///
    /// # Errors
    /// [`MapBarError::Absent`], [`MapBarError::Outside`] and [`MapBarError::NotMappable`] say
    /// what the device has instead; [`MapBarError::Kernel`] is the kernel's own refusal.
    pub fn map(&self, range: BarRange) -> Result<BarMapping, MapBarError> {
        BarMapping::new(self.descriptor(), self.address, self.present(range.bar())?, range)
    }

    /// Resets the function; waits until it answers again, a second at most as a rule.
    ///
    /// Its registers are as after power-on, save those that the kernel puts back (BARs, and
    /// Command as it was). Memory mapped through type1 stays mapped; dma-bufs exported from it
    /// are revoked.
    ///
    /// # Errors
    /// [`ResetError::NoReset`] if it cannot be reset by itself; [`ResetError::Kernel`].
    pub fn reset(&self) -> Result<(), ResetError> {
        let device = self.address;
        if !self.has_reset {
            return Err(ResetError::NoReset { device });
        }
        vfio::reset(self.descriptor()).map_err(|error| ResetError::Kernel { device, errno: errno(error) })
    }

    /// Whether [`reset`](Self::reset) can work, as the kernel said when the device was opened.
    pub fn has_reset(&self) -> bool {
        self.has_reset
    }

    pub(super) fn present(&self, bar: BarIndex) -> Result<&Region, MapBarError> {
        let region = self.bars.get(usize::from(bar.as_u8())).filter(|region| region.size.as_u64() > 0);
        region.ok_or_else(|| MapBarError::Absent {
            device: self.address,
            bar,
            has: self.bars().map(|(index, _)| index).collect(),
        })
    }

    pub(super) fn config_region(&self) -> &Region {
        &self.config
    }

    /// Which interrupts are on; held for as long as a call about them takes.
    pub(super) fn enabled(&self) -> MutexGuard<'_, Enabled> {
        self.enabled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<VfioDevice> for OwnedFd {
    /// The open device, for whoever has a wrapper of its own. Interrupts stay as they are.
    fn from(device: VfioDevice) -> Self {
        device.fd
    }
}

impl AsFd for VfioDevice {
    /// The descriptor, for calls that this library does not make.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor()
    }
}

fn region(fd: BorrowedFd<'_>, device: PciAddr, index: u32) -> Result<Region, OpenError> {
    let bytes = match vfio::region_info(fd, index) {
        Ok(bytes) => bytes,
        // A region that this driver does not have is one of no bytes.
        Err(rustix::io::Errno::INVAL) => {
            return Ok(Region { size: peerdma::addr::Bytes::ZERO, mappable: Mappable::No, file_offset: 0 });
        }
        Err(error) => return Err(OpenError::kernel("VFIO_DEVICE_GET_REGION_INFO", device, error)),
    };
    Region::parse(&bytes).map_err(|damage| OpenError::DamagedRegion { device, region: index, damage: damage.into() })
}
