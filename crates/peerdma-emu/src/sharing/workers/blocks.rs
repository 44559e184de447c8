//! A drive that reads blocks into buffers.

use super::super::importer::{Ended, Worker};
use super::super::party::Past;
use super::super::soak::SoakError;
use super::{Desk, Lent, Mapped, wire_at};
use crate::device::Mmio;
use crate::device::nvme::{Driver, DriverError, QueueMemory, Request};
use crate::host::Kernel;
use peerdma::access::Prot;
use peerdma::addr::{BusAddr, Bytes};
use peerdma::chunk::View;
use peerdma::dma::Owner;

const PAGE: Bytes = Bytes::new(0x1000);
/// Opcodes of the I/O command set (NVM Command Set 1.0 §3.1).
const WRITE: u8 = 1;
const READ: u8 = 2;
/// The blocks with what is to be read into the buffer, and those for what is read back from there.
const PREPARED: u64 = 0;
const BACK: u64 = 64;

/// A part of the buffer for the drive, in blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Part {
    at: BusAddr,
    blocks: u32,
}

/// What the drive is at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Job {
    None,
    /// What is to be read is put on the medium.
    Prepares(Part),
    /// It is read into the buffer.
    Reads(Part),
    /// The buffer is read back, which no write that the drive sent before is overtaken by.
    ReadsBack,
}

/// A drive whose requests carry parts of a buffer.
pub struct BlockWorker<'c, 'a, 'm> {
    desk: &'c Desk<'a>,
    driver: Driver<'m>,
    queue: u16,
    /// RAM with what goes on the medium; and queues, which stay where they are.
    prepared: Lent<'c, 'a>,
    _queues: Vec<Lent<'c, 'a>>,
    mapping: Option<Mapped<'c, 'a>>,
    job: Job,
}

impl<'c, 'a, 'm> BlockWorker<'c, 'a, 'm> {
    /// Brings the drive up.
    ///
    /// # Errors
    /// [`SoakError`].
    pub fn new(kernel: &Kernel, desk: &'c Desk<'a>, mmio: &'m dyn Mmio) -> Result<Self, SoakError> {
        let lend = |pages: u64| Lent::new(kernel, desk, Bytes::new(pages * PAGE.as_u64()));
        let queues = [lend(1)?, lend(1)?, lend(1)?, lend(1)?, lend(2)?];
        let [a, b, c, d, scratch] = &queues;
        let pair = |submission: &Lent<'_, '_>, completion: &Lent<'_, '_>| QueueMemory {
            submission: submission.shared.clone(),
            completion: completion.shared.clone(),
        };
        let mut driver = Driver::bring_up(mmio, pair(a, b), scratch.shared.clone())?;
        let queue = driver.create_io_queue(pair(c, d), None)?;
        let prepared = lend(1)?;
        Ok(Self { desk, driver, queue, prepared, _queues: queues.into(), mapping: None, job: Job::None })
    }

    /// Submits a command about a page at most, and so with one data pointer.
    fn submit(&mut self, opcode: u8, first: u64, part: Part) -> Result<u16, DriverError> {
        let request = Request::new(opcode).blocks(first, part.blocks).at(part.at, BusAddr::new(0));
        self.driver.submit(self.queue, request)
    }

    /// Goes on to the next command.
    fn go(&mut self, opcode: u8, first: u64, part: Part, next: Job) -> Option<Ended> {
        self.job = next;
        let failed = self.submit(opcode, first, part).err()?;
        self.job = Job::None;
        Some(Ended::Failed(failed.to_string()))
    }
}

impl Worker for BlockWorker<'_, '_, '_> {
    fn map(&mut self, place: View<'_, Owner>) -> Result<(), String> {
        self.mapping = Some(self.desk.map(place, Prot::ReadWrite).map_err(|error| error.to_string())?);
        Ok(())
    }

    fn unmap(&mut self) {
        self.mapping = None;
    }

    fn start(&mut self, (at, len): (Bytes, Bytes), word: u64) {
        let Some(at) = wire_at(self.mapping.as_ref(), at) else { return };
        let bytes = word.to_le_bytes().repeat((len.as_u64() / 8) as usize);
        let blocks = (len.as_u64() / self.driver.block().as_u64()) as u32;
        let source = Part { at: self.prepared.at(), blocks };
        let put = self.prepared.shared.write(Bytes::ZERO, &bytes).is_ok();
        if put && self.submit(WRITE, PREPARED, source).is_ok() {
            self.job = Job::Prepares(Part { at, blocks });
        }
    }

    fn ended(&mut self) -> Option<Ended> {
        let completed = match self.job {
            Job::None => return Some(Ended::Failed("nothing was submitted".into())),
            _ => self.driver.poll(self.queue),
        };
        match completed {
            Ok(None) => None,
            Ok(Some(completed)) if completed.status.is_success() => match self.job {
                Job::Prepares(part) => self.go(READ, PREPARED, part, Job::Reads(part)),
                Job::Reads(part) => self.go(WRITE, BACK, part, Job::ReadsBack),
                Job::ReadsBack | Job::None => {
                    self.job = Job::None;
                    Some(Ended::Well)
                }
            },
            Ok(Some(completed)) => {
                self.job = Job::None;
                Some(Ended::Failed(completed.status.to_string()))
            }
            Err(error) => {
                self.job = Job::None;
                Some(Ended::Failed(error.to_string()))
            }
        }
    }

    fn past_the_end(&mut self, at: Bytes) -> Past {
        // A drive goes where its data pointers say; that there is no pointer is what stops it.
        match wire_at(self.mapping.as_ref(), at) {
            Some(_) => Past::Made,
            None => Past::Refused("the mapping has no address behind its end for a data pointer".into()),
        }
    }
}
