//! An address with its translation, for devices that ask before they send.

use crate::device::bus::{Bus, How};
use crate::wire::{AddressType, Failure};
use peerdma::addr::{BusAddr, Bytes};

/// Bytes that go through a buffer at a time.
const BUFFER: u64 = 0x1_0000;

/// What became of asking where an address leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::device) enum Reach {
    /// Send it so, at most so much.
    Way(How, BusAddr, u64),
    /// Nothing is mapped there, or not for this.
    NotMapped,
    /// Nobody could be asked.
    Failed(Failure),
}

/// Asks where up to `len` bytes at `at` lead; a function that cannot ask sends untranslated.
///
/// A translated request names no PASID: the translation already belongs to one (PCIe 6.0
/// §6.20.2.2 makes it optional to repeat it there).
pub(in crate::device) fn reach(bus: &mut dyn Bus, how: How, at: BusAddr, len: u64, write: bool) -> Reach {
    match bus.translate(how, at, write) {
        Ok(Some(found)) if (found.write || !write) && found.len != Bytes::ZERO => {
            let how = How { pasid: None, at: AddressType::Translated, ..how };
            Reach::Way(how, found.to, len.min(found.len.as_u64()))
        }
        Ok(_) => Reach::NotMapped,
        Err(Failure::NotSent | Failure::UnsupportedRequest) => Reach::Way(how, at, len),
        Err(failure) => Reach::Failed(failure),
    }
}

/// Copies up to `len` bytes between two addresses that were reached, at least one; how many.
///
/// Where one of the two was translated and the other was not, the bytes go through a buffer.
pub(in crate::device) fn carry(
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
