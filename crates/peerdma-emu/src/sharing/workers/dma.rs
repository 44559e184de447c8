//! A DMA engine.

use super::super::importer::{Ended, Worker};
use super::super::party::Past;
use super::{Desk, Lent, Mapped, translated, wire_at};
use crate::device::dma::Driver;
use peerdma::access::Prot;
use peerdma::addr::{BusAddr, Bytes};
use peerdma::chunk::View;
use peerdma::dma::Owner;

/// What the engine is at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Job {
    None,
    /// It fills; the last word lies there.
    Fills(BusAddr),
    /// Nothing is left to do when it ends: it reads, or fills what is no longer its own.
    Last,
}

/// A DMA engine that fills buffers, or one that reads them.
pub struct DmaWorker<'c, 'a, 'm> {
    desk: &'c Desk<'a>,
    driver: Driver<'m>,
    /// RAM for what is read.
    scratch: Lent<'c, 'a>,
    /// What it does with what it may do everything with.
    does: Prot,
    /// What it does with what it has mapped.
    prot: Prot,
    mapping: Option<Mapped<'c, 'a>>,
    /// Where the last one was, if an IOMMU stood before it.
    last: Option<BusAddr>,
    job: Job,
}

impl<'c, 'a, 'm> DmaWorker<'c, 'a, 'm> {
    /// An engine that fills.
    pub fn new(desk: &'c Desk<'a>, driver: Driver<'m>, scratch: Lent<'c, 'a>) -> Self {
        let does = Prot::ReadWrite;
        Self { desk, driver, scratch, does, prot: does, mapping: None, last: None, job: Job::None }
    }

    /// An engine that reads, again and again, as what drives a display does: it has nothing to show instead
    /// where a read fails.
    pub fn reading(desk: &'c Desk<'a>, driver: Driver<'m>, scratch: Lent<'c, 'a>) -> Self {
        Self { does: Prot::Read, ..Self::new(desk, driver, scratch) }
    }

    fn map_for(&mut self, place: View<'_, Owner>, prot: Prot) -> Result<(), String> {
        self.mapping = Some(self.desk.map(place, prot).map_err(|error| error.to_string())?);
        self.prot = prot;
        Ok(())
    }
}

/// Has the engine write 8 bytes and read them. Nobody tells it what became of the write; memory does.
pub(crate) fn write_and_read(driver: &Driver<'_>, at: BusAddr, scratch: BusAddr) -> Past {
    let written = driver.fill(at, Bytes::new(8), 0);
    match written.and_then(|()| driver.copy(at, scratch, Bytes::new(8))) {
        Ok(()) => Past::Made,
        Err(error) => Past::Refused(error.to_string()),
    }
}

impl Worker for DmaWorker<'_, '_, '_> {
    fn map(&mut self, place: View<'_, Owner>) -> Result<(), String> {
        self.map_for(place, self.does)
    }

    fn map_for_reading(&mut self, place: View<'_, Owner>) -> Option<Result<(), String>> {
        Some(self.map_for(place, Prot::Read))
    }

    fn unmap(&mut self) {
        self.last = translated(self.mapping.as_ref());
        self.mapping = None;
        self.prot = self.does;
    }

    fn start_late(&mut self, word: u64) -> bool {
        let Some(last) = self.last else { return false };
        self.driver.start_fill(last, Bytes::new(64), word);
        self.job = Job::Last;
        true
    }

    fn writes(&self) -> bool {
        self.prot.writes()
    }

    fn start(&mut self, (at, len): (Bytes, Bytes), word: u64) {
        let last = Bytes::new((at.as_u64() + len.as_u64()).saturating_sub(8));
        // A buffer of fields is one piece, and so is its mapping.
        let (Some(first), Some(last)) = (wire_at(self.mapping.as_ref(), at), wire_at(self.mapping.as_ref(), last))
        else {
            return;
        };
        if self.prot.writes() {
            self.driver.start_fill(first, len, word);
            self.job = Job::Fills(last);
        } else {
            self.driver.start_copy(first, self.scratch.at(), len.min(self.scratch.shared.len()));
            self.job = Job::Last;
        }
    }

    fn ended(&mut self) -> Option<Ended> {
        let outcome = match self.job {
            Job::None => return Some(Ended::Failed("nothing was mapped".into())),
            Job::Fills(last) => match self.driver.poll()? {
                Ok(()) => {
                    // No write that the engine sent before is overtaken by its read.
                    self.driver.start_copy(last, self.scratch.at(), Bytes::new(8));
                    self.job = Job::Last;
                    return None;
                }
                Err(error) => Err(error),
            },
            Job::Last => self.driver.poll()?,
        };
        self.job = Job::None;
        Some(outcome.map_or_else(|error| Ended::Failed(error.to_string()), |()| Ended::Well))
    }

    fn past_the_end(&mut self, at: Bytes) -> Past {
        if wire_at(self.mapping.as_ref(), at).is_some() {
            return Past::Made;
        }
        // A bus address further on is somebody else's, and no part of the fabric knows where a mapping ends.
        let Some(first) = translated(self.mapping.as_ref()) else {
            return Past::Refused("the mapping has no address behind its end".into());
        };
        let behind = BusAddr::new(first.as_u64().wrapping_add(at.as_u64()));
        write_and_read(&self.driver, behind, self.scratch.at())
    }
}
