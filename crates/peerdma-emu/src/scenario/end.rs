//! One end of a connection between two NICs.

use super::error::ScenarioError;
use super::stage::{Desk, Mapped, Ram, Stage, first};
use crate::device::nic::{Domain, Driver, Key, Operation, QueuePair, Queues, Rights, Source, Status, WorkRequest};
use crate::host::Seat;
use peerdma::access::Prot;
use peerdma::addr::Bytes;
use peerdma::dma::consumer::rdma::{PageSizes, Region, RegionAddr};

/// Memory for rings, and for lists of pages.
const MEMORY: Bytes = Bytes::new(64 << 10);

/// A NIC with a queue pair.
pub(super) struct End<'c, 'a, 'm> {
    pub(super) driver: Driver<'m>,
    pub(super) pair: QueuePair<'m>,
    domain: Domain,
    /// What rings and lists lie in.
    _memory: [Ram<'c, 'a>; 2],
}

/// Memory that a NIC has registered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Registered {
    pub(super) key: Key,
    pub(super) at: RegionAddr,
}

impl<'c, 'a, 'm> End<'c, 'a, 'm> {
    pub(super) fn new(stage: &Stage, desk: &'c Desk<'a>, seat: &'m Seat<'_>) -> Result<Self, ScenarioError> {
        let (rings, lists) = (stage.ram(desk, MEMORY)?, stage.ram(desk, MEMORY)?);
        let driver = Driver::new(seat, lists.shared());
        let domain = driver.allocate_domain()?;
        let pair = driver.create_pair(domain, Queues::new(rings.shared()))?;
        Ok(Self { driver, pair, domain, _memory: [rings, lists] })
    }

    /// Connects two ends with each other.
    pub(super) fn connect(&self, other: &Self) -> Result<(), ScenarioError> {
        self.driver.connect(&self.pair, other.driver.port(), other.pair.number())?;
        Ok(other.driver.connect(&other.pair, self.driver.port(), self.pair.number())?)
    }

    /// Registers a mapping; its region's addresses are the numbers of the mapping.
    pub(super) fn register(&self, mapping: &Mapped<'_, '_>) -> Result<Registered, ScenarioError> {
        self.register_as(mapping, Prot::ReadWrite, Rights::ALL)
    }

    /// As [`register`](Self::register), with fewer rights.
    pub(super) fn register_as(
        &self,
        mapping: &Mapped<'_, '_>,
        prot: Prot,
        rights: Rights,
    ) -> Result<Registered, ScenarioError> {
        let at = RegionAddr::new(first(mapping).as_u64());
        let region = Region::new(mapping.spans(), at, PageSizes::ALL, prot)?;
        let key = self.driver.register(self.domain, rights, &region)?;
        Ok(Registered { key, at })
    }

    /// A write of `len` bytes into the other end's memory.
    pub(super) fn write(id: u64, from: Registered, to: Registered, len: Bytes) -> WorkRequest {
        let local = Source { at: from.at, key: from.key, len };
        let operation = Operation::Write { to: to.at, key: to.key, immediate: None };
        WorkRequest { id, local, operation, quiet: false }
    }

    /// Waits until what was posted last is done.
    pub(super) fn done(&mut self) -> Result<(), ScenarioError> {
        match self.pair.wait()?.status {
            Status::Success => Ok(()),
            status => Err(ScenarioError::Work(status)),
        }
    }
}
