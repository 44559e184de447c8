//! Config space of an open device, as VFIO shows it.
//!
//! VFIO filters: BARs and MSI are its own, ACS and most of the PCIe capability are read
//! only (Linux 7.2 `vfio_pci_config.c`). The Command register is written through, and two
//! of its bits matter here: with [`Command::MEMORY`] off nobody reaches the BARs, and
//! VFIO clears [`Command::BUS_MASTER`] when it opens a device, so that it does no DMA before
//! its driver says so.
//!
//! Not here: what the registers mean; see [`peerdma::pcie`].

use super::device::VfioDevice;
use super::error::errno;
use peerdma::addr::Bytes;
use peerdma::dma::Errno;
use peerdma::pcie::{PciAddr, PciId};
use std::fmt;
use std::ops::BitOr;

/// Offset of the Command register (PCIe 6.0 §7.5.1.1.3).
const COMMAND: u16 = 0x04;

/// Bits of the Command register that a driver switches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Command(u16);

impl Command {
    /// The function answers at its memory BARs.
    pub const MEMORY: Self = Self(0x2);
    /// The function may send requests: DMA and message-signalled interrupts.
    pub const BUS_MASTER: Self = Self(0x4);

    /// The bits.
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// Whether all bits of `other` are set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Command {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#06x}", self.0)
    }
}

/// Why config space could not be read or written.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The bytes lie past config space; the function has no more.
    #[error("{device} has {size} of config space; offset {offset:#x} and {len} lie past it")]
    Outside {
        /// The function.
        device: PciAddr,
        /// Where the access starts.
        offset: u16,
        /// How long it is.
        len: Bytes,
        /// Its config space, 256 or 4096 bytes.
        size: Bytes,
    },
    /// The kernel moved fewer bytes than asked; the device may be gone.
    #[error("config space of {device} at {offset:#x} gave {moved} instead of {len}; the device may be gone")]
    Short {
        /// The function.
        device: PciAddr,
        /// Where the access starts.
        offset: u16,
        /// How long it is.
        len: Bytes,
        /// What was moved.
        moved: Bytes,
    },
    /// The Command register did not keep what was written.
    #[error("Command of {device} reads {found} after {wanted} was written; the device may be gone or asleep")]
    NotKept {
        /// The function.
        device: PciAddr,
        /// What was written.
        wanted: Command,
        /// What it reads now.
        found: Command,
    },
    /// The kernel refused.
    #[error("config space of {device} at {offset:#x}: {errno}")]
    Kernel {
        /// The function.
        device: PciAddr,
        /// Where the access starts.
        offset: u16,
        /// The kernel's answer.
        errno: Errno,
    },
}

impl VfioDevice {
    /// Reads config space from `offset` on; one system call.
    ///
    /// # Errors
    /// [`ConfigError::Outside`] past its end; [`ConfigError::Short`] and
    /// [`ConfigError::Kernel`] where the device does not answer.
    pub fn read_config(&self, offset: u16, into: &mut [u8]) -> Result<(), ConfigError> {
        let at = self.config_offset(offset, into.len())?;
        let len = into.len();
        let moved = rustix::io::pread(self.descriptor(), &mut *into, at);
        self.moved(offset, len, moved)
    }

    /// Writes config space from `offset` on; one system call.
    ///
    /// # Errors
    /// As [`read_config`](Self::read_config). That VFIO filters a write is no error to it;
    /// read back what matters.
    pub fn write_config(&self, offset: u16, from: &[u8]) -> Result<(), ConfigError> {
        let at = self.config_offset(offset, from.len())?;
        let moved = rustix::io::pwrite(self.descriptor(), from, at);
        self.moved(offset, from.len(), moved)
    }

    /// Reads vendor and device ID.
    ///
    /// # Errors
    /// As [`read_config`](Self::read_config).
    pub fn read_id(&self) -> Result<PciId, ConfigError> {
        let mut id = [0; 4];
        self.read_config(0, &mut id)?;
        Ok(PciId { vendor: u16::from_le_bytes([id[0], id[1]]), device: u16::from_le_bytes([id[2], id[3]]) })
    }

    /// Reads the Command register.
    ///
    /// # Errors
    /// As [`read_config`](Self::read_config).
    pub fn read_command(&self) -> Result<Command, ConfigError> {
        let mut word = [0; 2];
        self.read_config(COMMAND, &mut word)?;
        Ok(Command(u16::from_le_bytes(word)))
    }

    /// Sets bits of the Command register and reads it back.
    ///
    /// # Errors
    /// As [`read_config`](Self::read_config), and [`ConfigError::NotKept`] if one of the bits
    /// does not read as set.
    pub fn set_command(&self, bits: Command) -> Result<(), ConfigError> {
        self.change_command(|before| Command(before.0 | bits.0), |after| after.contains(bits))
    }

    /// Clears bits of the Command register and reads it back.
    ///
    /// Requests that the function has already sent are on their way all the same; the read
    /// pushes them out of it, but not to where they go.
    ///
    /// # Errors
    /// As [`set_command`](Self::set_command).
    pub fn clear_command(&self, bits: Command) -> Result<(), ConfigError> {
        self.change_command(|before| Command(before.0 & !bits.0), |after| after.0 & bits.0 == 0)
    }

    fn change_command(
        &self,
        change: impl FnOnce(Command) -> Command,
        kept: impl FnOnce(Command) -> bool,
    ) -> Result<(), ConfigError> {
        let wanted = change(self.read_command()?);
        self.write_config(COMMAND, &wanted.0.to_le_bytes())?;
        let found = self.read_command()?;
        if kept(found) { Ok(()) } else { Err(ConfigError::NotKept { device: self.address(), wanted, found }) }
    }

    /// Where `len` bytes of config space lie in the device's file.
    fn config_offset(&self, offset: u16, len: usize) -> Result<u64, ConfigError> {
        let region = self.config_region();
        let len = Bytes::new(len as u64);
        match Bytes::new(u64::from(offset)).checked_add(len) {
            // `Region::parse` checked that the region's end fits 64 bits.
            Some(end) if end <= region.size => Ok(region.file_offset + u64::from(offset)),
            _ => Err(ConfigError::Outside { device: self.address(), offset, len, size: region.size }),
        }
    }

    fn moved(&self, offset: u16, len: usize, moved: Result<usize, rustix::io::Errno>) -> Result<(), ConfigError> {
        let device = self.address();
        match moved {
            Ok(moved) if moved == len => Ok(()),
            Ok(moved) => {
                let (len, moved) = (Bytes::new(len as u64), Bytes::new(moved as u64));
                Err(ConfigError::Short { device, offset, len, moved })
            }
            Err(error) => Err(ConfigError::Kernel { device, offset, errno: errno(error) }),
        }
    }
}
