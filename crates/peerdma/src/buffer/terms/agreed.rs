//! What an exporter and an importer have settled.

use super::super::{Control, Enforcement, Lifetime};
use super::offer::{Methods, Place};
use crate::access::Prot;
use alloc::vec::Vec;
use core::fmt;

/// What was settled for one attachment, before anything is mapped.
///
/// Made by [`negotiate`](super::negotiate) alone: whoever holds terms went through every rule, and
/// nobody can give himself a longer lifetime or a pin.
///
/// ```compile_fail,E0451
/// use peerdma::buffer::Lifetime;
/// use peerdma::buffer::terms::Terms;
///
/// fn forever(terms: Terms) -> Terms {
///     Terms { lifetime: Lifetime::Pinned, ..terms }
/// }
/// ```
///
/// What an importer maps is good for its device and for nothing else: addresses of a mapping are no
/// ranges with an owner, so that they cannot be offered to a third party.
///
/// ```compile_fail,E0308
/// use peerdma::buffer::terms::{Offer, Place, Stays};
/// use peerdma::dma::Span;
///
/// fn export_on(imported: Vec<Span>) {
///     let _ = Offer::new(imported, Stays::ALWAYS, Place::Ram);
/// }
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Terms {
    pub(super) lifetime: Lifetime,
    pub(super) pin: Option<Place>,
    pub(super) place: Place,
    pub(super) moved_from: Option<Place>,
    pub(super) places: Vec<Place>,
    pub(super) methods: Methods,
    pub(super) prot: Prot,
    pub(super) enforcement: Enforcement,
    pub(super) control: Control,
}

impl Terms {
    /// For how long a mapping stays good.
    pub fn lifetime(&self) -> Lifetime {
        self.lifetime
    }

    /// Where a pin is to hold the memory as long as the attachment lasts, if one is needed.
    ///
    /// In device memory it is charged to whoever attaches, where the exporter counts the buffer in a ledger
    /// ([`pins`](super::super::pins), `Buffer::charge`).
    pub fn pin(&self) -> Option<Place> {
        self.pin
    }

    /// Where the memory is when it is mapped first.
    pub fn place(&self) -> Place {
        self.place
    }

    /// The place from which the exporter has to move it before it is mapped, as the importer asked.
    pub fn moved_from(&self) -> Option<Place> {
        self.moved_from
    }

    /// Every place where the memory may be while the attachment lasts, [`place`](Self::place) first.
    ///
    /// The importer reaches memory of its owner in each of them. Ranges are not known before the memory is moved there, and are
    /// held against the importer's declaration then; the exporter moves it to no ranges that break a rule, and to no other place.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// In which ways the importer reaches it; it asked for each.
    pub fn methods(&self) -> Methods {
        self.methods
    }

    /// What it may do with it.
    pub fn prot(&self) -> Prot {
        self.prot
    }

    /// Who sees to it that it lets go.
    pub fn enforcement(&self) -> Enforcement {
        self.enforcement
    }

    /// Whether it uses the memory or has it in full.
    pub fn control(&self) -> Control {
        self.control
    }
}

impl fmt::Display for Terms {
    /// Writes `revocable, rw by dma, in device memory (region 0), enforcement kernel, control use`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lifetime, prot, methods, place, enforcement, control, .. } = self;
        write!(f, "{lifetime}, {prot} by {methods}, in {place}")?;
        if let Some(from) = self.moved_from {
            write!(f, " after a move from {from}")?;
        }
        if self.pin.is_some() {
            f.write_str(", pinned there")?;
        }
        write!(f, ", enforcement {enforcement}, control {control}")
    }
}
