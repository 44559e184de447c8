//! Whether a pin and the addresses it was made at still belong together.
//!
//! A pin keeps pages. `munmap`, `MADV_DONTNEED` and the punching of holes part them from their addresses without a
//! word, and devices go on writing to pages that nobody reads; `mremap` takes the pages along, and the slot goes on
//! answering to the old addresses.

use super::frames::{self, Frames};
use super::handle::Pin;
use super::seat::Gone;
use crate::own::maps::Area;
use crate::sys::uring::Way;
use peerdma::addr::{AddrRange, Bytes, ProcVa};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{Errno, pread, pwrite};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

/// Pages probed in one go, during which other pins of the ring wait.
const PAGES_AT_ONCE: usize = 256;
/// Bytes of each page that a probe changes.
const WORD: u64 = 8;

/// Whether pages and addresses of a pin belong together.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Standing {
    /// The CPU finds the pinned pages at their addresses.
    Live,
    /// It finds them elsewhere: they were moved by `mremap`, or are mapped there too. The slot answers to the old
    /// addresses.
    Moved {
        /// Where the first byte of the pin is now.
        to: ProcVa,
    },
    /// It finds other pages there, or none. What a device writes, nobody sees. Pin anew.
    Stale {
        /// The first part of the pin that does.
        at: AddrRange<ProcVa>,
    },
    /// What would tell is not there.
    CannotTell {
        /// Why.
        why: Unknown,
    },
}

/// Why nobody can tell; [`Pin::probe`] can, except for the first two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Unknown {
    /// The pin is that of the parent of this process.
    Forked,
    /// Nothing is mapped at the addresses: unmapped, or moved.
    Unmapped,
    /// The process may not see page frames (`CAP_SYS_ADMIN`).
    Hidden,
    /// They were not noted when the pin was made ([`Options::record_frames`](super::Options::record_frames)).
    NotRecorded,
    /// Shared pages are not in the page table at the moment; touch them, and ask again.
    NotPresent,
}

/// Why a probe did not come to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// The pins are those of the parent of this process.
    #[error("the pin belongs to the process that this one was forked from; probe it there")]
    Forked,
    /// Something that the probe needs is not there.
    #[error("the probe cannot have {what}")]
    Without {
        /// What.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A transfer failed; a word at the address may hold the complement of what it held.
    #[error("a transfer of the probe at {at} failed ({errno})")]
    Transfer {
        /// Where.
        at: AddrRange<ProcVa>,
        /// What it came to.
        errno: Errno,
    },
}

impl Pin {
    /// Says whether the CPU finds the pinned pages where they were pinned, without touching them.
    ///
    /// By comparing page frames, which takes `CAP_SYS_ADMIN` when the pinner was made. Reads eight bytes a page, and the
    /// page tables of the whole process where the answer is not [`Standing::Live`].
    pub fn standing(&self) -> Standing {
        let cannot = |why| Standing::CannotTell { why };
        if !self.inner.is_of_this_process() {
            return cannot(Unknown::Forked);
        }
        let areas = self.inner.areas(self.range);
        let holes = areas.iter().any(|area| matches!(area, Area::Hole(_)));
        let (Some(before), Some(pagemap)) = (&self.frames, self.inner.pagemap()) else {
            let hidden = self.inner.pagemap().is_none_or(|_| self.inner.records_frames());
            return cannot(match (holes, hidden) {
                (true, _) => Unknown::Unmapped,
                (_, true) => Unknown::Hidden,
                _ => Unknown::NotRecorded,
            });
        };
        let Ok(now) = Frames::of(pagemap, self.range) else { return cannot(Unknown::Hidden) };
        let Some((at, present)) = before.first_difference(&now, self.range) else { return Standing::Live };
        // Reclaim takes shared pages out of page tables although it cannot free them; anonymous private ones that are
        // pinned stay (Linux 6.18 `shrink_folio_list`).
        let shared = areas.iter().any(|area| matches!(area, Area::Mapped(found) if found.shared));
        let elsewhere = self.inner.all_areas();
        match frames::find(before, pagemap, elsewhere.into_iter(), self.range) {
            Some(to) => Standing::Moved { to },
            None if !present && shared && !holes => cannot(Unknown::NotPresent),
            None => Standing::Stale { at },
        }
    }

    /// Says whether the CPU sees what is written through the slot, by writing.
    ///
    /// The first eight bytes of each page are read through the slot, replaced by their complement, compared with what
    /// `/proc/self/mem` shows at the address, and put back: about ten microseconds a page. Nobody else may write there
    /// meanwhile, neither CPU nor device, and whoever reads may see the complement. Where pages and addresses have
    /// parted, only the pinned pages are written, which nobody reads. Pages that a userfaultfd is to serve make it wait.
    ///
    /// It tells [`Standing::Live`] from [`Standing::Stale`]; memory that was moved is stale at its old addresses.
    ///
    /// # Errors
    /// [`ProbeError`]; without `/proc` there is no probe.
    pub fn probe(&self) -> Result<Standing, ProbeError> {
        for slot in &self.slots {
            for piece in words(slot.range).collect::<Vec<_>>().chunks(PAGES_AT_ONCE) {
                let (number, piece) = (slot.number, piece.to_vec());
                let without = |what| move |source: io::Error| ProbeError::Without { what, source };
                let scratch = memfd_create("peerdma probe", MemfdFlags::CLOEXEC)
                    .map_err(|errno| without("a memfd")(errno.into()))?;
                let seen = File::open("/proc/self/mem").map_err(without("/proc/self/mem"))?;
                let probed = slot.seat.call(move |ring| {
                    let mut transfer = |way, word, at| {
                        ring.transfer(way, number, word, scratch.as_fd(), Bytes::new(at))
                            .map_err(|errno| ProbeError::Transfer { at: word, errno })
                    };
                    for word in piece {
                        let failed = |errno| ProbeError::Transfer { at: word, errno };
                        let len = word.len().as_u64() as usize;
                        let (mut before, mut now) = ([0; WORD as usize], [0; WORD as usize]);
                        transfer(Way::OutOfBuffer, word, 0)?;
                        pread(&scratch, &mut before[..len], 0).map_err(failed)?;
                        let flipped = before.map(|byte| !byte);
                        pwrite(&scratch, &flipped[..len], WORD).map_err(failed)?;
                        transfer(Way::IntoBuffer, word, WORD)?;
                        // Where nothing is mapped nothing is read, and zeros could be what was to be seen.
                        let read = seen.read_exact_at(&mut now[..len], word.start().as_u64());
                        transfer(Way::IntoBuffer, word, 0)?;
                        if read.is_err() || now[..len] != flipped[..len] {
                            return Ok(Some(word));
                        }
                    }
                    Ok(None)
                });
                match probed.map_err(|Gone| ProbeError::Forked)?? {
                    None => (),
                    Some(at) => return Ok(Standing::Stale { at }),
                }
            }
        }
        Ok(Standing::Live)
    }
}

/// The first bytes of each page of a range.
fn words(range: AddrRange<ProcVa>) -> impl Iterator<Item = AddrRange<ProcVa>> {
    let page = crate::memory::page_size().as_u64();
    let (first, last) = (range.start().as_u64() / page, range.last().as_u64() / page);
    (first..=last).filter_map(move |number| {
        let start = (number * page).max(range.start().as_u64());
        let end = (start + WORD - 1).min(range.last().as_u64()).min(number * page + (page - 1));
        AddrRange::from_inclusive(ProcVa::new(start), ProcVa::new(end))
    })
}
