//! Queue pairs of reliable connections.

use super::context::{Context, Gid};
use super::endpoint::{Endpoint, Mtu, RemoteRange, fresh_psn};
use super::error::{ConnectError, NotConnected, ObjectError, PostError};
use super::options::Options;
use super::region::Part;
use super::rights::Rights;
use crate::sys::verbs;
use crate::sys::verbs::layout::{Gid as RawGid, Path, QueueAttributes};
use crate::sys::verbs::queue::{self as raw, Operation};

/// A queue pair without a peer. Places for messages may be posted already.
#[derive(Debug)]
pub struct Unconnected {
    inner: Inner,
    port: u8,
}

/// A queue pair that is connected, and does work.
///
/// Work is done in the order in which it is posted; a read's bytes may still come after a later write has gone. The first piece
/// that fails takes the queue pair down: the rest is flushed.
///
/// Dropped, it does nothing more, and nothing completes any more. Memory of work that was under way stays registered as
/// long as its region lives.
#[derive(Debug)]
pub struct Queue {
    inner: Inner,
}

#[derive(Debug)]
struct Inner {
    raw: verbs::Queue,
    context: Context,
}

impl Unconnected {
    pub(super) fn new(raw: verbs::Queue, context: Context, port: u8, rights: Rights) -> Result<Self, ObjectError> {
        let attributes =
            QueueAttributes { state: raw::STATE_INIT, access: rights.flags(), port, ..QueueAttributes::default() };
        raw.modify(attributes, raw::STATE | raw::ACCESS | raw::PORT | raw::PKEY)
            .map_err(|errno| context.error("give a queue pair its port", errno))?;
        Ok(Self { inner: Inner { raw, context }, port })
    }

    /// Its number.
    pub fn number(&self) -> u32 {
        self.inner.raw.number()
    }

    /// This end, to be told to the peer, which sends to that address.
    pub fn endpoint(&self, gid: &Gid, mtu: Mtu) -> Endpoint {
        let (psn, queue) = (fresh_psn(), self.number());
        Endpoint { gid: gid.address, gid_index: gid.index, queue, psn, lid: 0, mtu }
    }

    /// Posts a place for one message.
    ///
    /// # Errors
    /// [`PostError`]
    pub fn receive(&self, id: u64, into: Part<'_>) -> Result<(), PostError> {
        self.inner.receive(id, into)
    }

    /// Connects it: `own` is what the peer was told, `peer` what it told. Packets are of the smaller of both sizes.
    ///
    /// Nobody is asked; whether the peer is there shows when work is done.
    ///
    /// # Errors
    /// [`NotConnected`], with the queue pair; make a new one, as this may have got half of the way.
    pub fn connect(self, own: &Endpoint, peer: &Endpoint, options: &Options) -> Result<Queue, NotConnected> {
        match self.ready(own, peer, options) {
            Ok(()) => Ok(Queue { inner: self.inner }),
            Err(why) => Err(NotConnected { queue: Box::new(self), why }),
        }
    }

    fn ready(&self, own: &Endpoint, peer: &Endpoint, options: &Options) -> Result<(), ConnectError> {
        let (device, port) = (self.inner.context.device().to_string(), self.port);
        let failed = |errno| ConnectError::new(&device, own, peer, errno);
        let modify = |attributes, mask| self.inner.raw.modify(attributes, mask).map_err(failed);
        let mtu = own.mtu.min(peer.mtu);
        let path = Path {
            destination: RawGid(peer.gid.octets()),
            source_index: own.gid_index,
            hop_limit: options.hops,
            lid: peer.lid,
            is_global: 1,
            port,
            ..Path::default()
        };
        let receive = QueueAttributes {
            state: raw::STATE_READY_TO_RECEIVE,
            path,
            mtu: mtu as u32,
            peer: peer.queue,
            receive_psn: peer.psn,
            reads_answered: options.reads,
            // 0.64 ms between attempts for a message without a place.
            not_ready_timer: 12,
            ..QueueAttributes::default()
        };
        let mask = raw::STATE | raw::PATH | raw::MTU | raw::PEER | raw::RECEIVE_PSN;
        modify(receive, mask | raw::READS_ANSWERED | raw::NOT_READY_TIMER)?;
        let send = QueueAttributes {
            state: raw::STATE_READY_TO_SEND,
            send_psn: own.psn,
            timeout: options.timeout,
            retries: options.retries,
            not_ready_retries: options.not_ready_retries,
            reads_asked: options.reads,
            ..QueueAttributes::default()
        };
        let mask = raw::STATE | raw::SEND_PSN | raw::TIMEOUT | raw::RETRIES | raw::NOT_READY_RETRIES;
        modify(send, mask | raw::READS_ASKED)
    }
}

impl Queue {
    /// Its number, as completions have it.
    pub fn number(&self) -> u32 {
        self.inner.raw.number()
    }

    /// Writes bytes of this side to the peer's memory, from its start on; the peer's program is not told.
    ///
    /// # Errors
    /// [`PostError`]: nothing is posted. What goes wrong later the completion says.
    pub fn write(&self, id: u64, from: Part<'_>, to: RemoteRange) -> Result<(), PostError> {
        self.inner.transfer(id, from, to, |address, key| Operation::Write { address, key })
    }

    /// Reads bytes of the peer's memory, from its start on, as many as there is room for.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn read(&self, id: u64, into: Part<'_>, from: RemoteRange) -> Result<(), PostError> {
        self.inner.transfer(id, into, from, |address, key| Operation::Read { address, key })
    }

    /// Sends a message, to the first place that the peer has posted.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn send(&self, id: u64, from: Part<'_>) -> Result<(), PostError> {
        self.inner.post(id, from, Operation::Send)
    }

    /// Posts a place for one message.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn receive(&self, id: u64, into: Part<'_>) -> Result<(), PostError> {
        self.inner.receive(id, into)
    }

    /// Takes it down: what is posted completes as flushed, and nothing more is done.
    ///
    /// # Errors
    /// [`ObjectError`]: the adapter has gone.
    pub fn stop(&self) -> Result<(), ObjectError> {
        let attributes = QueueAttributes { state: raw::STATE_ERROR, ..QueueAttributes::default() };
        let Inner { raw: queue, context } = &self.inner;
        queue.modify(attributes, raw::STATE).map_err(|errno| context.error("take a queue pair down", errno))
    }
}

impl Inner {
    fn transfer(
        &self,
        id: u64,
        local: Part<'_>,
        remote: RemoteRange,
        operation: impl FnOnce(u64, u32) -> Operation,
    ) -> Result<(), PostError> {
        if remote.range.len() < local.len() {
            return Err(PostError::Beyond { len: local.len(), remote: remote.range.len() });
        }
        self.post(id, local, operation(remote.range.start().as_u64(), remote.key))
    }

    fn post(&self, id: u64, local: Part<'_>, operation: Operation) -> Result<(), PostError> {
        let segment = local.segment().ok_or(PostError::TooLong { len: local.len() })?;
        self.raw.post(id, operation, segment).map_err(|errno| self.refused(errno))
    }

    fn receive(&self, id: u64, into: Part<'_>) -> Result<(), PostError> {
        let segment = into.segment().ok_or(PostError::TooLong { len: into.len() })?;
        self.raw.post_receive(id, segment).map_err(|errno| self.refused(errno))
    }

    fn refused(&self, errno: rustix::io::Errno) -> PostError {
        PostError::refused(self.context.device(), self.raw.number(), errno)
    }
}
