//! What can be done to a function, by whoever drives it.

use super::super::bar::{BarMapping, MapBarError};
use super::super::config::ConfigError;
use super::super::device::{ResetError, VfioDevice};
use super::super::export::ExportError;
use super::super::function_reset::FunctionResetError;
use super::super::hot_reset::{HotResetError, ShownGroup};
use super::super::power::PowerError;
use super::super::region::{BarIndex, BarRange};
use peerdma::addr::Bytes;
use peerdma::pcie::PciAddr;
use peerdma::pcie::config::ConfigBytes;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

/// A function whose memory can be shared: a [`VfioDevice`], or another program's own wrapper of one.
///
/// Methods do what [`VfioDevice`]'s of the same names do, and nothing besides: [`SharedDevice`](super::SharedDevice) calls
/// them when nobody reaches the memory.
pub trait Function: Send + Sync + 'static {
    /// Its address.
    fn address(&self) -> PciAddr;
    /// How long its BARs are; zero where there is none.
    fn bars(&self) -> [Bytes; 6];
    /// The first 256 bytes of config space, as they are now.
    ///
    /// # Errors
    /// [`ConfigError`].
    fn config_space(&self) -> Result<ConfigBytes, ConfigError>;
    /// Writes config space.
    ///
    /// # Errors
    /// [`ConfigError`].
    fn write_config(&self, offset: u16, from: &[u8]) -> Result<(), ConfigError>;
    /// Resets it, whichever way.
    ///
    /// # Errors
    /// [`ResetError`].
    fn reset(&self) -> Result<(), ResetError>;
    /// Resets it by its own registers.
    ///
    /// # Errors
    /// [`FunctionResetError`].
    fn function_reset(&self) -> Result<(), FunctionResetError>;
    /// Resets it and its neighbours.
    ///
    /// # Errors
    /// [`HotResetError`].
    fn hot_reset(&self, groups: &[ShownGroup<'_>]) -> Result<(), HotResetError>;
    /// Lets it sleep.
    ///
    /// # Errors
    /// [`PowerError`].
    fn enter_low_power(&self, wakeup: Option<BorrowedFd<'_>>) -> Result<(), PowerError>;
    /// Wakes it.
    ///
    /// # Errors
    /// [`PowerError`].
    fn exit_low_power(&self) -> Result<(), PowerError>;
    /// Maps pages of a BAR for the CPU.
    ///
    /// # Errors
    /// [`MapBarError`].
    fn map(&self, range: BarRange) -> Result<BarMapping, MapBarError>;
    /// Exports pages of a BAR as a dma-buf.
    ///
    /// # Errors
    /// [`ExportError`].
    fn export(&self, range: BarRange) -> Result<Arc<OwnedFd>, ExportError>;
}

impl Function for VfioDevice {
    fn address(&self) -> PciAddr {
        self.address()
    }

    fn bars(&self) -> [Bytes; 6] {
        let mut sizes = [Bytes::ZERO; 6];
        for (size, bar) in sizes.iter_mut().zip(BarIndex::all()) {
            *size = self.bar(bar).map_or(Bytes::ZERO, |bar| bar.size);
        }
        sizes
    }

    fn config_space(&self) -> Result<ConfigBytes, ConfigError> {
        self.config_space()
    }

    fn write_config(&self, offset: u16, from: &[u8]) -> Result<(), ConfigError> {
        self.write_config(offset, from)
    }

    fn reset(&self) -> Result<(), ResetError> {
        self.reset()
    }

    fn function_reset(&self) -> Result<(), FunctionResetError> {
        self.function_reset()
    }

    fn hot_reset(&self, groups: &[ShownGroup<'_>]) -> Result<(), HotResetError> {
        self.hot_reset(groups)
    }

    fn enter_low_power(&self, wakeup: Option<BorrowedFd<'_>>) -> Result<(), PowerError> {
        self.enter_low_power(wakeup)
    }

    fn exit_low_power(&self) -> Result<(), PowerError> {
        self.exit_low_power()
    }

    fn map(&self, range: BarRange) -> Result<BarMapping, MapBarError> {
        self.map(range)
    }

    fn export(&self, range: BarRange) -> Result<Arc<OwnedFd>, ExportError> {
        self.export(range)
    }
}
