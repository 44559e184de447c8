//! What an exporter and an importer settle when the importer attaches.
//!
//! The exporter says what happens to its memory and what it permits ([`Offer`]), the importer what it
//! needs and what it can live with ([`Declaration`]). [`negotiate`] holds one against the other and
//! answers with [`Terms`], which the importer learns before it maps anything, or with a [`Refusal`] that
//! names the rule. What can never work fails here and not in the middle of a transfer.
//!
//! For how long a mapping stays good is a table ([`LIFETIMES`]); everything else is a list of rules
//! ([`RULES`]), asked in order, of every range.
//!
//! An importer attaches to memory that is out of reach for the moment all the same, and is told when it
//! may map (Linux 7.2 `vfio_pci_dma_buf_attach` refuses it with ENODEV, and the importer has to guess when to
//! come again). Nor is memory moved because an importer takes none of a device: it says where it wants it,
//! or is refused (Linux 7.2 `amdgpu_dma_buf_pin` and `xe_dma_buf_pin` move it, and nobody learns of it).
//!
//! ```
//! use peerdma::access::{MemAttrs, Prot};
//! use peerdma::addr::Bytes;
//! use peerdma::buffer::terms::{Declaration, Offer, Place, Rule, Stays, negotiate};
//! use peerdma::buffer::{Enforcement, Lifetime};
//! use peerdma::chunk::{Chunk, Chunks};
//! use peerdma::dma::{Initiator, Owner, OwnerId, Peers};
//! use peerdma::topology::IommuMode;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let memfd = Owner::Memfd(OwnerId::new(3));
//! let chunk = Chunk::new(memfd, Bytes::ZERO, Bytes::new(0x10000), MemAttrs::empty()).ok_or("empty")?;
//! let offer = Offer::new(Chunks::collect_from([chunk])?, Stays::UNTIL_REVOKED, Place::Ram)?;
//!
//! let peers = Peers::none();
//! let nic = Initiator::new("nic", IommuMode::Translated);
//! let crashes = Declaration::of_device(nic, Prot::ReadWrite);
//! assert_eq!(negotiate(&offer, &crashes, &peers).unwrap_err().rule, Rule::Revoked);
//!
//! let lets_go = crashes.taking(Lifetime::Revocable).enforced(Enforcement::Cooperative);
//! let terms = negotiate(&offer, &lets_go, &peers)?;
//! assert_eq!(terms.to_string(), "revocable, rw by dma, in ram, enforcement cooperative, control use");
//! # Ok(())
//! # }
//! ```
//!
//! Not here: what happens to the attachment from then on ([`life`](super::life)), and how much may be
//! pinned ([`pins`](super::pins)).

mod agreed;
mod declaration;
mod drivers;
mod lifetimes;
mod offer;
mod question;
mod reached;
mod refusal;
mod rule;
#[cfg(test)]
mod tests;

use super::{Control, Enforcement, Lifetime};
pub use agreed::Terms;
use alloc::vec::Vec;
pub use declaration::{Contiguity, Declaration};
pub use lifetimes::{Answer, LIFETIMES, LifetimeRow, lifetime};
pub use offer::{Elsewhere, Methods, Moves, Offer, OfferError, Place, Stays};
use question::Question;
pub use refusal::{Evidence, Refusal};
pub use rule::{AboutRule, RULES, Rule};

use crate::dma::Peers;

/// The first rule that depends on where the memory lies.
const FIRST_OF_PLACE: Rule = Rule::PeerNotOffered;

/// What stands against an importer that has attached where the buffer lies now; what the two say of themselves was settled.
#[cfg(any(feature = "std", peerdma_shuttle))]
pub(in crate::buffer) fn refused_where_it_lies(
    offer: &Offer,
    declaration: &Declaration,
    peers: &Peers<'_>,
) -> Option<Refusal> {
    Question::new(offer, declaration, peers, offer.place).refused(FIRST_OF_PLACE)
}

/// What exporter and importer settle, or the rule that stands against it.
///
/// Pure: nothing is attached, pinned or moved by it, and both sides may ask before they commit. The exporter
/// records what the terms say: an attachment that has the buffer in full ([`Offer::set_in_full`]), one that
/// pins it ([`Offer::add_pin`]). Ranges that an importer was promised elsewhere are not known yet, and are held against
/// its declaration when the buffer moves there (`Buffer::could_move`). Costs a verdict for each owner of device memory.
///
/// # Errors
/// [`Refusal`]; [`Refusal::is_unknown`] tells whether more input could change it.
pub fn negotiate(offer: &Offer, declaration: &Declaration, peers: &Peers<'_>) -> Result<Terms, Refusal> {
    let place = declaration.place.unwrap_or(offer.place);
    let question = Question::new(offer, declaration, peers, place);
    if let Some(refusal) = question.refused(Rule::MethodNotOffered) {
        return Err(refusal);
    }
    let (lifetime, pinned) = match question.lifetime() {
        Answer::Gives(lifetime) => (lifetime, false),
        Answer::GivesWithPin(lifetime) => (lifetime, true),
        // Asked as a rule above; without a lifetime the shortest is all that could be given.
        Answer::Refuses(_) => (Lifetime::Movable, false),
    };
    let mut places: Vec<_> = [place].into();
    if lifetime == Lifetime::Movable {
        let others = core::iter::once(offer.place).chain(offer.elsewhere.iter().map(|other| other.place));
        for other in others.filter(|other| *other != place) {
            if Question::new(offer, declaration, peers, other).refused(FIRST_OF_PLACE).is_none() {
                places.push(other);
            }
        }
    }
    Ok(Terms {
        lifetime,
        pin: pinned.then_some(place),
        place,
        moved_from: (place != offer.place).then_some(offer.place),
        places,
        methods: declaration.methods,
        prot: declaration.prot,
        enforcement: declaration.enforcement,
        control: declaration.control,
    })
}
