//! A pair of queues from the host's side.

use super::super::command::{COMMAND, COMPLETION};
use super::super::registers as reg;
use super::super::status::Status;
use super::{Driver, DriverError, PAGE};
use crate::device::Shared;
use peerdma::addr::{BusAddr, Bytes};

/// Memory for a pair of queues; each begins at a page.
#[derive(Clone, Debug)]
pub struct QueueMemory {
    /// For commands, 64 bytes each.
    pub submission: Shared,
    /// For completions, 16 bytes each. The driver clears it.
    pub completion: Shared,
}

/// A command that is to be submitted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    bytes: [u8; COMMAND],
}

impl Request {
    /// A command with this opcode, and zero everywhere else.
    pub fn new(opcode: u8) -> Self {
        let mut bytes = [0; COMMAND];
        bytes[0] = opcode;
        Self { bytes }
    }

    /// With `value` in command dword `dword`, 0 to 15; others change nothing.
    #[must_use]
    pub fn with(mut self, dword: usize, value: u32) -> Self {
        if let (words, _) = self.bytes.as_chunks_mut::<4>()
            && let Some(place) = words.get_mut(dword)
        {
            *place = value.to_le_bytes();
        }
        self
    }

    /// About a namespace.
    #[must_use]
    pub fn of(self, namespace: u32) -> Self {
        self.with(1, namespace)
    }

    /// About `count` blocks (1 to 65536) of namespace 1 from `first` on.
    #[must_use]
    pub fn blocks(self, first: u64, count: u32) -> Self {
        let count = count.wrapping_sub(1) & 0xffff;
        self.of(1).with(10, first as u32).with(11, (first >> 32) as u32).with(12, count)
    }

    /// With data by PRPs.
    #[must_use]
    pub fn at(mut self, first: BusAddr, second: BusAddr) -> Self {
        self.bytes[24..32].copy_from_slice(&first.as_u64().to_le_bytes());
        self.bytes[32..40].copy_from_slice(&second.as_u64().to_le_bytes());
        self
    }

    /// With data by an SGL.
    #[must_use]
    pub fn listed(mut self, descriptor: [u8; 16]) -> Self {
        self.bytes[1] |= 1 << 6;
        self.bytes[24..40].copy_from_slice(&descriptor);
        self
    }

    fn opcode(&self) -> u8 {
        self.bytes[0]
    }
}

/// A command that has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Completed {
    /// The number that [`Driver::submit`] gave it.
    pub command: u16,
    /// Dword 0 of the completion, whose meaning is the command's.
    pub result: u32,
    /// How it ended.
    pub status: Status,
}

/// The host's side of a pair of queues.
#[derive(Debug)]
pub(super) struct Ring {
    number: u16,
    memory: QueueMemory,
    entries: u16,
    tail: u16,
    /// How far the drive has taken commands, as completions said.
    taken: u16,
    head: u16,
    phase: bool,
    next_command: u16,
    /// Ended while another one was awaited.
    early: Vec<Completed>,
}

impl Ring {
    pub(super) fn new(number: u16, memory: QueueMemory, most: u64) -> Result<Self, DriverError> {
        let mut entries = most.min(u64::from(u16::MAX));
        for (queue, entry) in [(&memory.submission, COMMAND), (&memory.completion, COMPLETION)] {
            entries = entries.min(queue.len().as_u64() / entry as u64);
            if entries < 2 || !queue.device().as_u64().is_multiple_of(PAGE) {
                return Err(DriverError::QueueMemory { at: queue.device(), len: queue.len() });
            }
        }
        // Phase tags of an earlier life must not look new.
        memory.completion.write(Bytes::ZERO, &vec![0; entries as usize * COMPLETION])?;
        let early = Vec::new();
        let entries = entries as u16;
        Ok(Self { number, memory, entries, tail: 0, taken: 0, head: 0, phase: true, next_command: 0, early })
    }

    pub(super) fn entries(&self) -> u16 {
        self.entries
    }

    pub(super) fn memory(&self) -> &QueueMemory {
        &self.memory
    }

