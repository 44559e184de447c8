//! Plain, locked and pinned memory under forced collapse.

use super::sample::{Collapse, Fill, Keep, Moved, Sample, SampleError, huge_page_size};
use crate::held::{Held, observe, of_this_process};
use crate::memory::page_size;
use peerdma::addr::{AddrRange, Bytes, ProcVa};
use peerdma::pin::{ChargeError, Ledger, OwnerId, OwnerLimits, Request, RingShape, Via};
use std::path::Path;

/// How it was told whether a page moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum By {
    /// Page frames before and after.
    Frames,
    /// The kernel's answers, and the huge pages of the mapping afterwards: a page that is part of a new huge page moved there.
    HugePages,
}

impl By {
    /// `frames` or `huge_pages`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Frames => "frames",
            Self::HugePages => "huge_pages",
        }
    }
}

/// What became of one sample.
#[derive(Debug)]
#[non_exhaustive]
pub struct Trial {
    /// How it was kept.
    pub keep: Keep,
    /// How many of its pages moved, or why that was not tried.
    pub moved: Result<Moved, SampleError>,
    /// What the kernel answered.
    pub collapse: Collapse,
    /// Whether every page holds what it did.
    pub intact: bool,
}

/// What all of it shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Plain and locked memory moved, pinned memory did not.
    Proven,
    /// Pinned memory moved, or does not hold any more what it did.
    Refuted,
    /// Less than nine tenths of plain or locked memory moved, or one of the three could not be tried.
    Inconclusive,
}

impl Verdict {
    /// `proven`, `refuted` or `inconclusive`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Proven => "proven",
            Self::Refuted => "refuted",
            Self::Inconclusive => "inconclusive",
        }
    }
}

/// Plain and locked memory must have moved by so much for pinned memory to prove anything.
const MOVED: f64 = 0.9;

/// What was tried and what came of it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Proof {
    /// Size of each sample.
    pub len: Bytes,
    /// How moves were told.
    pub by: By,
    /// One for each [`Keep`], in that order.
    pub trials: Vec<Trial>,
    /// What could not be done or told here, in sentences.
    pub notes: Vec<String>,
}

/// Why nothing was tried.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// The limit has no room for it.
    #[error(transparent)]
    Limit(#[from] ChargeError),
    /// The kernel has no huge pages to collapse memory into.
    #[error("this kernel collapses no memory (CONFIG_TRANSPARENT_HUGEPAGE); nothing here makes it move any")]
    NoHugePages,
    /// No multiple of a huge page.
    #[error("{len} are no multiple of {huge}, the size of a huge page; give one")]
    Size {
        /// What was asked for.
        len: Bytes,
        /// What it must be a multiple of.
        huge: Bytes,
    },
}

/// The largest sample within `most` that the process may lock and pin; at least one huge page, which may be too much.
pub fn fitting(most: Bytes) -> Bytes {
    let huge = huge_page_size().unwrap_or(Bytes::new(2 << 20)).as_u64();
    let sizes = (1..=most.as_u64() / huge).rev().map(|count| Bytes::new(count * huge));
    let mut ledger = ledger();
    sizes.into_iter().find(|size| fits(&mut ledger, *size).is_ok()).unwrap_or(Bytes::new(huge))
}

fn ledger() -> Ledger {
    let mut ledger = of_this_process();
    ledger.describe_owner(OWNER, "the proof", OwnerLimits::NONE);
    // What others hold of the limit counts; where it cannot be read the kernel will tell.
    if let Ok(held) = Held::read(Path::new("/proc")) {
        observe(&mut ledger, &held);
    }
    ledger
}

const OWNER: OwnerId = OwnerId::new(0);

/// Asks the ledger for a locked and a pinned sample of this size, and gives them back.
fn fits(ledger: &mut Ledger, len: Bytes) -> Result<(), ChargeError> {
    // Two places that have no page in common, wherever they will be.
    let at = |start| AddrRange::new(ProcVa::new(start), len).ok_or(ChargeError::Overflow);
    ledger.check(OWNER, &Request::new(Via::Mlock, at(0)?))?;
    let ring = ledger.open_ring(OWNER, RingShape::new(1))?;
    let fits = at(0).and_then(|range| ledger.check(OWNER, &Request::new(Via::IoUring { ring }, range)).map(|_| ()));
    // It was opened a moment ago, and has no pins.
    let _ = ledger.close_ring(ring);
    fits
}

