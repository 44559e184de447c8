//! What the code of a driver has of its device: registers, memory that both see, and time.
//!
//! Each device comes with a driver that speaks its registers from the CPU's side. It needs no
//! machine around it, only these two.

use crate::memory::{Memory, Outside};
use peerdma::addr::{BusAddr, Bytes};
use std::sync::Arc;

/// The CPU's way to the BARs of one device.
pub trait Mmio {
    /// Loads `len` bytes, 1 to 8, as a little-endian number. What a CPU gets where nothing
    /// answers is all ones.
    fn load(&self, bar: u8, offset: Bytes, len: u8) -> u64;

    /// Stores the lower `len` bytes of a number.
    fn store(&self, bar: u8, offset: Bytes, value: u64, len: u8);

    /// Lets the machine go on for a moment; `false` if nothing in it had anything to do.
    ///
    /// Drivers wait with this, so that a wait for what never comes ends.
    fn pause(&self) -> bool;
}

/// Memory that a CPU and a device both reach, each by its own address.
#[derive(Clone, Debug)]
pub struct Shared {
    memory: Arc<dyn Memory>,
    offset: Bytes,
    len: Bytes,
    device: BusAddr,
}

impl Shared {
    /// `len` bytes of `memory` from `offset`, which the device reaches at `device`.
    ///
    /// # Errors
    /// [`Outside`] where the memory has no such bytes.
    pub fn new(memory: Arc<dyn Memory>, offset: Bytes, len: Bytes, device: BusAddr) -> Result<Self, Outside> {
        let fits = usize::try_from(len.as_u64()).unwrap_or(usize::MAX);
        Outside::check(offset, fits, memory.len())?;
        Ok(Self { memory, offset, len, device })
    }

    /// As [`new`](Self::new), of bytes that the memory is known to have.
    pub(crate) fn inside(memory: Arc<dyn Memory>, offset: Bytes, len: Bytes, device: BusAddr) -> Self {
        Self { memory, offset, len, device }
    }

    /// The address for the device.
    pub fn device(&self) -> BusAddr {
        self.device
    }

    /// The address for the device of the byte at `at`.
    pub fn device_at(&self, at: Bytes) -> BusAddr {
        BusAddr::new(self.device.as_u64().wrapping_add(at.as_u64()))
    }

    /// How long it is.
    pub fn len(&self) -> Bytes {
        self.len
    }

    /// Whether it is nothing.
    pub fn is_empty(&self) -> bool {
        self.len == Bytes::ZERO
    }

    fn at(&self, at: Bytes, len: usize) -> Result<Bytes, Outside> {
        Outside::check(at, len, self.len)?;
        Ok(Bytes::new(self.offset.as_u64() + at.as_u64()))
    }

    /// Reads as the CPU.
    ///
    /// # Errors
    /// [`Outside`] where it does not have all of the bytes.
    pub fn read(&self, at: Bytes, into: &mut [u8]) -> Result<(), Outside> {
        self.memory.read(self.at(at, into.len())?, into)
    }

    /// Writes as the CPU.
    ///
    /// # Errors
    /// [`Outside`] where it does not have all of the bytes.
    pub fn write(&self, at: Bytes, from: &[u8]) -> Result<(), Outside> {
        self.memory.write(self.at(at, from.len())?, from)
    }

    /// A part of it.
    ///
    /// # Errors
    /// [`Outside`] where it does not have all of the bytes.
    pub fn slice(&self, at: Bytes, len: Bytes) -> Result<Self, Outside> {
        let fits = usize::try_from(len.as_u64()).unwrap_or(usize::MAX);
        let offset = self.at(at, fits)?;
        Ok(Self { memory: self.memory.clone(), offset, len, device: self.device_at(at) })
    }
}
