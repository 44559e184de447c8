//! Memory of a process outside of the machine, by the process's own addresses.

use super::{Memory, Outside};
use crate::wire::Atomic;
use peerdma::addr::{AddrRange, Bytes, ProcVa};
use std::fmt;
use std::sync::Arc;

/// Memory of a process that a device of the machine reaches, whoever has the process.
///
/// Nothing here needs a real one: what implements this may copy bytes of the program that runs the machine, of
/// memory that it shares with another, or of a test.
///
/// # Concurrency
/// Any number of threads. An aligned access of 8 bytes or less should be single-copy atomic, as of [`Memory`]; what cannot
/// promise that says so.
pub trait ProcessMemory: Send + Sync + fmt::Debug {
    /// Reads bytes.
    ///
    /// # Errors
    /// [`Gone`] where the process has no such memory, or permits no reads; some of `into` may have been written.
    fn read(&self, at: ProcVa, into: &mut [u8]) -> Result<(), Gone>;

    /// Writes bytes.
    ///
    /// # Errors
    /// [`Gone`] where the process has no such memory, or permits no writes; some may have been written.
    fn write(&self, at: ProcVa, from: &[u8]) -> Result<(), Gone>;
}

/// The process has no such memory, or not for this.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the process has no {len} at {at}, or not for this")]
pub struct Gone {
    /// Where the access starts.
    pub at: ProcVa,
    /// How long it is.
    pub len: Bytes,
}

/// A range of a process's memory as [`Memory`] of its own, as a driver in that process has it.
#[derive(Clone, Debug)]
pub struct ProcessRange {
    process: Arc<dyn ProcessMemory>,
    at: AddrRange<ProcVa>,
}

impl ProcessRange {
    /// The memory from the start of `at` on.
    pub fn new(process: Arc<dyn ProcessMemory>, at: AddrRange<ProcVa>) -> Self {
        Self { process, at }
    }

    fn place(&self, at: Bytes, len: usize) -> Result<ProcVa, Outside> {
        Outside::check(at, len, self.len())?;
        let outside = Outside { at, len: Bytes::new(len as u64), size: self.len() };
        self.at.start().checked_add(at).ok_or(outside)
    }

    fn gone(&self, at: Bytes, gone: Gone) -> Outside {
        Outside { at, len: gone.len, size: self.len() }
    }
}

impl Memory for ProcessRange {
    fn len(&self) -> Bytes {
        self.at.len()
    }

    fn read(&self, at: Bytes, into: &mut [u8]) -> Result<(), Outside> {
        let place = self.place(at, into.len())?;
        self.process.read(place, into).map_err(|gone| self.gone(at, gone))
    }

    fn write(&self, at: Bytes, from: &[u8]) -> Result<(), Outside> {
        let place = self.place(at, from.len())?;
        self.process.write(place, from).map_err(|gone| self.gone(at, gone))
    }

    /// Refused: nobody can change such memory in one.
    fn atomic(&self, at: Bytes, atomic: Atomic) -> Result<u64, Outside> {
        Err(Outside { at, len: atomic.len(), size: self.len() })
    }
}
