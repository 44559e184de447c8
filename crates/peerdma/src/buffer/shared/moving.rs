//! Where the bytes lie from now on: recorded whole, or refused with nothing changed.
//!
//! Whoever attached was settled with by the ranges of that day. So the ranges of another are held against what everybody
//! declared then, by the same rules, before they become the buffer's; whoever objects is named with the rule, and the
//! exporter takes another place. Nothing moves from under a pin, whatever was announced.

use super::buffer::State;
use super::disturbing::Disturbed;
use super::held::Lines;
use super::{Buffer, Holder};
use crate::addr::Bytes;
use crate::buffer::life::AttachmentId;
use crate::buffer::pins::ChargeError;
use crate::buffer::terms::{Offer, OfferError, Place, Refusal, refused_where_it_lies};
use crate::chunk::Chunks;
use crate::dma::{Owner, Peers};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

impl Buffer {
    /// Whether the buffer could be moved to these ranges: what [`Disturbed::moved`] asks, before a byte is copied.
    ///
    /// True of those who have attached now; who attaches later is asked by the move itself, and so is the ledger. Costs a verdict for each
    /// attachment and owner of device memory.
    ///
    /// # Errors
    /// [`WhyNot`].
    pub fn could_move(&self, to: &Chunks<Owner>, place: Place, peers: &Peers<'_>) -> Result<(), WhyNot> {
        self.0.with(|state| state.moved(to, place, peers)).map(drop)
    }
}

impl Disturbed {
    /// The bytes lie elsewhere now; who maps anew gets that place. Then it is over.
    ///
    /// `peers` says what is known of how devices reach the ranges, as at [`Buffer::attach`]. Ask before bytes are
    /// copied with [`Buffer::could_move`].
    ///
    /// # Errors
    /// [`NotMoved`], with this: it is not over then, and nothing has changed. Move it elsewhere, or end it.
    pub fn moved(self, to: Chunks<Owner>, place: Place, peers: &Peers<'_>) -> Result<(), NotMoved> {
        let why = match &self.members()[..] {
            [buffer] => buffer
                .with(|state| {
                    let offer = state.moved(&to, place, peers)?;
                    // The last that may refuse; what follows cannot.
                    let counted = state.account.as_ref().map(|account| account.elsewhere(state, place)).transpose()?;
                    (state.offer, state.ranges) = (offer, Arc::new(to));
                    Ok(counted.map(|(account, pins)| account.replaces(state, pins)))
                })
                // What was left is dropped without the lock.
                .map(drop),
            several => Err(WhyNot::Several { buffers: several.len() }),
        };
        why.map_err(|why| NotMoved { disturbed: self, why })
    }
}

impl State {
    /// What is offered after a move, if nothing stands against it.
    fn moved(&self, to: &Chunks<Owner>, place: Place, peers: &Peers<'_>) -> Result<Offer, WhyNot> {
        let (is, given) = (self.ranges.view().len(), to.view().len());
        if is != given {
            return Err(WhyNot::Length { is, given });
        }
        let named = |who: AttachmentId| Some(self.seats.get(&who)?.holder.clone());
        let pinned: Vec<Holder> = self.pinned().into_iter().filter_map(named).collect();
        if !pinned.is_empty() {
            return Err(WhyNot::Pinned { place: self.offer.place(), holders: pinned });
        }
        let beyond = self.seats.values().filter(|seat| !seat.terms.places().contains(&place));
        let holders: Vec<Holder> = beyond.map(|seat| seat.holder.clone()).collect();
        if !holders.is_empty() {
            return Err(WhyNot::OutOfReach { place, holders });
        }
        let mut offer = self.offer.clone();
        offer.moved_to(to.clone(), place)?;
        let objections = self.seats.iter().filter_map(|(who, seat)| {
            let refusal = refused_where_it_lies(&offer, &seat.declaration, peers)?;
            Some(Objection { who: *who, holder: seat.holder.clone(), refusal: Box::new(refusal) })
        });
        let objections: Vec<Objection> = objections.collect();
        match objections.is_empty() {
            true => Ok(offer),
            false => Err(WhyNot::Refused { objections }),
        }
    }
}

/// A move that was not recorded.
#[derive(Debug, thiserror::Error)]
#[error("the buffer's place is as it was: {why}")]
pub struct NotMoved {
    /// The disturbance, which goes on.
    pub disturbed: Disturbed,
    /// Why.
    pub why: WhyNot,
}

/// Why a move was not recorded.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WhyNot {
    /// A buffer's size never changes.
    #[error("the buffer has {is} and the new place {given}; move it to a place of its own length")]
    Length {
        /// The buffer's.
        is: Bytes,
        /// The place's.
        given: Bytes,
    },
    /// Pins hold it where it is, whatever else was announced to happen to it.
    #[error("pins of {} hold it in {place}; wait until they detach", Lines(holders))]
    Pinned {
        /// Where.
        place: Place,
        /// Whose.
        holders: Vec<Holder>,
    },
    /// Somebody who has attached does not reach the new place.
    #[error("{place} is out of reach for {}", Lines(holders))]
    OutOfReach {
        /// The new place.
        place: Place,
        /// Who does not reach it.
        holders: Vec<Holder>,
    },
    /// Somebody who has attached would not have been settled with, had the buffer lain there.
    #[error("{}; move it to other ranges, or have who objects detach", Lines(objections))]
    Refused {
        /// Who, and by which rule. Not empty.
        objections: Vec<Objection>,
    },
    /// The ranges cannot be exported.
    #[error(transparent)]
    Offer(#[from] OfferError),
    /// There is no room for it, or for a pin of somebody who asked for that place.
    #[error(transparent)]
    Charge(#[from] ChargeError),
    /// The disturbance is of several buffers, or of none.
    #[error("{buffers} buffers do not have one place; move them one by one")]
    Several {
        /// How many.
        buffers: usize,
    },
}

/// An attachment that new ranges are not for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Objection {
    /// Which.
    pub who: AttachmentId,
    /// Who stands behind it.
    pub holder: Holder,
    /// The rule, and what breaks it.
    pub refusal: Box<Refusal>,
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} stands against it: {}", self.who, self.holder, self.refusal)
    }
}
