//! One job of the engine, as a state that each step advances by a piece.

use super::registers as reg;
use crate::device::reach::{NoWay, Way, translated};
use crate::device::{Bus, How, Registers};
use crate::wire::{AddressType, Atomic, Attributes, Failure, Operand, Pasid};
use peerdma::addr::{BusAddr, Bytes};

/// Bytes that one step copies at most.
const COPY_PIECE: u64 = 1 << 20;
/// Bytes that one step fills at most; they are made up in a buffer.
const FILL_PIECE: u64 = 64 << 10;

/// Why a job ended before it was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, thiserror::Error)]
pub enum Reason {
    /// A request failed.
    #[error(transparent)]
    Request(Failure),
    /// A translation request was answered that nothing is mapped there, or not for this.
    #[error("no translation that permits it")]
    NoTranslation,
    /// The command register holds no command.
    #[error("unknown command")]
    UnknownCommand,
}

impl From<NoWay> for Reason {
    fn from(no_way: NoWay) -> Self {
        match no_way {
            NoWay::NotMapped => Self::NoTranslation,
            NoWay::Failed(failure) => Self::Request(failure),
        }
    }
}

impl Reason {
    /// Every reason and its number in bits 15:8 of the status register.
    const CODES: [(Self, u64); 7] = [
        (Self::Request(Failure::UnsupportedRequest), 1),
        (Self::Request(Failure::CompleterAbort), 2),
        (Self::Request(Failure::Timeout), 3),
        (Self::Request(Failure::Poisoned), 4),
        (Self::Request(Failure::NotSent), 5),
        (Self::NoTranslation, 6),
        (Self::UnknownCommand, 7),
    ];

    /// The number in the status register.
    pub(super) fn code(self) -> u64 {
        Self::CODES.iter().find(|(reason, _)| *reason == self).map_or(0xff, |(_, code)| *code)
    }

    /// The reason of a number in the status register; `None` for numbers without meaning.
    pub(super) fn from_code(code: u64) -> Option<Self> {
        Self::CODES.iter().find(|(_, known)| *known == code).map(|(reason, _)| *reason)
    }
}

/// What a job does with its places.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    Copy,
    Fill,
    Atomic(Atomic),
    Nothing,
    Unknown,
}

/// A job, with what it has left to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job {
    what: What,
    how: How,
    translate: bool,
    source: BusAddr,
    destination: BusAddr,
    len: u64,
    moved: u64,
    value: u64,
    bell: Option<(BusAddr, Operand)>,
    read_back: bool,
    vector: Option<u16>,
}

impl Job {
    /// What stands in the registers when a command is seen.
    pub(super) fn from_registers(registers: &Registers, command: u64) -> Self {
        let control = registers.get(reg::CONTROL);
        let set = |bit: u64| control & bit != 0;
        let width = |value: u64| if set(reg::NARROW) { Operand::Word(value as u32) } else { Operand::Double(value) };
        let value = registers.get(reg::VALUE);
        let expected = width(registers.get(reg::EXPECTED));
        let (what, rings) = match command {
            reg::COPY => (What::Copy, false),
            reg::FILL => (What::Fill, false),
            reg::COPY_THEN_RING => (What::Copy, true),
            reg::RING => (What::Nothing, true),
            reg::FETCH_ADD => (What::Atomic(Atomic::FetchAdd(width(value))), false),
            reg::SWAP => (What::Atomic(Atomic::Swap(width(value))), false),
            reg::COMPARE_SWAP => (What::Atomic(Atomic::CompareSwap { expected, new: value }), false),
            _ => (What::Unknown, false),
        };
        let pasid = if set(reg::WITH_PASID) { Pasid::new((control & reg::PASID) as u32) } else { None };
        let at = if set(reg::TRANSLATED) { AddressType::Translated } else { AddressType::Untranslated };
        let attributes = Attributes { relaxed: set(reg::RELAXED), no_snoop: set(reg::NO_SNOOP), id_ordered: false };
        let privileged = set(reg::PRIVILEGED);
        Self {
            what,
            how: How { pasid, at, attributes, privileged, trusted: set(reg::TRUSTED) },
            translate: set(reg::TRANSLATE),
            source: BusAddr::new(registers.get(reg::SOURCE)),
            destination: BusAddr::new(registers.get(reg::DESTINATION)),
            len: if matches!(what, What::Copy | What::Fill) { registers.get(reg::LENGTH) } else { 0 },
            moved: 0,
            value,
            bell: rings.then(|| (BusAddr::new(registers.get(reg::BELL)), width(value))),
            read_back: set(reg::READ_BACK),
            vector: set(reg::INTERRUPT).then_some((control >> reg::VECTOR_SHIFT) as u16),
        }
    }

