//! Memory that knows when it must not be touched, and by whose word.
//!
//! It keeps an epoch of its own for each piece: the exporter closes a piece when its buffer is
//! quiet, and opens it under a new epoch when the disturbance is over. Importers write words that
//! carry the epoch which they found when they mapped. So a write after the last unmap is seen
//! because the piece is closed, and a write by a mapping of an earlier life because the
//! word's epoch is not the piece's. Nothing of the buffer's own state is asked.

use crate::memory::{Memory, Outside};
use crate::wire::Atomic;
use peerdma::addr::Bytes;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Memory is closed and opened in pieces of this size.
pub const PIECE: Bytes = Bytes::new(0x1000);

/// What an importer writes: 8 bytes that say who wrote them, and under which epoch.
///
/// Little-endian: the epoch in bits 0 to 31, the writer in 32 to 47, a mark in 48 to 63.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// Who.
    pub writer: u16,
    /// The epoch that it found when it mapped.
    pub epoch: u32,
}

/// Tells a stamp from other bytes.
const MARK: u64 = 0x7eed;

impl Stamp {
    /// As it stands in memory.
    pub fn word(self) -> u64 {
        u64::from(self.epoch) | u64::from(self.writer) << 32 | MARK << 48
    }

    /// Reads one; `None` of a word that is none.
    pub fn of(word: u64) -> Option<Self> {
        (word >> 48 == MARK).then_some(Self { writer: (word >> 32) as u16, epoch: word as u32 })
    }
}

/// What may be done to a piece.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Anything; nobody has exported it.
    Unwatched,
    /// Nothing.
    Closed,
    /// Stamps of this epoch may be written, and everything read.
    Open {
        /// The epoch.
        epoch: u32,
    },
    /// Everything may be read, and nothing written.
    ForReading {
        /// The epoch.
        epoch: u32,
    },
}

/// An access that must not have been.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Which memory.
    pub memory: String,
    /// Where in it.
    pub at: Bytes,
    /// What the piece was.
    pub state: State,
    /// The word that was written; `None` of a read.
    pub word: Option<u64>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at.as_u64();
        match (self.word, self.state) {
            (None, _) => write!(f, "{} at {at:#x} was read while it was closed", self.memory),
            (Some(word), State::Open { epoch }) => match Stamp::of(word) {
                Some(stamp) => write!(
                    f,
                    "{} at {at:#x} was written by importer {} under epoch {}, and its epoch is {epoch}",
                    self.memory, stamp.writer, stamp.epoch
                ),
                None => write!(f, "{} at {at:#x} was written with {word:#x}, which is no stamp", self.memory),
            },
            (Some(word), State::ForReading { .. }) => {
                write!(f, "{} at {at:#x} was written with {word:#x} while it was for reading", self.memory)
            }
            (Some(word), _) => write!(f, "{} at {at:#x} was written with {word:#x} while it was closed", self.memory),
        }
    }
}

/// Violations that are kept; more are counted.
const KEPT: usize = 64;

/// Memory that judges each access.
///
/// # Concurrency
/// Any number of threads; a lock is held for each access, so that an access and a change of state
/// come one after the other.
pub struct Witness {
    name: String,
    behind: Arc<dyn Memory>,
    pieces: Mutex<Vec<State>>,
    found: Mutex<Vec<Violation>>,
    violations: AtomicU64,
    judged: AtomicU64,
    opened: AtomicU64,
}

impl Witness {
    /// Stands before this memory; nothing is watched yet. `name` is for reports.
    pub fn new(name: &str, behind: Arc<dyn Memory>) -> Self {
        let pieces = usize::try_from(behind.len().as_u64().div_ceil(PIECE.as_u64())).unwrap_or(0);
        Self {
            name: name.to_string(),
            behind,
            pieces: Mutex::new(vec![State::Unwatched; pieces]),
            found: Mutex::default(),
            violations: AtomicU64::new(0),
            judged: AtomicU64::new(0),
            opened: AtomicU64::new(0),
        }
    }

