//! Memory of small pages that is left alone, locked or pinned.

use crate::memory::page_size;
use crate::own::{pagemap, smaps};
use crate::pin::{Pin, PinError, Pinner, RingError};
use crate::sys::forced::{Advised, Private};
use crate::sys::lock;
use peerdma::addr::{AddrRange, Bytes, ProcVa};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fmt;
use std::io;

/// How memory is kept.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Keep {
    /// Not at all.
    Plain,
    /// Locked in RAM by `mlock`.
    Locked,
    /// Pinned through a registered buffer.
    Pinned,
}

impl Keep {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Plain, Self::Locked, Self::Pinned];

    /// `plain`, `mlock` or `pin`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Locked => "mlock",
            Self::Pinned => "pin",
        }
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What stands in a sample's pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fill {
    /// Something else in each.
    Distinct,
    /// The same in all, so that they could be one.
    Same,
}

/// Why there is no sample.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SampleError {
    /// Nothing to look at, or more than an address space holds.
    #[error("{len} are no size of a sample; give a multiple of {unit}")]
    Size {
        /// What was asked for.
        len: Bytes,
        /// The size of a huge page.
        unit: Bytes,
    },
    /// No memory.
    #[error("cannot map {len}: the kernel refuses ({errno})")]
    Map {
        /// How much.
        len: Bytes,
        /// Its answer.
        errno: Errno,
    },
    /// It cannot be locked.
    #[error("cannot lock {len} ({errno}); RLIMIT_MEMLOCK is too low, most likely: try with less, or raise it")]
    Lock {
        /// How much.
        len: Bytes,
        /// The kernel's answer.
        errno: Errno,
    },
    /// There is nothing to pin with.
    #[error("cannot pin")]
    Ring(#[from] RingError),
    /// It cannot be pinned.
    #[error("cannot pin")]
    Pin(#[from] PinError),
    /// Its frames cannot be read.
    #[error("cannot read /proc/self/pagemap")]
    Frames(#[source] io::Error),
}

/// What became of a request to collapse memory into huge pages.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Collapse {
    /// How many huge pages it could have been.
    pub asked: u64,
    /// How many it became, by the kernel's answers.
    pub done: u64,
    /// What the kernel answered to the rest, and how often.
    pub refused: BTreeMap<i32, u64>,
}

/// How many pages of a sample lie elsewhere than before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Moved {
    /// How many there are.
    pub pages: u64,
    /// How many of them moved, or are not there any more.
    pub moved: u64,
}

impl Moved {
    /// `moved` as a part of `pages`.
    pub fn share(&self) -> f64 {
        self.moved as f64 / self.pages.max(1) as f64
    }
}

/// Memory of small pages, filled, and kept in one way.
#[derive(Debug)]
pub struct Sample {
    // Before the memory, so that it is unpinned while it is mapped.
    pin: Option<Pin>,
    memory: Private,
    range: AddrRange<ProcVa>,
    keep: Keep,
    fill: Fill,
    huge: Bytes,
    /// Where the pages lay when last marked; `None` if that is not shown.
    frames: Option<Vec<Option<u64>>>,
}

/// The size of a huge page that memory is collapsed into; `None` where the kernel has none.
pub fn huge_page_size() -> Option<Bytes> {
    let text = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size").ok()?;
    text.trim().parse().ok().filter(|size: &u64| size.is_power_of_two()).map(Bytes::new)
}

impl Sample {
    /// Maps, fills and keeps so much memory, and marks where it lies.
    ///
    /// # Errors
    /// [`SampleError`]: give another size, or raise the limit that it names.
    pub fn new(keep: Keep, len: Bytes, fill: Fill) -> Result<Self, SampleError> {
        // Without huge pages of the kernel's it is a sample all the same, of which nothing will be collapsed.
        let huge = huge_page_size().unwrap_or(Bytes::new(2 << 20));
        let wrong = SampleError::Size { len, unit: huge };
        let (Ok(size), Ok(align)) = (usize::try_from(len.as_u64()), usize::try_from(huge.as_u64())) else {
            return Err(wrong);
        };
        if size == 0 || !size.is_multiple_of(align) {
            return Err(wrong);
        }
        let memory = Private::aligned(size, align).map_err(|errno| SampleError::Map { len, errno })?;
        let range = AddrRange::new(memory.start(), memory.len()).ok_or(wrong)?;
        // A kernel without huge pages says EINVAL, and its pages are small anyway.
        let _ = memory.advise(range, Advised::NoHuge);
        let mut sample = Self { pin: None, memory, range, keep, fill, huge, frames: None };
        sample.each_word(|memory, offset, word| memory.store(offset, word));
        match keep {
            Keep::Plain => {}
            Keep::Locked => lock::lock(range).map_err(|errno| SampleError::Lock { len, errno })?,
            Keep::Pinned => sample.pin = Some(Pinner::new()?.pin_foreign(range.start(), range.len())?),
        }
        sample.mark()?;
        Ok(sample)
    }

