//! What a device met that was not let through, as a bounded record.
//!
//! As in the fault recording registers of VT-d (5.0 §7.2): the oldest records stay until
//! somebody takes them, and what does not fit beside them is only counted. A device in a
//! loop can therefore not push out the fault that began it, nor use up memory.
//!
//! The ring is a bounded queue for many writers and readers, one sequence number a cell, so
//! no thread that translates waits for another one.

use crate::access::Access;
use crate::addr::Iova;
use crate::iopt::NotTranslated;
use crate::sync::atomic::{AtomicU64, Ordering};
use alloc::boxed::Box;
use core::fmt;

/// Names a device to those who read fault records.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default)]
#[repr(transparent)]
pub struct InitiatorId(u32);

impl InitiatorId {
    /// The device of this number; numbers are the program's own, a requester ID for example.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for InitiatorId {
    /// Writes `initiator 3`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "initiator {}", self.0)
    }
}

/// Why an access was not translated.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// Nothing is mapped there.
    #[error("nothing is mapped there; map it, or look for a use after an unmapping")]
    NotMapped,
    /// It is mapped, and not for this.
    #[error("it is not mapped for this kind of access; map it with the protection that the device needs")]
    NotPermitted,
    /// The page tables have no such address: too wide, or its upper bits are no sign.
    #[error("the page tables cannot hold such an address; use one inside the usable ranges")]
    NoSuchAddress,
    /// An entry on the way is none of its format, or leads to what is no table.
    #[error("the page tables are damaged on the way there; whoever writes them has to be found")]
    BadEntry,
}

impl From<NotTranslated> for Fault {
    fn from(why: NotTranslated) -> Self {
        match why {
            NotTranslated::NotPresent => Self::NotMapped,
            NotTranslated::NoAccess => Self::NotPermitted,
            NotTranslated::OutOfRange => Self::NoSuchAddress,
            NotTranslated::BadEntry | NotTranslated::NoFrame => Self::BadEntry,
        }
    }
}

/// One access that was not let through.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct FaultRecord {
    /// Where it went, to the byte.
    pub iova: Iova,
    /// What the device did.
    pub access: Access,
    /// Which device it was.
    pub initiator: InitiatorId,
    /// Why it was stopped.
    pub why: Fault,
}

impl fmt::Display for FaultRecord {
    /// Writes `write of initiator 3 to IOVA 0x1000: WHY`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { iova, access, initiator, why } = self;
        write!(f, "{access} of {initiator} at IOVA {iova}: {why}")
    }
}

impl FaultRecord {
    /// Initiator, access and reason in one word, so that a cell is written without a lock.
    const fn packed(&self) -> u64 {
        let access = match self.access {
            Access::Read => 0,
            Access::Write => 1,
        };
        let why = match self.why {
            Fault::NotMapped => 0,
            Fault::NotPermitted => 1,
            Fault::NoSuchAddress => 2,
            Fault::BadEntry => 3,
        };
        (self.initiator.0 as u64) << 32 | why << 1 | access
    }

    const fn unpacked(iova: u64, word: u64) -> Self {
        Self {
            iova: Iova::new(iova),
            access: if word & 1 == 0 { Access::Read } else { Access::Write },
            initiator: InitiatorId((word >> 32) as u32),
            why: match word >> 1 & 3 {
                0 => Fault::NotMapped,
                1 => Fault::NotPermitted,
                2 => Fault::NoSuchAddress,
                _ => Fault::BadEntry,
            },
        }
    }
}

/// A place for one record.
#[derive(Debug)]
struct Cell {
    /// Free for the writer of position `p` at `p`, full for its reader at `p + 1`.
    turn: AtomicU64,
    iova: AtomicU64,
    word: AtomicU64,
}

/// The records of one domain, oldest first, and how many did not fit.
#[derive(Debug)]
pub struct FaultLog {
    cells: Box<[Cell]>,
    written: AtomicU64,
    taken: AtomicU64,
    lost: AtomicU64,
}

impl FaultLog {
    /// Room for `capacity` records, rounded up to a power of two of at least two.
    pub(super) fn new(capacity: usize) -> Self {
        let capacity = capacity.clamp(2, 1 << 20).next_power_of_two() as u64;
        let cell = |turn| Cell { turn: AtomicU64::new(turn), iova: AtomicU64::new(0), word: AtomicU64::new(0) };
        let zero = || AtomicU64::new(0);
        Self { cells: (0..capacity).map(cell).collect(), written: zero(), taken: zero(), lost: zero() }
    }

    fn cell(&self, position: u64) -> &Cell {
        &self.cells[(position & (self.cells.len() as u64 - 1)) as usize]
    }

