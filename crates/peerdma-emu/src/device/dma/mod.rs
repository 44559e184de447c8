//! A DMA engine: one job at a time, written into registers and started by a command.
//!
//! It copies, fills, rings a doorbell by a memory write, and sends AtomicOps, in the address
//! space and with the attributes that its control register names. What it does is done in
//! pieces, one a step, so that other devices get their turn.
//!
//! - [`registers`]: what a driver writes and reads.
//! - [`Driver`]: the code that does so.
//!
//! A doorbell goes out after the payload, but to another place, so nothing on the way keeps it
//! behind (PCIe 6.0 §2.4.1 orders what takes the same way). With
//! [`READ_BACK`](registers::READ_BACK) the engine reads the last byte of the payload before it
//! rings: the read pushes the payload ahead of itself, and its completion says that it is there.

mod driver;
mod job;
pub mod registers;
#[cfg(test)]
mod tests;

pub use driver::{Addresses, Driver, DriverError, Options};
pub use job::Reason;

use super::{Access, Bus, Device, Layout, Progress, Registers};
use job::Job;
use peerdma::addr::Bytes;
use registers as reg;
use std::sync::Arc;

/// Writes to registers that are looked at in one step; a peer that never stops writing cannot
/// keep the engine from its work.
const WRITES_A_STEP: usize = 64;

/// A DMA engine with its registers in BAR 0.
#[derive(Debug)]
pub struct DmaEngine {
    registers: Arc<Registers>,
    job: Option<Job>,
}

impl Default for DmaEngine {
    fn default() -> Self {
        Self::new()
    }
}

impl DmaEngine {
    /// An engine that does nothing yet.
    pub fn new() -> Self {
        let read_only = [reg::STATUS, reg::MOVED, reg::RESULT, reg::FINISHED];
        let block = Registers::new(reg::LEN);
        let block = read_only.into_iter().fold(block, |block, at| block.with(at, Access::ReadOnly));
        Self { registers: Arc::new(block), job: None }
    }

    /// Notes how a job ended, and interrupts if that is wanted.
    fn finish(&mut self, bus: &mut dyn Bus, job: &Job, outcome: Result<u64, Reason>) {
        let regs = &self.registers;
        regs.set(reg::MOVED, job.moved().as_u64());
        regs.set(reg::RESULT, *outcome.as_ref().unwrap_or(&0));
        regs.set(reg::STATUS, outcome.map_or_else(|reason| reg::FAILED | reason.code() << 8, |_| reg::DONE));
        // Last, since who sees it reads the others, the status too.
        regs.set(reg::FINISHED, regs.get(reg::FINISHED).wrapping_add(1));
        if let Some(vector) = job.vector() {
            bus.interrupt(vector);
        }
    }
}

impl Device for DmaEngine {
    fn layout(&self) -> Layout {
        Layout::new().registers(0, Bytes::ZERO, &self.registers)
    }

    fn step(&mut self, bus: &mut dyn Bus) -> Progress {
        for _ in 0..WRITES_A_STEP {
            let Some(written) = bus.next_write() else { break };
            // A command that comes while another is at work is dropped, as the status said it would be.
            if written.bar == 0 && written.offset == reg::COMMAND && self.job.is_none() {
                self.registers.set(reg::STATUS, reg::BUSY);
                self.registers.set(reg::MOVED, 0);
                self.job = Some(Job::from_registers(&self.registers, written.value));
            }
        }
        let Some(mut job) = self.job.take() else { return Progress::Idle };
        match job.advance(bus) {
            Ok(None) => {
                self.registers.set(reg::MOVED, job.moved().as_u64());
                self.job = Some(job);
                return Progress::Working;
            }
            Ok(Some(result)) => self.finish(bus, &job, Ok(result)),
            Err(reason) => self.finish(bus, &job, Err(reason)),
        }
        // What was written meanwhile may be the next command.
        Progress::Working
    }

    fn reset(&mut self) {
        self.job = None;
        while self.registers.take_write().is_some() {}
        for at in (0..reg::LEN.as_u64()).step_by(8) {
            self.registers.set(Bytes::new(at), 0);
        }
    }
}
