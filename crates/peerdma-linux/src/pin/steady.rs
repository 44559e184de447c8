//! Memory that safe code cannot unmap while somebody has it.

use crate::memory::Pages;
use crate::pool::Region;
use crate::share::Memory;
use peerdma::addr::{AddrRange, ProcVa};

pub(crate) mod sealed {
    pub trait Sealed {}
    impl Sealed for crate::memory::Pages {}
    impl Sealed for crate::share::Memory {}
    impl Sealed for crate::pool::Region {}
}

/// Memory whose mapping stays where it is while the value lives.
///
/// Implemented by this crate's own mappings only: a value of any other type could be unmapped while it is pinned, and
/// the pin would then be of pages that no address leads to any more.
pub trait Steady: sealed::Sealed + std::fmt::Debug + Send + Sync {
    /// Where it is mapped.
    fn range(&self) -> AddrRange<ProcVa>;
}

impl Steady for Pages {
    fn range(&self) -> AddrRange<ProcVa> {
        whole(AddrRange::new(self.address(), self.len()))
    }
}

impl Steady for Memory {
    fn range(&self) -> AddrRange<ProcVa> {
        whole(AddrRange::new(self.address(), self.len()))
    }
}

impl Steady for Region {
    fn range(&self) -> AddrRange<ProcVa> {
        Self::range(self)
    }
}

fn whole(range: Option<AddrRange<ProcVa>>) -> AddrRange<ProcVa> {
    let Some(range) = range else {
        unreachable!("a mapping has a page at least, and ends inside of the address space")
    };
    range
}
