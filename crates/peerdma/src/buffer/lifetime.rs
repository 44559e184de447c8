//! For how long an importer may keep what it mapped, and who sees to it that it lets go.

use core::fmt;

/// For how long a mapping of a buffer stays good.
///
/// Settled once, when an importer attaches, and told it before it maps anything.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Lifetime {
    /// Neither moved nor taken away while it is mapped. The exporter refuses, or puts off, whatever would.
    Pinned,
    /// Stays where it is until it is taken away, which the importer is told and must obey. What was
    /// mapped is lost then; when memory is back the importer may map anew.
    Revocable,
    /// May lie elsewhere after any notice; the importer stops, and maps anew when it needs the memory.
    Movable,
}

impl Lifetime {
    /// All of them, from the most to the least that an exporter promises.
    pub const ALL: [Self; 3] = [Self::Pinned, Self::Revocable, Self::Movable];

    /// The word used in text and JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pinned => "pinned",
            Self::Revocable => "revocable",
            Self::Movable => "movable",
        }
    }
}

impl fmt::Display for Lifetime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Who sees to it that an importer no longer reaches memory that was taken from it.
///
/// In the order of what an exporter can rely on: it may set one as the least it accepts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Enforcement {
    /// Nobody. The importer does not say when it has let go.
    None,
    /// The importer says that it has let go, and is believed: a type1 mapping, a CPU mapping of a memfd.
    Cooperative,
    /// The kernel takes the importer's access away whatever the importer does: an iommufd import, a
    /// KVM slot or a CPU mapping over a VFIO mapping.
    Kernel,
}

impl Enforcement {
    /// All of them, from the weakest.
    pub const ALL: [Self; 3] = [Self::None, Self::Cooperative, Self::Kernel];

    /// The word used in text and JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Cooperative => "cooperative",
            Self::Kernel => "kernel",
        }
    }
}

impl fmt::Display for Enforcement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What an importer may do with memory besides reading and writing it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default)]
pub enum Control {
    /// Use it as it is.
    #[default]
    Use,
    /// Change its cache attributes, encryption keys or ownership. One attachment at a time may.
    Full,
}

impl Control {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Use, Self::Full];

    /// The word used in text and JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Use => "use",
            Self::Full => "full",
        }
    }
}

impl fmt::Display for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stronger_enforcement_is_the_greater() {
        assert!(Enforcement::Kernel > Enforcement::Cooperative && Enforcement::Cooperative > Enforcement::None);
        assert!(Enforcement::ALL.is_sorted() && Lifetime::ALL.is_sorted());
    }
}
