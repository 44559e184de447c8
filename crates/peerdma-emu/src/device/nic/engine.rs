//! The device: its registers, its messages, and its queue pairs in turn.

use super::command::{Refused, number};
use super::fault::Faults;
use super::invalidate::Drains;
use super::network::{Body, Message, Network, Port, Refusal};
use super::pair::{Context, Pair, State};
use super::payload::Pool;
use super::region::{Key, Regions};
use super::registering::Registering;
use super::work::PairNumber;
use super::{MOST_PAIRS, page, register};
use crate::device::bus::{Agent, Bus, RegisterWrite};
use crate::device::registers::{Access, Registers};
use crate::device::{Device, Layout, Progress};
use crate::memory::Memory;
use peerdma::addr::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

/// There is an adapter at this port of the network already; choose another number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("port {port} of the network is taken")]
pub struct PortTaken {
    /// The number.
    pub port: u16,
}

/// An adapter.
#[derive(Debug)]
pub struct Nic {
    pub(super) registers: Arc<Registers>,
    pub(super) port: Port,
    pub(super) pool: Arc<Pool>,
    pub(super) regions: Regions,
    /// How many regions and queue pairs are in each domain.
    pub(super) domains: BTreeMap<u32, usize>,
    pub(super) next_domain: u32,
    /// Each place with the generation of what is or was there.
    pub(super) pairs: Vec<(u16, Option<Pair>)>,
    pub(super) faults: Faults,
    pub(super) drains: Drains,
    pub(super) registering: Option<Registering>,
    /// The queue pair that is served next.
    turn: usize,
    /// Who it has said that it is in its machine.
    introduced: Option<Agent>,
}

impl Nic {
    /// An adapter at a port of a network, with up to `pairs` queue pairs, 1 to [`MOST_PAIRS`].
    ///
    /// Data to an adapter of another machine waits in `staging` between memory here and memory there, and
    /// all data counts against its size: 4 MiB let four messages of 1 MiB each be on their way. Nothing but
    /// empty messages passes without any.
    ///
    /// # Errors
    /// [`PortTaken`].
    pub fn new(network: &Arc<Network>, port: u16, staging: Arc<dyn Memory>, pairs: u16) -> Result<Self, PortTaken> {
        let pairs = pairs.clamp(1, MOST_PAIRS);
        let registers = [register::CAPABILITY, register::STATUS, register::RESULT, register::INVALIDATED]
            .into_iter()
            .fold(Registers::new(page(pairs)), |registers, offset| registers.with(offset, Access::ReadOnly));
        let registers = Arc::new(registers);
        registers.set(register::CAPABILITY, u64::from(pairs) | u64::from(port) << 32);
        let port = network.attach(port, registers.clone()).ok_or(PortTaken { port })?;
        Ok(Self {
            pool: Pool::new(staging, registers.clone()),
            registers,
            port,
            regions: Regions::default(),
            domains: BTreeMap::new(),
            next_domain: 1,
            pairs: (0..pairs).map(|_| (0, None)).collect(),
            faults: Faults::default(),
            drains: Drains::default(),
            registering: None,
            turn: 0,
            introduced: None,
        })
    }

    /// The queue pair of this number.
    pub(super) fn pair(&mut self, number: u64) -> Option<&mut Pair> {
        let number = PairNumber::new(u32::try_from(number).ok()?);
        let (_, pair) = self.pairs.get_mut(usize::from(number.index()))?;
        pair.as_mut().filter(|pair| pair.number == number)
    }

    /// Takes the queue pair of this number out.
    pub(super) fn take_pair(&mut self, number: u64) -> Option<Pair> {
        let index = self.pair(number)?.number.index();
        self.pairs.get_mut(usize::from(index))?.1.take()
    }

