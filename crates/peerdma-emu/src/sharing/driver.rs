//! One importer: attaches, maps, works, lets go, and attaches again when its buffer is gone.

use super::exporter::{Exporter, Offered};
use super::field::Field;
use super::importer::{Ears, Ended, News, Worker, shown};
use super::witness::Stamp;
use peerdma::addr::Bytes;
use peerdma::buffer::fence::{Fence, Timeline, Usage};
use peerdma::buffer::shared::{AttachError, Attachment, Holder, Mapped};
use peerdma::buffer::terms::Declaration;
use peerdma::dma::Peers;
use std::sync::Arc;

/// When a driver says that it no longer has the memory mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Style {
    /// When its job has ended and its mapping is gone.
    Unmaps,
    /// At once; a fence stands for the job that still runs.
    Fences,
    /// As the first, and its device goes on all the same: it writes to where its mapping was. Of memory that
    /// an IOMMU stands before, nothing must come of that.
    WritesOn,
}

/// What a driver has to tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Jobs that ended well, and whose bytes were all there.
    pub done: u64,
    /// Times that it mapped.
    pub mapped: u64,
    /// Times that it let go because it was told to.
    pub let_go: u64,
    /// Jobs that its device began after its mapping was gone.
    pub late: u64,
}

/// What must not happen to a driver that keeps to the rules.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Broken {
    /// A job failed although its mapping was good.
    #[error("{who}: a job failed while its mapping was good: {why}")]
    Failed {
        /// Whose.
        who: String,
        /// What the device said.
        why: String,
    },
    /// A job ended well, and its bytes are not there.
    #[error("{who}: a job ended well and {missing} of its words are not in memory")]
    Lost {
        /// Whose.
        who: String,
        /// How many words.
        missing: usize,
    },
    /// The engine refused to map what the buffer gave.
    #[error("{who}: {why}")]
    Refused {
        /// Who.
        who: String,
        /// Why.
        why: String,
    },
}

/// A job that runs.
enum Job {
    /// One that its mapping is for; the fence stands for it.
    Good(Fence),
    /// One that nothing is mapped for.
    Late,
}

/// One importer.
pub struct Driver<'d> {
    name: String,
    writer: u16,
    /// What it says of itself when it attaches.
    declaration: Declaration,
    style: Style,
    /// Which part of the buffer it writes; from where, how much.
    part: (Bytes, Bytes),
    /// Which of the exporter's buffers it has attached to, or is about to.
    number: usize,
    worker: Box<dyn Worker + 'd>,
    ears: Arc<Ears>,
    /// Whether it has heard that it must not map.
    must_let_go: bool,
    /// Whether it has heard that the buffer is gone for good.
    gone: bool,
    seat: Option<Attachment>,
    mapped: Option<Mapped>,
    /// What its device shows: kept until the job has ended, whatever the buffer was told.
    showing: Option<Field>,
    stamp: Stamp,
    /// What its device is doing.
    queue: Timeline,
    job: Option<Job>,
    /// What it has to tell.
    pub tally: Tally,
}

impl<'d> Driver<'d> {
    /// A driver of this name, whose device is `worker`, that writes `part` of the buffer: from where, how much.
    pub fn new(
        (name, writer): (&str, u16),
        declaration: Declaration,
        style: Style,
        part: (Bytes, Bytes),
        worker: Box<dyn Worker + 'd>,
    ) -> Self {
        Self {
            part,
            number: 0,
            name: name.to_string(),
            writer,
            declaration,
            style,
            worker,
            ears: Ears::new(),
            must_let_go: false,
            gone: false,
            seat: None,
            mapped: None,
            showing: None,
            stamp: Stamp { writer, epoch: 0 },
            queue: Timeline::new(name),
            job: None,
            tally: Tally::default(),
        }
    }

    /// Takes one step of its own choice.
    ///
    /// # Errors
    /// [`Broken`]: the rules were not kept by somebody.
    pub fn step(&mut self, random: &mut fastrand::Rng, exporter: &Exporter, peers: &Peers<'_>) -> Result<(), Broken> {
        // It need not listen at once, nor to everything.
        if random.u8(..4) == 0 {
            self.listen();
        }
        if self.job.is_some() {
            return self.look(random);
        }
        // What was given up may not be used again, even if memory is back by now.
        let stale = self.showing.is_some() && self.mapped.is_none();
        let ends = (self.must_let_go || self.gone || stale) && random.u8(..10) == 0;
        if self.showing.is_some() && (ends || random.u8(..40) == 0) {
            self.unmap();
        }
        // Some leave for no reason, with notices that they have not answered.
        if self.showing.is_none() && (self.gone || random.u8(..100) == 0) {
            self.leave();
            self.number = random.usize(..exporter.buffers().max(1));
        }
        let Some(offered) = exporter.offered(self.number) else { return Ok(()) };
        if self.seat.is_none() {
            return self.attach(&offered, peers);
        }
        match &self.showing {
            None if self.must_let_go => {
                if self.style == Style::WritesOn && random.u8(..8) == 0 && self.worker.start_late(self.stamp.word()) {
                    self.tally.late += 1;
                    self.job = Some(Job::Late);
                }
                Ok(())
            }
            None => self.map(&offered),
            Some(_) if self.mapped.is_some() && !self.must_let_go => {
                self.start();
                Ok(())
            }
            Some(_) => Ok(()),
        }
    }

