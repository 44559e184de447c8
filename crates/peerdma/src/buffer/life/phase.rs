//! Where in its life a buffer is.

use core::fmt;

/// Where in its life a buffer is. Never stored: it follows from what has begun and who has answered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Phase {
    /// Within reach; importers map and use it.
    Live,
    /// Importers are being told, or their fences have not all retired.
    Invalidating,
    /// All have been told and all fences have retired; some mappings still exist.
    Draining,
    /// Out of reach, and mapped by nobody.
    Revoked,
    /// Mapped by nobody while its bytes, its address or its permissions change.
    Moving,
    /// Within reach again; importers are being told.
    Restored,
    /// Gone for good, and mapped by nobody.
    Dead,
}

impl Phase {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Live, Self::Invalidating, Self::Draining, Self::Revoked, Self::Moving, Self::Restored, Self::Dead];

    /// The word used in text and JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Invalidating => "invalidating",
            Self::Draining => "draining",
            Self::Revoked => "revoked",
            Self::Moving => "moving",
            Self::Restored => "restored",
            Self::Dead => "dead",
        }
    }

    /// What it means, in a sentence.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Live => "within reach; importers map and use it",
            Self::Invalidating => "importers are being told, or their fences have not all retired",
            Self::Draining => "all have been told and all fences have retired; some mappings still exist",
            Self::Revoked => "out of reach, and mapped by nobody",
            Self::Moving => "mapped by nobody while its bytes, its address or its permissions change",
            Self::Restored => "within reach again; importers are being told",
            Self::Dead => "gone for good, and mapped by nobody",
        }
    }

    /// Whether nobody has mapped it and nobody may: what a disturbance waits for.
    ///
    /// It stays so until every disturbance has ended.
    pub const fn is_quiet(self) -> bool {
        matches!(self, Self::Revoked | Self::Moving | Self::Dead)
    }

    /// Whether memory is within reach, though not everybody may have heard: what those wait for who had to let go.
    pub const fn is_reachable(self) -> bool {
        matches!(self, Self::Live | Self::Restored)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
