//! What happened, request by request and hop by hop.

use crate::fabric::{Egress, Ending, HostId, NodeId};
use crate::wire::{Failure, Head};
use peerdma::addr::{Bytes, PhysAddr};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// One thing that happened to one request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// Number of the request, counted from the machine's start.
    pub request: u64,
    /// What.
    pub what: Happened,
}

/// What can happen to a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Happened {
    /// A function sent it; a CPU did where there is none.
    Sent {
        /// The function.
        from: Option<NodeId>,
        /// As it was sent.
        head: Head,
    },
    /// It went on by this egress.
    Went {
        /// Where.
        egress: Egress,
        /// As it went on.
        head: Head,
    },
    /// It passed a write that had gone before it, which attributes allow.
    Overtook {
        /// Number of the write.
        other: u64,
    },
    /// It came to registers or memory of a function.
    AtFunction {
        /// The function.
        node: NodeId,
        /// The BAR.
        bar: u8,
        /// Where in it.
        offset: Bytes,
    },
    /// It came to memory.
    InMemory {
        /// Where.
        at: PhysAddr,
    },
    /// It was taken as an interrupt.
    Interrupted {
        /// By whose root complex.
        host: HostId,
    },
    /// A page request came to the IOMMU.
    PageRequested {
        /// By whose root complex.
        host: HostId,
    },
    /// The response to a page request went on by this egress.
    ResponseWent(Egress),
    /// The response to a page request came to the function.
    Responded {
        /// The function.
        node: NodeId,
        /// Index of the group.
        group: u16,
    },
    /// It was answered with a translation, or that there is none.
    Translated {
        /// By whose root complex.
        host: HostId,
    },
    /// The root complex answered it with all ones.
    AllOnes {
        /// Which.
        host: HostId,
    },
    /// It ended.
    Ended(Ending),
    /// Its completion went on by this egress.
    CompletionWent(Egress),
    /// Its completion ended.
    CompletionEnded(Ending),
    /// The requester has its data.
    Answered,
    /// The requester was told this instead.
    Failed(Failure),
    /// A fault that was asked for took effect on it.
    Struck(&'static str),
}

/// Events, as many as there is room for.
#[derive(Debug)]
pub struct Log {
    on: AtomicBool,
    next: AtomicU64,
    events: Mutex<VecDeque<Event>>,
    capacity: usize,
    dropped: AtomicU64,
}

impl Log {
    /// A log that keeps the latest `capacity` events once it is switched on.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            on: AtomicBool::new(false),
            next: AtomicU64::new(0),
            events: Mutex::default(),
            capacity: capacity.max(1),
            dropped: AtomicU64::new(0),
        }
    }

    /// Starts or stops keeping events.
    pub fn keep(&self, on: bool) {
        self.on.store(on, Ordering::Relaxed);
    }

    /// Whether events are kept.
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// The events kept so far, earliest first; they are forgotten here.
    pub fn take(&self) -> Vec<Event> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect()
    }

    /// How many events found no room.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// The number of a new request.
    pub(super) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn note(&self, request: u64, what: Happened) {
        if self.is_on() {
            self.push(Event { request, what });
        }
    }

    #[inline(never)]
    fn push(&self, event: Event) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        if events.len() == self.capacity {
            events.pop_front();
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        events.push_back(event);
    }
}
