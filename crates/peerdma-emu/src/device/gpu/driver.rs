//! The CPU's side of a GPU.

use super::command::{Operation, Options, Place, Status, encode};
use crate::device::channel::{CallError, Caller, Queue, Ticket};
use crate::device::driver::Mmio;
use peerdma::addr::{BusAddr, Bytes};

/// Why the GPU did not do what it was asked.
pub type Error = CallError<Status>;

/// One channel of a GPU's copy engine.
pub struct Driver<'m> {
    caller: Caller<'m>,
}

impl<'m> Driver<'m> {
    /// Starts a channel.
    ///
    /// # Errors
    /// [`CallError::Memory`] or [`CallError::NotStarted`].
    pub fn open(mmio: &'m dyn Mmio, channel: u16, queue: Queue) -> Result<Self, Error> {
        Ok(Self { caller: Caller::open(mmio, channel, queue)? })
    }

    /// Writes a command into its slot, and rings the doorbell.
    ///
    /// # Errors
    /// [`CallError::Full`].
    pub fn submit(&mut self, operation: Operation, options: Options) -> Result<Ticket, Error> {
        let ticket = self.prepare(operation, options)?;
        self.caller.ring();
        Ok(ticket)
    }

    /// Writes a command into its slot, for somebody else to ring for it: whoever writes
    /// [`tail`](Self::tail) to [`doorbell`](Self::doorbell).
    ///
    /// # Errors
    /// [`CallError::Full`].
    pub fn prepare(&mut self, operation: Operation, options: Options) -> Result<Ticket, Error> {
        let tag = self.caller.next_tag();
        self.caller.write(encode(operation, options, tag))
    }

    /// Where the channel's doorbell is in BAR0.
    pub fn doorbell(&self) -> Bytes {
        self.caller.doorbell()
    }

    /// What to write there, as 4 bytes, for everything that was prepared.
    pub fn tail(&self) -> u64 {
        self.caller.tail()
    }

    /// Whether a command has completed, without waiting. What it came to is given once.
    pub fn poll(&mut self, ticket: Ticket) -> Option<Result<u64, Error>> {
        let completion = self.caller.poll(ticket)?;
        Some(match Status::of(completion.status) {
            None => Ok(completion.value),
            Some(status) => {
                Err(CallError::Failed { status, failure: crate::device::channel::failure(completion.detail) })
            }
        })
    }

    /// Waits for a command; its result.
    ///
    /// # Errors
    /// [`CallError::Failed`], or [`CallError::Stalled`] where it never completes.
    pub fn wait(&mut self, ticket: Ticket) -> Result<u64, Error> {
        self.caller.wait(ticket, Status::of)
    }

    /// Does one command.
    ///
    /// # Errors
    /// As [`submit`](Self::submit) and [`wait`](Self::wait).
    pub fn run(&mut self, operation: Operation, options: Options) -> Result<u64, Error> {
        let ticket = self.submit(operation, options)?;
        self.wait(ticket)
    }

    /// Copies.
    ///
    /// # Errors
    /// As [`run`](Self::run). That writes to an address arrive is never known.
    pub fn copy(&mut self, from: Place, to: Place, len: Bytes) -> Result<(), Error> {
        self.run(Operation::Copy { from, to, len }, Options::default()).map(drop)
    }

    /// Fills with a pattern of 8 bytes.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn fill(&mut self, to: Place, len: Bytes, pattern: u64) -> Result<(), Error> {
        self.run(Operation::Fill { to, len, pattern }, Options::default()).map(drop)
    }

    /// Moves pieces of VRAM to an address.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn evict(&mut self, from: Bytes, to: BusAddr, len: Bytes) -> Result<(), Error> {
        self.run(Operation::Evict { from, to, len }, Options::default()).map(drop)
    }

    /// Brings pieces of VRAM back.
    ///
    /// # Errors
    /// As [`run`](Self::run); [`Status::Moved`] where one of them is here already.
    pub fn restore(&mut self, to: Bytes, len: Bytes) -> Result<(), Error> {
        self.run(Operation::Restore { to, len }, Options::default()).map(drop)
    }
}