    /// Puts a command into the queue; its number and the doorbell's new value.
    fn put(&mut self, mut request: Request) -> Result<(u16, u16), DriverError> {
        let next = (self.tail + 1) % self.entries;
        if next == self.taken {
            return Err(DriverError::QueueFull { queue: self.number });
        }
        let command = self.next_command;
        self.next_command = self.next_command.wrapping_add(1);
        request.bytes[2..4].copy_from_slice(&command.to_le_bytes());
        self.memory.submission.write(Bytes::new(u64::from(self.tail) * COMMAND as u64), &request.bytes)?;
        self.tail = next;
        Ok((command, next))
    }

    /// Takes the next completion, if it is there; and the doorbell's new value.
    fn take(&mut self) -> Result<Option<(Completed, u16)>, DriverError> {
        let at = u64::from(self.head) * COMPLETION as u64;
        let mut status = [0; 2];
        self.memory.completion.read(Bytes::new(at + 14), &mut status)?;
        if (status[0] & 1 != 0) != self.phase {
            return Ok(None);
        }
        // Only now, since the phase tag is what says that the rest is there.
        let mut bytes = [0; COMPLETION];
        self.memory.completion.read(Bytes::new(at), &mut bytes)?;
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let completed = Completed {
            command: half(12),
            result: u32::from(half(0)) | u32::from(half(2)) << 16,
            status: Status::from_bits(half(14) >> 1),
        };
        self.taken = half(8) % self.entries;
        self.head = (self.head + 1) % self.entries;
        self.phase ^= self.head == 0;
        Ok(Some((completed, self.head)))
    }
}

impl Driver<'_> {
    fn ring(&mut self, queue: u16) -> Result<&mut Ring, DriverError> {
        self.rings.get_mut(&queue).ok_or(DriverError::NoSuchQueue { queue })
    }

    /// Submits a command and rings; the number that its completion will have.
    ///
    /// # Errors
    /// [`DriverError::QueueFull`], [`DriverError::NoSuchQueue`].
    pub fn submit(&mut self, queue: u16, request: Request) -> Result<u16, DriverError> {
        let (command, tail) = self.ring(queue)?.put(request)?;
        self.mmio.store(0, reg::doorbell(queue, false), u64::from(tail), 4);
        Ok(command)
    }

    /// Takes a completion, if there is one.
    ///
    /// # Errors
    /// [`DriverError::NoSuchQueue`].
    pub fn poll(&mut self, queue: u16) -> Result<Option<Completed>, DriverError> {
        let ring = self.ring(queue)?;
        if !ring.early.is_empty() {
            return Ok(Some(ring.early.remove(0)));
        }
        self.poll_new(queue)
    }

    fn poll_new(&mut self, queue: u16) -> Result<Option<Completed>, DriverError> {
        let Some((completed, head)) = self.ring(queue)?.take()? else { return Ok(None) };
        self.mmio.store(0, reg::doorbell(queue, true), u64::from(head), 4);
        Ok(Some(completed))
    }

    /// Waits until a command has ended.
    ///
    /// # Errors
    /// [`DriverError::Stuck`], [`DriverError::Fatal`], [`DriverError::Gone`]; how the command ended is no error here.
    pub fn wait(&mut self, queue: u16, command: u16) -> Result<Completed, DriverError> {
        let early = &mut self.ring(queue)?.early;
        if let Some(index) = early.iter().position(|early| early.command == command) {
            return Ok(early.remove(index));
        }
        let mut moving = true;
        loop {
            while let Some(completed) = self.poll_new(queue)? {
                if completed.command == command {
                    return Ok(completed);
                }
                self.ring(queue)?.early.push(completed);
            }
            if !moving {
                let fatal = self.status()? & reg::CSTS_FATAL != 0;
                return Err(if fatal { DriverError::Fatal } else { DriverError::Stuck });
            }
            moving = self.mmio.pause();
        }
    }

    /// Submits a command and waits for it; dword 0 of its completion.
    ///
    /// # Errors
    /// [`DriverError::Status`] where it did not succeed; as [`submit`](Self::submit) and [`wait`](Self::wait).
    pub fn perform(&mut self, queue: u16, request: Request) -> Result<u32, DriverError> {
        let command = self.submit(queue, request)?;
        let completed = self.wait(queue, command)?;
        if completed.status.is_success() {
            return Ok(completed.result);
        }
        Err(DriverError::Status { opcode: request.opcode(), status: completed.status })
    }
}