    /// Has its device write, with a fence that stands for it from before it begins.
    fn start(&mut self) {
        let Some(seat) = &self.seat else { return };
        let mut reservation = seat.reservation().lock();
        if reservation.reserve(1).is_err() {
            return;
        }
        let fence = self.queue.issue();
        // There is a slot, so it is not refused.
        let _ = reservation.add(fence.clone(), Usage::Write);
        drop(reservation);
        self.job = Some(Job::Good(fence));
        self.worker.start(self.part, self.stamp.word());
    }

    /// Takes note of the next thing that it was told. Its fences stand in the reservation.
    fn listen(&mut self) {
        match self.ears.next() {
            Some(News::LetGo(receipt)) => {
                self.must_let_go = true;
                if self.style == Style::Fences {
                    self.tally.let_go += u64::from(self.mapped.is_some());
                    self.mapped = None;
                }
                receipt.noted();
            }
            Some(News::MayMap(receipt)) => {
                self.must_let_go = false;
                receipt.noted();
            }
            Some(News::Gone) => self.gone = true,
            None => {}
        }
    }

    fn leave(&mut self) {
        (self.seat, self.ears) = (None, Ears::new());
        (self.must_let_go, self.gone) = (false, false);
    }

    fn attach(&mut self, offered: &Offered<'_>, peers: &Peers<'_>) -> Result<(), Broken> {
        let holder = Holder::here(&self.name);
        match offered.buffer.attach(&self.declaration, peers, holder, self.ears.clone()) {
            Ok(seat) => self.seat = Some(seat),
            // The buffer is about to be gone; there will be another.
            Err(AttachError::Life(_)) => {}
            Err(error) => return Err(Broken::Refused { who: self.name.clone(), why: error.to_string() }),
        }
        Ok(())
    }

    fn map(&mut self, offered: &Offered<'_>) -> Result<(), Broken> {
        let Some(Ok(mapped)) = self.seat.as_ref().map(Attachment::map) else { return Ok(()) };
        let refused = |why: &str| Broken::Refused { who: self.name.clone(), why: why.to_string() };
        let field = shown(offered.fields, mapped.ranges()).ok_or_else(|| refused("no field is where the buffer is"))?;
        // The exporter's word, and not what memory says of the place that was mapped: that is what it judges.
        let epoch = offered.epoch.ok_or_else(|| refused("the buffer may be mapped and its memory is closed"))?;
        self.worker.map(mapped.ranges()).map_err(|why| refused(&why))?;
        self.stamp = Stamp { writer: self.writer, epoch };
        (self.showing, self.mapped) = (Some(field.clone()), Some(mapped));
        self.tally.mapped += 1;
        Ok(())
    }

    fn unmap(&mut self) {
        self.worker.unmap();
        self.showing = None;
        self.tally.let_go += u64::from(self.must_let_go && self.mapped.is_some());
        self.mapped = None;
    }

    fn look(&mut self, random: &mut fastrand::Rng) -> Result<(), Broken> {
        let Some(ended) = self.worker.ended() else { return Ok(()) };
        let Some(Job::Good(fence)) = self.job.take() else { return Ok(()) };
        // Only now: its writes have arrived.
        let _ = self.queue.retire_to(fence.sequence());
        match ended {
            Ended::Failed(why) => Err(Broken::Failed { who: self.name.clone(), why }),
            Ended::Well => {
                self.tally.done += 1;
                // Looking at every word each time would be most of the work.
                match &self.showing {
                    Some(field) if random.u8(..8) == 0 => self.all_there(field),
                    _ => Ok(()),
                }
            }
        }
    }

    fn all_there(&self, field: &Field) -> Result<(), Broken> {
        let bytes = field.bytes();
        let (at, len) = (self.part.0.as_u64() as usize, self.part.1.as_u64() as usize);
        let bytes = bytes.get(at..at + len).unwrap_or_default();
        let word = self.stamp.word().to_le_bytes();
        match bytes.chunks_exact(8).filter(|found| **found != word).count() {
            0 => Ok(()),
            missing => Err(Broken::Lost { who: self.name.clone(), missing }),
        }
    }
}
