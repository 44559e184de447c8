//! Whether bytes arrive, as opposed to being permitted or granted.
//!
//! That a rule permits a route and that a kernel granted a mapping says nothing about bytes,
//! nor does an engine that reports completion: QEMU's edu reports it while the IOMMU throws
//! its writes away. *Verified* here means all of this, for a range of the target's memory:
//!
//! 1. The destination first holds, in every byte, something other than what is sent.
//! 2. The initiator moves the bytes and reports completion.
//! 3. Then the destination's owner reads every byte (the CPU, through the target's own BAR
//!    or from its own memory; never through the route under test) and each equals
//!    f(seed, offset, run) of [`crate::pattern`].
//! 4. The bytes around the destination are what they were, 64 on each side where there is
//!    room.
//! 5. Once for writes (initiator to target) and once for reads (target to initiator and from
//!    there to process memory, where the CPU looks).
//!
//! What the target held is written back afterwards, also after an error; a process that is killed
//! outright puts nothing back. A check of the engine against process memory alone comes first,
//! so that an engine that reaches nothing is not taken for a target that does not answer.
//!
//! The target must be memory: bytes are written to it and expected to stay. What reads back
//! differently from how the CPU wrote it is refused before any DMA.
//!
//! Not here: mapping, and judging: a measurement may forbid a route, never allow one.

mod delivery;
mod memory;

pub use delivery::{Damage, Delivery, Side, Verification, Wrong};
pub(crate) use memory::Guards;
pub use memory::{CpuAccess, CpuView, Staging, Target};

use crate::engine::{Engine, EngineError};
use crate::pattern::Pattern;
use memory::PutBack;
use peerdma::addr::{AddrRange, Bytes, Iova};
use std::ops::ControlFlow;

/// Bytes on each side of a destination that must not change.
pub const GUARD: Bytes = Bytes::new(64);

/// Bytes of a run that are tried before all of it.
const FIRST: usize = 8;

/// Run numbers of the pattern.
const WRITE: u64 = 0;
const READ: u64 = 1;
const SELF_CHECK: u64 = 2;

/// How far a transfer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// Bytes of the target that are done.
    pub done: Bytes,
    /// All of them.
    pub total: Bytes,
}

/// Asked between two steps of the engine whether to go on.
pub type Observer<'a> = &'a mut dyn FnMut(Progress) -> ControlFlow<()>;

/// Why nothing can be said about the route.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The engine failed; see there.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The CPU cannot reach what it has to read; the ranges do not belong together.
    #[error(transparent)]
    Cpu(#[from] CpuAccess),
    /// The engine does not even reach process memory that is mapped for it.
    #[error(
        "the engine does not copy process memory, let alone the target's: byte {offset:#x} is {seen:#04x} instead of {expected:#04x}; check its mapping and bus mastering",
        offset = offset.as_u64()
    )]
    EngineUnfit {
        /// Offset in the copy.
        offset: Bytes,
        /// What was sent.
        expected: u8,
        /// What came.
        seen: u8,
    },
    /// The engine may cut addresses of the target's range; map a shorter range, or a lower one.
    #[error(
        "the target's range lies at IOVAs {iova}, but {highest} is the highest that the engine is sure to address: what is above may land elsewhere; map a shorter range, or a lower one"
    )]
    BeyondReach {
        /// Where the initiator sees the target's range.
        iova: AddrRange<Iova>,
        /// The engine's [`highest`](Engine::highest).
        highest: Iova,
    },
    /// The target does not keep what its own CPU writes; name a range of memory.
    #[error(
        "the target's range is no memory: {wrote:#04x} written by the CPU at offset {offset:#x} of it reads {read:#04x}; name a range of memory",
        offset = offset.as_u64()
    )]
    NotMemory {
        /// Offset in the range.
        offset: Bytes,
        /// What was written.
        wrote: u8,
        /// What was read.
        read: u8,
    },
    /// The observer said stop. A verification wrote back what the target held, without looking
    /// whether it stayed; [`transfer`] leaves what it moved.
    #[error("interrupted; what the target held was written back")]
    Interrupted,
}

/// Verifies writes to and reads from `target`, in runs of what the engine holds.
///
/// Ends with the first run in which something is wrong. Blocks for as long as the engine
/// takes: four transfers a run, and two before the first.
///
/// # Errors
/// [`VerifyError`]: nothing is said about the route, and what the target held was written back.
pub fn verify(
    engine: &mut dyn Engine,
    target: &Target<'_>,
    staging: &Staging<'_>,
    seed: u64,
    observe: Observer<'_>,
) -> Result<Verification, VerifyError> {
    let mut pass = Pass { engine, target, staging, seed, observe };
    pass.check_reach()?;
    pass.check_engine()?;
    let mut verification = Verification::new(target.len());
    for (offset, len) in pass.runs() {
        pass.go_on(offset)?;
        let tried = pass.check_memory(offset, len)?;
        let original = PutBack::save(target, offset, len)?;
        let write = pass.write(offset, len)?;
        pass.go_on(offset)?;
        let read = pass.read(offset, len)?;
        // What changed beside the range is not put back: somebody else may be writing there.
        let restored = original.put_back()? && tried && write.damage.is_none();
        if !verification.add(len, write, read, restored) {
            break;
        }
    }
    Ok(verification)
}

