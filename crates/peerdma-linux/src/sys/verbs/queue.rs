//! Queue pairs, and work posted to them.

#![expect(unsafe_code)]

use super::answer::{of_pointer, of_status};
use super::completions::Completions;
use super::layout::{self, QueueAttributes, QueueDepths, QueueInit, ReceiveWork, SendWork};
use super::objects::Domain;
use rustix::io::Errno;
use std::ffi::c_int;
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

pub(crate) use super::layout::Segment;

/// `IBV_QPT_RC`.
const RELIABLE: u32 = 2;
/// `IBV_SEND_SIGNALED`.
const SIGNALED: u32 = 2;

/// Masks and states of `ibv_modify_qp`.
pub(crate) const STATE: u32 = 1;
pub(crate) const ACCESS: u32 = 8;
pub(crate) const PKEY: u32 = 16;
pub(crate) const PORT: u32 = 32;
pub(crate) const PATH: u32 = 128;
pub(crate) const MTU: u32 = 256;
pub(crate) const TIMEOUT: u32 = 512;
pub(crate) const RETRIES: u32 = 1024;
pub(crate) const NOT_READY_RETRIES: u32 = 2048;
pub(crate) const RECEIVE_PSN: u32 = 4096;
pub(crate) const READS_ASKED: u32 = 8192;
pub(crate) const NOT_READY_TIMER: u32 = 32768;
pub(crate) const SEND_PSN: u32 = 65536;
pub(crate) const READS_ANSWERED: u32 = 131_072;
pub(crate) const PEER: u32 = 1_048_576;
pub(crate) const STATE_INIT: u32 = 1;
pub(crate) const STATE_READY_TO_RECEIVE: u32 = 2;
pub(crate) const STATE_READY_TO_SEND: u32 = 3;
pub(crate) const STATE_ERROR: u32 = 6;

/// What a send queue does.
#[derive(Clone, Copy)]
pub(crate) enum Operation {
    Send,
    Write { address: u64, key: u32 },
    Read { address: u64, key: u32 },
}

/// A reliable connection's queue pair, destroyed when dropped.
pub(crate) struct Queue {
    raw: NonNull<layout::QueuePair>,
    domain: Domain,
    /// Where its completions go, which goes after it.
    _completions: Arc<Completions>,
}

// SAFETY: the verbs may be called by any number of threads at once.
unsafe impl Send for Queue {}
// SAFETY: as for `Send`.
unsafe impl Sync for Queue {}

impl Queue {
    pub(crate) fn create(
        domain: &Domain,
        completions: &Arc<Completions>,
        sends: u32,
        receives: u32,
    ) -> Result<Self, Errno> {
        let mut init = QueueInit {
            owner: std::ptr::null_mut(),
            send_queue: completions.raw(),
            receive_queue: completions.raw(),
            shared_receives: std::ptr::null_mut(),
            depths: QueueDepths { sends, receives, send_segments: 1, receive_segments: 1, inline: 0 },
            kind: RELIABLE,
            signal_all: 0,
        };
        // SAFETY: 1. The pointer is good during the call. 2. Domain and completions live as long as this value.
        let raw = of_pointer(unsafe { (domain.context().library().create_queue)(domain.raw(), &raw mut init) })?;
        Ok(Self { raw, domain: domain.clone(), _completions: Arc::clone(completions) })
    }

    pub(crate) fn number(&self) -> u32 {
        // SAFETY: it lives as long as this value, and keeps its number.
        unsafe { (*self.raw.as_ptr()).number }
    }

    pub(crate) fn modify(&self, mut attributes: QueueAttributes, mask: u32) -> Result<(), Errno> {
        let mask = c_int::try_from(mask).map_err(|_| Errno::INVAL)?;
        // SAFETY: the pointer is good during the call.
        of_status(unsafe {
            (self.domain.context().library().modify_queue)(self.raw.as_ptr(), &raw mut attributes, mask)
        })
    }

    /// Posts one piece of work, of which a completion tells by `id`.
    pub(crate) fn post(&self, id: u64, operation: Operation, mut segment: Segment) -> Result<(), Errno> {
        let post = self.domain.context().operations().post_send.ok_or(Errno::NOSYS)?;
        let (opcode, remote_address, remote_key) = match operation {
            Operation::Write { address, key } => (0, address, key),
            Operation::Send => (2, 0, 0),
            Operation::Read { address, key } => (4, address, key),
        };
        let mut work = SendWork {
            id,
            next: std::ptr::null_mut(),
            segments: &raw mut segment,
            segment_count: 1,
            opcode,
            flags: SIGNALED,
            immediate: 0,
            remote_address,
            remote_key,
            rest: [0; 9],
        };
        let mut bad = std::ptr::null_mut();
        // SAFETY: 1. Work and segment are good during the call, and the provider copies both. 2. The queue lives as long
        // as this value. 3. Which memory the segment is of, the device checks by its key.
        of_status(unsafe { post(self.raw.as_ptr(), &raw mut work, &raw mut bad) })
    }

    /// Posts a place for one message.
    pub(crate) fn post_receive(&self, id: u64, mut segment: Segment) -> Result<(), Errno> {
        let post = self.domain.context().operations().post_receive.ok_or(Errno::NOSYS)?;
        let mut work = ReceiveWork { id, next: std::ptr::null_mut(), segments: &raw mut segment, segment_count: 1 };
        let mut bad = std::ptr::null_mut();
        // SAFETY: as for `post`.
        of_status(unsafe { post(self.raw.as_ptr(), &raw mut work, &raw mut bad) })
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: it was created once and is destroyed once, before its completions and its domain.
        let _ = unsafe { (self.domain.context().library().destroy_queue)(self.raw.as_ptr()) };
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Queue {}", self.number())
    }
}