    /// How many bytes were moved so far.
    pub(super) fn moved(&self) -> Bytes {
        Bytes::new(self.moved)
    }

    /// The vector to interrupt with, if one is wanted.
    pub(super) fn vector(&self) -> Option<u16> {
        self.vector
    }

    /// Does a piece; the result once all is done, which only an AtomicOp has.
    pub(super) fn advance(&mut self, bus: &mut dyn Bus) -> Result<Option<u64>, Reason> {
        match self.what {
            What::Unknown => return Err(Reason::UnknownCommand),
            What::Atomic(atomic) => {
                let (how, at, _) = self.place(bus, self.destination, atomic.len().as_u64(), true)?;
                return bus.atomic(how, at, atomic).map(Some).map_err(Reason::Request);
            }
            What::Copy if self.moved < self.len => self.copy(bus)?,
            What::Fill if self.moved < self.len => self.fill(bus)?,
            What::Copy | What::Fill | What::Nothing => {}
        }
        if self.moved < self.len {
            return Ok(None);
        }
        if let Some((at, operand)) = self.bell {
            self.ring(bus, at, operand)?;
        }
        Ok(Some(0))
    }

    /// How and where to send a request for at most `len` bytes at `at`, and how many of them.
    fn place(&self, bus: &mut dyn Bus, at: BusAddr, len: u64, write: bool) -> Result<Way, Reason> {
        match self.translate {
            // Told to translate, it sends nothing untranslated.
            true => Ok(translated(bus, self.how, at, len, write)?),
            false => Ok((self.how, at, len)),
        }
    }

    /// The address so many bytes on from the start of a place, and how many are left from there.
    fn next(&self, start: BusAddr, most: u64) -> Result<(BusAddr, u64), Reason> {
        let len = (self.len - self.moved).min(most);
        let at = start.checked_add(Bytes::new(self.moved));
        // A range that runs past the last address is none that a request can name.
        let at = at.filter(|at| at.checked_add(Bytes::new(len - 1)).is_some());
        Ok((at.ok_or(Reason::Request(Failure::NotSent))?, len))
    }

    fn copy(&mut self, bus: &mut dyn Bus) -> Result<(), Reason> {
        let (from, len) = self.next(self.source, COPY_PIECE)?;
        let (to, _) = self.next(self.destination, COPY_PIECE)?;
        let (_, from, len) = self.place(bus, from, len, false)?;
        let (how, to, len) = self.place(bus, to, len, true)?;
        bus.copy(how, from, to, Bytes::new(len)).map_err(Reason::Request)?;
        self.moved += len;
        Ok(())
    }

    fn fill(&mut self, bus: &mut dyn Bus) -> Result<(), Reason> {
        let (to, len) = self.next(self.destination, FILL_PIECE)?;
        let (how, to, len) = self.place(bus, to, len, true)?;
        let pattern = self.value.to_le_bytes();
        let skip = (self.moved % 8) as usize;
        let bytes: Vec<u8> = pattern.iter().copied().cycle().skip(skip).take(len as usize).collect();
        bus.write(how, to, &bytes).map_err(Reason::Request)?;
        self.moved += len;
        Ok(())
    }

    fn ring(&self, bus: &mut dyn Bus, at: BusAddr, operand: Operand) -> Result<(), Reason> {
        let last = self.destination.checked_add(Bytes::new(self.len.saturating_sub(1)));
        if let (true, true, Some(last)) = (self.read_back, self.len > 0, last) {
            let (how, last, _) = self.place(bus, last, 1, false)?;
            bus.read(how, last, &mut [0]).map_err(Reason::Request)?;
        }
        let bytes = operand.value().to_le_bytes();
        let len = operand.len().as_u64();
        let mut done = 0;
        while done < len {
            // A bell that is not aligned may lie in two pages, each with a translation of its own.
            let here = at.checked_add(Bytes::new(done)).ok_or(Reason::Request(Failure::NotSent))?;
            let (how, to, some) = self.place(bus, here, len - done, true)?;
            bus.write(how, to, &bytes[done as usize..(done + some) as usize]).map_err(Reason::Request)?;
            done += some;
        }
        Ok(())
    }
}
