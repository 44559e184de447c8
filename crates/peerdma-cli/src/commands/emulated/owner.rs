//! The other end of a copy, as its owner reads and writes it: never through the route under test.

use super::session::{RamRange, Session, with_session};
use super::{Booted, Kind, Place};
use crate::exit::Failure;
use peerdma::addr::{Bytes, PhysAddr};

/// Whoever has the bytes.
pub(crate) enum Owner<'s, 'c> {
    /// RAM: the processor's own memory.
    Ram(&'s RamRange),
    /// A device that brings its bytes itself.
    Device(&'s mut Session<'c>),
    /// Memory behind a BAR that nobody but the processor looks into: through that BAR.
    Bar(&'s Booted, PhysAddr),
}

/// Finds whoever has the bytes of a place that is not RAM, and does something with it.
pub(crate) fn with_owner<R>(
    booted: &Booted,
    place: &Place,
    then: impl FnOnce(Owner<'_, '_>) -> Result<R, Failure>,
) -> Result<R, Failure> {
    if place.is_gpu_memory() || matches!(place.kind, Kind::Medium | Kind::Staged) {
        return with_session(booted, place, |session| then(Owner::Device(session)));
    }
    let cpu = place.cpu(booted);
    let cpu = cpu.ok_or_else(|| Failure::usage(format!("the processor has no address for {}", place.words())))?;
    then(Owner::Bar(booted, cpu))
}

impl Owner<'_, '_> {
    /// Writes bytes, `at` counted from the start of the place.
    pub(super) fn fill(&mut self, at: Bytes, bytes: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Ram(range) => {
                let (memory, base) = range.memory();
                let written = memory.write(Bytes::new(base.as_u64() + at.as_u64()), bytes);
                written.map_err(|error| Failure::device("cannot write RAM", error))
            }
            Self::Device(session) => session.fill(signed(at), bytes),
            Self::Bar(booted, cpu) => {
                let first = PhysAddr::new(cpu.as_u64() + at.as_u64());
                booted.machine().cpu().store(first, bytes);
                // A load pushes the stores before it (PCIe 6.0 §2.4.1).
                booted.machine().cpu().load(first, &mut [0]);
                Ok(())
            }
        }
    }

    /// Reads bytes; `at` may lie a little before the place.
    pub(super) fn look(&mut self, at: i64, into: &mut [u8]) -> Result<(), Failure> {
        match self {
            Self::Ram(range) => {
                let (memory, base) = range.memory();
                let read = memory.read(Bytes::new(base.as_u64().wrapping_add_signed(at)), into);
                read.map_err(|error| Failure::device("cannot read RAM", error))
            }
            Self::Device(session) => session.look(at, into),
            Self::Bar(booted, cpu) => {
                booted.machine().cpu().load(PhysAddr::new(cpu.as_u64().wrapping_add_signed(at)), into);
                Ok(())
            }
        }
    }
}

/// Places are far shorter than half of all addresses.
pub(super) fn signed(at: Bytes) -> i64 {
    i64::try_from(at.as_u64()).unwrap_or(i64::MAX)
}
