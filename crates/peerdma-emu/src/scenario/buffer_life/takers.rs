//! The two that use the buffer: a drive that fills it, and a NIC that sends what is in it.

use super::super::end::{End, Registered};
use super::super::error::ScenarioError;
use super::hold::{Hold, Turn};
use super::stream::Stream;
use crate::device::nic::{Rights, Status};
use crate::device::nvme::{self, DriverError, Form};
use peerdma::access::Prot;
use peerdma::addr::Bytes;
use peerdma::buffer::fence::Usage;
use peerdma::dma::consumer::rdma::RegionAddr;

/// What a drive is doing with a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Filling {
    /// It reads its blocks and writes the buffer.
    Reads(u64),
    /// It reads the buffer and compares, which its own writes are not overtaken by.
    Compares(u64),
}

/// The drive.
pub(super) struct Filler<'c, 'a, 'm> {
    pub(super) hold: Hold<'c, 'a>,
    drive: nvme::Driver<'m>,
    queue: u16,
    job: Option<Filling>,
}

impl<'c, 'a, 'm> Filler<'c, 'a, 'm> {
    pub(super) fn new(hold: Hold<'c, 'a>, (drive, queue): (nvme::Driver<'m>, u16)) -> Self {
        Self { hold, drive, queue, job: None }
    }

    pub(super) fn step(&mut self, stream: &mut Stream) -> Result<(), ScenarioError> {
        let turn = self.hold.turn();
        if let Some(job) = self.job {
            return self.goes_on(job, stream);
        }
        match turn {
            Turn::LetGo => self.hold.let_go(),
            Turn::Map => drop(self.hold.map()?),
            Turn::Work => {
                if let Some(number) = stream.fill() {
                    self.hold.begin(Usage::Write)?;
                    let ranges = self.hold.part(stream.at(number), stream.batch());
                    self.drive.start_read(self.queue, self.blocks(number, stream), &ranges, Form::Sgl)?;
                    self.job = Some(Filling::Reads(number));
                }
            }
            Turn::Wait => {}
        }
        Ok(())
    }

    fn goes_on(&mut self, job: Filling, stream: &mut Stream) -> Result<(), ScenarioError> {
        let Some(completed) = self.drive.poll(self.queue)? else { return Ok(()) };
        let opcode = match job {
            Filling::Reads(_) => nvme::READ,
            Filling::Compares(_) => nvme::COMPARE,
        };
        if !completed.status.is_success() {
            return Err(DriverError::Status { opcode, status: completed.status }.into());
        }
        self.job = match job {
            Filling::Reads(number) => {
                let ranges = self.hold.part(stream.at(number), stream.batch());
                self.drive.start_compare(self.queue, self.blocks(number, stream), &ranges, Form::Sgl)?;
                Some(Filling::Compares(number))
            }
            Filling::Compares(number) => {
                self.hold.end();
                stream.filled(number);
                None
            }
        };
        Ok(())
    }

    /// The first block of a batch.
    fn blocks(&self, number: u64, stream: &Stream) -> u64 {
        number * stream.batch().as_u64() / self.drive.block().as_u64()
    }
}

/// The NIC that sends.
pub(super) struct Sender<'c, 'a, 'm> {
    pub(super) hold: Hold<'c, 'a>,
    end: End<'c, 'a, 'm>,
    /// The buffer, as long as it is mapped.
    region: Option<Registered>,
    /// Where everything goes.
    into: Registered,
    job: Option<u64>,
}

impl<'c, 'a, 'm> Sender<'c, 'a, 'm> {
    pub(super) fn new(hold: Hold<'c, 'a>, end: End<'c, 'a, 'm>, into: Registered) -> Self {
        Self { hold, end, region: None, into, job: None }
    }

    pub(super) fn step(&mut self, stream: &mut Stream) -> Result<(), ScenarioError> {
        let turn = self.hold.turn();
        if let Some(number) = self.job {
            let Some(completed) = self.end.pair.poll() else { return Ok(()) };
            if completed.status != Status::Success {
                return Err(ScenarioError::Work(completed.status));
            }
            self.hold.end();
            stream.was_sent(number);
            self.job = None;
            return Ok(());
        }
        match turn {
            Turn::LetGo => {
                // The region first: its numbers are those of the mapping.
                if let Some(region) = self.region.take() {
                    self.end.driver.deregister(region.key)?;
                }
                self.hold.let_go();
            }
            Turn::Map => self.region = Some(self.end.register_as(self.hold.map()?, Prot::Read, Rights::NONE)?),
            Turn::Work => {
                if let (Some(region), Some(number)) = (self.region, stream.send()) {
                    self.hold.begin(Usage::Read)?;
                    let len = stream.batch();
                    let (from, to) = (after(region, stream.at(number)), after(self.into, times(len, number)));
                    self.end.pair.post(&End::write(number, from, to, len))?;
                    self.job = Some(number);
                }
            }
            Turn::Wait => {}
        }
        Ok(())
    }
}

fn times(len: Bytes, number: u64) -> Bytes {
    Bytes::new(len.as_u64() * number)
}

fn after(region: Registered, by: Bytes) -> Registered {
    Registered { at: RegionAddr::new(region.at.as_u64() + by.as_u64()), ..region }
}
