//! The CPU's side of a context.

use super::command::{Operation, Status, encode};
use crate::device::channel::{CallError, Caller, Queue, Ticket, failure};
use crate::device::driver::Mmio;
use peerdma::addr::{BusAddr, Bytes};

/// Why the accelerator did not do what it was asked.
pub type Error = CallError<Status>;

/// One context of an accelerator.
pub struct Driver<'m> {
    caller: Caller<'m>,
}

impl<'m> Driver<'m> {
    /// Starts a context. The queue's addresses are those of the process that its PASID names.
    ///
    /// # Errors
    /// [`CallError::Memory`] or [`CallError::NotStarted`].
    pub fn open(mmio: &'m dyn Mmio, context: u16, queue: Queue) -> Result<Self, Error> {
        Ok(Self { caller: Caller::open(mmio, context, queue)? })
    }

    /// Writes a command into its slot, and rings the doorbell.
    ///
    /// # Errors
    /// [`CallError::Full`].
    pub fn submit(&mut self, operation: Operation) -> Result<Ticket, Error> {
        let tag = self.caller.next_tag();
        let ticket = self.caller.write(encode(operation, tag))?;
        self.caller.ring();
        Ok(ticket)
    }

    /// Where the context's doorbell is in BAR0, in a page that is its own.
    pub fn doorbell(&self) -> Bytes {
        self.caller.doorbell()
    }

    /// Whether a command has completed, without waiting. What it came to is given once.
    pub fn poll(&mut self, ticket: Ticket) -> Option<Result<u64, Error>> {
        let completion = self.caller.poll(ticket)?;
        Some(match Status::of(completion.status) {
            None => Ok(completion.value),
            Some(status) => Err(CallError::Failed { status, failure: failure(completion.detail) }),
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
    pub fn run(&mut self, operation: Operation) -> Result<u64, Error> {
        let ticket = self.submit(operation)?;
        self.wait(ticket)
    }

    /// The sum of a list of at most so many elements.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn sum(&mut self, head: BusAddr, most: u64) -> Result<u64, Error> {
        self.run(Operation::Sum { head, most })
    }
}
