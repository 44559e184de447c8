//! An address with its translation, for devices that ask before they send.

use crate::device::bus::{Bus, How};
use crate::wire::{AddressType, Failure};
use peerdma::addr::{BusAddr, Bytes};

/// Bytes that go through a buffer at a time.
const BUFFER: u64 = 0x1_0000;

/// How to send a request, to which address, and for how many bytes at most.
pub(super) type Way = (How, BusAddr, u64);

/// Why there is no way to an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NoWay {
    /// Nothing is mapped there, or not for this.
    NotMapped,
    /// Nobody could be asked.
    Failed(Failure),
}

/// Asks where up to `len` bytes at `at` lead; an answer is for one byte at least, where `len` is.
///
/// The address is the machine's then, and a request to it names no PASID and no privilege: a
/// function does so only where its ATS capability says that it may (PCIe 6.0 §10.5.1).
pub(super) fn translated(bus: &mut dyn Bus, how: How, at: BusAddr, len: u64, write: bool) -> Result<Way, NoWay> {
    let found = bus.translate(how, at, write).map_err(NoWay::Failed)?;
    let found = found.filter(|found| (found.write || !write) && found.len > Bytes::ZERO).ok_or(NoWay::NotMapped)?;
    let how = How { pasid: None, privileged: false, at: AddressType::Translated, ..how };
    Ok((how, found.to, len.min(found.len.as_u64())))
}

/// The same for a function that sends untranslated where it cannot ask.
pub(super) fn reach(bus: &mut dyn Bus, how: How, at: BusAddr, len: u64, write: bool) -> Result<Way, NoWay> {
    match translated(bus, how, at, len, write) {
        Err(NoWay::Failed(Failure::NotSent | Failure::UnsupportedRequest)) => Ok((how, at, len)),
        asked => asked,
    }
}

/// Copies up to `len` bytes between two addresses that were reached, at least one; how many.
///
/// Where one of the two was translated and the other was not, the bytes go through a buffer.
pub(super) fn carry(
    bus: &mut dyn Bus,
    (reads, from): (How, BusAddr),
    (writes, to): (How, BusAddr),
    len: u64,
) -> Result<u64, Failure> {
    if reads == writes {
        bus.copy(reads, from, to, Bytes::new(len))?;
        return Ok(len);
    }
    let len = len.min(BUFFER);
    let mut buffer = vec![0; len as usize];
    bus.read(reads, from, &mut buffer)?;
    bus.write(writes, to, &buffer)?;
    Ok(len)
}
