//! What names a pin, and a ring, in a ledger.

use core::fmt;

/// One pin in a ledger.
///
/// By handle and not by address: the same memory pinned twice has two, and each is released by itself. A
/// handle names its place in the ledger and the generation of that place, so that one that was released is
/// [`Stale`](super::ReleaseError::Stale) for good, whoever has the place by then.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PinHandle {
    pub(super) place: u32,
    pub(super) generation: u32,
}

/// One ring in a ledger, with its generation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RingHandle {
    pub(super) place: u32,
    pub(super) generation: u32,
}

impl RingHandle {
    /// The ring of this number in a [`Plan`](super::Plan), which nobody closes.
    pub const fn planned(number: u32) -> Self {
        Self { place: number, generation: 0 }
    }
}

impl fmt::Display for PinHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pin {}.{}", self.place, self.generation)
    }
}

impl fmt::Display for RingHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ring {}.{}", self.place, self.generation)
    }
}

/// Values in places that are used again, each time with another generation.
#[derive(Clone, Debug)]
pub(super) struct Places<T> {
    places: alloc::vec::Vec<(u32, Option<T>)>,
    free: alloc::vec::Vec<u32>,
}

impl<T> Default for Places<T> {
    fn default() -> Self {
        Self { places: alloc::vec::Vec::new(), free: alloc::vec::Vec::new() }
    }
}

impl<T> Places<T> {
    /// Puts a value into a free place; where, and of which generation. `None` once all 2^32 are taken.
    pub(super) fn add(&mut self, value: T) -> Option<(u32, u32)> {
        if let Some(place) = self.free.pop()
            && let Some((generation, vacant)) = self.places.get_mut(place as usize)
        {
            *vacant = Some(value);
            return Some((place, *generation));
        }
        let place = u32::try_from(self.places.len()).ok()?;
        self.places.push((1, Some(value)));
        Some((place, 1))
    }

    pub(super) fn at(&self, place: u32, generation: u32) -> Option<&T> {
        self.places.get(place as usize).filter(|(current, _)| *current == generation)?.1.as_ref()
    }

    pub(super) fn at_mut(&mut self, place: u32, generation: u32) -> Option<&mut T> {
        self.places.get_mut(place as usize).filter(|(current, _)| *current == generation)?.1.as_mut()
    }

    /// Takes a value out; its generation has passed. A place whose generations are used up stays empty.
    pub(super) fn take(&mut self, place: u32, generation: u32) -> Option<T> {
        let (current, value) = self.places.get_mut(place as usize).filter(|(current, _)| *current == generation)?;
        let value = value.take()?;
        if let Some(next) = current.checked_add(1) {
            *current = next;
            self.free.push(place);
        }
        Some(value)
    }
}
