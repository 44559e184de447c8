//! Traffic by several devices over several buffers while everything happens to their memory, from a seed.

use super::exporter::Deeds;
use super::party::{Broken, Tally};
use super::set::{Kind, Set, with_set};
use super::witness::Violation;
use crate::device::{nic, nvme};
use crate::host::SeatError;
use crate::machine::BuildError;
use crate::platform::Platform;
use peerdma::buffer::terms::OfferError;
use peerdma::dma::{ContextError, MapRangesError};

/// Why a run could not begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SoakError {
    /// The platform lacks something.
    #[error("the platform lacks {what}; `shared-switch` has everything that a soak needs")]
    Lacks {
        /// What.
        what: String,
    },
    /// The machine was not built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A driver has no place.
    #[error(transparent)]
    Seat(#[from] SeatError),
    /// A driver has no context.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// Memory cannot be exported.
    #[error(transparent)]
    Offer(#[from] OfferError),
    /// A driver's own memory was not mapped.
    #[error(transparent)]
    Map(#[from] MapRangesError),
    /// An adapter was not taken over.
    #[error(transparent)]
    Adapter(#[from] nic::Error),
    /// A drive was not brought up.
    #[error(transparent)]
    Drive(#[from] nvme::DriverError),
    /// A device was not set up.
    #[error("a device was not set up: {why}")]
    Device {
        /// Why.
        why: String,
    },
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Steps of importers, of the exporter and of the machine.
    pub operations: u64,
    /// Words that witnesses judged.
    pub judged: u64,
    /// What the importers have to tell.
    pub parties: Vec<(Kind, Tally)>,
    /// What the exporter has to tell.
    pub deeds: Deeds,
    /// Jobs that failed because their memory had been pulled out.
    pub pulled: u64,
    /// What the witnesses saw that must not be; the first of it.
    pub violations: Vec<Violation>,
    /// What an importer met first that must not be.
    pub broken: Option<Broken>,
    /// Who still held on when everybody had been told to stop, long after.
    pub stuck: Vec<String>,
}

impl Outcome {
    /// Whether every rule held.
    pub fn is_good(&self) -> bool {
        self.violations.is_empty() && self.broken.is_none() && self.stuck.is_empty()
    }
}

/// Looks that an importer and the exporter have to come to rest at the end.
const LAST: u32 = 100_000;

/// Runs `operations` steps of all importers on a platform, in an order that follows from the seed.
///
/// # Errors
/// [`SoakError`] where the platform cannot have such a run. Rules that did not hold are no error: see [`Outcome`].
pub fn run(platform: &Platform, seed: u64, operations: u64) -> Result<Outcome, SoakError> {
    with_set(platform, seed, &Kind::ALL, |set| {
        let mut broken = None;
        for _ in 0..operations {
            match set.random.u8(..10) {
                0 => set.disturb(true),
                // What one importer met ends nothing: what memory saw is to be told as well.
                1..=4 => broken = broken.or(set.step_one().err()),
                _ => drop(set.machine.step()),
            }
        }
        // Everybody stops, and everything that is under way has to come to its end.
        let mut left = LAST;
        while left > 0 && !set.exporter.is_at_rest() {
            left -= 1;
            set.disturb(false);
            broken = broken.or(set.step_one().err());
            set.machine.step();
        }
        outcome(set, seed, operations, broken)
    })
}

fn outcome(set: &Set<'_>, seed: u64, operations: u64, broken: Option<Broken>) -> Outcome {
    Outcome {
        seed,
        operations,
        judged: set.witnesses.iter().map(|witness| witness.judged()).sum(),
        parties: set.parties.iter().map(|(kind, party)| (*kind, party.tally())).collect(),
        deeds: set.exporter.tally.clone(),
        pulled: set.pulled,
        violations: set.witnesses.iter().flat_map(|witness| witness.found()).collect(),
        broken,
        stuck: set.exporter.held(),
    }
}
