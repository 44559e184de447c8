//! What a guest's write to configuration space is about to do to a device's memory.
//!
//! A kernel revokes what VFIO exported when a guest turns memory decoding off, puts the function into D3 or
//! resets it (Linux 7.2 `vfio_pci_config.c`), and tells nobody in user space. So whoever passes guests' writes
//! on asks first, [announces](Change::begins) what comes, waits, writes, and says with the
//! [registers' answers](Target::answers) that it is [done](Change::ends).
//!
//! Registers that are not read are not guessed: what they would decide is [`Change::Unknown`].
//!
//! ```
//! use peerdma::buffer::config_write::{Change, ConfigWrite, Target};
//! use peerdma::buffer::life::Disturbance;
//! use peerdma::pcie::config::{ConfigBytes, ConfigSize};
//!
//! # fn main() -> Result<(), peerdma::buffer::config_write::NotAWrite> {
//! let mut bytes = vec![0; 256];
//! bytes[0x04] = 0x06; // Memory decoding and bus mastering are on.
//! let config = ConfigBytes::new(bytes, ConfigSize::Kernel(256));
//! let target = Target::physical(&config);
//!
//! let write = ConfigWrite::new(0x04, &[0x04])?;
//! assert_eq!(write.classify(&target), [Change::DecodeOff]);
//! assert_eq!(Change::DecodeOff.begins(), Some(Disturbance::DecodeOff));
//! assert_eq!(ConfigWrite::new(0x04, &[0x02])?.classify(&target), []);
//! # Ok(())
//! # }
//! ```

use super::life::{Answers, Disturbance};
use crate::addr::{BusAddr, Bytes};
use crate::pcie::config::ConfigSpace;
use alloc::vec::Vec;
use core::fmt;

mod registers;
#[cfg(test)]
mod tests;

/// One write of one to four bytes, aligned or not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConfigWrite<'a> {
    offset: u16,
    bytes: &'a [u8],
}

/// What was given is no write to configuration space.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{length} bytes at {offset:#x} are no write to configuration space; write 1 to 4 bytes below 0x1000")]
pub struct NotAWrite {
    /// Offset in configuration space.
    pub offset: u16,
    /// How many bytes.
    pub length: usize,
}

/// The function that is written to, as it is before the write.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a, C> {
    /// Its registers, as whoever writes sees them.
    pub config: &'a C,
    /// Whether it is a virtual function, whose memory answers whatever its command register says
    /// (PCIe 6.0 §9.3.4.1.3; Linux 7.2 `__vfio_pci_memory_enabled`).
    pub is_virtual: bool,
    /// Sizes of its BARs, each at its first register; zero where there is none, `None` where it is not known.
    pub bars: [Option<Bytes>; 6],
    /// Size of its expansion ROM, likewise.
    pub rom: Option<Bytes>,
}

impl<'a, C: ConfigSpace> Target<'a, C> {
    /// A function that is not virtual, the sizes of whose BARs are not known.
    pub const fn physical(config: &'a C) -> Self {
        Self { config, is_virtual: false, bars: [None; 6], rom: None }
    }

    /// A virtual function, the sizes of whose BARs are not known.
    pub const fn virtual_function(config: &'a C) -> Self {
        Self { config, is_virtual: true, bars: [None; 6], rom: None }
    }

    /// Whether its memory answers, as its registers say; `None` where they are not read.
    ///
    /// Every state but D0 counts as one in which it does not (PCIe 6.0 §5.3.1); Linux counts D1 and D2 as answering.
    pub fn answers(&self) -> Option<Answers> {
        let decoding = if self.is_virtual { Some(true) } else { registers::decoding(self.config) };
        Some(Answers { decoding: decoding?, powered: registers::power(self.config)? == 0 })
    }

    /// Where the BAR with this first register lies, as its registers say, whether memory answers or not.
    ///
    /// `None` where they are not read, where its size is not known, and where it is no BAR of memory.
    pub fn address(&self, bar: u8) -> Option<BusAddr> {
        registers::address(self, bar).map(BusAddr::new)
    }
}

/// A register that holds where memory lies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Register {
    /// The BAR whose first register has this index, 0 to 5.
    Bar(u8),
    /// The expansion ROM's.
    Rom,
}

