//! The driver of an NVMe drive: registers, queues and data pointers from the host's side.
//!
//! It brings the controller up in the order that Linux does, and writes data pointers with the
//! library's own builders. Where queues and lists lie is the caller's: in RAM, in a peer's
//! memory, or in the drive's memory buffer.

mod data;
mod error;
mod ring;

pub use error::DriverError;
pub use ring::{Completed, QueueMemory, Request};

use super::registers as reg;
use super::{admin, io};
use crate::device::{Mmio, Shared};
use peerdma::addr::{AddrRange, BusAddr, Bytes};
use ring::Ring;
use std::collections::BTreeMap;

/// Memory page that the driver chooses (`CC.MPS` 0).
const PAGE: u64 = 4096;

/// In which form data pointers are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Form {
    /// Physical region pages: all boundaries inside the data are those of pages.
    #[default]
    Prps,
    /// A scatter gather list: ranges of any length.
    Sgl,
}

/// The driver of one drive.
pub struct Driver<'a> {
    mmio: &'a dyn Mmio,
    /// A page for data of admin commands, then pages for lists.
    scratch: Shared,
    rings: BTreeMap<u16, Ring>,
    most_entries: u64,
    most_queues: u16,
    longest: u64,
    block: u64,
    blocks: u64,
}

impl<'a> Driver<'a> {
    /// Brings the controller up: disables it, gives it its admin queues, enables it, and asks who it is.
    ///
    /// `scratch` begins at a page of 4 KiB and has two at least: one for Identify data, the others
    /// for lists of data pointers.
    ///
    /// # Errors
    /// [`DriverError`]; the controller may be enabled then.
    pub fn bring_up(mmio: &'a dyn Mmio, admin: QueueMemory, scratch: Shared) -> Result<Self, DriverError> {
        if !scratch.device().as_u64().is_multiple_of(PAGE) || scratch.len() < Bytes::new(2 * PAGE) {
            return Err(DriverError::Scratch { at: scratch.device(), len: scratch.len() });
        }
        let cap = mmio.load(0, reg::CAP, 8);
        if cap == u64::MAX {
            return Err(DriverError::Gone);
        }
        let rings = BTreeMap::new();
        let most_entries = (cap & 0xffff) + 1;
        let mut driver =
            Self { mmio, scratch, rings, most_entries, most_queues: 0, longest: PAGE, block: 512, blocks: 0 };
        driver.configure(0);
        driver.await_ready(false)?;
        // Admin queues have 4096 entries at most.
        let ring = Ring::new(0, admin, most_entries.min(4096))?;
        let zero_based = u64::from(ring.entries() - 1);
        mmio.store(0, reg::AQA, zero_based << 16 | zero_based, 4);
        mmio.store(0, reg::ASQ, ring.memory().submission.device().as_u64(), 8);
        mmio.store(0, reg::ACQ, ring.memory().completion.device().as_u64(), 8);
        driver.rings.insert(0, ring);
        // Entries of 64 and 16 bytes in the I/O queues.
        driver.configure(4 << 20 | 6 << 16 | reg::CC_ENABLE);
        driver.await_ready(true)?;
        driver.learn()?;
        Ok(driver)
    }

    /// Shows the memory buffer, and has the controller find it at `base` with its own requests;
    /// which BAR it is behind, where in it, and how long.
    ///
    /// `base` is the bus address of that place. Done before the controller is enabled, its queues may
    /// lie there.
    ///
    /// # Errors
    /// [`DriverError::NoCmb`] for a drive without one, or an address that it cannot have.
    pub fn enable_cmb(mmio: &dyn Mmio, base: BusAddr) -> Result<(u8, Bytes, Bytes), DriverError> {
        if !base.as_u64().is_multiple_of(PAGE) {
            return Err(DriverError::NoCmb);
        }
        // That the size goes and comes says that the controller has looked.
        mmio.store(0, reg::CMBMSC, 0, 8);
        while mmio.load(0, reg::CMBSZ, 4) != 0 && mmio.pause() {}
        mmio.store(0, reg::CMBMSC, base.as_u64() | reg::CMB_USED | reg::CMB_SHOWN, 8);
        while mmio.load(0, reg::CMBSZ, 4) == 0 && mmio.pause() {}
        let (location, size) = (mmio.load(0, reg::CMBLOC, 4), mmio.load(0, reg::CMBSZ, 4));
        if size >> 12 == 0 || size == u64::from(u32::MAX) || mmio.load(0, reg::CMBSTS, 4) & 1 != 0 {
            return Err(DriverError::NoCmb);
        }
        let unit = PAGE << ((size >> 8 & 15) * 4).min(24);
        let bytes = |units: u64| Bytes::new(units * unit);
        Ok(((location & 7) as u8, bytes(location >> 12), bytes(size >> 12)))
    }

