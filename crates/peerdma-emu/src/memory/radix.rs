//! Stripes by their number, in branches that grow where somebody writes.
//!
//! A memory of 512 GiB has eight million stripes, and one of 2^64 bytes more than any table could
//! hold, so there are three levels whose nodes appear when they are first needed. A node has no more
//! places than its part of the memory needs: a BAR of 4 KiB has three nodes of one place each.
//! Rejected: a hash map behind a lock, which all accesses would share.

use std::sync::{OnceLock, RwLock};

/// Bytes of a stripe, as a power of two.
const STRIPE_BITS: u32 = 16;

/// Bytes of a stripe; the last one of a memory may be shorter.
pub(super) const STRIPE: u64 = 1 << STRIPE_BITS;

/// Bytes of 1024 stripes, 64 MiB, and of 2^18 times as many, 16 TiB.
const LEAF_BITS: u32 = STRIPE_BITS + 10;
const BRANCH_BITS: u32 = LEAF_BITS + 18;

/// The bytes of one stripe; empty until somebody writes.
pub(super) type Stripe = RwLock<Box<[u8]>>;

type Leaf = Box<[Stripe]>;
type Branch = Box<[OnceLock<Leaf>]>;

/// All stripes of a memory.
#[derive(Debug)]
pub(super) struct Radix {
    branches: Box<[OnceLock<Branch>]>,
    len: u64,
}

/// The place of `at` in a node whose places span `1 << place` bytes and which spans `1 << node`.
const fn place(at: u64, place: u32, node: u32) -> usize {
    // At most 20 bits at every level.
    if node == 64 { (at >> place) as usize } else { (at >> place & ((1 << (node - place)) - 1)) as usize }
}

impl Radix {
    /// Of a memory of `len` bytes.
    pub(super) fn new(len: u64) -> Self {
        let mut radix = Self { branches: Box::default(), len };
        radix.branches = radix.node(0, BRANCH_BITS, 64);
        radix
    }

    /// A node that contains `at`, with as many places as the memory needs there.
    fn node<T: Default>(&self, at: u64, place: u32, node: u32) -> Box<[T]> {
        let (start, most) = if node == 64 { (0, 1 << (64 - place)) } else { (at >> node << node, 1 << (node - place)) };
        let places = self.len.saturating_sub(start).div_ceil(1 << place).min(most);
        (0..places).map(|_| T::default()).collect()
    }

    /// The stripe that `at` lies in; `None` where nobody has written to it or near it.
    #[inline]
    pub(super) fn find(&self, at: u64) -> Option<&Stripe> {
        let branch = self.branches.get(place(at, BRANCH_BITS, 64))?.get()?;
        let leaf = branch.get(place(at, LEAF_BITS, BRANCH_BITS))?.get()?;
        leaf.get(place(at, STRIPE_BITS, LEAF_BITS))
    }

    /// The stripe that `at` lies in, made if need be; `None` outside of the memory.
    #[inline]
    pub(super) fn make(&self, at: u64) -> Option<&Stripe> {
        if let Some(stripe) = self.find(at) {
            return Some(stripe);
        }
        self.grow(at)
    }

    #[cold]
    fn grow(&self, at: u64) -> Option<&Stripe> {
        let branch = self.branches.get(place(at, BRANCH_BITS, 64))?;
        let branch = branch.get_or_init(|| self.node(at, LEAF_BITS, BRANCH_BITS));
        let leaf = branch.get(place(at, LEAF_BITS, BRANCH_BITS))?;
        leaf.get_or_init(|| self.node(at, STRIPE_BITS, LEAF_BITS)).get(place(at, STRIPE_BITS, LEAF_BITS))
    }

    /// The stripe that `at` lies in, or where to look next; `None` at the end.
    ///
    /// Skips what was never written by whole nodes, for walks over terabytes.
    pub(super) fn next(&self, at: u64) -> Result<&Stripe, Option<u64>> {
        let past = |bits: u32| (at >> bits).checked_add(1).and_then(|next| next.checked_mul(1 << bits));
        let branch = self.branches.get(place(at, BRANCH_BITS, 64)).and_then(OnceLock::get);
        let branch = branch.ok_or(past(BRANCH_BITS))?;
        let leaf = branch.get(place(at, LEAF_BITS, BRANCH_BITS)).and_then(OnceLock::get).ok_or(past(LEAF_BITS))?;
        leaf.get(place(at, STRIPE_BITS, LEAF_BITS)).ok_or(past(STRIPE_BITS))
    }

    /// Bytes of the stripe that `at` lies in.
    pub(super) fn length_at(&self, at: u64) -> usize {
        self.len.saturating_sub(at & !(STRIPE - 1)).min(STRIPE) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_memory_has_small_nodes() {
        let radix = Radix::new(4096);
        assert!(radix.find(0).is_none() && radix.make(STRIPE).is_none());
        assert!(radix.make(4095).is_some());
        assert_eq!((radix.branches.len(), radix.length_at(7)), (1, 4096));
    }

    #[test]
    fn every_address_has_a_stripe_of_its_own_to_the_very_last() {
        let radix = Radix::new(u64::MAX);
        let stripe = |at| radix.make(at).map(std::ptr::from_ref);
        let places = [0, STRIPE, 1 << LEAF_BITS, 1 << BRANCH_BITS, u64::MAX - 1];
        for (nth, &at) in places.iter().enumerate() {
            assert_eq!(stripe(at), stripe(at | (STRIPE - 1)));
            assert!(stripe(at).is_some() && places[..nth].iter().all(|&other| stripe(other) != stripe(at)), "{at:#x}");
        }
        assert_eq!(radix.length_at(u64::MAX - 1), STRIPE as usize - 1);
    }
}
