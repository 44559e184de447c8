//! What goes into the machine of a buffer's life, and what comes out.

use super::super::{Enforcement, Lifetime};
use super::causes::{Answers, Causes};
use super::disturbance::Disturbance;
use super::phase::Phase;
use alloc::vec::Vec;
use core::fmt;

/// Names one attachment of one buffer; never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[repr(transparent)]
pub struct AttachmentId(u64);

impl AttachmentId {
    /// The attachment of this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for AttachmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "attachment {}", self.0)
    }
}

/// Counts how often a buffer was taken from its importers; a mapping belongs to one such count.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default)]
#[repr(transparent)]
pub struct Generation(u64);

impl Generation {
    /// The first one.
    pub const FIRST: Self = Self(0);

    /// The generation of this number, as it came from another process.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn number(self) -> u64 {
        self.0
    }

    pub(super) const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Tells the notices of a buffer apart, so that a late answer is not taken for a new one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default)]
#[repr(transparent)]
pub struct NoticeId(u64);

impl NoticeId {
    /// The notice of this number, as it came from another process.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn number(self) -> u64 {
        self.0
    }

    pub(super) const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// What an importer is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Notice {
    /// Stop: begin nothing new, let what runs end, unmap.
    LetGo {
        /// What is about to happen, or has.
        cause: Disturbance,
    },
    /// Memory is within reach; what was mapped before is not.
    MayMap {
        /// What a mapping made now belongs to.
        generation: Generation,
    },
    /// Memory is gone for good; no answer is expected.
    Gone,
}

/// What happened to a buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Event {
    /// An importer attaches, with what was settled.
    Attach {
        /// Who; never seen before.
        who: AttachmentId,
        /// For how long its mappings stay good.
        lifetime: Lifetime,
        /// Who takes its access away.
        enforcement: Enforcement,
    },
    /// An importer that has unmapped everything goes.
    Detach(AttachmentId),
    /// An importer is gone without a word: its process ended, or its descriptor was closed.
    ///
    /// With [`Enforcement::Kernel`] its access ended with it, with [`Enforcement::Cooperative`] its
    /// mappings were taken down with its process. With [`Enforcement::None`] nobody knows and nobody is
    /// left to ask, which is why an exporter may refuse it at attach. All count as let go.
    HungUp(AttachmentId),
    /// An importer wants one more mapping.
    Map(AttachmentId),
    /// An importer has taken one mapping down.
    Unmap(AttachmentId),
    /// An importer has taken note: whatever it does from now on, it does knowing.
    Noted(AttachmentId, NoticeId),
    /// All fences that were there when the wait began have retired.
    FencesRetired(Generation),
    /// A disturbance is about to happen (removal: has happened).
    Begin(Disturbance),
    /// What was announced has been done, or its author gave up waiting for a quiet buffer.
    ///
    /// A deed is over then. A [state](super::Duration::State) is over unless registers said or say otherwise:
    /// who has turned memory decoding off ends with `answers` that say so, and the buffer stays out
    /// of reach until registers say that it is on, or until the state is ended without being begun anew.
    /// Turning off and turning on are not told apart here, so a register has one writer at a time.
    End {
        /// Which one.
        disturbance: Disturbance,
        /// What the registers say now, where they may have changed; `None` leaves what they said.
        answers: Option<Answers>,
    },
}

/// What is to be done about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Action {
    /// Tell an importer; it answers with [`Event::Noted`], but for [`Notice::Gone`].
    Tell {
        /// Whom.
        who: AttachmentId,
        /// Which notice of its.
        id: NoticeId,
        /// What.
        notice: Notice,
    },
    /// Wait until all fences of the buffer have retired, of every usage, then send [`Event::FencesRetired`].
    AwaitFences(Generation),
    /// Wake those who wait for a quiet buffer: nobody has mapped it any more.
    Quiet,
    /// Wake those who wait for it to be within reach, or to map: it is, somebody more may, or nobody ever will.
    Reachable,
}

/// Actions in the order in which they are to be done.
pub type Actions = Vec<Action>;

/// Why an event was refused; nothing has changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The buffer is gone for good.
    #[error("the buffer is gone for good ({causes}); let go of it")]
    Dead {
        /// Why.
        causes: Causes,
    },
    /// Memory is out of reach, or the importer has not yet taken note that it is back.
    #[error("the buffer is {phase} ({causes}); map again after the notice that it may be mapped")]
    OutOfReach {
        /// Where the buffer is in its life.
        phase: Phase,
        /// Why it is out of reach.
        causes: Causes,
    },
    /// Mappings that were promised not to be disturbed are in the way.
    #[error(
        "{disturbance} is refused: {} has mapped the buffer with a promise that it stays; have it unmapped first",
        List(holders)
    )]
    Promised {
        /// What was to happen.
        disturbance: Disturbance,
        /// Whose mappings are in the way.
        holders: Vec<AttachmentId>,
    },
    /// The attachment still has mappings.
    #[error("{who} still has {mappings} mappings; unmap before detaching")]
    StillMapped {
        /// Whose.
        who: AttachmentId,
        /// How many.
        mappings: u32,
    },
    /// No such attachment.
    #[error("{who} is not attached")]
    NotAttached {
        /// Who.
        who: AttachmentId,
    },
    /// The number is in use.
    #[error("{who} is attached already")]
    AttachedAlready {
        /// Who.
        who: AttachmentId,
    },
    /// More unmaps than maps.
    #[error("{who} has no mapping to take down")]
    NotMapped {
        /// Who.
        who: AttachmentId,
    },
    /// A disturbance ends that had not begun, or that has happened for good.
    #[error("{disturbance} has not begun, or is for good")]
    NotBegun {
        /// Which one.
        disturbance: Disturbance,
    },
    /// More at once than can be counted.
    #[error("too many at once; wait for some to end")]
    TooMany,
}

struct List<'a>(&'a [AttachmentId]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, who) in self.0.iter().enumerate() {
            write!(f, "{}{who}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}
