//! Bytes in and out of what a request has come to.

use super::Machine;
use super::function::Target;
use super::travel::Landing;
use crate::memory::{self, Memory};
use crate::wire::{Atomic, Failure};
use peerdma::addr::Bytes;

impl Machine {
    /// Reads what answers at a landing.
    pub(super) fn load(&self, landing: &Landing, into: &mut [u8]) -> Result<(), Failure> {
        match landing.target() {
            // What reaches past the end of a BAR or of memory is somebody else's or nobody's.
            Some((_, left)) if left.as_u64() < into.len() as u64 => Err(Failure::CompleterAbort),
            Some((target, _)) => load_target(target, into),
            None => {
                into.fill(0xff);
                Ok(())
            }
        }
    }

    pub(super) fn load_into(&self, landing: &Landing, own: (&dyn Memory, Bytes), len: Bytes) -> Result<(), Failure> {
        if let Some((Target::Memory(from, at), left)) = landing.target()
            && left >= len
        {
            return memory::copy((&**from, *at), own, len).map_err(|_| Failure::NotSent);
        }
        let mut bytes = vec![0; len.as_u64() as usize];
        self.load(landing, &mut bytes)?;
        own.0.write(own.1, &bytes).map_err(|_| Failure::NotSent)
    }

    pub(super) fn store_from(&self, landing: &Landing, own: (&dyn Memory, Bytes), len: Bytes) {
        if let Some((Target::Memory(to, at), left)) = landing.target()
            && left >= len
        {
            // Both ends were found to have the bytes.
            let _ = memory::copy(own, (&**to, *at), len);
            return;
        }
        let mut bytes = vec![0; len.as_u64() as usize];
        if own.0.read(own.1, &mut bytes).is_ok() {
            self.store_at(landing, &bytes);
        }
    }

    pub(super) fn store_at(&self, landing: &Landing, from: &[u8]) {
        if let Landing::Interrupt { from: sender, at } = landing {
            return self.interrupted(Some(*sender), *at, from);
        }
        if let Some((target, left)) = landing.target() {
            self.store(target, left, from);
        }
    }

    /// A part of what was read straight to where it is written.
    pub(super) fn transfer(
        &self,
        source: &Landing,
        destination: &Landing,
        part: &std::ops::Range<usize>,
    ) -> Result<(), Failure> {
        let len = Bytes::new(part.len() as u64);
        let skipped = |at: Bytes| Bytes::new(at.as_u64() + part.start as u64);
        if let Some((Target::Memory(from, at), left)) = source.target()
            && left.as_u64() >= part.end as u64
        {
            self.store_from(destination, (&**from, skipped(*at)), len);
            return Ok(());
        }
        let mut bytes = vec![0; part.end];
        self.load(source, &mut bytes)?;
        self.store_at(destination, bytes.get(part.clone()).unwrap_or_default());
        Ok(())
    }

    pub(super) fn change(&self, landing: &Landing, atomic: Atomic) -> Result<u64, Failure> {
        let (target, _) = landing.target().ok_or(Failure::UnsupportedRequest)?;
        change_target(target, atomic)
    }
}

fn load_target(target: &Target, into: &mut [u8]) -> Result<(), Failure> {
    match target {
        Target::Memory(memory, at) => memory.read(*at, into).map_err(|_| Failure::CompleterAbort),
        Target::Registers(registers, at) => {
            registers.read(*at, into);
            Ok(())
        }
        Target::Damaged(target, flip) => {
            load_target(target, into)?;
            if flip.turn(into) { Ok(()) } else { Err(Failure::Poisoned) }
        }
        Target::Nothing => {
            into.fill(0);
            Ok(())
        }
    }
}

fn change_target(target: &Target, atomic: Atomic) -> Result<u64, Failure> {
    match target {
        Target::Memory(memory, at) => memory.atomic(*at, atomic).map_err(|_| Failure::UnsupportedRequest),
        Target::Registers(registers, at) => Ok(registers.atomic(*at, atomic)),
        // What turns is in the answer.
        Target::Damaged(target, flip) => {
            let mut found = change_target(target, atomic)?.to_le_bytes();
            if flip.turn(&mut found) { Ok(u64::from_le_bytes(found)) } else { Err(Failure::Poisoned) }
        }
        Target::Nothing => Ok(0),
    }
}
