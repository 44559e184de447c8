//! What happens to a device's memory, and to what lies in it.

use super::super::Lifetime;
use core::fmt;

/// Something that takes memory away from importers, for a while or for good.
///
/// Each is announced before it happens and again when it is done, because a mapping that is used
/// in between reads all ones or writes into nothing. [`Removal`](Self::Removal) alone comes as news.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Disturbance {
    /// Memory decoding is turned off (command register, bit 1).
    DecodeOff,
    /// The function leaves D0 for D3hot or below, where its memory does not answer.
    PowerDown,
    /// The device is reset in a way of its driver's own.
    Reset,
    /// The bus above the device is reset, and its neighbours with it.
    HotReset,
    /// Function-level reset (PCIe 6.0 §6.6.2).
    FunctionReset,
    /// The exporter gives the memory up.
    Close,
    /// The device is gone; nobody asked.
    Removal,
    /// The device interface is locked for a confidential guest (PCIe 6.0 §11.2).
    Lock,
    /// Importers may do less with the memory from now on; who maps anew gets what is left.
    Permission,
    /// The register that holds the memory's bus address is written.
    BarMove,
    /// The bytes go to another place.
    Move,
}

/// How long a disturbance lasts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Duration {
    /// A state of the device: on until it is off, which its registers tell too.
    State,
    /// A deed: from its beginning to its end; two of them overlap as two.
    Deed,
    /// For good, once every importer has let go.
    Final,
}

/// What becomes of a disturbance while an attachment that was promised [`Lifetime::Pinned`] has mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AgainstPins {
    /// It is refused.
    Refused,
    /// It waits until they have let go; they are told that somebody waits.
    Waits,
    /// It has happened; they are told.
    Happens,
}

/// What memory holds afterwards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Contents {
    /// What it held before.
    Kept,
    /// Whatever the device leaves there.
    Lost,
}

impl Duration {
    /// The word used in text and JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Deed => "deed",
            Self::Final => "final",
        }
    }
}

impl AgainstPins {
    /// The word used in text and JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Waits => "waits",
            Self::Happens => "happens",
        }
    }
}

impl Contents {
    /// The word used in text and JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Lost => "lost",
        }
    }
}

/// What is to be known of one disturbance.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct About {
    /// Which one.
    pub disturbance: Disturbance,
    /// The word used in text and JSON.
    pub word: &'static str,
    /// What happens, in a few words.
    pub what: &'static str,
    /// How long it lasts.
    pub duration: Duration,
    /// What pinned mappings do to it.
    pub pinned: AgainstPins,
    /// Whether mappings that were promised only to be told are in its way too, as nothing forces it.
    pub spares_revocable: bool,
    /// What memory holds afterwards.
    pub contents: Contents,
}

macro_rules! row {
    ($which:ident, $word:literal, $what:literal, $duration:ident, $pinned:ident, spares $spares:literal, $contents:ident) => {
        About {
            disturbance: Disturbance::$which,
            word: $word,
            what: $what,
            duration: Duration::$duration,
            pinned: AgainstPins::$pinned,
            spares_revocable: $spares,
            contents: Contents::$contents,
        }
    };
}

/// One row for each disturbance, in the order of the enumeration.
///
/// After Linux 7.2 `vfio_pci_dma_buf_move` and its callers, which revoke for the first five and for
/// close; the rest is what they leave to others.
pub const DISTURBANCES: [About; 11] = [
    row!(DecodeOff, "decode-off", "memory decoding is turned off", State, Refused, spares false, Kept),
    row!(PowerDown, "power-down", "the function leaves D0", State, Refused, spares false, Lost),
    row!(Reset, "reset", "the device is reset", Deed, Refused, spares false, Lost),
    row!(HotReset, "hot-reset", "the bus above the device is reset", Deed, Refused, spares false, Lost),
    row!(FunctionReset, "function-reset", "the function is reset", Deed, Refused, spares false, Lost),
    row!(Close, "close", "the exporter gives the memory up", Final, Waits, spares false, Lost),
    row!(Removal, "removal", "the device is gone", Final, Happens, spares false, Lost),
    row!(Lock, "lock", "the interface is locked for a confidential guest", State, Refused, spares false, Kept),
    row!(Permission, "permission", "importers may do less from now on", Deed, Refused, spares false, Kept),
    row!(BarMove, "bar-move", "the memory gets another bus address", Deed, Refused, spares false, Kept),
    row!(Move, "move", "the bytes go to another place", Deed, Refused, spares true, Kept),
];

impl Disturbance {
    /// How many there are.
    pub(super) const COUNT: usize = DISTURBANCES.len();

    /// Its row.
    pub const fn about(self) -> &'static About {
        &DISTURBANCES[self as usize]
    }

    /// The word used in text and JSON.
    pub const fn word(self) -> &'static str {
        self.about().word
    }

    /// Whether memory stays memory while it lasts, only not at a place where it may be used.
    pub const fn is_move(self) -> bool {
        matches!(self, Self::Move | Self::BarMove | Self::Permission)
    }

    /// Whether a mapping with this promise is in its way.
    pub const fn respects(self, lifetime: Lifetime) -> bool {
        let about = self.about();
        match lifetime {
            Lifetime::Pinned => matches!(about.pinned, AgainstPins::Refused),
            Lifetime::Revocable => about.spares_revocable,
            Lifetime::Movable => false,
        }
    }
}

impl fmt::Display for Disturbance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_disturbance_has_its_own_row() {
        for (index, about) in DISTURBANCES.iter().enumerate() {
            assert_eq!(about.disturbance as usize, index);
            assert_eq!(DISTURBANCES.iter().filter(|other| other.word == about.word).count(), 1);
        }
    }

    #[test]
    fn only_a_move_that_nothing_forces_spares_revocable_mappings() {
        let spares: Vec<_> =
            DISTURBANCES.iter().filter(|about| about.disturbance.respects(Lifetime::Revocable)).collect();
        assert_eq!(spares.len(), 1);
        assert_eq!(spares[0].disturbance, Disturbance::Move);
    }
}
