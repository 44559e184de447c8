//! Slots of rings, as bytes.

use crate::device::bus::{Bus, How};
use crate::wire::Failure;
use peerdma::addr::{BusAddr, Bytes};

/// Bytes of a command.
pub(in crate::device) const COMMAND: u64 = 64;
/// Bytes of a completion.
pub(in crate::device) const COMPLETION: u64 = 32;

/// The bytes of a command; numbers in it are little-endian.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::device) struct Command(pub(in crate::device) [u8; COMMAND as usize]);

impl Command {
    /// All zeros.
    pub(in crate::device) const ZERO: Self = Self([0; COMMAND as usize]);

    /// The four bytes at `AT`.
    pub(in crate::device) fn word<const AT: usize>(&self) -> u32 {
        (AT..AT + 4).rev().fold(0, |value, at| value << 8 | u32::from(self.0[at]))
    }

    /// The eight bytes at `AT`.
    pub(in crate::device) fn double<const AT: usize>(&self) -> u64 {
        (AT..AT + 8).rev().fold(0, |value, at| value << 8 | u64::from(self.0[at]))
    }

    /// With four bytes at `AT`.
    #[must_use]
    pub(in crate::device) fn with_word<const AT: usize>(mut self, value: u32) -> Self {
        self.0[AT..AT + 4].copy_from_slice(&value.to_le_bytes());
        self
    }

    /// With eight bytes at `AT`.
    #[must_use]
    pub(in crate::device) fn with_double<const AT: usize>(mut self, value: u64) -> Self {
        self.0[AT..AT + 8].copy_from_slice(&value.to_le_bytes());
        self
    }
}

/// What became of a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(in crate::device) struct Completion {
    /// A result; what it is depends on the command.
    pub(in crate::device) value: u64,
    /// The command's tag.
    pub(in crate::device) tag: u64,
    /// Zero where it was done.
    pub(in crate::device) status: u32,
    /// More about the status.
    pub(in crate::device) detail: u32,
}

impl Completion {
    /// Reads a slot; `None` while it does not hold the completion of this number.
    pub(in crate::device) fn decode(slot: [u8; COMPLETION as usize], number: u64) -> Option<Self> {
        let word = |at: usize, len: usize| {
            slot[at..at + len].iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte))
        };
        (word(24, 8) == number).then(|| Self {
            value: word(0, 8),
            tag: word(8, 8),
            status: word(16, 4) as u32,
            detail: word(20, 4) as u32,
        })
    }

    /// Writes it into its slot as the completion of this number, the number last.
    pub(in crate::device) fn post(
        self,
        bus: &mut dyn Bus,
        how: How,
        slot: BusAddr,
        number: u64,
    ) -> Result<(), Failure> {
        let mut body = [0; 24];
        body[..8].copy_from_slice(&self.value.to_le_bytes());
        body[8..16].copy_from_slice(&self.tag.to_le_bytes());
        body[16..20].copy_from_slice(&self.status.to_le_bytes());
        body[20..].copy_from_slice(&self.detail.to_le_bytes());
        bus.write(how, slot, &body)?;
        bus.write(how, BusAddr::new(slot.as_u64().wrapping_add(24)), &number.to_le_bytes())
    }
}

/// Where the slots of a ring are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::device) struct Ring {
    base: BusAddr,
    log2: u32,
    slot: u64,
}

impl Ring {
    /// A ring of `2^log2` slots; `None` for more than 4096, or where its base is no multiple of a
    /// slot or its end is past the last address.
    pub(in crate::device) fn new(base: BusAddr, log2: u64, slot: u64) -> Option<Self> {
        let log2 = u32::try_from(log2).ok().filter(|log2| *log2 <= 12)?;
        let aligned = base.as_u64().is_multiple_of(slot);
        base.checked_add(Bytes::new((slot << log2) - 1)).filter(|_| aligned)?;
        Some(Self { base, log2, slot })
    }

    /// How many slots there are.
    pub(in crate::device) fn slots(self) -> u32 {
        1 << self.log2
    }

    /// The slot of the entry of this number, of which the first has number 0.
    pub(in crate::device) fn slot(self, number: u64) -> BusAddr {
        let index = number & (u64::from(self.slots()) - 1);
        BusAddr::new(self.base.as_u64() + index * self.slot)
    }
}

/// A failure as a number in a completion; zero is none.
pub(in crate::device) fn failure_code(failure: Option<Failure>) -> u32 {
    match failure {
        None => 0,
        Some(Failure::UnsupportedRequest) => 1,
        Some(Failure::CompleterAbort) => 2,
        Some(Failure::Timeout) => 3,
        Some(Failure::Poisoned) => 4,
        Some(Failure::NotSent) => 5,
    }
}

/// The failure of a number; none for zero and for numbers without meaning.
pub(in crate::device) fn failure(code: u32) -> Option<Failure> {
    Some(match code {
        1 => Failure::UnsupportedRequest,
        2 => Failure::CompleterAbort,
        3 => Failure::Timeout,
        4 => Failure::Poisoned,
        5 => Failure::NotSent,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_that_is_too_large_or_crooked_or_past_the_end_is_none() {
        assert!(Ring::new(BusAddr::new(0x1000), 13, COMMAND).is_none());
        assert!(Ring::new(BusAddr::new(0x1000), u64::MAX, COMMAND).is_none());
        assert!(Ring::new(BusAddr::new(0x1010), 4, COMMAND).is_none());
        assert!(Ring::new(BusAddr::new(u64::MAX - 63), 1, COMMAND).is_none());
        assert!(Ring::new(BusAddr::new(u64::MAX - 63), 0, COMMAND).is_some());
    }

    #[test]
    fn numbers_go_round_the_ring() {
        let ring = Ring::new(BusAddr::new(0x1000), 2, COMMAND).unwrap();
        assert_eq!((ring.slot(3), ring.slot(4)), (BusAddr::new(0x10c0), BusAddr::new(0x1000)));
    }

    #[test]
    fn every_failure_comes_back_from_its_number() {
        for code in 0..7 {
            assert_eq!(failure_code(failure(code)), if code < 6 { code } else { 0 });
        }
    }
}
