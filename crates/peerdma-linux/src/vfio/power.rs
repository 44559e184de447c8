//! Low power: the kernel puts a function to sleep, and wakes it.
//!
//! Two ways lead there, and only one is here. A driver that writes the power management registers has the function
//! in D3hot and no deeper ([`write_config`](VfioDevice::write_config)); the feature lets the kernel go as deep as the
//! machine can, D3cold too (Linux 6.1, `vfio_pci_core_pm_entry`). While it lasts BARs do not answer: an access by a mapping
//! ends the process with SIGBUS, dma-bufs are revoked, and config space is still read, which wakes the function for
//! as long as that takes.

use super::device::VfioDevice;
use super::error::errno;
use crate::sys::vfio::whole;
use peerdma::dma::Errno;
use peerdma::pcie::PciAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use vfio_bindings::bindings::vfio as uapi;

/// Why a device neither sleeps nor wakes.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PowerError {
    /// The kernel offers no low power for it.
    #[error(
        "the kernel offers no low power for {device} ({errno}): that needs Linux 6.1; write D3 to its power management registers instead"
    )]
    NotOffered {
        /// The function.
        device: PciAddr,
        /// The kernel's answer.
        errno: Errno,
    },
    /// It sleeps already, or, on waking, does not sleep.
    #[error("{device} is {} already", if *.asleep { "in low power" } else { "awake" })]
    Already {
        /// The function.
        device: PciAddr,
        /// How it is.
        asleep: bool,
    },
    /// The kernel refused.
    #[error("low power of {device} refused with {errno}")]
    Kernel {
        /// The function.
        device: PciAddr,
        /// The kernel's answer.
        errno: Errno,
    },
}

impl VfioDevice {
    /// Whether the kernel offers low power for it.
    pub fn offers_low_power(&self) -> bool {
        whole::set_feature(self.descriptor(), uapi::VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY, true, None).is_ok()
    }

    /// Lets the function sleep until [`exit_low_power`](Self::exit_low_power).
    ///
    /// With `wakeup`, an eventfd, it stays awake if something wakes it before, and the eventfd is signalled.
    ///
    /// # Errors
    /// [`PowerError::NotOffered`]; [`PowerError::Already`]; [`PowerError::Kernel`].
    pub fn enter_low_power(&self, wakeup: Option<BorrowedFd<'_>>) -> Result<(), PowerError> {
        let (feature, word) = match wakeup {
            None => (uapi::VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY, None),
            Some(event) => {
                (uapi::VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP, Some(event.as_raw_fd().cast_unsigned()))
            }
        };
        self.low_power(feature, word, true)
    }

    /// Wakes the function; waits until it is awake.
    ///
    /// # Errors
    /// As [`enter_low_power`](Self::enter_low_power). Waking one that is awake is none: the kernel takes it.
    pub fn exit_low_power(&self) -> Result<(), PowerError> {
        self.low_power(uapi::VFIO_DEVICE_FEATURE_LOW_POWER_EXIT, None, false)
    }

    fn low_power(&self, feature: u32, word: Option<u32>, asleep: bool) -> Result<(), PowerError> {
        let device = self.address();
        whole::set_feature(self.descriptor(), feature, false, word).map_err(|error| match error {
            rustix::io::Errno::NOTTY | rustix::io::Errno::OPNOTSUPP => {
                PowerError::NotOffered { device, errno: errno(error) }
            }
            rustix::io::Errno::INVAL => PowerError::Already { device, asleep },
            error => PowerError::Kernel { device, errno: errno(error) },
        })
    }
}