    /// Looks at a write to the registers.
    fn hear(&mut self, bus: &mut dyn Bus, write: RegisterWrite) {
        let offset = write.offset.as_u64();
        if write.bar != 0 {
            return;
        }
        if let Some(index) = (offset / page(0).as_u64()).checked_sub(1) {
            // What is acted on is what stands in the register: whoever wrote a part of one wrote all of it.
            let posted = self.registers.get(write.offset) as u32;
            let Some((_, Some(pair))) = self.pairs.get_mut(index as usize) else { return };
            match (offset % page(0).as_u64()) & !7 {
                0 => pair.sends.tail = posted,
                register::RECEIVES => pair.receives.tail = posted,
                _ => {}
            }
        } else if offset & !7 == register::COMMAND.as_u64() {
            let command = self.registers.get(register::COMMAND);
            let argument = |n: usize| self.registers.get(Bytes::new(register::ARGUMENTS + 8 * n as u64));
            let arguments = std::array::from_fn(argument);
            let (command, sequence) = (command & 0xffff_ffff, command >> 32);
            let begun = match command {
                number::REGISTER | number::WRITE_PAGES if self.registering.is_some() => Err(Refused::Busy),
                number::REGISTER => self.begin_registration(sequence, arguments).map(|()| None),
                number::WRITE_PAGES => self.begin_writing(sequence, arguments).map(|()| None),
                _ => self.command(bus, command, arguments).map(Some),
            };
            match (command, begun) {
                // Answered when its list was read.
                (_, Ok(None)) => {}
                // A region that is gone may still be read from for a moment, and is the driver's after that.
                (number::DEREGISTER, Ok(Some(key))) => self.drain_all_of(Key::new(key as u32), sequence),
                (_, Ok(Some(result))) => self.answer(sequence, Ok(result)),
                (_, Err(refused)) => self.answer(sequence, Err(refused)),
            }
        }
    }

    /// Shows what became of the command of a sequence number.
    pub(super) fn answer(&self, sequence: u64, result: Result<u64, Refused>) {
        let (status, result) = match result {
            Ok(result) => (0, result),
            Err(refused) => (refused.code(), 0),
        };
        self.registers.set(register::RESULT, result);
        self.registers.set(register::STATUS, u64::from(status) | sequence << 32);
    }

    /// Looks at a message.
    fn deliver(&mut self, bus: &mut dyn Bus, message: Message) {
        let Message { from, to, body } = message;
        let Self { registers, port, pool, regions, pairs, faults, .. } = self;
        let pair = pairs.get_mut(usize::from(to.index())).and_then(|(_, pair)| pair.as_mut());
        match pair.filter(|pair| pair.number == to && pair.peer == Some(from) && pair.state == State::Ready) {
            Some(pair) => pair.receive(&mut Context { bus, port, pool, regions, registers, faults }, body),
            None => {
                // Answers to nobody are dropped. Requests get theirs where their sender waits for it.
                let asks = match body {
                    Body::Data { first, last, .. } => first || last,
                    Body::Read { .. } | Body::Atomic { .. } => true,
                    _ => false,
                };
                if asks {
                    port.send(to, from, Body::Refuse(Refusal::Gone));
                }
            }
        }
    }

    /// Lets the next queue pair that has something to do, do a piece of it.
    fn serve(&mut self, bus: &mut dyn Bus) -> bool {
        let count = self.pairs.len();
        let Self { registers, port, pool, regions, pairs, faults, turn, .. } = self;
        let mut cx = Context { bus, port, pool, regions, registers, faults };
        for _ in 0..count {
            let pair = pairs.get_mut(*turn).and_then(|(_, pair)| pair.as_mut());
            *turn = (*turn + 1) % count;
            if pair.is_some_and(|pair| pair.progress(&mut cx)) {
                return true;
            }
        }
        false
    }
}

impl Device for Nic {
    fn layout(&self) -> Layout {
        Layout::new().registers(0, Bytes::ZERO, &self.registers)
    }

    fn step(&mut self, bus: &mut dyn Bus) -> Progress {
        let mut worked = false;
        let agent = bus.agent();
        if agent != self.introduced {
            self.port.introduce(agent);
            self.introduced = agent;
        }
        // One register after another; somebody who writes all the time gets no more than this.
        for _ in 0..64 {
            let Some(write) = bus.next_write() else { break };
            self.hear(bus, write);
            worked = true;
        }
        if let Some(message) = self.port.receive() {
            self.deliver(bus, message);
            worked = true;
        }
        worked |= self.drain(bus);
        worked |= self.go_on_registering(bus);
        worked |= self.serve(bus);
        if worked { Progress::Working } else { Progress::Idle }
    }

    fn reset(&mut self) {
        for (_, place) in &mut self.pairs {
            if let Some(pair) = place.take()
                && let Some(peer) = pair.peer
            {
                // Whoever waits for an answer gets one; to all others it says nothing.
                self.port.send(pair.number, peer, Body::Refuse(Refusal::Gone));
            }
        }
        self.regions.clear();
        self.registering = None;
        self.domains.clear();
        self.faults = Faults::default();
        self.drains = Drains::default();
        // What was lent is nobody's to read any more.
        self.pool.forsake();
        let capability = self.pairs.len() as u64 | u64::from(self.port.number()) << 32;
        for offset in (0..self.registers.len().as_u64()).step_by(8) {
            self.registers.set(Bytes::new(offset), 0);
        }
        self.registers.set(register::CAPABILITY, capability);
    }
}

impl Drop for Nic {
    fn drop(&mut self) {
        self.pool.forsake();
    }
}