/// Moves the pattern of run 0 to `target` and says nothing about arrival.
///
/// # Errors
/// [`VerifyError::BeyondReach`], with nothing moved; [`VerifyError::Engine`], [`VerifyError::Cpu`]
/// and [`VerifyError::Interrupted`], after which the runs that were done stay where they are.
pub fn transfer(
    engine: &mut dyn Engine,
    target: &Target<'_>,
    staging: &Staging<'_>,
    seed: u64,
    observe: Observer<'_>,
) -> Result<(), VerifyError> {
    let mut pass = Pass { engine, target, staging, seed, observe };
    pass.check_reach()?;
    for (offset, len) in pass.runs() {
        pass.go_on(offset)?;
        let bytes = Pattern::new(seed, WRITE).bytes(offset, len);
        staging.fill(&bytes)?;
        pass.engine.fetch(staging.iova(), size(len))?;
        pass.engine.store(pass.at(offset)?, size(len))?;
    }
    Ok(())
}

struct Pass<'a> {
    engine: &'a mut dyn Engine,
    target: &'a Target<'a>,
    staging: &'a Staging<'a>,
    seed: u64,
    observe: Observer<'a>,
}

impl Pass<'_> {
    /// Offset and length of every run.
    fn runs(&self) -> impl Iterator<Item = (Bytes, usize)> + use<> {
        let total = self.target.len().as_u64();
        let step = self.engine.capacity().as_u64().min(self.staging.len().as_u64()).max(1);
        let starts = (0..total).step_by(usize::try_from(step).unwrap_or(usize::MAX));
        starts.map(move |start| (Bytes::new(start), usize::try_from(step.min(total - start)).unwrap_or(0)))
    }

    fn go_on(&mut self, done: Bytes) -> Result<(), VerifyError> {
        match (self.observe)(Progress { done, total: self.target.len() }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(VerifyError::Interrupted),
        }
    }

    /// Where the initiator sees the byte at `offset` of the target.
    fn at(&self, offset: Bytes) -> Result<Iova, VerifyError> {
        Ok(self.target.iova().checked_add(offset).ok_or(CpuAccess::Wraps)?)
    }

    /// Before anything is moved: an address that is cut belongs to somebody else.
    fn check_reach(&self) -> Result<(), VerifyError> {
        let (iova, highest) = (self.target.iova_range(), self.engine.highest());
        if iova.last() > highest {
            return Err(VerifyError::BeyondReach { iova, highest });
        }
        Ok(())
    }

    /// Process memory to the engine and back, before anything of the target is touched.
    fn check_engine(&mut self) -> Result<(), VerifyError> {
        let len = self.engine.capacity().min(self.staging.len());
        let count = usize::try_from(len.as_u64()).unwrap_or(0);
        let sent = Pattern::new(self.seed, SELF_CHECK).bytes(Bytes::ZERO, count);
        self.staging.fill(&sent)?;
        self.engine.fetch(self.staging.iova(), len)?;
        self.staging.fill(&other(&sent))?;
        self.engine.store(self.staging.iova(), len)?;
        let came = self.staging.look(count)?;
        match sent.iter().zip(&came).position(|(sent, came)| sent != came) {
            None => Ok(()),
            Some(at) => Err(VerifyError::EngineUnfit { offset: size(at), expected: sent[at], seen: came[at] }),
        }
    }

    /// From process memory through the engine to the target, where the CPU looks.
    fn write(&mut self, offset: Bytes, len: usize) -> Result<Delivery, VerifyError> {
        let sent = Pattern::new(self.seed, WRITE).bytes(offset, len);
        let before = other(&sent);
        self.prepare_target(offset, &before)?;
        self.staging.fill(&sent)?;
        self.engine.fetch(self.staging.iova(), size(len))?;
        let guards = self.target.guards(offset, len)?;
        self.engine.store(self.at(offset)?, size(len))?;
        let came = self.target.look(offset, len)?;
        let damage = guards.damage(&self.target.guards(offset, len)?);
        Ok(Delivery::compare(offset, &sent, &before, &came, damage))
    }

    /// From the target through the engine to process memory, where the CPU looks.
    fn read(&mut self, offset: Bytes, len: usize) -> Result<Delivery, VerifyError> {
        let sent = Pattern::new(self.seed, READ).bytes(offset, len);
        let before = other(&sent);
        self.prepare_target(offset, &sent)?;
        self.engine.fetch(self.at(offset)?, size(len))?;
        self.staging.fill(&before)?;
        let guards = self.staging.fresh_guards(len)?;
        self.engine.store(self.staging.iova(), size(len))?;
        let came = self.staging.look(len)?;
        let damage = guards.damage(&self.staging.guards(len)?);
        Ok(Delivery::compare(offset, &sent, &before, &came, damage))
    }

    /// Tries a few bytes of the target before all of a run: most registers give themselves away
    /// by them, before hundreds of others are told something. Says whether they hold again what
    /// they held.
    fn check_memory(&self, offset: Bytes, len: usize) -> Result<bool, VerifyError> {
        let original = PutBack::save(self.target, offset, len.min(FIRST))?;
        self.prepare_target(offset, &other(original.bytes()))?;
        Ok(original.put_back()?)
    }

    /// The CPU writes the target and reads it back: what does not keep bytes is no memory.
    fn prepare_target(&self, offset: Bytes, bytes: &[u8]) -> Result<(), VerifyError> {
        self.target.fill(offset, bytes)?;
        let kept = self.target.look(offset, bytes.len())?;
        match bytes.iter().zip(&kept).position(|(wrote, read)| wrote != read) {
            None => Ok(()),
            Some(at) => {
                let offset = Bytes::new(offset.as_u64() + at as u64);
                Err(VerifyError::NotMemory { offset, wrote: bytes[at], read: kept[at] })
            }
        }
    }
}

/// Bytes that differ from `bytes` in every place.
fn other(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|byte| !byte).collect()
}

fn size(len: usize) -> Bytes {
    Bytes::new(len as u64)
}

#[cfg(test)]
mod tests;
