//! The driver's side of channels.

use super::entry::{COMMAND, COMPLETION, Command, Completion, failure};
use super::{NO_VECTOR, PASID_VALID, block, doorbell, register, state};
use crate::device::driver::{Mmio, Shared};
use crate::memory::Outside;
use crate::wire::{Failure, Pasid};
use peerdma::addr::Bytes;
use std::fmt;

/// What a channel is opened with.
#[derive(Clone, Debug)]
pub struct Queue {
    /// Memory for both rings: 96 bytes for each slot.
    pub memory: Shared,
    /// Slots of each ring, as a power of two, 0 to 12.
    pub slots_log2: u8,
    /// The address space that the channel works in; none for the function's own.
    pub pasid: Option<Pasid>,
    /// The interrupt of each completion; none to look at the memory alone.
    pub vector: Option<u16>,
}

impl Queue {
    /// A queue of 16 slots without interrupt, in the function's own address space.
    pub fn new(memory: Shared) -> Self {
        Self { memory, slots_log2: 4, pasid: None, vector: None }
    }

    /// Bytes of memory for `2^slots_log2` slots.
    pub const fn bytes(slots_log2: u8) -> Bytes {
        Bytes::new((COMMAND + COMPLETION) << if slots_log2 < 12 { slots_log2 } else { 12 })
    }
}

/// Why a command was not done; `S` is the device's own status.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError<S: fmt::Display + fmt::Debug> {
    /// The queue's memory is too small for its slots; hand over [`Queue::bytes`].
    #[error("the queue's memory is too small: {0}")]
    Memory(Outside),
    /// The device did not start the channel: there is no such channel, or its rings are crooked.
    #[error("channel {channel} did not start")]
    NotStarted {
        /// Which one.
        channel: u16,
    },
    /// As many commands as there are slots have no completion yet; wait for one.
    #[error("all {slots} slots are in use")]
    Full {
        /// How many there are.
        slots: u32,
    },
    /// The command does not complete although nothing in the machine moves any more, or its
    /// completion never arrived.
    #[error("the command does not complete, and nothing moves any more")]
    Stalled,
    /// The device completed it with an error.
    #[error("{status}{}", failure.map_or(String::new(), |failure| format!(" ({failure})")))]
    Failed {
        /// What the device says.
        status: S,
        /// What one of its requests came to, where that was the reason.
        failure: Option<Failure>,
    },
}

/// A command that was submitted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Ticket(u64);

/// Lets the machine go on until there is an answer; `None` once nothing moves any more.
pub(in crate::device) fn until<T>(mmio: &dyn Mmio, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if !mmio.pause() {
            return ask();
        }
    }
}

/// One open channel.
pub(in crate::device) struct Caller<'m> {
    mmio: &'m dyn Mmio,
    number: u16,
    memory: Shared,
    slots: u32,
    submitted: u64,
    /// Completions seen so far, and those that nobody asked for yet.
    completed: u64,
    unclaimed: Vec<(Ticket, Completion)>,
}

