//! `/proc/self/pagemap`: what is behind each page of this process.
//!
//! Page frames are shown to whoever opens it with `CAP_SYS_ADMIN` (Linux 4.2); all others read zeros in their place.

use peerdma::addr::{AddrRange, ProcVa};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const FRAME: u64 = (1 << 55) - 1;
const PRESENT: u64 = 1 << 63;
/// Linux 6.15.
const GUARD: u64 = 1 << 58;

/// Entries are read so many at a time.
const PIECE: u64 = 1 << 13;

/// What is behind one page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry(u64);

impl Entry {
    /// The page frame; `None` for a page that is not there, or for a process that may not see it.
    pub(crate) fn frame(self) -> Option<u64> {
        (self.is_present() && self.0 & FRAME != 0).then_some(self.0 & FRAME)
    }

    /// Whether there is a page.
    pub(crate) fn is_present(self) -> bool {
        self.0 & PRESENT != 0
    }

    /// A page that `MADV_GUARD_INSTALL` made.
    pub(crate) fn is_guard(self) -> bool {
        self.0 & GUARD != 0
    }
}

#[derive(Debug)]
pub(crate) struct Pagemap(File);

impl Pagemap {
    pub(crate) fn of_this_process() -> io::Result<Self> {
        File::open("/proc/self/pagemap").map(Self)
    }

    /// Tells `each` of every page that a range touches, until it answers false.
    pub(crate) fn pages(&self, range: AddrRange<ProcVa>, mut each: impl FnMut(Entry) -> bool) -> io::Result<()> {
        let page = crate::memory::page_size().as_u64();
        let (mut next, last) = (range.start().as_u64() / page, range.last().as_u64() / page);
        let mut piece = vec![0; (PIECE * 8) as usize];
        while next <= last {
            let count = (last - next + 1).min(PIECE);
            let bytes = &mut piece[..(count * 8) as usize];
            self.0.read_exact_at(bytes, next * 8)?;
            for entry in bytes.as_chunks::<8>().0 {
                if !each(Entry(u64::from_ne_bytes(*entry))) {
                    return Ok(());
                }
            }
            next += count;
        }
        Ok(())
    }
}

/// The frame of each page of a range; `None` for a page that is not there.
///
/// `Ok(None)` if pages are there and their frames are not shown.
pub(crate) fn frames(range: AddrRange<ProcVa>) -> io::Result<Option<Vec<Option<u64>>>> {
    let mut frames = Vec::new();
    let mut shown = true;
    Pagemap::of_this_process()?.pages(range, |entry| {
        // Frame 0 is never a process's.
        shown &= !entry.is_present() || entry.frame().is_some();
        frames.push(entry.frame());
        shown
    })?;
    Ok(shown.then_some(frames))
}