    /// What lies behind, for the exporter's own accesses, which nobody judges.
    pub fn behind(&self) -> &Arc<dyn Memory> {
        &self.behind
    }

    /// Nothing may touch these pieces from now on.
    pub fn close(&self, at: Bytes, len: Bytes) {
        self.set(at, len, State::Closed);
    }

    /// Importers that map from now on may write stamps of this epoch.
    pub fn open(&self, at: Bytes, len: Bytes, epoch: u32) {
        self.opened.fetch_add(1, Ordering::Relaxed);
        self.set(at, len, State::Open { epoch });
    }

    /// Importers that map from now on may read, and nobody may write.
    pub fn open_for_reading(&self, at: Bytes, len: Bytes, epoch: u32) {
        self.opened.fetch_add(1, Ordering::Relaxed);
        self.set(at, len, State::ForReading { epoch });
    }

    /// The epoch of the piece at `at`, if it is open.
    pub fn epoch(&self, at: Bytes) -> Option<u32> {
        match self.pieces().get(index(at)) {
            Some(State::Open { epoch } | State::ForReading { epoch }) => Some(*epoch),
            _ => None,
        }
    }

    /// The first violations that were seen.
    pub fn found(&self) -> Vec<Violation> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many there were.
    pub fn violations(&self) -> u64 {
        self.violations.load(Ordering::Relaxed)
    }

    /// How many words of watched memory were written or read.
    pub fn judged(&self) -> u64 {
        self.judged.load(Ordering::Relaxed)
    }

    fn pieces(&self) -> std::sync::MutexGuard<'_, Vec<State>> {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, at: Bytes, len: Bytes, state: State) {
        let count = len.as_u64().div_ceil(PIECE.as_u64()) as usize;
        self.pieces().iter_mut().skip(index(at)).take(count).for_each(|piece| *piece = state);
    }

    /// Judges an access to `[at, at + len)`; a write by its whole words.
    fn judge(&self, pieces: &[State], at: Bytes, len: usize, written: Option<&[u8]>) {
        let first = at.as_u64();
        let mut next = first;
        let end = first.saturating_add(len as u64);
        while next < end {
            let Some(&state) = pieces.get(index(Bytes::new(next))) else { return };
            let piece_end = (next / PIECE.as_u64() + 1) * PIECE.as_u64();
            let part_end = piece_end.min(end);
            if state != State::Unwatched {
                self.judged.fetch_add((part_end - next).div_ceil(8), Ordering::Relaxed);
                self.judge_part(
                    state,
                    next,
                    written.map(|bytes| &bytes[(next - first) as usize..(part_end - first) as usize]),
                );
            }
            next = part_end;
        }
    }

    fn judge_part(&self, state: State, at: u64, written: Option<&[u8]>) {
        let is_good = |word: u64| match state {
            State::Unwatched => true,
            State::Closed | State::ForReading { .. } => false,
            State::Open { epoch } => Stamp::of(word).is_some_and(|stamp| stamp.epoch == epoch),
        };
        match written {
            None if state == State::Closed => self.violation(at, state, None),
            None => {}
            Some(bytes) => {
                // Words that a packet's end cuts in two are judged by what comes with them.
                let skip = (at.next_multiple_of(8) - at) as usize;
                let words = bytes.get(skip..).unwrap_or_default().chunks_exact(8);
                let mut wrong =
                    words.map(|word| word.try_into().map_or(0, u64::from_le_bytes)).filter(|word| !is_good(*word));
                if let Some(word) = wrong.next() {
                    self.violation(at, state, Some(word));
                } else if matches!(state, State::Closed | State::ForReading { .. }) && bytes.len() < 8 {
                    self.violation(at, state, Some(0));
                }
            }
        }
    }

    fn violation(&self, at: u64, state: State, word: Option<u64>) {
        self.violations.fetch_add(1, Ordering::Relaxed);
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if found.len() < KEPT {
            found.push(Violation { memory: self.name.clone(), at: Bytes::new(at), state, word });
        }
    }
}

