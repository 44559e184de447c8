//! An I/O address space whose owner maps buffers at addresses of its own choice, for a device that is told nothing.
//!
//! So a program does that drives a device from user space. When the memory is taken away its entries go at
//! once, whatever the device is doing: the IOMMU stops it, and its job fails. When memory is back the owner
//! maps it at the same addresses.

use super::exporter::Exporter;
use super::frames::{PAGE, runs};
use super::membership::{Membership, Use};
use super::party::{Broken, Party, Past, Tally};
use super::workers::{Lent, write_and_read};
use crate::device::dma::Driver;
use crate::host::Space;
use peerdma::access::{MemAttrs, Prot};
use peerdma::addr::{AddrRange, BusAddr, Bytes, Iova};
use peerdma::dma::consumer::stage2::GuestFrame;
use peerdma::dma::{Behind, IoSpace, Owners, Peers, Source};
use std::convert::Infallible;

/// Where the owner maps buffers.
const FIRST: Iova = Iova::new(1 << 44);

/// A job that runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Job {
    /// Whether what it is for has been mapped all the while.
    is_good: bool,
    /// Whether it reads back, after which nothing that it wrote is under way.
    reads_back: bool,
}

/// An address space, its owner, and a DMA engine in it.
pub struct Tables<'c, 'a, 'm> {
    member: Membership,
    owners: &'c Owners<Infallible>,
    space: Space,
    engine: Driver<'m>,
    part: (Bytes, Bytes),
    held: Option<Use>,
    mapped: Vec<AddrRange<Iova>>,
    /// RAM for what the engine reads back.
    scratch: Lent<'c, 'a>,
    job: Option<Job>,
    tally: Tally,
}

impl<'c, 'a, 'm> Tables<'c, 'a, 'm> {
    /// An engine behind this address space that writes `part` of a buffer: from where, how much.
    pub fn new(
        member: Membership,
        owners: &'c Owners<Infallible>,
        space: Space,
        (engine, scratch): (Driver<'m>, Lent<'c, 'a>),
        part: (Bytes, Bytes),
    ) -> Self {
        let (held, mapped, job) = (None, Vec::new(), None);
        Self { member, owners, space, engine, part, held, mapped, scratch, job, tally: Tally::default() }
    }

    /// Takes the entries out. An unmap returns when no request that was translated before is under way.
    fn take_out(&mut self) {
        for range in self.mapped.drain(..) {
            // They are its own.
            let _ = self.space.unmap(range);
        }
        if let Some(job) = &mut self.job {
            job.is_good = false;
        }
        self.tally.let_go += u64::from(self.held.take().is_some());
    }

    fn map(&mut self, exporter: &Exporter) -> Result<(), Broken> {
        // Its engine only writes.
        let Some(held) = self.member.map(exporter)?.filter(Use::writes) else { return Ok(()) };
        let refused = |why: &str| self.member.refused(why);
        let first = GuestFrame::new(FIRST.as_u64() / PAGE);
        for run in runs(&held, self.owners, first).map_err(|why| refused(&why))? {
            let at = AddrRange::new(Iova::new(run.guest.number() * PAGE), run.host.len());
            let at = at.ok_or_else(|| refused("the buffer runs past the last address"))?;
            let attrs = if run.behind == Behind::Mmio { MemAttrs::MMIO } else { MemAttrs::empty() };
            let mapped = self.space.map(at, &Source::Physical(run.host.start()), Prot::ReadWrite, attrs);
            mapped.map_err(|error| refused(&error.to_string()))?;
            self.mapped.push(at);
        }
        self.held = Some(held);
        self.tally.mapped += 1;
        Ok(())
    }

    fn at(&self, at: Bytes) -> BusAddr {
        BusAddr::new(FIRST.as_u64() + at.as_u64())
    }

    fn look(&mut self, random: &mut fastrand::Rng) -> Result<(), Broken> {
        let Some(outcome) = self.engine.poll() else { return Ok(()) };
        let Some(job) = self.job.take() else { return Ok(()) };
        match (outcome, &self.held) {
            (Ok(()), Some(_)) if job.is_good && !job.reads_back => {
                let last = Bytes::new(self.part.0.as_u64() + self.part.1.as_u64() - 8);
                self.engine.start_copy(self.at(last), self.scratch.at(), Bytes::new(8));
                self.job = Some(Job { reads_back: true, ..job });
                Ok(())
            }
            (Ok(()), Some(held)) if job.is_good => {
                self.tally.done += 1;
                if random.u8(..8) == 0 {
                    return self.member.all_there(&held.field, held.stamp, self.part);
                }
                Ok(())
            }
            (Err(error), Some(_)) if job.is_good => {
                Err(Broken::Failed { who: self.member.name().to_string(), why: error.to_string() })
            }
            // Its entries went while it ran.
            _ => {
                self.tally.cut_off += 1;
                Ok(())
            }
        }
    }
}

impl Party for Tables<'_, '_, '_> {
    fn step(&mut self, random: &mut fastrand::Rng, exporter: &Exporter, peers: &Peers<'_>) -> Result<(), Broken> {
        if random.u8(..4) == 0
            && let Some(receipt) = self.member.listen()
        {
            self.take_out();
            receipt.noted();
        }
        if self.job.is_some() {
            return self.look(random);
        }
        if self.held.is_some() && random.u8(..100) == 0 {
            self.take_out();
        }
        if !self.member.join(random, self.held.is_some(), exporter, peers)? {
            return Ok(());
        }
        match &self.held {
            None if self.member.must_let_go() => Ok(()),
            None => self.map(exporter),
            // The engine is told nothing: its owner goes on until it hears, and what runs then is cut off.
            Some(held) => {
                self.engine.start_fill(self.at(self.part.0), self.part.1, held.stamp.word());
                self.job = Some(Job { is_good: true, reads_back: false });
                Ok(())
            }
        }
    }

    fn member(&self) -> &Membership {
        &self.member
    }

    fn tally(&self) -> Tally {
        Tally { refused: self.member.refused, ..self.tally }
    }

    fn past_the_end(&mut self) -> Past {
        let (Some(held), None) = (&self.held, self.job) else { return Past::NotNow };
        write_and_read(&self.engine, self.at(held.field.len()), self.scratch.at())
    }
}
