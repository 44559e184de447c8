//! Why an importer gets no further.

use crate::memory::BeyondPages;
use peerdma::buffer::life::Phase;
use peerdma::buffer::terms::Methods;
use peerdma::buffer::wire::{Ending, OutOfTurn, Violation};
use std::io;
use std::path::PathBuf;

/// Why an attachment is over. What was mapped stays mapped and readable; nobody tells anything about it any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Ended {
    /// The exporter closed its end: it ended, or was killed.
    #[error("the exporter is gone without a word; what is mapped stays readable, and may be stale")]
    HungUp,
    /// The exporter said goodbye.
    #[error("the exporter ended the attachment ({ending})")]
    Goodbye {
        /// Why.
        ending: Ending,
    },
    /// The exporter broke the rules of the protocol.
    #[error("the exporter {0}")]
    Violation(#[from] Violation),
    /// The exporter does not take what it is told in time.
    #[error("the exporter takes no messages; it is stopped, or does not serve")]
    Busy,
    /// What is to be said cannot be said now.
    #[error(transparent)]
    OutOfTurn(#[from] OutOfTurn),
    /// The socket fails.
    #[error("cannot speak with the exporter")]
    Io(#[from] io::Error),
}

/// Why nobody was attached to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// Nobody listens there.
    #[error("nobody shares memory at {}; share it first, or name the path at which it is", path.display())]
    Nobody {
        /// The path.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The exporter refuses.
    #[error("refused ({rule}): {why}")]
    Refused {
        /// The word of the rule.
        rule: String,
        /// Object, evidence and next step, in the exporter's words.
        why: String,
    },
    /// The moment has passed.
    #[error("no answer from the exporter in time; it is stopped, or does not serve")]
    Late,
    /// The memory that came cannot be mapped safely.
    #[error("the memory that came is not mapped: {why}")]
    Memory {
        /// Why not.
        why: String,
    },
    /// The attachment was over before it began.
    #[error(transparent)]
    Ended(#[from] Ended),
}

/// Why memory was not mapped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MapError {
    /// The exporter does not grant it now.
    #[error("not mapped, as the buffer is {phase}: {why}")]
    Denied {
        /// Where the buffer is in its life.
        phase: Phase,
        /// Why, in the exporter's words.
        why: String,
    },
    /// Terms are for no mapping by a CPU.
    #[error("the terms are for {methods}; attach for the CPU to map it here")]
    NotForCpu {
        /// What they are for.
        methods: Methods,
    },
    /// The moment has passed; the request is withdrawn.
    #[error("no answer from the exporter in time; it is stopped, or does not serve")]
    Late,
    /// The kernel does not map it.
    #[error("cannot map the memory")]
    Kernel(#[source] io::Error),
    /// The attachment is over.
    #[error(transparent)]
    Ended(#[from] Ended),
}

/// Bytes were to be written that may only be read, or that are not there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The memory is for reading.
    #[error("the terms are for reading; attach for writing to write")]
    ReadOnly,
    /// It does not have them.
    #[error(transparent)]
    Beyond(#[from] BeyondPages),
}