    /// Asks the controller and its namespace who they are, and for all queues that it has.
    fn learn(&mut self) -> Result<(), DriverError> {
        let controller = self.identify(1, 0)?;
        self.longest = match controller.get(77) {
            None | Some(0) => u64::MAX,
            Some(pages_log2) => PAGE << (*pages_log2).min(32),
        };
        let namespace = self.identify(0, 1)?;
        self.blocks = namespace.first_chunk().map_or(0, |size| u64::from_le_bytes(*size));
        self.block = 1 << namespace.get(130).copied().unwrap_or(9).clamp(9, 16);
        let features = u32::from(admin::NUMBER_OF_QUEUES);
        let wanted = 0xfffe_fffe;
        let request = Request::new(admin::SET_FEATURES).with(10, features).with(11, wanted);
        let granted = self.perform(0, request)?;
        self.most_queues = (granted & 0xffff).min(granted >> 16) as u16;
        self.most_queues = self.most_queues.saturating_add(1);
        Ok(())
    }

    fn identify(&mut self, what: u32, namespace: u32) -> Result<Vec<u8>, DriverError> {
        let request = Request::new(admin::IDENTIFY).of(namespace).with(10, what);
        self.perform(0, request.at(self.scratch.device(), BusAddr::new(0)))?;
        let mut bytes = vec![0; PAGE as usize];
        self.scratch.read(Bytes::ZERO, &mut bytes)?;
        Ok(bytes)
    }

    /// How many blocks there are.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// How long a block is.
    pub fn block(&self) -> Bytes {
        Bytes::new(self.block)
    }

    /// How many bytes one command moves at most; longer transfers are several commands.
    pub fn longest(&self) -> Bytes {
        Bytes::new(self.longest)
    }

    /// Makes a pair of queues; its number, from 1 on.
    ///
    /// The queues have as many entries as both memories hold. With a vector, each completion
    /// comes with an interrupt.
    ///
    /// # Errors
    /// [`DriverError`].
    pub fn create_io_queue(&mut self, memory: QueueMemory, vector: Option<u16>) -> Result<u16, DriverError> {
        let number = (1..=self.most_queues).find(|number| !self.rings.contains_key(number));
        let number = number.ok_or(DriverError::NoMoreQueues { most: self.most_queues })?;
        let ring = Ring::new(number, memory, self.most_entries)?;
        let (submission, completion) = (ring.memory().submission.device(), ring.memory().completion.device());
        let size = u32::from(number) | u32::from(ring.entries() - 1) << 16;
        let interrupts = vector.map_or(0, |vector| 2 | u32::from(vector) << 16);
        let request = Request::new(admin::CREATE_COMPLETION).with(10, size).with(11, interrupts | 1);
        self.perform(0, request.at(completion, BusAddr::new(0)))?;
        let request = Request::new(admin::CREATE_SUBMISSION).with(10, size).with(11, u32::from(number) << 16 | 1);
        let made = self.perform(0, request.at(submission, BusAddr::new(0)));
        if let Err(error) = made {
            // One without the other is of no use, and would keep its number from the next.
            let _ = self.perform(0, Request::new(admin::DELETE_COMPLETION).with(10, u32::from(number)));
            return Err(error);
        }
        self.rings.insert(number, ring);
        Ok(number)
    }

