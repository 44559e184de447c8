//! What an exporter tells its author.

use super::super::process::Standing;
use peerdma::buffer::Enforcement;
use peerdma::buffer::life::AttachmentId;
use peerdma::buffer::wire::Violation;

/// What happened at an exporter.
#[derive(Debug)]
#[non_exhaustive]
pub enum Happened {
    /// An importer attached.
    Attached {
        /// Who.
        who: AttachmentId,
        /// Its process, in words.
        peer: String,
        /// What was settled.
        terms: String,
    },
    /// An importer was refused.
    Refused {
        /// Its process, in words.
        peer: String,
        /// The word of the rule.
        rule: String,
        /// Why.
        why: String,
    },
    /// An importer has mapped the memory once more.
    Mapped {
        /// Who.
        who: AttachmentId,
        /// How many mappings it has now.
        mappings: u32,
    },
    /// An importer has taken mappings down.
    Unmapped {
        /// Who.
        who: AttachmentId,
        /// How many mappings it has left.
        mappings: u32,
    },
    /// An importer has taken note of what it was told.
    Noted {
        /// Who.
        who: AttachmentId,
    },
    /// Messages of an attachment come from another process now: its control descriptor was passed on.
    PassedOn {
        /// Which attachment.
        who: AttachmentId,
        /// The process that spoke.
        pid: u32,
    },
    /// An importer said goodbye, with nothing mapped.
    Detached {
        /// Who.
        who: AttachmentId,
    },
    /// The last copy of an importer's control descriptor was closed: its process ended, or let go.
    HungUp {
        /// Who; `None` if nothing had been settled.
        who: Option<AttachmentId>,
        /// Its process, in words.
        peer: String,
        /// Mappings that it had not said it took down.
        mappings: u32,
    },
    /// A peer broke the rules.
    CutOff {
        /// Who; `None` if nothing had been settled.
        who: Option<AttachmentId>,
        /// Its process, in words.
        peer: String,
        /// What it did.
        violation: Violation,
        /// Mappings that it still has, which stay in the way until nothing is left of it ([`Happened::Ended`]).
        mappings: u32,
    },
    /// The process of an importer that had been cut off has ended, every copy of its control descriptor is
    /// closed, and its mappings are no longer in the way.
    Ended {
        /// Who.
        who: AttachmentId,
    },
}

/// An importer in another process, as its exporter sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Guest {
    /// Which attachment.
    pub who: AttachmentId,
    /// What it calls itself.
    pub name: String,
    /// The process that connected.
    pub pid: u32,
    /// Its command's name.
    pub command: Option<String>,
    /// What becomes of that process just now.
    pub standing: Standing,
    /// The process that spoke last, where it is another.
    pub speaker: Option<u32>,
    /// How many mappings it has.
    pub mappings: u32,
    /// Who sees to it that it lets go.
    pub enforcement: Enforcement,
    /// What it did, if it was cut off.
    pub cut_off: Option<Violation>,
}
