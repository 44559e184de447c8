//! Submission and completion queues (NVMe Base 2.0 §3.3.1).

use super::command::{COMMAND, COMPLETION, Command};
use super::reach::{Reach, Trouble};
use super::status::Status;
use peerdma::addr::{BusAddr, Bytes};
use std::collections::BTreeMap;

/// Why a doorbell was not heard (NVMe Base 2.0, asynchronous events, error status).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BadDoorbell {
    /// No queue has it.
    Register = 0,
    /// Its value is past the queue's end, or past what was completed.
    Value = 1,
}

/// The place of an entry; queues are made where the sum is inside the address space.
fn entry(base: BusAddr, index: u32, len: usize) -> BusAddr {
    BusAddr::new(base.as_u64().wrapping_add(u64::from(index) * len as u64))
}

/// A submission queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Submission {
    base: BusAddr,
    entries: u32,
    head: u32,
    tail: u32,
    pub(super) completion: u16,
}

impl Submission {
    pub(super) fn new(base: BusAddr, entries: u32, completion: u16) -> Self {
        Self { base, entries, head: 0, tail: 0, completion }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.head == self.tail
    }

    pub(super) fn head(&self) -> u16 {
        self.head as u16
    }

    /// Takes the earliest command.
    pub(super) fn take(&mut self, reach: &mut Reach<'_>) -> Result<Command, Trouble> {
        let mut bytes = [0; COMMAND];
        reach.read(entry(self.base, self.head, COMMAND), &mut bytes)?;
        self.head = (self.head + 1) % self.entries;
        Ok(Command::from_bytes(&bytes))
    }
}

/// A completion queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Completion {
    base: BusAddr,
    entries: u32,
    head: u32,
    tail: u32,
    phase: bool,
    pub(super) vector: Option<u16>,
}

/// What a completion says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) result: u32,
    pub(super) queue: u16,
    pub(super) head: u16,
    pub(super) command: u16,
    pub(super) status: Status,
}

impl Completion {
    pub(super) fn new(base: BusAddr, entries: u32, vector: Option<u16>) -> Self {
        Self { base, entries, head: 0, tail: 0, phase: true, vector }
    }

    pub(super) fn is_full(&self) -> bool {
        (self.tail + 1) % self.entries == self.head
    }

    /// Puts an entry; the caller has seen that there is room.
    pub(super) fn put(&mut self, reach: &mut Reach<'_>, said: Entry) -> Result<(), Trouble> {
        let mut bytes = [0; COMPLETION];
        bytes[..4].copy_from_slice(&said.result.to_le_bytes());
        bytes[8..10].copy_from_slice(&said.head.to_le_bytes());
        bytes[10..12].copy_from_slice(&said.queue.to_le_bytes());
        bytes[12..14].copy_from_slice(&said.command.to_le_bytes());
        let status = said.status.bits() << 1 | u16::from(self.phase);
        bytes[14..].copy_from_slice(&status.to_le_bytes());
        reach.write(entry(self.base, self.tail, COMPLETION), &bytes)?;
        self.tail = (self.tail + 1) % self.entries;
        self.phase ^= self.tail == 0;
        Ok(())
    }
}

/// All queues, by identifier; 0 are the admin queues.
#[derive(Clone, Debug, Default)]
pub(super) struct Queues {
    pub(super) submission: BTreeMap<u16, Submission>,
    pub(super) completion: BTreeMap<u16, Completion>,
    /// The submission queue that was served last.
    last: u16,
}

impl Queues {
    /// Hears a doorbell.
    pub(super) fn ring(&mut self, queue: u16, completion: bool, value: u32) -> Result<(), BadDoorbell> {
        // Bits 31:16 are reserved.
        let value = value & 0xffff;
        if completion {
            let queue = self.completion.get_mut(&queue).ok_or(BadDoorbell::Register)?;
            let ahead = |to: u32| (to + queue.entries - queue.head) % queue.entries;
            if value >= queue.entries || ahead(value) > ahead(queue.tail) {
                return Err(BadDoorbell::Value);
            }
            queue.head = value;
        } else {
            let queue = self.submission.get_mut(&queue).ok_or(BadDoorbell::Register)?;
            if value >= queue.entries {
                return Err(BadDoorbell::Value);
            }
            queue.tail = value;
        }
        Ok(())
    }

    /// The next submission queue, by turns, that has a command and room for its completion.
    pub(super) fn next(&mut self) -> Option<u16> {
        let ready = |(id, queue): (&u16, &Submission)| {
            let room = self.completion.get(&queue.completion).is_some_and(|completion| !completion.is_full());
            (room && !queue.is_empty()).then_some(*id)
        };
        let later = self.submission.range(self.last.saturating_add(1)..).find_map(ready);
        let next = later.or_else(|| self.submission.range(..=self.last).find_map(ready))?;
        self.last = next;
        Some(next)
    }

    /// Whether a queue of so many bytes per entry can lie at a base.
    pub(super) fn fits(base: BusAddr, entries: u32, len: usize) -> bool {
        base.checked_add(Bytes::new(u64::from(entries) * len as u64)).is_some()
    }
}
