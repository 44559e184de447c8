//! An importer with a device that is given jobs: attaches, maps, works, lets go, and goes on to another buffer.

use super::exporter::Exporter;
use super::importer::{Ended, Worker};
use super::membership::{Membership, Use};
use super::party::{Broken, Party, Past, Tally};
use super::witness::Stamp;
use peerdma::addr::Bytes;
use peerdma::buffer::fence::{Fence, Timeline, Usage};
use peerdma::buffer::shared::Mapped;
use peerdma::dma::Peers;

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

/// A job that runs.
enum Job {
    /// One that its mapping is for; the fence stands for it.
    Good(Fence),
    /// One that nothing is mapped for.
    Late,
}

/// What its device shows: kept until the job has ended, whatever the buffer was told.
struct Showing {
    field: super::field::Field,
    /// The buffer's record; `None` once it was told that the mapping is given up.
    mapped: Option<Mapped>,
}

/// An importer with a device.
pub struct Driver<'d> {
    member: Membership,
    style: Style,
    /// Which part of the buffer it works on; from where, how much.
    part: (Bytes, Bytes),
    worker: Box<dyn Worker + 'd>,
    showing: Option<Showing>,
    stamp: Stamp,
    /// What its device is doing.
    queue: Timeline,
    job: Option<Job>,
    /// Whether it uses what it has said that it has unmapped.
    late: bool,
    tally: Tally,
}

impl<'d> Driver<'d> {
    /// A driver whose device is `worker`, that works on `part` of a buffer: from where, how much.
    pub fn new(member: Membership, style: Style, part: (Bytes, Bytes), worker: Box<dyn Worker + 'd>) -> Self {
        let (queue, stamp) = (Timeline::new(member.name()), Stamp { writer: 0, epoch: 0 });
        Self {
            member,
            style,
            part,
            worker,
            showing: None,
            stamp,
            queue,
            job: None,
            late: false,
            tally: Tally::default(),
        }
    }

    /// Has its device work, with a fence that stands for it from before it begins.
    fn start(&mut self) {
        let Some(seat) = self.member.seat() else { return };
        let mut reservation = seat.reservation().lock();
        if reservation.reserve(1).is_err() {
            return;
        }
        let fence = self.queue.issue();
        let usage = if self.worker.writes() { Usage::Write } else { Usage::Read };
        // There is a slot, so it is not refused.
        let _ = reservation.add(fence.clone(), usage);
        drop(reservation);
        self.job = Some(Job::Good(fence));
        self.worker.start(self.part, self.stamp.word());
    }

    /// Takes note of the next thing that it was told. Its fences stand in the reservation.
    fn listen(&mut self, exporter: &Exporter) {
        let Some(receipt) = self.member.listen() else { return };
        if self.style == Style::Fences
            && let Some(showing) = &mut self.showing
        {
            self.tally.let_go += u64::from(showing.mapped.is_some());
            showing.mapped = None;
        }
        if let Some(showing) = &mut self.showing
            && self.style != Style::Fences
            && showing.mapped.is_some()
            && exporter.lets_go_too_early(self.member.number())
        {
            // It says that its job has ended and its mapping is gone, and goes on with both.
            (showing.mapped, self.late) = (None, true);
            let _ = self.queue.retire_to(self.queue.issued());
        }
        receipt.noted();
    }

    fn map(&mut self, exporter: &Exporter) -> Result<(), Broken> {
        let Some(held) = self.member.map(exporter)? else { return Ok(()) };
        let held_writes = held.writes();
        let Use { mapped, field, stamp } = held;
        let outcome = match held_writes || !self.worker.writes() {
            true => self.worker.map(mapped.ranges()),
            false => match self.worker.map_for_reading(mapped.ranges()) {
                Some(outcome) => outcome,
                // Nothing can be done with it; it is given back, and asked for again.
                None => return Ok(()),
            },
        };
        outcome.map_err(|why| self.member.refused(&why))?;
        self.tally.for_reading += u64::from(!held_writes);
        (self.showing, self.stamp) = (Some(Showing { field, mapped: Some(mapped) }), stamp);
        self.tally.mapped += 1;
        Ok(())
    }

    fn unmap(&mut self) {
        self.worker.unmap();
        let mapped = self.showing.take().and_then(|showing| showing.mapped);
        self.tally.let_go += u64::from(self.member.must_let_go() && mapped.is_some());
    }

    fn look(&mut self, random: &mut fastrand::Rng) -> Result<(), Broken> {
        let Some(ended) = self.worker.ended() else { return Ok(()) };
        let Some(Job::Good(fence)) = self.job.take() else { return Ok(()) };
        // Only now: its writes have arrived.
        let _ = self.queue.retire_to(fence.sequence());
        match ended {
            Ended::Failed(why) => Err(Broken::Failed { who: self.member.name().to_string(), why }),
            Ended::Well => {
                self.tally.done += 1;
                match &self.showing {
                    // Looking at every word each time would be most of the work.
                    Some(showing) if self.worker.writes() && random.u8(..8) == 0 => {
                        self.member.all_there(&showing.field, self.stamp, self.part)
                    }
                    _ => Ok(()),
                }
            }
        }
    }
}

impl Party for Driver<'_> {
    fn step(&mut self, random: &mut fastrand::Rng, exporter: &Exporter, peers: &Peers<'_>) -> Result<(), Broken> {
        // It need not listen at once, nor to everything.
        if random.u8(..4) == 0 {
            self.listen(exporter);
        }
        if self.job.is_some() {
            return self.look(random);
        }
        if self.late {
            if random.u8(..50) == 0 {
                self.late = false;
                self.unmap();
            } else {
                self.tally.late += 1;
                self.job = Some(Job::Late);
                self.worker.start(self.part, self.stamp.word());
            }
            return Ok(());
        }
        // What was given up may not be used again, even if memory is back by now.
        let stale = self.showing.as_ref().is_some_and(|showing| showing.mapped.is_none());
        let ends = (self.member.must_let_go() || stale) && random.u8(..10) == 0;
        if self.showing.is_some() && (ends || random.u8(..40) == 0) {
            self.unmap();
        }
        if !self.member.join(random, self.showing.is_some(), exporter, peers)? {
            return Ok(());
        }
        match &self.showing {
            None if self.member.must_let_go() => {
                if self.style == Style::WritesOn && random.u8(..8) == 0 && self.worker.start_late(self.stamp.word()) {
                    self.tally.late += 1;
                    self.job = Some(Job::Late);
                }
                Ok(())
            }
            None => self.map(exporter),
            Some(showing) if showing.mapped.is_some() && !self.member.must_let_go() => {
                self.start();
                Ok(())
            }
            Some(_) => Ok(()),
        }
    }

    fn member(&self) -> &Membership {
        &self.member
    }

    fn tally(&self) -> Tally {
        Tally { refused: self.member.refused, ..self.tally }
    }

    fn past_the_end(&mut self) -> Past {
        match (&self.showing, &self.job) {
            (Some(showing), None) => self.worker.past_the_end(showing.field.len()),
            _ => Past::NotNow,
        }
    }
}
