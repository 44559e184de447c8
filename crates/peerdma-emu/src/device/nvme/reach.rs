//! How the controller reaches memory: over the bus, or within its own memory buffer.

use crate::device::{Bus, How};
use crate::memory::{Memory, copy};
use crate::wire::Failure;
use peerdma::addr::{BusAddr, Bytes};
use std::sync::Arc;

use super::status::Status;

/// A place in the memory buffer.
type Place = (Arc<dyn Memory>, Bytes);

/// Why memory was not reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Trouble {
    /// A request failed.
    Bus(Failure),
    /// Part of the range is in the memory buffer, and part is not.
    AcrossCmb,
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Bus(failure)
    }
}

impl From<Trouble> for Status {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Bus(_) => Self::DATA_TRANSFER_ERROR,
            Trouble::AcrossCmb => Self::INVALID_CMB_USE,
        }
    }
}

/// The memory buffer, where the controller's own requests are to find it.
#[derive(Clone, Debug)]
pub(super) struct Window {
    pub(super) memory: Arc<dyn Memory>,
    pub(super) base: BusAddr,
}

/// The bus, with the memory buffer in front of it.
pub(super) struct Reach<'a> {
    pub(super) bus: &'a mut dyn Bus,
    pub(super) how: How,
    pub(super) window: Option<Window>,
}

impl Reach<'_> {
    /// The place in the memory buffer, if the range is there.
    fn inside(&self, at: BusAddr, len: u64) -> Result<Option<Place>, Trouble> {
        let Some(window) = &self.window else { return Ok(None) };
        let (base, size) = (window.base.as_u64(), window.memory.len().as_u64());
        let Some(last) = at.as_u64().checked_add(len.saturating_sub(1)) else { return Ok(None) };
        let holds = |address: u64| address >= base && address - base < size;
        match (holds(at.as_u64()), holds(last)) {
            (true, true) => Ok(Some((window.memory.clone(), Bytes::new(at.as_u64() - base)))),
            (false, false) if at.as_u64() > base || last < base => Ok(None),
            _ => Err(Trouble::AcrossCmb),
        }
    }

    /// Reads bytes.
    pub(super) fn read(&mut self, at: BusAddr, into: &mut [u8]) -> Result<(), Trouble> {
        match self.inside(at, into.len() as u64)? {
            Some((memory, offset)) => memory.read(offset, into).map_err(|_| Trouble::AcrossCmb),
            None => Ok(self.bus.read(self.how, at, into)?),
        }
    }

    /// Writes bytes.
    pub(super) fn write(&mut self, at: BusAddr, from: &[u8]) -> Result<(), Trouble> {
        match self.inside(at, from.len() as u64)? {
            Some((memory, offset)) => memory.write(offset, from).map_err(|_| Trouble::AcrossCmb),
            None => Ok(self.bus.write(self.how, at, from)?),
        }
    }

    /// Reads into the medium.
    pub(super) fn fetch(&mut self, at: BusAddr, medium: (&dyn Memory, Bytes), len: u64) -> Result<(), Status> {
        match self.inside(at, len)? {
            Some((buffer, offset)) => {
                copy((&*buffer, offset), medium, Bytes::new(len)).map_err(|_| Status::WRITE_FAULT)
            }
            None => Ok(self.bus.fetch(self.how, at, medium, Bytes::new(len)).map_err(Trouble::Bus)?),
        }
    }

    /// Writes out of the medium.
    pub(super) fn send(&mut self, medium: (&dyn Memory, Bytes), at: BusAddr, len: u64) -> Result<(), Status> {
        match self.inside(at, len)? {
            Some((buffer, offset)) => copy(medium, (&*buffer, offset), Bytes::new(len)).map_err(|_| Status::READ_ERROR),
            None => Ok(self.bus.send(self.how, medium, at, Bytes::new(len)).map_err(Trouble::Bus)?),
        }
    }
}
