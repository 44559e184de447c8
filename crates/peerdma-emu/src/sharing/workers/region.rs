//! An RDMA adapter with a region over the buffer: registered with its pages, or on demand.

use super::super::importer::{Ended, Worker};
use super::super::party::Past;
use super::super::soak::SoakError;
use super::{Desk, Lent, Mapped, part_of};
use crate::device::Mmio;
use crate::device::nic::{
    Answer, Completed, Domain, Driver, FaultQueue, Key, Operation, PageFault, QueuePair, Queues, Rights, Source,
    Status, WorkRequest,
};
use crate::host::Kernel;
use peerdma::access::Prot;
use peerdma::addr::{Bytes, Granule};
use peerdma::chunk::View;
use peerdma::dma::consumer::rdma::{PageSizes, Region, RegionAddr};
use peerdma::dma::{Owner, Span};

const PAGE: Bytes = Bytes::new(0x1000);
/// Where the buffer is in its region, and what is staged in its own.
const BUFFER: RegionAddr = RegionAddr::new(0x7000_0000);
const STAGED: RegionAddr = RegionAddr::new(0x1000_0000);
/// Faults that can wait, as a power of two.
const FAULTS_LOG2: u8 = 4;

/// One adapter, with memory that the other's reads come from.
pub struct Adapter<'c, 'a, 'm> {
    driver: Driver<'m>,
    mmio: &'m dyn Mmio,
    domain: Domain,
    staged: Lent<'c, 'a>,
    staged_key: Key,
    /// For the queue pair that begins work, and for the one that answers.
    rings: [Lent<'c, 'a>; 2],
    faults: Lent<'c, 'a>,
    _lists: Lent<'c, 'a>,
}

impl<'c, 'a, 'm> Adapter<'c, 'a, 'm> {
    /// Takes an adapter over.
    ///
    /// # Errors
    /// [`SoakError`].
    pub fn new(kernel: &Kernel, desk: &'c Desk<'a>, mmio: &'m dyn Mmio) -> Result<Self, SoakError> {
        let lend = || Lent::new(kernel, desk, PAGE);
        let (lists, staged, rings, faults) = (lend()?, lend()?, [lend()?, lend()?], lend()?);
        let driver = Driver::new(mmio, lists.shared.clone());
        let domain = driver.allocate_domain()?;
        let staged_key = {
            let region = Region::new(staged.spans(), STAGED, PageSizes::ALL, Prot::ReadWrite);
            let region = region.map_err(|error| SoakError::Device { why: error.to_string() })?;
            driver.register(domain, Rights::ALL, &region)?
        };
        Ok(Self { driver, mmio, domain, staged, staged_key, rings, faults, _lists: lists })
    }

    /// A queue pair that begins work here, and the one at `there` that answers.
    fn link(&self, there: &Self) -> Result<[QueuePair<'m>; 2], crate::device::nic::Error> {
        let ours = self.driver.create_pair(self.domain, Queues::new(self.rings[0].shared.clone()))?;
        let theirs = there.driver.create_pair(there.domain, Queues::new(there.rings[1].shared.clone()))?;
        self.driver.connect(&ours, there.driver.port(), theirs.number())?;
        there.driver.connect(&theirs, self.driver.port(), ours.number())?;
        Ok([ours, theirs])
    }
}

/// How the adapter comes to the buffer's pages.
enum Pages<'m> {
    /// They are listed when the region is registered, which is when it is mapped.
    Listed,
    /// The region stays, and asks for each page when work needs it.
    Asked(FaultQueue<'m>, Key),
}

/// What the adapter is at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Job {
    None,
    /// It reads from the other into the buffer, of which this is the last word.
    Reads(RegionAddr),
    /// It writes that word to the other, and so reads it back; its own writes are not overtaken.
    ReadsBack,
}

/// An adapter that brings what the other has staged into the buffer.
pub struct RegionWorker<'c, 'a, 'm> {
    desk: &'c Desk<'a>,
    here: &'c Adapter<'c, 'a, 'm>,
    there: &'c Adapter<'c, 'a, 'm>,
    pages: Pages<'m>,
    pairs: Option<[QueuePair<'m>; 2]>,
    mapping: Option<Mapped<'c, 'a>>,
    key: Option<Key>,
    job: Job,
}

impl<'c, 'a, 'm> RegionWorker<'c, 'a, 'm> {
    /// With a region that is registered with its pages for each mapping.
    ///
    /// # Errors
    /// [`SoakError`].
    pub fn pinned(
        desk: &'c Desk<'a>,
        here: &'c Adapter<'c, 'a, 'm>,
        there: &'c Adapter<'c, 'a, 'm>,
    ) -> Result<Self, SoakError> {
        let (pairs, pages) = (Some(here.link(there)?), Pages::Listed);
        Ok(Self { desk, here, there, pages, pairs, mapping: None, key: None, job: Job::None })
    }

    /// With a region of `len` bytes that is registered once, on demand.
    ///
    /// # Errors
    /// [`SoakError`].
    pub fn on_demand(
        desk: &'c Desk<'a>,
        here: &'c Adapter<'c, 'a, 'm>,
        there: &'c Adapter<'c, 'a, 'm>,
        len: Bytes,
    ) -> Result<Self, SoakError> {
        let faults = here.driver.watch_faults(&here.faults.shared, FAULTS_LOG2, None)?;
        let key = here.driver.register_on_demand(here.domain, Rights::ALL, (BUFFER, len), Granule::PAGE_4K)?;
        let new = Self::pinned(desk, here, there)?;
        Ok(Self { pages: Pages::Asked(faults, key), ..new })
    }

