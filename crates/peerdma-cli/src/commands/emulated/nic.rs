//! An adapter that moves bytes by itself: two of its queue pairs, connected to each other.
//!
//! Data leaves one range of memory by the adapter's reads, goes through its own loop-back, and
//! arrives in the other by its writes, as with any RDMA write between two processes of one host.

use super::engine::{EngineError, Way};
use super::session::{RamRange, Session};
use peerdma::addr::Bytes;
use peerdma::dma::consumer::rdma::{PageSizes, Region, RegionAddr};
use peerdma::dma::{Prot, Span};
use peerdma_emu::device::Shared;
use peerdma_emu::device::nic::{
    Domain, Driver, Key, Operation, QueuePair, Queues, Rights, Source, Status, WorkRequest,
};

/// The most bytes of one work request.
const LONGEST: u64 = 1 << 30;

/// Two queue pairs of one adapter.
pub(super) struct Loop<'c> {
    driver: Driver<'c>,
    domain: Domain,
    pair: QueuePair<'c>,
    /// The other end; it answers as long as it is there.
    _other: QueuePair<'c>,
    /// What is registered: the adapter's own range and the other's.
    regions: Option<(Key, Key)>,
}

impl<'c> Loop<'c> {
    /// Makes both queue pairs and connects them.
    pub(super) fn open(session: &mut Session<'c>, rings: &Shared) -> Result<Self, EngineError> {
        let lists = session.ram(Bytes::new(1 << 20))?;
        let driver = Driver::new(session.seat(), lists);
        let domain = driver.allocate_domain()?;
        let half = Bytes::new(rings.len().as_u64() / 2);
        let pair = driver.create_pair(domain, Queues::new(rings.slice(Bytes::ZERO, half)?))?;
        let other = driver.create_pair(domain, Queues::new(rings.slice(half, half)?))?;
        driver.connect(&pair, driver.port(), other.number())?;
        driver.connect(&other, driver.port(), pair.number())?;
        Ok(Self { driver, domain, pair, _other: other, regions: None })
    }

    /// Registers both ranges, once, and does one work request.
    pub(super) fn carry(
        &mut self,
        way: Way,
        stage: &RamRange,
        own: Bytes,
        peer: &[Span],
        at: Bytes,
        len: Bytes,
    ) -> Result<(), EngineError> {
        let (mine, theirs) = match self.regions {
            Some(regions) => regions,
            None => {
                let mine = self.register(&stage.spans, Prot::ReadWrite)?;
                let theirs = self.register(peer, way.prot())?;
                *self.regions.insert((mine, theirs))
            }
        };
        let (mut done, total) = (0, len.as_u64());
        while done < total {
            let len = (total - done).min(LONGEST);
            let (own, at) = (RegionAddr::new(own.as_u64() + done), RegionAddr::new(at.as_u64() + done));
            // Read locally and written remotely, both by this adapter.
            let (from, from_key, to, key) = match way {
                Way::Push => (own, mine, at, theirs),
                Way::Pull => (at, theirs, own, mine),
            };
            let local = Source { at: from, key: from_key, len: Bytes::new(len) };
            let operation = Operation::Write { to, key, immediate: None };
            self.pair.post(&WorkRequest { id: done, local, operation, quiet: false })?;
            let completed = self.pair.wait()?;
            if completed.status != Status::Success {
                let because = completed.failure.map_or_else(String::new, |failure| format!(" ({failure})"));
                return Err(format!("the work request ended: {}{because}", completed.status).into());
            }
            done += len;
        }
        Ok(())
    }

    fn register(&self, spans: &[Span], access: Prot) -> Result<Key, EngineError> {
        let region = Region::new(spans.iter().copied(), RegionAddr::new(0), PageSizes::ALL, access)?;
        let rights = match access {
            Prot::Read => Rights::NONE,
            Prot::Write | Prot::ReadWrite => Rights::LOCAL_WRITE | Rights::REMOTE_WRITE,
        };
        Ok(self.driver.register(self.domain, rights, &region)?)
    }
}