fn index(at: Bytes) -> usize {
    usize::try_from(at.as_u64() / PIECE.as_u64()).unwrap_or(usize::MAX)
}

impl fmt::Debug for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "witness of {}: {} words judged, {} violations", self.name, self.judged(), self.violations())
    }
}

impl Memory for Witness {
    fn len(&self) -> Bytes {
        self.behind.len()
    }

    fn read(&self, at: Bytes, into: &mut [u8]) -> Result<(), Outside> {
        let pieces = self.pieces();
        self.judge(&pieces, at, into.len(), None);
        self.behind.read(at, into)
    }

    fn write(&self, at: Bytes, from: &[u8]) -> Result<(), Outside> {
        let pieces = self.pieces();
        self.judge(&pieces, at, from.len(), Some(from));
        self.behind.write(at, from)
    }

    fn atomic(&self, at: Bytes, atomic: Atomic) -> Result<u64, Outside> {
        let pieces = self.pieces();
        // Its result is no stamp, so that atomics are judged as reads are: by whether the piece is closed.
        self.judge(&pieces, at, 8, None);
        if let Some(&state @ State::ForReading { .. }) = pieces.get(index(at)) {
            self.violation(at.as_u64(), state, Some(0));
        }
        self.behind.atomic(at, atomic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Striped;

    const AT: Bytes = Bytes::new(0x2_0000);

    fn witness() -> Witness {
        Witness::new("vram0", Arc::new(Striped::new(Bytes::new(0x10_0000))))
    }

    fn stamps(epoch: u32, words: usize) -> Vec<u8> {
        Stamp { writer: 3, epoch }.word().to_le_bytes().repeat(words)
    }

    #[test]
    fn stamps_of_the_open_epoch_are_all_that_may_be_written() {
        let witness = witness();
        witness.write(AT, &stamps(9, 4)).unwrap();
        assert_eq!(witness.judged(), 0, "nobody has exported it");
        witness.open(AT, PIECE, 1);
        witness.write(AT, &stamps(1, 4)).unwrap();
        assert_eq!((witness.judged(), witness.violations()), (4, 0));
        witness.write(AT, &stamps(0, 4)).unwrap();
        assert_eq!(witness.violations(), 1);
        let found = witness.found();
        assert_eq!(
            found[0].to_string(),
            "vram0 at 0x20000 was written by importer 3 under epoch 0, and its epoch is 1"
        );
    }

    #[test]
    fn closed_memory_may_be_neither_written_nor_read() {
        let witness = witness();
        witness.close(AT, PIECE);
        witness.write(AT, &stamps(1, 1)).unwrap();
        witness.read(AT, &mut [0; 16]).unwrap();
        witness.write(Bytes::new(AT.as_u64() + 1), &[0; 3]).unwrap();
        assert_eq!(witness.violations(), 3);
        witness.read(Bytes::new(AT.as_u64() + PIECE.as_u64()), &mut [0; 16]).unwrap();
        assert_eq!(witness.violations(), 3, "the piece after it is nobody's");
    }

    #[test]
    fn memory_for_reading_may_be_read_and_not_written() {
        let witness = witness();
        witness.open_for_reading(AT, PIECE, 1);
        assert_eq!(witness.epoch(AT), Some(1));
        witness.read(AT, &mut [0; 16]).unwrap();
        assert_eq!(witness.violations(), 0);
        witness.write(AT, &stamps(1, 2)).unwrap();
        witness.write(Bytes::new(AT.as_u64() + 1), &[0; 3]).unwrap();
        witness.atomic(AT, Atomic::FetchAdd(crate::wire::Operand::Double(1))).unwrap();
        assert_eq!(witness.violations(), 3);
        assert!(witness.found()[0].to_string().ends_with("while it was for reading"));
    }

    #[test]
    fn an_access_that_begins_before_a_closed_piece_is_seen() {
        let witness = witness();
        witness.close(AT, PIECE);
        witness.write(Bytes::new(AT.as_u64() - 8), &stamps(1, 2)).unwrap();
        assert_eq!(witness.violations(), 1);
    }
}
