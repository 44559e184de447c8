//! One context: the command that it works at, how far it is, and what it waits for.

use super::access::{self, Stop, plus};
use super::command::{Operation, Status};
use crate::device::bus::{Bus, How};
use crate::device::channel::Completion;
use peerdma::addr::BusAddr;

/// Elements and pointers that one step looks at, and bytes that it copies.
const ELEMENTS: u64 = 256;
const STEP: u64 = 1 << 20;

/// The command that a context works at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    pub(super) operation: Operation,
    pub(super) tag: u64,
    /// Elements, pointers or bytes that are done.
    pub(super) done: u64,
    /// The next element of a list.
    next: BusAddr,
    /// The sum so far.
    pub(super) sum: u64,
}

/// What a piece of work came to.
pub(super) enum Outcome {
    /// There is more to do.
    More,
    /// It is over, with this status, zero for success.
    Over(u32),
}

impl Work {
    pub(super) fn new(operation: Operation, tag: u64) -> Self {
        let next = match operation {
            Operation::Sum { head, .. } => head,
            _ => BusAddr::new(0),
        };
        Self { operation, tag, done: 0, next, sum: 0 }
    }

    /// Does a piece of it. Where it stops it goes on later with the same access.
    pub(super) fn advance(&mut self, bus: &mut dyn Bus, how: How) -> Result<Outcome, Stop> {
        match self.operation {
            Operation::Sum { most, .. } => self.sum(bus, how, most),
            Operation::Copy { from, to, len } => {
                let left = len.as_u64().saturating_sub(self.done).min(STEP);
                if left != 0 {
                    self.done += access::copy(bus, how, plus(from, self.done), plus(to, self.done), left)?;
                }
                self.sum = self.done;
                Ok(if self.done >= len.as_u64() { Outcome::Over(0) } else { Outcome::More })
            }
            Operation::Gather { pointers, count, each, to } => {
                let mut element = vec![0; each.as_u64() as usize];
                for _ in 0..ELEMENTS {
                    if self.done >= count {
                        return Ok(Outcome::Over(0));
                    }
                    let mut pointer = [0; 8];
                    access::read(bus, how, plus(pointers, self.done.wrapping_mul(8)), &mut pointer)?;
                    access::read(bus, how, BusAddr::new(u64::from_le_bytes(pointer)), &mut element)?;
                    access::write(bus, how, plus(to, self.done.wrapping_mul(each.as_u64())), &element)?;
                    self.done += 1;
                    self.sum = self.done;
                }
                Ok(Outcome::More)
            }
            Operation::Store { to, value } => {
                access::write(bus, how, to, &value.to_le_bytes())?;
                Ok(Outcome::Over(0))
            }
        }
    }

    fn sum(&mut self, bus: &mut dyn Bus, how: How, most: u64) -> Result<Outcome, Stop> {
        for _ in 0..ELEMENTS {
            if self.next == BusAddr::new(0) {
                return Ok(Outcome::Over(0));
            }
            if self.done >= most {
                return Ok(Outcome::Over(Status::TooLong.code()));
            }
            let mut element = [0; 16];
            access::read(bus, how, self.next, &mut element)?;
            let (next, value) = element.split_at(8);
            let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |number: u64, byte| number << 8 | u64::from(*byte));
            self.next = BusAddr::new(number(next));
            self.sum = self.sum.wrapping_add(number(value));
            self.done += 1;
        }
        Ok(Outcome::More)
    }
}

/// A context.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Context {
    pub(super) work: Option<Work>,
    /// What is to be told, and could not be yet.
    pub(super) result: Option<Completion>,
    /// Whether a page was asked for.
    pub(super) waiting: bool,
    /// How often a page was asked for since it last got on.
    pub(super) tries: u8,
    /// How far its work was then.
    pub(super) mark: u64,
    /// Counts its lives, so that an answer to an earlier one is not taken for one to this.
    pub(super) generation: u8,
}

impl Context {
    /// The next life, in which there is nothing to do.
    pub(super) fn renewed(self) -> Self {
        Self { generation: self.generation.wrapping_add(1), ..Self::default() }
    }

    /// What its page requests are known by: 5 bits of its number, 4 of its generation, which is
    /// what a page request group has room for (PCIe 6.0 §10.4.1).
    pub(super) fn group(self, number: u16) -> u16 {
        number & 0x1f | u16::from(self.generation & 0xf) << 5
    }

    /// Ends the work with a status.
    pub(super) fn end(&mut self, status: u32, detail: u32) {
        if let Some(work) = self.work.take() {
            self.result = Some(Completion { value: work.sum, tag: work.tag, status, detail });
        }
    }
}