    /// Records a fault, or counts it where there is no room.
    #[cold]
    pub(super) fn push(&self, record: FaultRecord) {
        let mut position = self.written.load(Ordering::Relaxed);
        loop {
            let cell = self.cell(position);
            let turn = cell.turn.load(Ordering::Acquire);
            if turn < position {
                self.lost.fetch_add(1, Ordering::Relaxed);
                return;
            }
            if turn > position {
                position = self.written.load(Ordering::Relaxed);
                continue;
            }
            match self.written.compare_exchange_weak(position, position + 1, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    cell.iova.store(record.iova.as_u64(), Ordering::Relaxed);
                    cell.word.store(record.packed(), Ordering::Relaxed);
                    cell.turn.store(position + 1, Ordering::Release);
                    return;
                }
                Err(now) => position = now,
            }
        }
    }

    /// Takes the oldest record out; `None` if there is none.
    pub fn take(&self) -> Option<FaultRecord> {
        let mut position = self.taken.load(Ordering::Relaxed);
        loop {
            let cell = self.cell(position);
            let turn = cell.turn.load(Ordering::Acquire);
            if turn < position + 1 {
                return None;
            }
            if turn > position + 1 {
                position = self.taken.load(Ordering::Relaxed);
                continue;
            }
            match self.taken.compare_exchange_weak(position, position + 1, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    let record =
                        FaultRecord::unpacked(cell.iova.load(Ordering::Relaxed), cell.word.load(Ordering::Relaxed));
                    cell.turn.store(position + self.cells.len() as u64, Ordering::Release);
                    return Some(record);
                }
                Err(now) => position = now,
            }
        }
    }

    /// Takes records out, oldest first, until there are none.
    pub fn drain(&self) -> impl Iterator<Item = FaultRecord> + '_ {
        core::iter::from_fn(|| self.take())
    }

    /// How many faults found no room since the last [`clear`](Self::clear).
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// How many records it holds at most.
    pub fn capacity(&self) -> usize {
        self.cells.len()
    }

    /// Forgets all records that there are now, and how many were lost.
    ///
    /// Ends also beside a device that goes on causing faults.
    pub fn clear(&self) {
        self.drain().take(self.capacity()).for_each(drop);
        self.lost.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec::Vec;

    fn record(n: u64) -> FaultRecord {
        let why = [Fault::NotMapped, Fault::NotPermitted, Fault::NoSuchAddress, Fault::BadEntry][n as usize % 4];
        let access = if n.is_multiple_of(3) { Access::Read } else { Access::Write };
        FaultRecord { iova: Iova::new(n << 12 | 5), access, initiator: InitiatorId::new(u32::MAX - n as u32), why }
    }

    #[test]
    fn records_come_out_as_they_went_in_and_oldest_first() {
        let log = FaultLog::new(8);
        for round in 0..5 {
            let in_order: Vec<_> = (0..7).map(|n| record(round * 7 + n)).collect();
            in_order.iter().for_each(|record| log.push(*record));
            assert_eq!(log.drain().collect::<Vec<_>>(), in_order);
        }
        assert_eq!((log.take(), log.lost()), (None, 0));
    }

    #[test]
    fn what_does_not_fit_is_counted_and_pushes_nothing_out() {
        let log = FaultLog::new(3);
        assert_eq!(log.capacity(), 4);
        (0..10).for_each(|n| log.push(record(n)));
        assert_eq!(log.lost(), 6);
        assert_eq!(log.drain().collect::<Vec<_>>(), (0..4).map(record).collect::<Vec<_>>());
        log.clear();
        assert_eq!(log.lost(), 0);
    }

    #[test]
    fn a_cleared_log_has_room_again() {
        let log = FaultLog::new(2);
        (0..3).for_each(|n| log.push(record(n)));
        log.clear();
        log.push(record(9));
        assert_eq!((log.take(), log.take(), log.lost()), (Some(record(9)), None, 0));
    }

    #[test]
    fn writers_and_readers_at_once_lose_and_double_nothing() {
        const EACH: u64 = 2000;
        let log = FaultLog::new(16);
        let seen = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..2)
                .map(|writer| {
                    let log = &log;
                    scope.spawn(move || (0..EACH).for_each(|n| log.push(record(writer * EACH + n))))
                })
                .collect();
            let mut seen = Vec::new();
            while !writers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
                seen.extend(log.take());
            }
            seen.extend(log.drain());
            seen
        });
        assert_eq!(seen.len() as u64 + log.lost(), 2 * EACH);
        let mut numbers: Vec<_> = seen.iter().map(|record| record.iova.as_u64() >> 12).collect();
        seen.iter().zip(&numbers).for_each(|(seen, n)| assert_eq!(*seen, record(*n)));
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), seen.len());
    }

    #[test]
    fn a_record_reads_as_a_sentence() {
        let record = FaultRecord {
            iova: Iova::new(0x1008),
            access: Access::Write,
            initiator: InitiatorId::new(3),
            why: Fault::NotMapped,
        };
        let text = record.to_string();
        assert!(text.starts_with("write of initiator 3 at IOVA 0x1008: nothing is mapped there"), "{text}");
    }
}
