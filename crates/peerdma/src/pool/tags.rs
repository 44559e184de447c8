//! A word for each granule: whose block starts there, and how long it is.
//!
//! Two bytes a granule, so that what a pool holds can be told with addresses and without a lock. Rejected: counters
//! for each owner, which say that something was lost and not what.

use super::owner::Owner;
use crate::sync::atomic::{AtomicU16, Ordering};
use alloc::boxed::Box;

/// The length of a block as nine bits; `class` knows which.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Code(u16);

impl Code {
    /// The bits that a code has.
    const BITS: u32 = 9;

    /// There are fewer than 2^9 lengths, the longest of 2^63 granules.
    pub(super) const fn new(number: u16) -> Self {
        Self(number & ((1 << Self::BITS) - 1))
    }

    pub(super) const fn number(self) -> u16 {
        self.0
    }
}

/// The words.
#[derive(Debug)]
pub(super) struct Tags(Box<[AtomicU16]>);

impl Tags {
    /// So many, none of which says anything.
    pub(super) fn new(granules: usize) -> Self {
        Self((0..granules).map(|_| AtomicU16::new(0)).collect())
    }

    /// Says that a block of `owner` starts there. Out of reach does nothing, since no block is.
    pub(super) fn set(&self, at: usize, owner: Owner, code: Code) {
        if let Some(tag) = self.0.get(at) {
            // Whoever reads is told what was there at some moment; whose a block is, the block itself knows.
            tag.store(u16::from(owner.number()) << Code::BITS | code.number(), Ordering::Relaxed);
        }
    }

    /// Takes away what was said there.
    pub(super) fn clear(&self, at: usize) {
        if let Some(tag) = self.0.get(at) {
            tag.store(0, Ordering::Relaxed);
        }
    }

    /// What is said, granule by granule.
    pub(super) fn said(&self) -> impl Iterator<Item = (usize, Owner, Code)> + '_ {
        self.0.iter().enumerate().filter_map(|(at, tag)| {
            let tag = tag.load(Ordering::Relaxed);
            let owner = Owner::of_number((tag >> Code::BITS) as u8)?;
            Some((at, owner, Code::new(tag)))
        })
    }
}
