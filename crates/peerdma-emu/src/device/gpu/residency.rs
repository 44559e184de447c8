//! What of a GPU's memory is elsewhere.

use peerdma::addr::{BusAddr, Bytes};
use std::sync::{Mutex, PoisonError};

/// VRAM moves in pieces of this size.
pub const PIECE: Bytes = Bytes::new(0x1_0000);

/// Where the bytes are that a piece of VRAM stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whereabouts {
    /// In VRAM: the BAR shows them.
    Here,
    /// At this address; what the BAR shows was left behind.
    Moved(BusAddr),
}

/// Where each piece of a GPU's memory is.
///
/// # Concurrency
/// Any number of threads ask; the GPU's engine alone changes it.
#[derive(Debug)]
pub struct Residency {
    moved: Mutex<Vec<Option<BusAddr>>>,
}

impl Residency {
    /// Everything is here.
    pub(super) fn new(vram: Bytes) -> Self {
        let pieces = vram.as_u64().div_ceil(PIECE.as_u64()) as usize;
        Self { moved: Mutex::new(vec![None; pieces]) }
    }

    fn index(at: Bytes) -> usize {
        usize::try_from(at.as_u64() / PIECE.as_u64()).unwrap_or(usize::MAX)
    }

    /// Where the byte is that stood at `at`; past the end of VRAM nothing has moved.
    pub fn at(&self, at: Bytes) -> Whereabouts {
        let moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        match moved.get(Self::index(at)) {
            Some(Some(to)) => Whereabouts::Moved(BusAddr::new(to.as_u64() + at.as_u64() % PIECE.as_u64())),
            _ => Whereabouts::Here,
        }
    }

    /// Whether none of these bytes has moved.
    pub fn is_here(&self, at: Bytes, len: Bytes) -> bool {
        let Some(last) = len.as_u64().checked_sub(1) else { return true };
        let (first, last) = (Self::index(at), Self::index(Bytes::new(at.as_u64().saturating_add(last))));
        let moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        moved.iter().skip(first).take(last - first + 1).all(Option::is_none)
    }

    /// Notes that the piece that begins at `at` is elsewhere, or here again.
    pub(super) fn set(&self, at: Bytes, place: Option<BusAddr>) {
        let mut moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(piece) = moved.get_mut(Self::index(at)) {
            *piece = place;
        }
    }

    /// Everything is here again.
    pub(super) fn clear(&self) {
        self.moved.lock().unwrap_or_else(PoisonError::into_inner).fill(None);
    }
}