    /// How it is kept.
    pub fn keep(&self) -> Keep {
        self.keep
    }

    /// Where it is mapped.
    pub fn range(&self) -> AddrRange<ProcVa> {
        self.range
    }

    /// Whether the kernel shows where its pages lie.
    pub fn shows_frames(&self) -> bool {
        self.frames.is_some()
    }

    /// Marks where its pages lie now.
    ///
    /// # Errors
    /// [`SampleError::Frames`].
    pub fn mark(&mut self) -> Result<(), SampleError> {
        self.frames = pagemap::frames(self.range).map_err(SampleError::Frames)?;
        Ok(())
    }

    /// Page frames, one for each page that is there; empty if they are not shown.
    ///
    /// # Errors
    /// [`SampleError::Frames`].
    pub fn frames(&self) -> Result<Vec<u64>, SampleError> {
        let now = pagemap::frames(self.range).map_err(SampleError::Frames)?;
        Ok(now.unwrap_or_default().into_iter().flatten().collect())
    }

    /// How many pages lie elsewhere than when they were marked; `None` if that is not shown.
    ///
    /// # Errors
    /// [`SampleError::Frames`].
    pub fn moved(&self) -> Result<Option<Moved>, SampleError> {
        let now = pagemap::frames(self.range).map_err(SampleError::Frames)?;
        let (Some(before), Some(now)) = (&self.frames, now) else { return Ok(None) };
        let moved = before.iter().zip(&now).filter(|(before, now)| before != now).count() as u64;
        Ok(Some(Moved { pages: before.len() as u64, moved }))
    }

    /// Asks for huge pages in its place, which moves every page of it that may move.
    ///
    /// A page that was touched a moment ago may not be where the kernel looks for it yet, so that each is asked for three times.
    pub fn collapse(&self) -> Collapse {
        const ROUNDS: usize = 3;
        let mut collapse = Collapse::default();
        let _ = self.memory.advise(self.range, Advised::Huge);
        let mut offset = 0;
        while let Some(part) = self.range.slice(Bytes::new(offset), self.huge) {
            offset += self.huge.as_u64();
            collapse.asked += 1;
            let answers = std::iter::repeat_with(|| self.memory.advise(part, Advised::Collapse)).take(ROUNDS);
            let mut last = Ok(());
            for answer in answers {
                last = answer;
                if last != Err(Errno::AGAIN) {
                    break;
                }
            }
            match last {
                Ok(()) => collapse.done += 1,
                Err(errno) => *collapse.refused.entry(errno.raw_os_error()).or_insert(0) += 1,
            }
        }
        collapse
    }

    /// Lets the kernel merge pages of the same contents (KSM).
    ///
    /// # Errors
    /// The kernel's answer; `EINVAL` where it has none of that.
    pub fn allow_merging(&self) -> Result<(), Errno> {
        self.memory.advise(self.range, Advised::Mergeable)
    }

    /// Gives the pages of a part back; what is pinned of it goes on being what the pin has.
    ///
    /// # Errors
    /// `EINVAL` for what is no part, or not whole pages.
    pub fn discard(&self, offset: Bytes, len: Bytes) -> Result<(), Errno> {
        self.memory.advise(self.range.slice(offset, len).ok_or(Errno::INVAL)?, Advised::Discard)
    }

    /// How much of it is huge pages, by `/proc/self/smaps`.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn in_huge_pages(&self) -> io::Result<Bytes> {
        smaps::in_huge_pages(self.range)
    }

    /// The word at an offset, read as a device would read it; `None` past the end, or not at a multiple of eight.
    #[inline]
    pub fn load(&self, offset: Bytes) -> Option<u64> {
        self.memory.load(usize::try_from(offset.as_u64()).ok()?)
    }

    /// Whether every page still holds what it was filled with.
    pub fn is_intact(&self) -> bool {
        self.each_word(|memory, offset, word| memory.load(offset) == Some(word))
    }

    /// One word of each page, and what it is filled with; false if `with` was of any.
    fn each_word(&self, with: impl Fn(&Private, usize, u64) -> bool) -> bool {
        let page = page_size().as_u64();
        let word = |at: u64| match self.fill {
            Fill::Distinct => (at + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15),
            Fill::Same => 0x9e37_79b9_7f4a_7c15,
        };
        let offset = |at: u64| usize::try_from(at * page).unwrap_or(usize::MAX);
        (0..self.range.len().as_u64() / page).all(|at| with(&self.memory, offset(at), word(at)))
    }
}

impl Drop for Sample {
    fn drop(&mut self) {
        if self.keep == Keep::Locked {
            // It is unmapped next, which unlocks it too; unlocked first, it does not count beside what comes after it.
            let _ = lock::unlock(self.range);
        }
    }
}
