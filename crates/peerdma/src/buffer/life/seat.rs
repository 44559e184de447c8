//! What is known of one attachment.

use super::super::{Enforcement, Lifetime};
use super::event::{AttachmentId, NoticeId};
use core::fmt;

/// What an importer knows of its buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub(super) enum Informed {
    /// That it may map.
    MayMap,
    /// It is being told to let go.
    BeingTold(NoticeId),
    /// That it must not map.
    MustNot,
    /// It is being told that it may map again.
    BeingCalled(NoticeId),
}

/// One attachment.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub(super) struct Seat {
    pub(super) lifetime: Lifetime,
    pub(super) enforcement: Enforcement,
    pub(super) mappings: u32,
    pub(super) informed: Informed,
}

impl Seat {
    pub(super) fn new(lifetime: Lifetime, enforcement: Enforcement, informed: Informed) -> Self {
        Self { lifetime, enforcement, mappings: 0, informed }
    }
}

/// What a buffer knows of one attachment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attached {
    /// Who.
    pub who: AttachmentId,
    /// For how long its mappings stay good.
    pub lifetime: Lifetime,
    /// Who takes its access away.
    pub enforcement: Enforcement,
    /// How many mappings it has.
    pub mappings: u32,
}

/// What a wait for a quiet buffer still lacks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Still {
    /// The importer has not taken note of the notice.
    ToNote(NoticeId),
    /// The importer has mappings.
    Mapped(u32),
    /// Fences of the buffer have not all retired; ask its reservation which.
    Fences,
}

impl fmt::Display for Still {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ToNote(_) => f.write_str("has not answered the notice to let go"),
            Self::Mapped(1) => f.write_str("has 1 mapping"),
            Self::Mapped(many) => write!(f, "has {many} mappings"),
            Self::Fences => f.write_str("fences have not retired"),
        }
    }
}

/// One thing that a wait for a quiet buffer still lacks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Outstanding {
    /// Whose; `None` for the buffer's own fences.
    pub who: Option<AttachmentId>,
    /// What.
    pub what: Still,
}
