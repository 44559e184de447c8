//! What of a pool is whose.

use crate::addr::{AddrRange, Bytes, ProcVa};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// A block that was taken and not put back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Live {
    /// Where it is; its length is what it takes of the pool, no less than was asked for.
    pub range: AddrRange<ProcVa>,
    /// The name of who took it.
    pub owner: String,
}

/// What one owner has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Share {
    /// The name.
    pub owner: String,
    /// Blocks taken and not put back.
    pub blocks: u64,
    /// What they take of the pool.
    pub bytes: Bytes,
}

/// What of a pool is whose, at one moment.
///
/// While other threads take and put back, each block is told as it was at some moment of the look; once they rest,
/// it is exact. At the end of a program whatever is still in it was lost by its owner.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    pub(super) size: Bytes,
    pub(super) free: Bytes,
    pub(super) live: Vec<Live>,
}

impl Report {
    /// How much the pool has.
    pub fn size(&self) -> Bytes {
        self.size
    }

    /// How much nobody has, neither an owner nor a thread's cache.
    pub fn free(&self) -> Bytes {
        self.free
    }

    /// How much the caches of threads keep, ready to be taken.
    pub fn cached(&self) -> Bytes {
        let live: u64 = self.live.iter().map(|live| live.range.len().as_u64()).sum();
        Bytes::new(self.size.as_u64().saturating_sub(self.free.as_u64()).saturating_sub(live))
    }

    /// The blocks that are somebody's, by address.
    pub fn live(&self) -> &[Live] {
        &self.live
    }

    /// What each owner has, by name; who has nothing is not there.
    pub fn shares(&self) -> Vec<Share> {
        let mut shares: Vec<Share> = Vec::new();
        for live in &self.live {
            let at = shares.binary_search_by(|share| share.owner.as_str().cmp(&live.owner));
            let at = at.unwrap_or_else(|at| {
                shares.insert(at, Share { owner: live.owner.clone(), blocks: 0, bytes: Bytes::ZERO });
                at
            });
            let share = &mut shares[at];
            share.blocks += 1;
            share.bytes = Bytes::new(share.bytes.as_u64() + live.range.len().as_u64());
        }
        shares
    }
}

impl fmt::Display for Report {
    /// A line for each owner; nothing where nobody has anything.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for share in self.shares() {
            let first = self.live.iter().find(|live| live.owner == share.owner);
            write!(f, "{}: {} blocks, {}", share.owner, share.blocks, share.bytes)?;
            if let Some(first) = first {
                write!(f, ", the first at {}", first.range.start())?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
