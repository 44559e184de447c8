//! What kind of ring holds the pins, and how much of it.

use super::admission::Admission;
use std::sync::Arc;

/// Slots of one ring; the most that a kernel gives (`IORING_MAX_REG_BUFFERS`).
pub const MOST_SLOTS: u32 = 1 << 14;

/// Which ring is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Ring {
    /// One that no child inherits where the kernel has such rings (Linux 6.5), else one with a descriptor.
    #[default]
    Best,
    /// One with a descriptor, which can be handed on.
    Descriptor,
}

/// Which ring holds the pins; it decides what a fork does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RingKind {
    /// It has no descriptor: no child inherits it, nobody can be handed it, and it ends with its process.
    RegisteredOnly,
    /// It has a descriptor, closed on exec: a forked child holds all pins until it executes a program or ends,
    /// also after its parent was killed.
    Descriptor,
}

/// How a [`Pinner`](super::Pinner) is made.
///
/// ```
/// use peerdma_linux::pin::{Options, Pinner, Ring, RingKind};
///
/// let pinner = Pinner::with(Options::default().ring(Ring::Descriptor).slots_per_ring(64));
/// # let Ok(pinner) = pinner else { return };
/// assert_eq!(pinner.ring_kind(), RingKind::Descriptor);
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    pub(super) ring: Ring,
    pub(super) slots: u32,
    pub(super) record_frames: bool,
    pub(super) admission: Option<Arc<dyn Admission>>,
}

impl Default for Options {
    fn default() -> Self {
        Self { ring: Ring::Best, slots: MOST_SLOTS, record_frames: true, admission: None }
    }
}

impl Options {
    /// Which ring to hold pins in.
    #[must_use]
    pub fn ring(mut self, ring: Ring) -> Self {
        self.ring = ring;
        self
    }

    /// How many pins one ring holds before another is made; from 1 to [`MOST_SLOTS`], and brought there.
    ///
    /// A slot costs eight bytes of kernel memory, a ring two pages of the limit.
    #[must_use]
    pub fn slots_per_ring(mut self, slots: u32) -> Self {
        self.slots = slots.clamp(1, MOST_SLOTS);
        self
    }

    /// Whether to note the page frames of each pin, where the process may see them (`CAP_SYS_ADMIN`), so that
    /// [`Pin::standing`](super::Pin::standing) can compare; reads eight bytes per page, and is on.
    #[must_use]
    pub fn record_frames(mut self, record: bool) -> Self {
        self.record_frames = record;
        self
    }

    /// Who is asked before anything is pinned, in place of [`OwnLimit`](super::OwnLimit).
    #[must_use]
    pub fn admission(mut self, admission: Arc<dyn Admission>) -> Self {
        self.admission = Some(admission);
        self
    }
}
