//! Reset of one function by its own registers, where it has them.
//!
//! [`VfioDevice::reset`] takes whatever way the kernel prefers, which may be its bus's. This one is function-level
//! reset (PCIe 6.0 §6.6.2) or nothing. VFIO catches the write that starts it and has the kernel do it
//! (Linux 7.2 `vfio_exp_config_write`, `vfio_af_config_write`), so that nobody waits here for a device that does not answer.

use super::config::ConfigError;
use super::device::VfioDevice;
use peerdma::pcie::PciAddr;
use peerdma::pcie::caps::{self, Lookup, standard};
use peerdma::pcie::config::{ConfigBytes, ConfigSize, ConfigSpace};

/// Why a function was not reset by its own registers.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FunctionResetError {
    /// It has no function-level reset; use [`VfioDevice::reset`] or a hot reset.
    #[error("{device} has no function-level reset, neither by PCI Express nor by Advanced Features")]
    Absent {
        /// The function.
        device: PciAddr,
    },
    /// Config space does not answer.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// Where the bit stands that starts the reset, and what to write there: offset, and one or two bytes.
pub(super) fn starts_at(config: &impl ConfigSpace) -> Option<(u16, [u8; 2], usize)> {
    let list = caps::standard_list(config);
    if let Lookup::At(at) = list.find(standard::EXPRESS)
        && config.byte(at + 7)? & 1 << 4 != 0
    {
        // Device control, bit 15 (PCIe 6.0 §7.5.3.4); its other bits stay.
        let control = config.word(at + 8)? | 1 << 15;
        return Some((at + 8, control.to_le_bytes(), 2));
    }
    match list.find(standard::ADVANCED_FEATURES) {
        Lookup::At(at) if config.byte(at + 3)? & 1 << 1 != 0 => Some((at + 4, [1, 0], 1)),
        _ => None,
    }
}

impl VfioDevice {
    /// Reads the first 256 bytes of config space as they are now; one system call.
    ///
    /// # Errors
    /// As [`read_config`](Self::read_config).
    pub fn config_space(&self) -> Result<ConfigBytes, ConfigError> {
        let mut bytes = vec![0; 256];
        self.read_config(0, &mut bytes)?;
        // No PCI function has more than 4096 bytes.
        let size = u16::try_from(self.config_region().size.as_u64()).unwrap_or(4096);
        Ok(ConfigBytes::new(bytes, ConfigSize::Kernel(size)))
    }

    /// Whether it has a function-level reset.
    ///
    /// # Errors
    /// As [`read_config`](Self::read_config).
    pub fn has_function_reset(&self) -> Result<bool, ConfigError> {
        Ok(starts_at(&self.config_space()?).is_some())
    }

    /// Resets the function by its own registers, and no other way.
    ///
    /// Blocks for 100 ms at least. Afterwards it is as after [`reset`](Self::reset).
    ///
    /// # Errors
    /// [`FunctionResetError::Absent`] before anything is written.
    pub fn function_reset(&self) -> Result<(), FunctionResetError> {
        let device = self.address();
        let (at, bytes, len) = starts_at(&self.config_space()?).ok_or(FunctionResetError::Absent { device })?;
        Ok(self.write_config(at, &bytes[..len])?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(capability: &[u8]) -> ConfigBytes {
        let mut bytes = vec![0; 256];
        bytes[0x06] = 0x10;
        bytes[0x34] = 0x40;
        bytes[0x40..0x40 + capability.len()].copy_from_slice(capability);
        ConfigBytes::new(bytes, ConfigSize::Kernel(256))
    }

    #[test]
    fn the_bit_is_found_in_either_capability_and_leaves_the_others_alone() {
        let express = with(&[0x10, 0, 2, 0, 0, 0, 0, 0x10, 0x34, 0x12]);
        assert_eq!(starts_at(&express), Some((0x48, [0x34, 0x92], 2)));
        assert_eq!(starts_at(&with(&[0x10, 0, 2, 0, 0, 0, 0, 0x00, 0x34, 0x12])), None);
        assert_eq!(starts_at(&with(&[0x13, 0, 6, 0x03, 0, 0])), Some((0x44, [1, 0], 1)));
        assert_eq!(starts_at(&with(&[0x13, 0, 6, 0x01, 0, 0])), None);
        assert_eq!(starts_at(&with(&[])), None);
    }
}