impl<'m> Caller<'m> {
    /// Starts a channel.
    pub(in crate::device) fn open<S: fmt::Display + fmt::Debug>(
        mmio: &'m dyn Mmio,
        number: u16,
        queue: Queue,
    ) -> Result<Self, CallError<S>> {
        let Queue { memory, slots_log2, pasid, vector } = queue;
        let rings = memory.slice(Bytes::ZERO, Queue::bytes(slots_log2)).map_err(CallError::Memory)?;
        let slots = 1_u32 << slots_log2.min(12);
        // Completions of an earlier life of the memory would pass for ours.
        let first = Bytes::new(COMMAND * u64::from(slots));
        let zeros = vec![0; (COMPLETION * u64::from(slots)) as usize];
        rings.write(first, &zeros).map_err(CallError::Memory)?;
        let store = |offset, value| mmio.store(0, Bytes::new(block(number) + offset), value, 8);
        store(register::COMMANDS, rings.device().as_u64());
        store(register::COMPLETIONS, rings.device_at(first).as_u64());
        store(register::SLOTS_LOG2, u64::from(slots_log2));
        store(register::PASID, pasid.map_or(0, |pasid| u64::from(pasid.number()) | PASID_VALID));
        store(register::VECTOR, vector.map_or(NO_VECTOR, u64::from));
        if u64::from(number) >= mmio.load(0, Bytes::ZERO, 8) & 0xffff {
            return Err(CallError::NotStarted { channel: number });
        }
        // The state may be of an earlier life too: off first, then on.
        for (control, reached) in [(0, state::OFF), (1, state::ON)] {
            store(register::CONTROL, control);
            let at = Bytes::new(block(number) + register::STATE);
            until(mmio, || (mmio.load(0, at, 8) == reached).then_some(()))
                .ok_or(CallError::NotStarted { channel: number })?;
        }
        Ok(Self { mmio, number, memory: rings, slots, submitted: 0, completed: 0, unclaimed: Vec::new() })
    }

    /// The number that the next command gets as its tag.
    pub(in crate::device) fn next_tag(&self) -> u64 {
        self.submitted + 1
    }

    /// Writes a command into its slot; nobody is told until [`ring`](Self::ring).
    pub(in crate::device) fn write<S: fmt::Display + fmt::Debug>(
        &mut self,
        command: Command,
    ) -> Result<Ticket, CallError<S>> {
        self.collect();
        if self.submitted - self.completed >= u64::from(self.slots) {
            return Err(CallError::Full { slots: self.slots });
        }
        let slot = COMMAND * (self.submitted & (u64::from(self.slots) - 1));
        self.memory.write(Bytes::new(slot), &command.0).map_err(CallError::Memory)?;
        self.submitted += 1;
        Ok(Ticket(self.submitted))
    }

    /// Rings the doorbell for all commands written.
    pub(in crate::device) fn ring(&self) {
        self.mmio.store(0, doorbell(self.number), self.tail(), 4);
    }

    /// What the doorbell has to be written with, by the CPU or by anybody else.
    pub(in crate::device) fn tail(&self) -> u64 {
        self.submitted & u64::from(u32::MAX)
    }

    /// Looks for completions that arrived.
    fn collect(&mut self) {
        let first = COMMAND * u64::from(self.slots);
        loop {
            let slot = first + COMPLETION * (self.completed & (u64::from(self.slots) - 1));
            let mut bytes = [0; COMPLETION as usize];
            let read = self.memory.read(Bytes::new(slot), &mut bytes);
            match Completion::decode(bytes, self.completed + 1).filter(|_| read.is_ok()) {
                Some(completion) => {
                    self.completed += 1;
                    self.unclaimed.push((Ticket(completion.tag), completion));
                }
                None => return,
            }
        }
    }

    /// What became of a command, if that is known; asked once.
    pub(in crate::device) fn poll(&mut self, ticket: Ticket) -> Option<Completion> {
        self.collect();
        let at = self.unclaimed.iter().position(|(earlier, _)| *earlier == ticket)?;
        Some(self.unclaimed.swap_remove(at).1)
    }

    /// Waits until it is known what became of a command; its value.
    pub(in crate::device) fn wait<S: fmt::Display + fmt::Debug>(
        &mut self,
        ticket: Ticket,
        status: impl Fn(u32) -> Option<S>,
    ) -> Result<u64, CallError<S>> {
        let mmio = self.mmio;
        let completion = until(mmio, || self.poll(ticket)).ok_or(CallError::Stalled)?;
        match status(completion.status) {
            None => Ok(completion.value),
            Some(status) => Err(CallError::Failed { status, failure: failure(completion.detail) }),
        }
    }

    /// Where the doorbell is in BAR0.
    pub(in crate::device) fn doorbell(&self) -> Bytes {
        doorbell(self.number)
    }
}
