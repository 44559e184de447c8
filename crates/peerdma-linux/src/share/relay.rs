//! A buffer of another process as a buffer of this one.
//!
//! An [`Importer`] hears notices; whatever of this process uses the memory (a guest's slot, a mapping for the CPU) follows a
//! [`Buffer`]. A relay says to the one what it hears from the other:
//!
//! ```text
//! exporter ── let-go ──▶ relay: local importers let go, and when nobody has it mapped ── unmapped ──▶ exporter goes on
//! exporter ── may-map ─▶ relay: asks, is granted ─▶ local importers map anew
//! exporter ── gone ────▶ relay: the local buffer is dead
//! ```
//!
//! Towards the exporter all of this process is one mapping. It is counted from before the first local importer can map until
//! after the last has let go.
//!
//! What may be for good is announced here as what may pass: whether a close happens, only its exporter knows, and says with
//! `gone`. Rejected: announcing the close itself, as a buffer of which nobody has anything mapped any more is then dead at once,
//! and an exporter that waits for another importer in vain may yet keep the memory.

use super::importer::{Ended, Importer, MapError};
use crate::kvm::CpuFile;
use peerdma::access::MemAttrs;
use peerdma::addr::Bytes;
use peerdma::buffer::life::{Answers, Disturbance, Generation, NoticeId};
use peerdma::buffer::shared::{Buffer, Disturbing, Held};
use peerdma::buffer::terms::{self, Moves, OfferError, Stays};
use peerdma::buffer::wire::Heard;
use peerdma::buffer::{Enforcement, Lifetime};
use peerdma::chunk::{Chunk, Chunks};
use peerdma::dma::Owner;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often local importers that hold on are asked to look.
const LOOK: Duration = Duration::from_millis(1);

/// Why an attachment is not relayed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RelayError {
    /// Memory that moves has another descriptor afterwards, which local importers would not learn of.
    #[error(
        "the terms let the memory move, and who follows it here would not learn where to; declare that it may be revoked at most"
    )]
    Moves,
    /// The exporter would count mappings that nobody ever says to be gone.
    #[error("the terms are for nobody to say when the memory was let go of; declare cooperative enforcement")]
    Unenforced,
    /// The memory makes no offer.
    #[error(transparent)]
    Offer(#[from] OfferError),
    /// The attachment is over.
    #[error(transparent)]
    Ended(#[from] Ended),
}

/// What came through a relay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Relayed {
    /// Local importers were told to let go, of this.
    Leaving(Disturbance),
    /// All of them have, and the exporter was told.
    Away,
    /// They may map.
    Within(Generation),
    /// The memory is gone for good.
    Gone,
}

/// A buffer of this process that stands for another's.
///
/// # What holding this tells you
/// Whoever of this process uses the memory as an importer of [`buffer`](Self::buffer) lets go before the exporter is told that this
/// process has, provided that somebody calls [`serve`](Self::serve). When the relay is dropped, or the session ends, local importers are
/// told that the memory is gone, since nobody would tell them of anything any more.
#[derive(Debug)]
pub struct Relay {
    importer: Importer,
    buffer: Buffer,
    /// What keeps local importers out, and why.
    out: Option<(Disturbing, Disturbance)>,
    /// Whether the exporter counts a mapping of this process.
    counted: bool,
    /// Whether the exporter said that it may be mapped, and has not been asked since.
    wanted: bool,
    gone: bool,
}

impl Relay {
    /// Takes an attachment. `owner` is what the memory's bytes are called in this process, counted from its start.
    ///
    /// The buffer is out of reach until [`serve`](Self::serve) says that it is [`Within`](Relayed::Within).
    ///
    /// # Errors
    /// [`RelayError::Moves`] and [`RelayError::Unenforced`]: declare otherwise. [`RelayError::Ended`].
    pub fn new(importer: Importer, owner: Owner) -> Result<Self, RelayError> {
        let terms = importer.terms();
        if terms.lifetime == Lifetime::Movable {
            return Err(RelayError::Moves);
        }
        if terms.enforcement == Enforcement::None {
            return Err(RelayError::Unenforced);
        }
        let stays = Stays { moves: Moves::Never, ..Stays::UNTIL_REVOKED };
        let chunk = Chunk::new(owner, Bytes::ZERO, terms.size, MemAttrs::empty());
        let ranges = Chunks::collect_from(chunk).unwrap_or_default();
        let offer = terms::Offer::new(ranges, stays, terms.place)?;
        let offer = offer.permitting(terms.methods).with_prot(terms.prot).to_peers();
        let buffer = Buffer::new(importer.offer().name.as_str(), offer, Answers::YES);
        let mut relay = Self { importer, buffer, out: None, counted: false, wanted: true, gone: false };
        relay.leave(Disturbance::DecodeOff);
        Ok(relay)
    }

    /// The buffer, for importers of this process. Nothing else is to disturb it.
    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// The attachment behind it.
    pub fn importer(&self) -> &Importer {
        &self.importer
    }