    /// The work of bringing `len` staged bytes to `at` of the buffer.
    fn bring(&self, at: RegionAddr, len: Bytes) -> Option<WorkRequest> {
        let from = Operation::Read { from: STAGED, key: self.there.staged_key };
        Some(WorkRequest { id: 1, local: Source { at, key: self.key?, len }, operation: from, quiet: false })
    }

    fn post(&mut self, work: Option<WorkRequest>, next: Job) -> bool {
        let (Some(work), Some([pair, _])) = (work, &mut self.pairs) else { return false };
        let posted = pair.post(&work).is_ok();
        self.job = if posted { next } else { Job::None };
        posted
    }

    /// The next completion; serves the faults that there are.
    fn poll(&mut self) -> Option<Completed> {
        let Self { pages, here, mapping, pairs, .. } = self;
        if let Pages::Asked(faults, _) = pages {
            // What fails shows in the work that needed the page.
            let _ = faults.serve(&here.driver, |fault| page(mapping.as_ref(), fault));
        }
        pairs.as_mut()?[0].poll()
    }

    /// New queue pairs in the place of those that an error has ended.
    fn relink(&mut self) {
        if let Some([ours, theirs]) = self.pairs.take() {
            let gone = self.here.driver.destroy_pair(ours).and_then(|()| self.there.driver.destroy_pair(theirs));
            self.pairs = gone.and_then(|()| self.here.link(self.there)).ok();
        }
    }
}

/// The page that a fault asks for, where something is mapped.
fn page(mapping: Option<&Mapped<'_, '_>>, fault: &PageFault) -> Answer<std::array::IntoIter<Span, 1>> {
    let at = fault.at.as_u64().checked_sub(BUFFER.as_u64()).map(Bytes::new);
    let span = mapping.zip(at).and_then(|(mapping, at)| part_of(mapping, at));
    let Some(span) = span else { return Answer::Refuse };
    let span = Span { at: Bytes::ZERO, len: span.len.min(fault.len), ..span };
    match Region::new([span].into_iter(), fault.at, PageSizes::from_bits(PAGE.as_u64()), Prot::ReadWrite) {
        Ok(region) => Answer::Pages { region, prot: Prot::ReadWrite },
        Err(_) => Answer::Refuse,
    }
}

impl Worker for RegionWorker<'_, '_, '_> {
    fn map(&mut self, place: View<'_, Owner>) -> Result<(), String> {
        let mapping = self.desk.map(place, Prot::ReadWrite).map_err(|error| error.to_string())?;
        self.key = Some(match &self.pages {
            Pages::Asked(_, key) => *key,
            Pages::Listed => {
                let region = Region::new(mapping.spans(), BUFFER, PageSizes::ALL, Prot::ReadWrite);
                let region = region.map_err(|error| error.to_string())?;
                let key = self.here.driver.register(self.here.domain, Rights::ALL, &region);
                key.map_err(|error| error.to_string())?
            }
        });
        self.mapping = Some(mapping);
        Ok(())
    }

    fn unmap(&mut self) {
        let len = self.mapping.as_ref().map_or(Bytes::ZERO, Mapped::len);
        if let Some(key) = self.key.take() {
            let driver = &self.here.driver;
            // Both return when the adapter reads and writes no more of it; the adapter is not reset here.
            let _ = match &self.pages {
                Pages::Listed => driver.deregister(key),
                Pages::Asked(..) => {
                    driver.invalidate(key, BUFFER, len).and_then(|taken| driver.await_invalidation(taken))
                }
            };
        }
        self.mapping = None;
    }

    fn start(&mut self, (at, len): (Bytes, Bytes), word: u64) {
        let bytes = word.to_le_bytes().repeat((len.as_u64() / 8) as usize);
        let first = RegionAddr::new(BUFFER.as_u64() + at.as_u64());
        let last = RegionAddr::new(first.as_u64() + len.as_u64().saturating_sub(8));
        if self.there.staged.shared.write(Bytes::ZERO, &bytes).is_ok() {
            self.post(self.bring(first, len), Job::Reads(last));
        }
    }

    fn ended(&mut self) -> Option<Ended> {
        if self.job == Job::None {
            return Some(Ended::Failed("nothing was posted".into()));
        }
        let completed = self.poll()?;
        if completed.status != Status::Success {
            self.job = Job::None;
            self.relink();
            return Some(Ended::Failed(completed.status.to_string()));
        }
        match (self.job, self.key) {
            (Job::Reads(last), Some(key)) => {
                let to = RegionAddr::new(STAGED.as_u64() + PAGE.as_u64() - 8);
                let operation = Operation::Write { to, key: self.there.staged_key, immediate: None };
                let local = Source { at: last, key, len: Bytes::new(8) };
                self.post(Some(WorkRequest { id: 2, local, operation, quiet: false }), Job::ReadsBack);
                (self.job == Job::None).then(|| Ended::Failed("nothing was posted".into()))
            }
            _ => {
                self.job = Job::None;
                Some(Ended::Well)
            }
        }
    }

    fn past_the_end(&mut self, at: Bytes) -> Past {
        let at = RegionAddr::new(BUFFER.as_u64() + at.as_u64());
        if !self.post(self.bring(at, Bytes::new(8)), Job::ReadsBack) {
            return Past::NotNow;
        }
        let completed = loop {
            let moves = self.here.mmio.pause();
            match self.poll() {
                Some(completed) => break completed,
                None if moves => {}
                None => return Past::NotNow,
            }
        };
        self.job = Job::None;
        match completed.status {
            Status::Success => Past::Made,
            status => {
                self.relink();
                Past::Refused(status.to_string())
            }
        }
    }
}