    /// Takes a pair of queues back; their memory is the caller's again.
    ///
    /// # Errors
    /// [`DriverError`].
    pub fn delete_io_queue(&mut self, number: u16) -> Result<(), DriverError> {
        let request = |opcode| Request::new(opcode).with(10, u32::from(number));
        self.perform(0, request(admin::DELETE_SUBMISSION))?;
        self.perform(0, request(admin::DELETE_COMPLETION))?;
        self.rings.remove(&number);
        Ok(())
    }

    /// Reads blocks from `first` on into ranges, which are as long as the blocks together.
    ///
    /// # Errors
    /// [`DriverError`]; what came before the failure has arrived.
    pub fn read(&mut self, queue: u16, first: u64, into: &[AddrRange<BusAddr>], form: Form) -> Result<(), DriverError> {
        self.transfer((queue, io::READ), first, into, form)
    }

    /// Writes ranges into blocks from `first` on.
    ///
    /// # Errors
    /// [`DriverError`]; what came before the failure is on the medium.
    pub fn write(
        &mut self,
        queue: u16,
        first: u64,
        from: &[AddrRange<BusAddr>],
        form: Form,
    ) -> Result<(), DriverError> {
        self.transfer((queue, io::WRITE), first, from, form)
    }

    /// Compares ranges with blocks from `first` on.
    ///
    /// # Errors
    /// [`DriverError::Status`] with [`Status::COMPARE_FAILURE`](super::Status::COMPARE_FAILURE) where they differ.
    pub fn compare(
        &mut self,
        queue: u16,
        first: u64,
        with: &[AddrRange<BusAddr>],
        form: Form,
    ) -> Result<(), DriverError> {
        self.transfer((queue, io::COMPARE), first, with, form)
    }

    /// Fills `count` blocks from `first` on with zeros; 1 to 65536 blocks.
    ///
    /// # Errors
    /// [`DriverError`].
    pub fn write_zeroes(&mut self, queue: u16, first: u64, count: u32) -> Result<(), DriverError> {
        let request = Request::new(io::WRITE_ZEROES).blocks(first, count);
        self.perform(queue, request).map(|_| ())
    }

    /// Has everything that was written put on the medium.
    ///
    /// # Errors
    /// [`DriverError`].
    pub fn flush(&mut self, queue: u16) -> Result<(), DriverError> {
        self.perform(queue, Request::new(io::FLUSH).of(1)).map(|_| ())
    }

    /// Shuts the controller down, as before power is taken away.
    ///
    /// # Errors
    /// [`DriverError::Stuck`] where it does not say that it is done.
    pub fn shut_down(&mut self) -> Result<(), DriverError> {
        self.configure(1 << 14 | 4 << 20 | 6 << 16 | reg::CC_ENABLE);
        self.await_status(reg::CSTS_SHUT, reg::CSTS_SHUT)
    }

    fn configure(&self, config: u32) {
        self.mmio.store(0, reg::CC, u64::from(config), 4);
    }

    /// Waits until the controller is ready, or neither ready nor fatal.
    fn await_ready(&self, ready: bool) -> Result<(), DriverError> {
        if ready {
            return self.await_status(reg::CSTS_READY, reg::CSTS_READY);
        }
        self.await_status(reg::CSTS_READY | reg::CSTS_FATAL, 0)
    }

    /// Waits until bits of `CSTS` are so.
    fn await_status(&self, mask: u32, wanted: u32) -> Result<(), DriverError> {
        let mut moving = true;
        loop {
            let status = self.status()?;
            if status & (mask | reg::CSTS_FATAL) == wanted {
                return Ok(());
            }
            // One that is being disabled may be fatal still.
            if wanted != 0 && status & reg::CSTS_FATAL != 0 {
                return Err(DriverError::Fatal);
            }
            if !moving {
                return Err(DriverError::Stuck);
            }
            moving = self.mmio.pause();
        }
    }

    fn status(&self) -> Result<u32, DriverError> {
        match self.mmio.load(0, reg::CSTS, 4) as u32 {
            u32::MAX => Err(DriverError::Gone),
            status => Ok(status),
        }
    }
}
