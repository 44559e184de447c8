//! A DMA engine.

use super::super::importer::{Ended, Worker};
use super::{Desk, Mapped};
use crate::device::dma::Driver;
use crate::host::wire_address;
use peerdma::access::Prot;
use peerdma::addr::{BusAddr, Bytes};
use peerdma::chunk::View;
use peerdma::dma::{DeviceAddress, Owner};

/// What the engine is at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Job {
    None,
    /// It fills; the last word lies there.
    Fills(BusAddr),
    /// It fills what is no longer its own.
    Late,
    /// It reads back from there, which no write that it sent before is overtaken by.
    ReadsBack,
}

/// A DMA engine that fills buffers.
pub struct DmaWorker<'c, 'a, 'm> {
    desk: &'c Desk<'a>,
    driver: Driver<'m>,
    /// RAM for what is read back.
    scratch: BusAddr,
    mapping: Option<Mapped<'c, 'a>>,
    /// Where the last one was, if an IOMMU stood before it.
    last: Option<BusAddr>,
    job: Job,
}

impl<'c, 'a, 'm> DmaWorker<'c, 'a, 'm> {
    /// The engine of this driver, with 8 bytes of RAM at `scratch`, as the engine reaches it.
    pub fn new(desk: &'c Desk<'a>, driver: Driver<'m>, scratch: BusAddr) -> Self {
        Self { desk, driver, scratch, mapping: None, last: None, job: Job::None }
    }

    /// Where byte `at` of the buffer is for the engine.
    fn address(&self, at: Bytes) -> Option<BusAddr> {
        let at = at.as_u64();
        let mut spans = self.mapping.as_ref()?.spans();
        let span = spans.find(|span| (span.at.as_u64()..span.at.as_u64() + span.len.as_u64()).contains(&at))?;
        Some(BusAddr::new(wire_address(&span).as_u64() + at - span.at.as_u64()))
    }
}

impl Worker for DmaWorker<'_, '_, '_> {
    fn map(&mut self, place: View<'_, Owner>) -> Result<(), String> {
        self.mapping = Some(self.desk.map(place, Prot::ReadWrite).map_err(|error| error.to_string())?);
        Ok(())
    }

    fn unmap(&mut self) {
        let span = self.mapping.as_ref().and_then(|mapping| mapping.spans().next());
        let translated = span.filter(|span| matches!(span.address, DeviceAddress::Iova(_)));
        self.last = translated.map(|span| wire_address(&span));
        self.mapping = None;
    }

    fn start_late(&mut self, word: u64) -> bool {
        let Some(last) = self.last else { return false };
        self.driver.start_fill(last, Bytes::new(64), word);
        self.job = Job::Late;
        true
    }

    fn start(&mut self, (at, len): (Bytes, Bytes), word: u64) {
        let last = Bytes::new((at.as_u64() + len.as_u64()).saturating_sub(8));
        // A buffer of fields is one piece, and so is its mapping.
        if let (Some(first), Some(last)) = (self.address(at), self.address(last)) {
            self.driver.start_fill(first, len, word);
            self.job = Job::Fills(last);
        }
    }

    fn ended(&mut self) -> Option<Ended> {
        let outcome = match self.job {
            Job::None => return Some(Ended::Failed("nothing was mapped".into())),
            Job::Fills(last) => match self.driver.poll()? {
                Ok(()) => {
                    self.driver.start_copy(last, self.scratch, Bytes::new(8));
                    self.job = Job::ReadsBack;
                    return None;
                }
                Err(error) => Err(error),
            },
            Job::ReadsBack | Job::Late => self.driver.poll()?,
        };
        self.job = Job::None;
        Some(outcome.map_or_else(|error| Ended::Failed(error.to_string()), |()| Ended::Well))
    }
}
