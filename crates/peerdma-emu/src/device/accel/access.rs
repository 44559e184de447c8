//! Accesses that may find that a page is not there.
//!
//! Each asks for the translation of what it touches, every time: what is remembered of
//! translations is the bus's, which forgets it when told to. One that stops has to be repeated
//! from its beginning.

use crate::device::bus::{Bus, How};
use crate::device::reach::{NoWay, Way, carry, reach};
use crate::wire::Failure;
use peerdma::addr::BusAddr;

/// Why an access did not happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stop {
    /// There is no page, or not for this.
    NoPage {
        at: BusAddr,
        write: bool,
    },
    Failed(Failure),
}

/// `by` bytes on; past the last address it begins again at zero.
pub(super) fn plus(at: BusAddr, by: u64) -> BusAddr {
    BusAddr::new(at.as_u64().wrapping_add(by))
}

/// How to reach up to `len` bytes.
pub(super) fn way(bus: &mut dyn Bus, how: How, at: BusAddr, len: u64, write: bool) -> Result<Way, Stop> {
    reach(bus, how, at, len, write).map_err(|no_way| match no_way {
        NoWay::NotMapped => Stop::NoPage { at, write },
        NoWay::Failed(failure) => Stop::Failed(failure),
    })
}

/// Reads bytes.
pub(super) fn read(bus: &mut dyn Bus, how: How, at: BusAddr, into: &mut [u8]) -> Result<(), Stop> {
    let mut done = 0;
    while done < into.len() {
        let left = (into.len() - done) as u64;
        let (how, from, len) = way(bus, how, plus(at, done as u64), left, false)?;
        let end = done + len as usize;
        bus.read(how, from, &mut into[done..end]).map_err(Stop::Failed)?;
        done = end;
    }
    Ok(())
}

/// Writes bytes, after all of their translations are known.
pub(super) fn write(bus: &mut dyn Bus, how: How, at: BusAddr, from: &[u8]) -> Result<(), Stop> {
    for dry in [true, false] {
        let mut done = 0;
        while done < from.len() {
            let left = (from.len() - done) as u64;
            let (how, to, len) = way(bus, how, plus(at, done as u64), left, true)?;
            let end = done + len as usize;
            if !dry {
                bus.write(how, to, &from[done..end]).map_err(Stop::Failed)?;
            }
            done = end;
        }
    }
    Ok(())
}

/// Copies up to `len` bytes, at least one; how many.
pub(super) fn copy(bus: &mut dyn Bus, how: How, from: BusAddr, to: BusAddr, len: u64) -> Result<u64, Stop> {
    let (reads, from, len) = way(bus, how, from, len, false)?;
    let (writes, to, len) = way(bus, how, to, len, true)?;
    carry(bus, (reads, from), (writes, to), len).map_err(Stop::Failed)
}