impl fmt::Display for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bar(index) => write!(f, "BAR {index}"),
            Self::Rom => f.write_str("the expansion ROM"),
        }
    }
}

/// What a write does to memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum Change {
    /// Memory decoding is turned off; of a bridge, for everything below it too.
    DecodeOff,
    /// Memory decoding is turned on.
    DecodeOn,
    /// The function leaves D0.
    PowerDown,
    /// The function returns to D0; it may have forgotten its registers, so read them.
    PowerUp,
    /// The function is reset, by its PCI Express or its Advanced Features capability.
    FunctionReset,
    /// Memory gets another bus address.
    ///
    /// Writing back an address after sizing is one too, though of memory that nobody can reach meanwhile.
    BarMove {
        /// By this register.
        register: Register,
        /// Where it was.
        from: BusAddr,
        /// Where it goes.
        to: BusAddr,
    },
    /// The bus below this bridge goes into reset, and all functions below with it.
    HotReset,
    /// The bus below this bridge leaves reset.
    HotResetOver,
    /// What this register decides may change; the bytes that would tell are not at hand.
    Unknown(Unread),
}

/// What bytes that are not at hand would tell.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Unread {
    /// Whether memory decoding changes.
    Decoding,
    /// Whether the function's power state changes.
    Power,
    /// Whether the function is reset.
    FunctionReset,
    /// Whether memory gets another address.
    Address(Register),
    /// What the header's registers are, which its type tells.
    Header,
    /// Whether the bus below is reset.
    BusReset,
}

impl Change {
    /// What to announce before writing. In doubt that is what it could be, since announcing too much harms nobody.
    pub const fn begins(self) -> Option<Disturbance> {
        Some(match self {
            Self::DecodeOff | Self::Unknown(Unread::Decoding) => Disturbance::DecodeOff,
            Self::PowerDown | Self::Unknown(Unread::Power) => Disturbance::PowerDown,
            Self::FunctionReset | Self::Unknown(Unread::FunctionReset) => Disturbance::FunctionReset,
            Self::BarMove { .. } | Self::Unknown(Unread::Address(_)) => Disturbance::BarMove,
            Self::HotReset | Self::Unknown(Unread::Header | Unread::BusReset) => Disturbance::HotReset,
            Self::DecodeOn | Self::PowerUp | Self::HotResetOver => return None,
        })
    }

    /// What to end after writing, with the registers' answers: what was announced for it, or what it puts an end to.
    ///
    /// A bus stays in reset until another write ends that.
    pub const fn ends(self) -> Option<Disturbance> {
        match self {
            Self::HotReset => None,
            Self::DecodeOn => Some(Disturbance::DecodeOff),
            Self::PowerUp => Some(Disturbance::PowerDown),
            Self::HotResetOver => Some(Disturbance::HotReset),
            other => other.begins(),
        }
    }
}

impl<'a> ConfigWrite<'a> {
    /// A write of these bytes, from `offset` on.
    ///
    /// # Errors
    /// [`NotAWrite`] for none or more than four bytes, or bytes past configuration space: refuse the guest's access.
    pub fn new(offset: u16, bytes: &'a [u8]) -> Result<Self, NotAWrite> {
        let fits = matches!(bytes.len(), 1..=4) && usize::from(offset) + bytes.len() <= 0x1000;
        if fits { Ok(Self { offset, bytes }) } else { Err(NotAWrite { offset, length: bytes.len() }) }
    }

    /// Where it begins.
    pub const fn offset(&self) -> u16 {
        self.offset
    }

    /// What it writes, 1 to 4 bytes.
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Tells what the write is about to do, in the order of the registers' kinds; nothing if it changes nothing.
    ///
    /// Windows of bridges and the memory enable of a device's virtual functions are not followed:
    /// they move nothing of the function that is written to.
    pub fn classify<C: ConfigSpace>(&self, target: &Target<'_, C>) -> Vec<Change> {
        let mut changes = Vec::new();
        self.decoding(target, &mut changes);
        self.power(target, &mut changes);
        self.function_reset(target, &mut changes);
        self.header(target, &mut changes);
        changes
    }
}
