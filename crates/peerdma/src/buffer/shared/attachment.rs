//! An importer's end of a buffer.

use super::buffer::Inner;
use crate::access::Prot;
use crate::buffer::fence::{Reservation, ReservationLock};
use crate::buffer::life::{AttachmentId, Event, Generation, Phase, Refused};
use crate::buffer::pins::ChargeError;
use crate::buffer::terms::{Place, Refusal, Terms};
use crate::chunk::{Chunks, View};
use crate::dma::Owner;
use alloc::sync::Arc;
use core::fmt;

/// An importer that has attached. Dropping it, and every [`Mapped`] of it, detaches.
#[derive(Clone)]
pub struct Attachment(Arc<Seated>);

struct Seated {
    buffer: Arc<Inner>,
    who: AttachmentId,
    terms: Terms,
}

impl Drop for Seated {
    fn drop(&mut self) {
        // Every mapping holds a handle of the seat, so none is left.
        let _ = self.buffer.step(Event::Detach(self.who));
    }
}

impl Attachment {
    pub(super) fn new(buffer: &Arc<Inner>, who: AttachmentId, terms: Terms) -> Self {
        Self(Arc::new(Seated { buffer: buffer.clone(), who, terms }))
    }

    /// Which attachment of the buffer it is.
    pub fn id(&self) -> AttachmentId {
        self.0.who
    }

    /// What was settled.
    pub fn terms(&self) -> &Terms {
        &self.0.terms
    }

    /// The buffer's reservation: what the importer has its device do stands there as a fence, from
    /// before it begins until it has ended.
    ///
    /// Nothing is done to the buffer or its mappings while its lock is held, notices are not answered, and nothing is
    /// dropped that does so: whoever does the last thing that a disturbance waits for looks at its fences, which are
    /// asked for later then, and tells others, who may want the lock.
    pub fn reservation(&self) -> &ReservationLock<Reservation> {
        &self.0.buffer.reservation
    }

    /// Where in its life the buffer is.
    pub fn phase(&self) -> Phase {
        self.0.buffer.with(|state| state.life.phase())
    }

    /// Whether mapping would be granted now.
    pub fn may_map(&self) -> bool {
        self.0.buffer.with(|state| state.life.may_map(self.0.who))
    }

    /// Takes the buffer's ranges into use: where they lie, until told to let go.
    ///
    /// The importer maps them, with its own [`Context`](crate::dma::Context); the exporter does
    /// not know for which device or where.
    ///
    /// # Errors
    /// [`Refused::OutOfReach`] while something disturbs the memory: map after
    /// [`Importer::may_map`](super::Importer::may_map). [`Refused::Dead`]: it is gone for good.
    /// [`MapRefused::Permission`]: nothing is left of what the importer may do.
    pub fn map(&self) -> Result<Mapped, MapRefused> {
        let (place, prot, generation) = self.0.buffer.map(self.0.who, &self.0.terms)?;
        Ok(Mapped { seat: self.0.clone(), place, prot, generation })
    }
}

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.0.who, self.0.buffer.name)
    }
}

/// Why an importer was not attached.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// The two sides cannot agree.
    #[error(transparent)]
    Terms(#[from] Refusal),
    /// The buffer is gone.
    #[error(transparent)]
    Life(#[from] Refused),
    /// The terms are for a pin, and it is more than whoever attaches may hold: the limit is named.
    #[error(transparent)]
    Pin(ChargeError),
}

/// Why a buffer was not mapped.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MapRefused {
    /// It is out of reach, or gone.
    #[error(transparent)]
    Life(#[from] Refused),
    /// The exporter has taken back what the importer asked for when it attached.
    #[error(
        "the exporter now permits {permitted} and the attachment is for {wanted}; detach, or wait for it to be permitted again"
    )]
    Permission {
        /// What the attachment is for.
        wanted: Prot,
        /// What the exporter permits.
        permitted: Prot,
    },
    /// The buffer is not where the importer reaches it; nobody moves it in silence.
    #[error("the buffer is in {place} and the attachment is for {asked}; have the exporter move it")]
    Elsewhere {
        /// Where it is.
        place: Place,
        /// Where the importer asked for it.
        asked: Place,
    },
}

/// Ranges that an importer has in use. Dropping it says that nothing of the importer's reaches them any more.
///
/// # What holding this tells you
/// The buffer is not quiet: whoever disturbs its memory waits for this to be dropped.
#[must_use = "dropping it says that nothing reaches the memory any more"]
pub struct Mapped {
    seat: Arc<Seated>,
    place: Arc<Chunks<Owner>>,
    prot: Prot,
    generation: Generation,
}

impl Mapped {
    /// Where the memory lies.
    pub fn ranges(&self) -> View<'_, Owner> {
        self.place.view()
    }

    /// What was settled.
    pub fn terms(&self) -> &Terms {
        &self.seat.terms
    }

    /// What may be done with it.
    pub fn prot(&self) -> Prot {
        self.prot
    }

    /// Whether nobody has been told to let go since it was made.
    pub fn is_current(&self) -> bool {
        self.seat.buffer.with(|state| state.life.generation()) == self.generation
    }

    /// What it belongs to: as long as the buffer has the same, nobody was told to let go.
    pub fn generation(&self) -> Generation {
        self.generation
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        let _ = self.seat.buffer.step(Event::Unmap(self.seat.who));
    }
}

impl fmt::Debug for Mapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mapping of {} by {}", self.seat.buffer.name, self.seat.who)
    }
}