    /// The memory as the CPU maps it; offset 0 is its first byte. Keeps the descriptor open.
    ///
    /// # Errors
    /// The kernel's, where there are no descriptors left.
    pub fn cpu_file(&self) -> io::Result<CpuFile> {
        let file = self.importer.memory().try_clone_to_owned()?;
        Ok(CpuFile::beginning_at(Arc::new(file), self.importer.terms().start.as_u64()))
    }

    /// Who of this process holds on to memory that is to be let go of.
    pub fn held(&self) -> Vec<Held> {
        self.out.as_ref().map(|(out, _)| out.held()).unwrap_or_default()
    }

    /// Passes on what the exporter says, until something was passed on or the moment has passed (`None`).
    ///
    /// Whatever is to be done is done at least once. Local importers' callbacks run on this thread.
    ///
    /// # Errors
    /// [`Ended`]: nothing more will come, and local importers were told that the memory is gone.
    pub fn serve(&mut self, until: Instant) -> Result<Option<Relayed>, Ended> {
        let served = self.turns(until);
        if served.is_err() {
            self.end(Disturbance::Removal);
        }
        served
    }

    fn turns(&mut self, until: Instant) -> Result<Option<Relayed>, Ended> {
        loop {
            if self.let_go(until)? {
                return Ok(Some(Relayed::Away));
            }
            if let Some(generation) = self.come_back(until)? {
                return Ok(Some(Relayed::Within(generation)));
            }
            let leaving = self.counted && self.out.is_some();
            let next = if leaving { until.min(Instant::now() + LOOK) } else { until };
            match self.importer.next(next)? {
                Some(heard) => {
                    if let Some(relayed) = self.take(heard)? {
                        return Ok(Some(relayed));
                    }
                }
                None if Instant::now() >= until => return Ok(None),
                None => {}
            }
        }
    }

    fn take(&mut self, heard: Heard) -> Result<Option<Relayed>, Ended> {
        match heard {
            Heard::LetGo { notice, cause, .. } => self.told_to_leave(notice, cause),
            Heard::MayMap { notice, generation } => {
                self.importer.note(notice)?;
                // Given up before all had let go: what is mapped is good, and stays counted.
                if self.counted && self.out.take().is_some() {
                    return Ok(Some(Relayed::Within(generation)));
                }
                self.wanted = !self.counted;
                Ok(None)
            }
            Heard::Gone => {
                let cause = self.out.as_ref().map(|(_, cause)| *cause);
                self.end(cause.filter(|cause| *cause == Disturbance::Close).unwrap_or(Disturbance::Removal));
                Ok(Some(Relayed::Gone))
            }
            // Others are answers to what was asked, or were settled before.
            _ => Ok(None),
        }
    }

    fn told_to_leave(&mut self, notice: NoticeId, cause: Disturbance) -> Result<Option<Relayed>, Ended> {
        self.wanted = false;
        if let Some((_, last)) = &mut self.out {
            *last = cause;
        } else {
            self.leave(cause);
        }
        // After nothing new can begin here.
        self.importer.note(notice)?;
        Ok(self.counted.then_some(Relayed::Leaving(cause)))
    }

    /// Tells local importers.
    fn leave(&mut self, cause: Disturbance) {
        let passing = match cause {
            Disturbance::Close | Disturbance::Removal => Disturbance::DecodeOff,
            passing => passing,
        };
        // Refused only of what is dead: nobody there was promised that the memory stays.
        self.out = self.buffer.begin(passing).ok().map(|out| (out, cause));
    }

    /// Whether this process has just let go.
    fn let_go(&mut self, until: Instant) -> Result<bool, Ended> {
        let is_out = self.out.as_ref().is_some_and(|(out, _)| out.is_quiet());
        if !self.counted || !is_out {
            return Ok(false);
        }
        self.counted = false;
        self.importer.gave_back(until)?;
        Ok(true)
    }

    /// Asks for the memory where that has a chance.
    fn come_back(&mut self, until: Instant) -> Result<Option<Generation>, Ended> {
        if !self.wanted || self.counted || !self.importer.may_map() {
            return Ok(None);
        }
        match self.importer.grant(until) {
            Ok((generation, _)) => {
                (self.wanted, self.counted) = (false, true);
                drop(self.out.take());
                Ok(Some(generation))
            }
            // Another disturbance has begun, of which a notice tells, and so does one of its end.
            Err(MapError::Denied { .. }) => {
                self.wanted = false;
                Ok(None)
            }
            Err(MapError::Ended(ended)) => Err(ended),
            // The request is withdrawn, and made anew.
            Err(_) => Ok(None),
        }
    }

    /// The memory is gone, for everybody here.
    fn end(&mut self, cause: Disturbance) {
        self.gone = true;
        self.wanted = false;
        // What has been given up is for good when nobody has it mapped; what is removed, at once.
        drop(self.buffer.begin(cause));
        drop(self.out.take());
    }

    /// Whether the memory is gone for good.
    pub fn is_gone(&self) -> bool {
        self.gone
    }
}

impl AsFd for Relay {
    /// Readable when [`serve`](Relay::serve) may have something to do.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.importer.as_fd()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // Before the control descriptor is closed, which says that this process has let go.
        if !self.gone {
            self.end(Disturbance::Removal);
        }
    }
}
