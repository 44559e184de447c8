//! What every importer of a run is: it takes steps, keeps the rules, and has something to tell.

use super::exporter::Exporter;
use super::membership::Membership;
use peerdma::dma::Peers;

/// One who imports buffers, a step at a time.
pub trait Party {
    /// Takes one step of its own choice.
    ///
    /// # Errors
    /// [`Broken`]: the rules were not kept by somebody.
    fn step(&mut self, random: &mut fastrand::Rng, exporter: &Exporter, peers: &Peers<'_>) -> Result<(), Broken>;

    /// Where it stands with its buffer.
    fn member(&self) -> &Membership;

    /// What it has to tell.
    fn tally(&self) -> Tally;

    /// Tries to reach the page behind the last of what it has mapped, in the way in which it reaches the others.
    fn past_the_end(&mut self) -> Past;
}

/// What came of an access behind the end of a buffer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Past {
    /// Nothing is mapped, or a job runs; try again.
    NotNow,
    /// It was refused; by whom, and why.
    Refused(String),
    /// It was made.
    Made,
}

/// What an importer has to tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Jobs that ended well, and whose bytes were all there.
    pub done: u64,
    /// Times that it mapped.
    pub mapped: u64,
    /// Times that it mapped memory that was for reading just then.
    pub for_reading: u64,
    /// Times that it let go because it was told to.
    pub let_go: u64,
    /// Jobs that its device began after its mapping was gone.
    pub late: u64,
    /// Jobs and accesses that ended because memory had been taken away, by an importer whose user is not asked.
    pub cut_off: u64,
    /// Times that the terms of a buffer were not for it.
    pub refused: u64,
}

/// What must not happen to an importer that keeps to the rules.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Broken {
    /// A job failed although its mapping was good.
    #[error("{who}: a job failed while its mapping was good: {why}")]
    Failed {
        /// Whose.
        who: String,
        /// What the device said.
        why: String,
    },
    /// A job ended well, and its bytes are not there.
    #[error("{who}: a job ended well and {missing} of its words are not in memory")]
    Lost {
        /// Whose.
        who: String,
        /// How many words.
        missing: usize,
    },
    /// What the buffer gave was refused, or contradicts what its exporter says.
    #[error("{who}: {why}")]
    Refused {
        /// Who.
        who: String,
        /// Why.
        why: String,
    },
}
