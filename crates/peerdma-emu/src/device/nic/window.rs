//! Bytes of a region that may be accessed.

use super::payload::Loan;
use super::region::{Key, Missing, Region};
use crate::device::bus::{Agent, Bus, How};
use crate::memory::Memory;
use crate::wire::Failure;
use peerdma::addr::{BusAddr, Bytes};

/// Bytes of a region that may be accessed, once [`missing`](Self::missing) has said that they are all there.
///
/// No bytes are in no region.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window<'a> {
    region: Option<(Key, &'a Region)>,
    at: u64,
    len: u64,
}

impl<'a> Window<'a> {
    pub(super) fn new(key: Key, region: &'a Region, at: u64, len: u64) -> Self {
        Self { region: Some((key, region)), at, len }
    }

    /// No bytes at all.
    pub(super) const EMPTY: Self = Self { region: None, at: 0, len: 0 };

    /// The first of its bytes that have no page, or none that may be written, up to the next that have.
    pub(super) fn missing(self, write: bool) -> Option<Missing> {
        let (key, region) = self.region?;
        region.missing(key, self.at, self.len, write)
    }

    /// Goes through the pieces with `done` bytes before each.
    pub(super) fn each<E>(self, mut act: impl FnMut(How, BusAddr, u64, u64) -> Result<(), E>) -> Result<(), E> {
        let Some((_, region)) = self.region else { return Ok(()) };
        let mut done = 0;
        while done < self.len {
            let (at, run) = region.piece(self.at + done, self.len - done);
            act(region.how(), at, done, run)?;
            done += run;
        }
        Ok(())
    }

    /// Reads all of it into a buffer, from its start.
    pub(super) fn fetch(self, bus: &mut dyn Bus, into: (&dyn Memory, Bytes)) -> Result<(), Failure> {
        let (memory, start) = into;
        self.each(|how, at, done, run| {
            // Reads keep their order with the writes before them; the hint is for writes.
            let how = How { attributes: Default::default(), ..how };
            bus.fetch(how, at, (memory, Bytes::new(start.as_u64() + done)), Bytes::new(run))
        })
    }

    /// All of it, for another adapter to relay; `None` if that is nothing.
    pub(super) fn lend(self, lender: Agent) -> Option<Loan> {
        let (key, region) = self.region?;
        let mut pieces = Vec::new();
        let all: Result<(), std::convert::Infallible> = self.each(|_, at, _, run| {
            pieces.push((at, run));
            Ok(())
        });
        match all {
            Ok(()) => {
                let range = (self.at, self.at + (self.len - 1));
                Some(Loan { lender, key, range, taken: region.taken, pieces })
            }
        }
    }

    /// Writes a number's 8 bytes.
    pub(super) fn put(self, bus: &mut dyn Bus, value: u64) -> Result<(), Failure> {
        let bytes = value.to_le_bytes();
        self.each(|how, at, done, run| {
            bus.write(how, at, bytes.get(done as usize..(done + run) as usize).unwrap_or(&[]))
        })
    }

    /// Where it begins.
    pub(super) fn start(self) -> Option<BusAddr> {
        Some(self.region?.1.piece(self.at, self.len).0)
    }
}
