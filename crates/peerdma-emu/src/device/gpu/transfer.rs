//! Bytes from place to place, a piece at a time.

use super::command::{Place, Status};
use crate::device::bus::{Bus, How};
use crate::device::reach::{NoWay, Way, carry, reach};
use crate::memory::{Memory, Outside, copy};
use crate::wire::Failure;
use peerdma::addr::{BusAddr, Bytes};

/// The most that one step moves, so that others get their turn.
pub(super) const STEP: u64 = 1 << 20;
/// Bytes of a pattern that are made up at a time.
const BUFFER: u64 = 0x1_0000;

/// Why bytes did not move.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stop {
    pub(super) status: Status,
    pub(super) failure: Option<Failure>,
}

impl From<Status> for Stop {
    fn from(status: Status) -> Self {
        Self { status, failure: None }
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self { status: Status::Request, failure: Some(failure) }
    }
}

impl From<NoWay> for Stop {
    fn from(no_way: NoWay) -> Self {
        match no_way {
            NoWay::NotMapped => Status::NotMapped.into(),
            NoWay::Failed(failure) => failure.into(),
        }
    }
}

impl From<Outside> for Stop {
    fn from(_: Outside) -> Self {
        Status::OutsideVram.into()
    }
}

/// Moves bytes for one command.
pub(super) struct Transfer<'a> {
    pub(super) bus: &'a mut dyn Bus,
    pub(super) vram: &'a dyn Memory,
    pub(super) how: How,
    /// Asks for translations first.
    pub(super) translate: bool,
}

impl Transfer<'_> {
    /// How to reach an address, and how much of it in one go.
    fn way(&mut self, at: BusAddr, len: u64, write: bool) -> Result<Way, Stop> {
        match self.translate {
            true => Ok(reach(self.bus, self.how, at, len, write)?),
            false => Ok((self.how, at, len)),
        }
    }

    /// Copies up to `len` bytes, at least one of them where `len` is not zero; how many.
    pub(super) fn copy(&mut self, from: Place, to: Place, len: u64) -> Result<u64, Stop> {
        match (from, to) {
            (Place::Vram(from), Place::Vram(to)) => {
                copy((self.vram, from), (self.vram, to), Bytes::new(len))?;
                Ok(len)
            }
            (Place::Vram(from), Place::Bus(to)) => {
                let (how, to, len) = self.way(to, len, true)?;
                self.bus.send(how, (self.vram, from), to, Bytes::new(len))?;
                Ok(len)
            }
            (Place::Bus(from), Place::Vram(to)) => {
                let (how, from, len) = self.way(from, len, false)?;
                self.bus.fetch(how, from, (self.vram, to), Bytes::new(len))?;
                Ok(len)
            }
            (Place::Bus(from), Place::Bus(to)) => {
                let (reads, from, len) = self.way(from, len, false)?;
                let (writes, to, len) = self.way(to, len, true)?;
                Ok(carry(self.bus, (reads, from), (writes, to), len)?)
            }
        }
    }

    /// Writes up to `from.len()` bytes; how many.
    pub(super) fn write(&mut self, to: Place, from: &[u8]) -> Result<u64, Stop> {
        match to {
            Place::Vram(to) => {
                self.vram.write(to, from)?;
                Ok(from.len() as u64)
            }
            Place::Bus(to) => {
                let (how, to, len) = self.way(to, from.len() as u64, true)?;
                self.bus.write(how, to, &from[..len as usize])?;
                Ok(len)
            }
        }
    }

    /// Reads 8 bytes as a number.
    pub(super) fn number(&mut self, at: Place) -> Result<u64, Stop> {
        let mut bytes = [0; 8];
        match at {
            Place::Vram(at) => self.vram.read(at, &mut bytes)?,
            Place::Bus(at) => {
                let mut done = 0;
                while done < 8 {
                    let (how, at, len) = self.way(BusAddr::new(at.as_u64().wrapping_add(done)), 8 - done, false)?;
                    let end = done + len;
                    self.bus.read(how, at, &mut bytes[done as usize..end as usize])?;
                    done = end;
                }
            }
        }
        Ok(u64::from_le_bytes(bytes))
    }

    /// Fills up to `len` bytes, of which `done` came before; how many.
    pub(super) fn fill(&mut self, to: Place, len: u64, done: u64, pattern: u64) -> Result<u64, Stop> {
        let mut bytes = vec![0; len.min(BUFFER) as usize];
        let pattern = pattern.to_le_bytes();
        for (at, byte) in (done..).zip(bytes.iter_mut()) {
            *byte = pattern[(at % 8) as usize];
        }
        self.write(to, &bytes)
    }

    /// Adds to 8 bytes; what stood there.
    pub(super) fn add(&mut self, to: BusAddr, value: u64) -> Result<u64, Stop> {
        use crate::wire::{Atomic, Operand};
        let (how, to, len) = self.way(to, 8, true)?;
        if len < 8 {
            return Err(Status::Invalid.into());
        }
        Ok(self.bus.atomic(how, to, Atomic::FetchAdd(Operand::Double(value)))?)
    }
}
