//! One pin.

use super::frames::Frames;
use super::inner::{Inner, Slot};
use super::steady::Steady;
use super::table::PinId;
use peerdma::addr::{AddrRange, Bytes, ProcVa};
use peerdma::buffer::fence::FenceSet;
use std::fmt;
use std::sync::{Arc, Mutex};

/// Memory that stays where it is while this lives.
///
/// *What holding this tells you*: the pages that were mapped at [`range`](Self::range) when it was made are not moved,
/// not swapped and not given to anybody else, and may be written by devices. By handle and not by address: whoever
/// pins a page twice has two pins, and each is let go by itself.
///
/// A pin keeps pages and not the mapping. Memory pinned through [`Pinner::pin`](super::Pinner::pin) is kept mapped by the
/// handle; for the rest see [`Pinner::pin_foreign`](super::Pinner::pin_foreign). `mprotect` takes nothing from devices:
/// pages that the CPU may only read are written by them all the same.
///
/// Let go when dropped, before `drop` returns; where a device may still write ([`used_until`](Self::used_until)) it stays
/// pinned instead, until that is over and [`Pinner::settle`](super::Pinner::settle) is called or another handle dropped.
#[must_use = "memory is pinned while the handle lives"]
pub struct Pin {
    pub(super) inner: Arc<Inner>,
    pub(super) id: PinId,
    pub(super) range: AddrRange<ProcVa>,
    /// In the order of addresses, each as long as the last but for the last.
    pub(super) slots: Vec<Slot>,
    /// Let go after the slots, see `Drop`.
    pub(super) memory: Option<Arc<dyn Steady>>,
    /// What was behind the range when it had just been pinned, where the process may see that.
    pub(super) frames: Option<Frames>,
    /// What uses the memory.
    pub(super) fences: Mutex<FenceSet>,
}

impl Pin {
    /// Names it in reports; see [`Pinner::pinned`](super::Pinner::pinned).
    pub fn id(&self) -> PinId {
        self.id
    }

    /// The addresses that were pinned.
    pub fn range(&self) -> AddrRange<ProcVa> {
        self.range
    }

    /// How many slots it takes: one for each GiB.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Whether it keeps its memory mapped, so that only code outside of Rust's rules can part the two.
    pub fn owns_memory(&self) -> bool {
        self.memory.is_some()
    }

    /// A part of it, which keeps all of it pinned. Many small parts of one large pin cost one slot; as many pins of
    /// huge pages cost the kernel the square of their number.
    ///
    /// `None` unless all of the part lies inside.
    pub fn slice(self: &Arc<Self>, offset: Bytes, len: Bytes) -> Option<Slice> {
        Some(Slice { range: self.range.slice(offset, len)?, pin: Arc::clone(self) })
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pin").field("id", &self.id).field("range", &self.range).finish_non_exhaustive()
    }
}

/// A part of a pin, which keeps it.
#[derive(Clone, Debug)]
pub struct Slice {
    pin: Arc<Pin>,
    range: AddrRange<ProcVa>,
}

impl Slice {
    /// The addresses of the part.
    pub fn range(&self) -> AddrRange<ProcVa> {
        self.range
    }

    /// What it is a part of.
    pub fn pin(&self) -> &Arc<Pin> {
        &self.pin
    }
}
