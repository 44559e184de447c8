//! What a processor of the machine does: loads, stores, accesses to configuration registers.

use super::Machine;
use super::function::Target;
use super::queue::Posted;
use crate::config::Width;
use crate::fabric::{Arrival, NodeId};
use crate::faults::Moment;
use crate::wire::{Failure, Head, Kind};
use peerdma::addr::{Bytes, PhysAddr};

/// The processors of a machine, which see memory and windows at the same addresses.
#[derive(Clone, Copy, Debug)]
pub struct Cpu<'m> {
    machine: &'m Machine,
    trusted: bool,
}

impl<'m> Cpu<'m> {
    pub(super) fn new(machine: &'m Machine) -> Self {
        Self { machine, trusted: false }
    }

    /// The same processors while they run a trusted domain: their requests carry the T bit.
    #[must_use]
    pub fn in_trusted_domain(self) -> Self {
        Self { trusted: true, ..self }
    }

    /// An access that a window passes down, and where it goes; `None` for memory.
    fn leave(&self, at: PhysAddr, kind: Kind, len: usize) -> Option<(Head, Arrival)> {
        let (host, mut head) = self.machine.fabric.cpu_request(at, kind, Bytes::new(len as u64))?;
        head.requester.trusted = self.trusted;
        Some((head, self.machine.fabric.leave_cpu(host, head)))
    }

    /// Loads bytes. Where nothing answers all of them are ones, as on x86 (a processor of another kind
    /// may stop instead).
    pub fn load(&self, at: PhysAddr, into: &mut [u8]) {
        if self.try_load(at, into).is_err() {
            into.fill(0xff);
        }
    }

    /// Loads bytes, and says why nothing came.
    ///
    /// # Errors
    /// [`Failure`] as a root complex sees it.
    pub fn try_load(&self, at: PhysAddr, into: &mut [u8]) -> Result<(), Failure> {
        let mut done = 0;
        for (at, len) in pieces(at, into.len()) {
            let part = into.get_mut(done..done + len).unwrap_or_default();
            done += len;
            match self.leave(at, Kind::Read, len) {
                None => {
                    let (target, left) = self.machine.memory_at(at);
                    let Target::Memory(memory, offset) = target else { return Err(Failure::UnsupportedRequest) };
                    if left.as_u64() < len as u64 {
                        return Err(Failure::UnsupportedRequest);
                    }
                    memory.read(offset, part).map_err(|_| Failure::UnsupportedRequest)?;
                }
                Some((head, first)) => {
                    self.machine.tick(Moment::Request);
                    self.machine.ask(None, head, first, |machine, landing| machine.load(landing, part))?;
                }
            }
        }
        Ok(())
    }

    /// Stores bytes; to a device they are posted, in order.
    pub fn store(&self, at: PhysAddr, from: &[u8]) {
        let mut done = 0;
        for (at, len) in pieces(at, from.len()) {
            let part = from.get(done..done + len).unwrap_or_default();
            done += len;
            match self.leave(at, Kind::Write, len) {
                None => {
                    let (target, left) = self.machine.memory_at(at);
                    self.machine.store(&target, left, part);
                }
                Some((head, first)) => {
                    let number = self.machine.log.number();
                    self.machine.tick(Moment::Request);
                    let posted = Posted { number, from: None, head, data: part.into(), way: Vec::new() };
                    self.machine.post(posted, first);
                }
            }
        }
    }

    /// Reads a configuration register of a function.
    pub fn config_read(&self, node: NodeId, offset: u16, width: Width) -> u32 {
        if self.machine.fabric.tree().is_present(node) {
            self.machine.fabric.tree().config(node).read(offset, width)
        } else {
            width.ones()
        }
    }

    /// Writes a configuration register of a function. Routes found before count no more.
    pub fn config_write(&self, node: NodeId, offset: u16, width: Width, value: u32) {
        if self.machine.fabric.tree().is_present(node) {
            let before = self.machine.decode(node);
            self.machine.fabric.tree().config(node).write(offset, width, value);
            self.machine.config_written(node, &before);
        }
    }
}

/// An access as a processor makes it: 64 bytes at most, none across a line.
fn pieces(at: PhysAddr, len: usize) -> impl Iterator<Item = (PhysAddr, usize)> {
    const LINE: u64 = 64;
    let mut done = 0_usize;
    std::iter::from_fn(move || {
        let left = len.checked_sub(done).filter(|left| *left > 0)?;
        let address = at.as_u64().wrapping_add(done as u64);
        let piece = left.min((LINE - address % LINE) as usize);
        done += piece;
        Some((PhysAddr::new(address), piece))
    })
}