/// Collapses plain, locked and pinned memory of this size each into huge pages, as far as it lets itself, and tells what moved.
///
/// Blocks while the kernel copies all of it twice. `between` is told of each sample before it is tried.
///
/// # Errors
/// [`ProofError::Limit`]: raise the limit or take less ([`fitting`]). The others: there is nothing to prove here, or not so.
pub fn prove(len: Bytes, mut between: impl FnMut(Keep)) -> Result<Proof, ProofError> {
    let huge = huge_page_size().ok_or(ProofError::NoHugePages)?;
    if len == Bytes::ZERO || !len.as_u64().is_multiple_of(huge.as_u64()) {
        return Err(ProofError::Size { len, huge });
    }
    fits(&mut ledger(), len)?;
    let mut by = By::Frames;
    let mut trials = Vec::new();
    for keep in Keep::ALL {
        between(keep);
        trials.push(attempt(keep, len, &mut by));
    }
    let mut proof = Proof { len, by, trials, notes: Vec::new() };
    proof.notes = proof.notes();
    Ok(proof)
}

fn attempt(keep: Keep, len: Bytes, by: &mut By) -> Trial {
    let failed = |error| Trial { keep, moved: Err(error), collapse: Collapse::default(), intact: false };
    let sample = match Sample::new(keep, len, Fill::Distinct) {
        Ok(sample) => sample,
        Err(error) => return failed(error),
    };
    let collapse = sample.collapse();
    let moved = match sample.moved() {
        Ok(Some(moved)) => moved,
        Ok(None) => {
            *by = By::HugePages;
            let page = page_size().as_u64();
            match sample.in_huge_pages() {
                Ok(huge) => Moved { pages: len.as_u64() / page, moved: huge.as_u64() / page },
                Err(error) => return failed(SampleError::Frames(error)),
            }
        }
        Err(error) => return failed(error),
    };
    Trial { keep, moved: Ok(moved), collapse, intact: sample.is_intact() }
}

impl Proof {
    /// What it shows.
    pub fn verdict(&self) -> Verdict {
        let moved = |keep| {
            let trial = self.trials.iter().find(|trial| trial.keep == keep);
            trial.and_then(|trial| trial.moved.as_ref().ok())
        };
        let moves = |keep| moved(keep).is_some_and(|moved| moved.share() >= MOVED);
        let pinned_is_intact = self.trials.iter().all(|trial| trial.keep != Keep::Pinned || trial.intact);
        match moved(Keep::Pinned) {
            Some(pinned) if pinned.moved > 0 || !pinned_is_intact => Verdict::Refuted,
            Some(_) if moves(Keep::Plain) && moves(Keep::Locked) => Verdict::Proven,
            _ => Verdict::Inconclusive,
        }
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.by == By::HugePages {
            notes.push(
                "the kernel shows page frames to CAP_SYS_ADMIN alone: that a page moved is told by the huge page that it \
                 is part of now, and by the kernel's answer"
                    .into(),
            );
        }
        for trial in &self.trials {
            if !trial.intact && trial.moved.is_ok() {
                notes.push(format!("{} memory does not hold any more what it did; this must not be", trial.keep));
            }
            if let Ok(moved) = &trial.moved
                && trial.keep != Keep::Pinned
                && moved.share() < MOVED
            {
                let answers: Vec<String> = trial.collapse.refused.iter().map(answer).collect();
                let answers = if answers.is_empty() { "no error".into() } else { answers.join(", ") };
                notes.push(format!(
                    "the kernel did not collapse enough of {} memory ({answers}); free memory may be in pieces, so try \
                     with a smaller --size",
                    trial.keep
                ));
            }
        }
        notes.push(
            "tried here: collapse into huge pages (MADV_COLLAPSE). Not tried, since it takes a machine of its own: \
             compaction, NUMA, CMA, KSM, memory offline; docs/pins-proof.md has them from guests"
                .into(),
        );
        notes
    }
}

fn answer((errno, count): (&i32, &u64)) -> String {
    format!("{count} times {}", std::io::Error::from_raw_os_error(*errno))
}
