//! A BAR in the CPU's reach, through resets and sleep.
//!
//! A mapping of a BAR outlives what is done to its device, and an access while the memory does not answer ends
//! the process with SIGBUS (Linux 7.2 `vfio_pci_mmap_huge_fault`). Every access through a window stands behind the device's
//! gate, which is shut before the memory goes and opened when it is back.

use super::super::bar::{AccessError, BarMapping, MapBarError};
use super::super::region::BarRange;
use super::exported::closed;
use super::{Function, Inner, SharedDevice, lock};
use crate::membarrier::CheapestFence;
use peerdma::addr::Bytes;
use peerdma::buffer::guard::Slot;
use peerdma::pcie::PciAddr;
use std::sync::{Arc, PoisonError, RwLock, Weak};

/// A window's mapping, `None` once the device is closed.
type Shared = Arc<RwLock<Option<BarMapping>>>;
pub(super) type WeakMapping = Weak<RwLock<Option<BarMapping>>>;

/// Pages of a BAR for one thread's CPU accesses, which are errors while the memory does not answer.
///
/// # What holding this tells you
/// Nothing keeps the memory there: whoever does something to the device waits for one access at most, and the next one
/// says [`WindowError::Away`]. When the memory is back accesses succeed again; what it holds then is another matter,
/// and [`generation`](Self::generation) tells that it was away.
pub struct CpuWindow<F: Function> {
    device: Arc<Inner<F>>,
    mapping: Shared,
    name: String,
    /// `None` while no generation was open yet.
    slot: Option<Slot<CheapestFence>>,
}

/// Why memory was not accessed; nothing was read or written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WindowError {
    /// The memory does not answer: its device is being reset, asleep, or switched off. Try again when it is back.
    #[error("memory of {device} does not answer now; try again when its decoding is on and it is awake")]
    Away {
        /// The function.
        device: PciAddr,
    },
    /// The device is closed or gone; drop the window.
    #[error("{device} is closed; its memory is gone for good")]
    Closed {
        /// The function.
        device: PciAddr,
    },
    /// The access lies outside, or is not aligned.
    #[error(transparent)]
    Outside(#[from] AccessError),
}

impl<F: Function> SharedDevice<F> {
    /// Maps the pages of a BAR that hold `range` for CPU accesses; `name` is what those call it who wait for one.
    ///
    /// The memory need not answer for that.
    ///
    /// # Errors
    /// As [`VfioDevice::map`](super::super::VfioDevice::map); ENODEV once the device is closed.
    pub fn window(&self, name: &str, range: BarRange) -> Result<CpuWindow<F>, MapBarError> {
        let mapped = self.with(|function| {
            let mapping = Arc::new(RwLock::new(Some(function.map(range)?)));
            let mut windows = lock(&self.0.windows);
            windows.retain(|window| window.strong_count() > 0);
            // Before the function is given back, so that whoever closes the device finds it.
            windows.push(Arc::downgrade(&mapping));
            Ok(mapping)
        });
        let mapping = mapped.ok_or_else(|| closed(self.address(), range))??;
        Ok(CpuWindow { device: self.0.clone(), mapping, name: name.into(), slot: None })
    }
}

impl<F: Function> CpuWindow<F> {
    /// What is mapped: whole pages; `None` once the device is closed.
    pub fn window(&self) -> Option<BarRange> {
        self.mapping.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(BarMapping::window)
    }

    /// How often the memory was away before the last access that succeeded, counted from 1; `None` before the first.
    pub fn generation(&self) -> Option<u64> {
        self.slot.as_ref().map(|slot| slot.generation().number())
    }

    /// Copies bytes out of the BAR.
    ///
    /// # Errors
    /// [`WindowError`]; nothing was read.
    pub fn read(&mut self, offset: Bytes, into: &mut [u8]) -> Result<(), WindowError> {
        self.access(|mapping| mapping.read(offset, into))
    }

    /// Copies bytes into the BAR.
    ///
    /// # Errors
    /// [`WindowError`]; nothing was written.
    pub fn write(&mut self, offset: Bytes, from: &[u8]) -> Result<(), WindowError> {
        self.access(|mapping| mapping.write(offset, from))
    }

    /// Loads a 32-bit register.
    ///
    /// # Errors
    /// [`WindowError`].
    pub fn load_u32(&mut self, offset: Bytes) -> Result<u32, WindowError> {
        self.access(|mapping| mapping.load_u32(offset))
    }

    /// Stores a 32-bit register.
    ///
    /// # Errors
    /// [`WindowError`].
    pub fn store_u32(&mut self, offset: Bytes, value: u32) -> Result<(), WindowError> {
        self.access(|mapping| mapping.store_u32(offset, value))
    }

    /// Loads a 64-bit register in one access.
    ///
    /// # Errors
    /// [`WindowError`].
    pub fn load_u64(&mut self, offset: Bytes) -> Result<u64, WindowError> {
        self.access(|mapping| mapping.load_u64(offset))
    }

    /// Stores a 64-bit register in one access.
    ///
    /// # Errors
    /// [`WindowError`].
    pub fn store_u64(&mut self, offset: Bytes, value: u64) -> Result<(), WindowError> {
        self.access(|mapping| mapping.store_u64(offset, value))
    }

    fn access<R>(&mut self, what: impl FnOnce(&BarMapping) -> Result<R, AccessError>) -> Result<R, WindowError> {
        let device = self.device.address;
        // The lock is this window's own but for the moment in which the device is closed.
        let mapping = self.mapping.clone();
        let mapping = mapping.read().unwrap_or_else(PoisonError::into_inner);
        let mapping = mapping.as_ref().ok_or(WindowError::Closed { device })?;
        let is_shut = self.slot.as_mut().is_none_or(|slot| slot.enter().is_err());
        if is_shut {
            let opening = self.device.door.opening().ok_or(WindowError::Away { device })?;
            match &mut self.slot {
                // All slots of a window are of its device's one gate.
                Some(slot) => slot.renew(&opening).map_err(|_| WindowError::Away { device })?,
                none => *none = Some(opening.slot(&self.name)),
            }
        }
        let slot = self.slot.as_mut().ok_or(WindowError::Away { device })?;
        let _inside = slot.enter().map_err(|_| WindowError::Away { device })?;
        Ok(what(mapping)?)
    }
}

impl<F> Inner<F> {
    /// Takes the function from everybody, and unmaps all windows, each when nobody is inside; a mapping keeps its
    /// device open.
    pub(super) fn let_go_of_function(&self) {
        let function = self.function.write().unwrap_or_else(PoisonError::into_inner).take();
        // From here on no window is made.
        drop(function);
        for window in lock(&self.windows).drain(..).filter_map(|window| window.upgrade()) {
            *window.write().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }
}

impl<F: Function> std::fmt::Debug for CpuWindow<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CpuWindow").field("name", &self.name).field("window", &self.window()).finish_non_exhaustive()
    }
}
