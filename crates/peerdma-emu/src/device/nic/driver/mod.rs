//! The CPU's side of an adapter.

mod on_demand;
mod pair;

pub use on_demand::{Answer, FaultQueue, Invalidation, PageFault};
pub use pair::{Completed, QueuePair, Queues};

use super::command::{Refused, number};
use super::region::{Key, Rights};
use super::register;
use super::work::PairNumber;
use crate::device::channel::until;
use crate::device::driver::{Mmio, Shared};
use crate::memory::Outside;
use peerdma::addr::{Bytes, Granule};
use peerdma::dma::consumer::rdma::{Region, RegionAddr};
use peerdma::dma::{DeviceAddress, Span};

/// Why the adapter did not do what it was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It refused a command.
    #[error("{0}")]
    Refused(Refused),
    /// It does not answer, although nothing in the machine moves any more.
    #[error("the adapter does not answer, and nothing moves any more")]
    Stalled,
    /// Memory that it was to use is too small.
    #[error("memory for the adapter is too small: {0}")]
    Memory(#[from] Outside),
    /// As much is posted as there are slots; wait for a completion.
    #[error("all {slots} slots are in use")]
    Full {
        /// How many there are.
        slots: u32,
    },
}

/// A protection domain of an adapter.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Domain(u32);

impl Domain {
    /// The argument of a registration.
    fn with(self, rights: Rights) -> u64 {
        u64::from(self.0) | u64::from(rights.bits()) << 32
    }
}

/// An adapter.
pub struct Driver<'m> {
    mmio: &'m dyn Mmio,
    lists: Shared,
}

impl<'m> Driver<'m> {
    /// Takes an adapter over. `lists` is memory in which it is shown lists of pages, 8 bytes a page.
    pub fn new(mmio: &'m dyn Mmio, lists: Shared) -> Self {
        Self { mmio, lists }
    }

    /// The adapter's port in its network.
    pub fn port(&self) -> u16 {
        (self.mmio.load(0, register::CAPABILITY, 8) >> 32) as u16
    }

    fn command(&self, number: u64, arguments: &[u64]) -> Result<u64, Error> {
        for (at, argument) in (register::ARGUMENTS..).step_by(8).zip(arguments) {
            self.mmio.store(0, Bytes::new(at), *argument, 8);
        }
        let status = || self.mmio.load(0, register::STATUS, 8);
        let sequence = (status() >> 32).wrapping_add(1) & 0xffff_ffff;
        self.mmio.store(0, register::COMMAND, number | sequence << 32, 8);
        let done = until(self.mmio, || Some(status()).filter(|status| status >> 32 == sequence));
        match Refused::of(done.ok_or(Error::Stalled)? as u32) {
            None => Ok(self.mmio.load(0, register::RESULT, 8)),
            Some(refused) => Err(Error::Refused(refused)),
        }
    }

    /// Makes a protection domain.
    ///
    /// # Errors
    /// [`Error::Refused`] or [`Error::Stalled`], as of every command.
    pub fn allocate_domain(&self) -> Result<Domain, Error> {
        Ok(Domain(self.command(number::ALLOCATE_DOMAIN, &[])? as u32))
    }

    /// Gives a protection domain back.
    ///
    /// # Errors
    /// [`Refused::Busy`] while regions or queue pairs are in it.
    pub fn free_domain(&self, domain: Domain) -> Result<(), Error> {
        self.command(number::FREE_DOMAIN, &[u64::from(domain.0)]).map(drop)
    }

    /// Registers a region that was mapped for the adapter.
    ///
    /// # Errors
    /// As [`register_pages`](Self::register_pages).
    pub fn register<I: Iterator<Item = Span> + Clone>(
        &self,
        domain: Domain,
        rights: Rights,
        region: &Region<I>,
    ) -> Result<Key, Error> {
        self.register_pages(domain, rights, (region.base(), region.len()), region.page(), region.pages())
    }

    /// Registers a region of a base and a length, with the first address of each of its pages.
    ///
    /// # Errors
    /// [`Error::Memory`] where the list of pages is too long for the memory for lists;
    /// [`Refused::Invalid`] where base and length ask for more or fewer pages;
    /// [`Refused::Request`] where the adapter cannot read the list.
    pub fn register_pages(
        &self,
        domain: Domain,
        rights: Rights,
        (base, len): (RegionAddr, Bytes),
        page: Granule,
        pages: impl Iterator<Item = DeviceAddress>,
    ) -> Result<Key, Error> {
        let count = self.list(pages)?;
        let log2 = u64::from(page.bytes().as_u64().trailing_zeros());
        let arguments = [domain.with(rights), base.as_u64(), len.as_u64(), log2, self.lists.device().as_u64(), count];
        Ok(Key::new(self.command(number::REGISTER, &arguments)? as u32))
    }

    /// Shows the adapter a list of pages; how many there are.
    fn list(&self, pages: impl Iterator<Item = DeviceAddress>) -> Result<u64, Error> {
        let mut count = 0_u64;
        for address in pages {
            self.lists.write(Bytes::new(8 * count), &address.as_u64().to_le_bytes())?;
            count += 1;
        }
        Ok(count)
    }

    /// Removes a region. Work that still uses it fails, and the adapter reads no more of it when this returns.
    ///
    /// # Errors
    /// [`Refused::Invalid`] where the key names none.
    pub fn deregister(&self, key: Key) -> Result<(), Error> {
        self.command(number::DEREGISTER, &[u64::from(key.as_u32())]).map(drop)
    }

    /// Connects a queue pair to one of another adapter, which has to be connected to it as well.
    ///
    /// # Errors
    /// [`Refused::Busy`] where it was connected before.
    pub fn connect(&self, pair: &QueuePair<'_>, port: u16, to: PairNumber) -> Result<(), Error> {
        let arguments = [u64::from(pair.number().as_u32()), u64::from(port), u64::from(to.as_u32())];
        self.command(number::CONNECT, &arguments).map(drop)
    }

    /// Ends a queue pair. What is posted to it never completes.
    ///
    /// # Errors
    /// As of every command.
    pub fn destroy_pair(&self, pair: QueuePair<'_>) -> Result<(), Error> {
        self.command(number::DESTROY_PAIR, &[u64::from(pair.number().as_u32())]).map(drop)
    }

    /// Whether a queue pair is in error.
    ///
    /// # Errors
    /// As of every command.
    pub fn is_in_error(&self, pair: &QueuePair<'_>) -> Result<bool, Error> {
        Ok(self.command(number::QUERY_PAIR, &[u64::from(pair.number().as_u32())])? == 2)
    }
}
