//! The network between adapters: messages in order, none lost, and the data that they carry.
//!
//! How much is on its way is bounded by the sender: data holds slots of its staging
//! memory, of which there are so many, and each queue pair has one request without data at most.
//! A driver that makes and ends queue pairs all the time could fill the inbox of an adapter that
//! looks at none; past [`MOST_WAITING`] messages nobody is there for it.

use super::payload::Payload;
use super::region::Key;
use super::register::ARRIVED;
use super::work::PairNumber;
use crate::device::bus::Agent;
use crate::device::registers::Registers;
use crate::wire::{Atomic, Failure};
use peerdma::dma::consumer::rdma::RegionAddr;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A queue pair somewhere in the network.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) port: u16,
    pub(super) pair: PairNumber,
}

/// Where a message's data goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Target {
    /// Into the next receive.
    Receive { immediate: Option<u32> },
    /// To memory, and with an immediate to the next receive's completion.
    Memory { to: RegionAddr, key: Key, immediate: Option<u32> },
}

/// Why a request is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refusal {
    /// No receive is posted, or no page is there; [`Body::Ready`] follows.
    NotReady,
    /// No right to the memory.
    Access,
    /// No such request.
    Invalid,
    /// A request of the adapter's own failed.
    Operation,
    /// What was sent could not be read where it was lent.
    Source(Failure),
    /// There is no such queue pair, or it is in error.
    Gone,
}

/// What a message says.
#[derive(Debug)]
pub(super) enum Body {
    /// A part of a send or a write.
    Data { target: Target, first: bool, last: bool, offset: u64, total: u64, payload: Option<Payload> },
    /// A request to read, from the byte at `offset` on.
    Read { from: RegionAddr, key: Key, len: u64, offset: u64 },
    /// A request for an AtomicOp.
    Atomic { at: RegionAddr, key: Key, atomic: Atomic },
    /// The send or write arrived.
    Acknowledge,
    /// It did not.
    Refuse(Refusal),
    /// What was missing is there now; go on from the byte at this offset.
    Ready { offset: u64 },
    /// A part of what was to be read.
    ReadData { offset: u64, last: bool, payload: Option<Payload> },
    /// What stood there before.
    AtomicResult(u64),
    /// What was read could not be had where it was lent.
    Lost,
}

/// A message.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) from: Place,
    pub(super) to: PairNumber,
    pub(super) body: Body,
}

/// Messages that wait for an adapter at most; many more than its queue pairs and those of its
/// peers have on their way.
const MOST_WAITING: usize = 1 << 16;

/// Tells an adapter to look, as somebody's write to its register would.
pub(super) fn ring(bell: &Registers) {
    bell.write(ARRIVED.as_u64(), &1_u64.to_le_bytes());
}

struct Socket {
    inbox: VecDeque<Message>,
    bell: Arc<Registers>,
    /// Who the adapter is in its machine, once it has said so.
    agent: Option<Agent>,
}

/// A network: whatever ports are on it reach each other.
///
/// # Concurrency
/// Adapters of any threads and machines may be on it. A message that arrives rings a register
/// of its adapter, so that a machine that looks for register writes steps it.
#[derive(Default)]
pub struct Network {
    sockets: Mutex<BTreeMap<u16, Socket>>,
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").field("ports", &self.sockets().keys().collect::<Vec<_>>()).finish()
    }
}

impl Network {
    /// A network without ports.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    fn sockets(&self) -> MutexGuard<'_, BTreeMap<u16, Socket>> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Plugs an adapter in; `None` where the port is taken.
    pub(super) fn attach(self: &Arc<Self>, port: u16, bell: Arc<Registers>) -> Option<Port> {
        let mut sockets = self.sockets();
        if sockets.contains_key(&port) {
            return None;
        }
        sockets.insert(port, Socket { inbox: VecDeque::new(), bell, agent: None });
        drop(sockets);
        Some(Port { network: self.clone(), number: port })
    }
}

/// A port that an adapter is plugged in at, until dropped.
#[derive(Debug)]
pub(super) struct Port {
    network: Arc<Network>,
    number: u16,
}

impl Port {
    /// Its number.
    pub(super) fn number(&self) -> u16 {
        self.number
    }

    /// Sends a message; `false` if nobody is there, or somebody who does not listen.
    pub(super) fn send(&self, from: PairNumber, to: Place, body: Body) -> bool {
        let message = Message { from: Place { port: self.number, pair: from }, to: to.pair, body };
        let mut sockets = self.network.sockets();
        let listens = |socket: &&mut Socket| socket.inbox.len() < MOST_WAITING;
        let Some(socket) = sockets.get_mut(&to.port).filter(listens) else {
            // What the message carries gives its slot back, outside the lock.
            drop(sockets);
            return false;
        };
        socket.inbox.push_back(message);
        ring(&socket.bell);
        true
    }

    /// The earliest message that came.
    pub(super) fn receive(&self) -> Option<Message> {
        self.network.sockets().get_mut(&self.number)?.inbox.pop_front()
    }

    /// Says who the adapter is in its machine.
    pub(super) fn introduce(&self, agent: Option<Agent>) {
        if let Some(socket) = self.network.sockets().get_mut(&self.number) {
            socket.agent = agent;
        }
    }

    /// The adapter itself, if the one at another port is beside it and can relay what it lends.
    pub(super) fn lender_to(&self, port: u16) -> Option<Agent> {
        let sockets = self.network.sockets();
        let agent = |port| sockets.get(&port).and_then(|socket| socket.agent);
        let taker = agent(port)?;
        agent(self.number).filter(|own| own.is_beside(taker))
    }

    /// Whether somebody is plugged in there.
    pub(super) fn reaches(&self, port: u16) -> bool {
        self.network.sockets().contains_key(&port)
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        let mut sockets = self.network.sockets();
        let gone = sockets.remove(&self.number);
        let bells: Vec<_> = sockets.values().map(|socket| socket.bell.clone()).collect();
        drop(sockets);
        // What was on its way here gives its slots back, outside the lock.
        drop(gone);
        bells.iter().for_each(|bell| ring(bell));
    }
}
