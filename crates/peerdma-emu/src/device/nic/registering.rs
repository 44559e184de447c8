//! A list of pages under way into the adapter: each step reads a piece of it.
//!
//! A list may be 8 MiB long. Read in one step it would keep every other device of the machine, and
//! every queue pair of this one, waiting as long.

use super::command::{MOST_PAGES, Refused, key};
use super::engine::Nic;
use super::region::{Key, Listed, Pages, Region, Rights};
use crate::device::bus::{Bus, How};
use peerdma::addr::{BusAddr, Bytes};

/// Bytes of a list that one step reads at most.
const PIECE: u64 = 64 << 10;

/// A command whose list is being read.
#[derive(Debug)]
pub(super) struct Registering {
    /// Of the command that is to be answered.
    sequence: u64,
    /// What the list is for.
    purpose: Purpose,
    /// Those of its words that were read.
    words: Vec<u64>,
    /// Where the rest of it is, and how many words that is.
    at: BusAddr,
    left: u64,
}

#[derive(Debug)]
enum Purpose {
    /// All pages of a region in the making, which has none yet.
    Region(Region),
    /// Some pages of an on-demand region.
    Pages { key: Key, at: u64, len: u64, page_log2: u64, writable: bool },
}

impl Registering {
    /// Reads a piece of the list; whether that was the last.
    fn read(&mut self, bus: &mut dyn Bus) -> Result<bool, Refused> {
        let len = (self.left * 8).min(PIECE);
        let mut bytes = vec![0; len as usize];
        bus.read(How::default(), self.at, &mut bytes).map_err(|_| Refused::Request)?;
        let (words, _) = bytes.as_chunks::<8>();
        self.words.extend(words.iter().map(|word| u64::from_le_bytes(*word)));
        self.left -= words.len() as u64;
        // One that goes on past the last address is refused where it is read next.
        self.at = self.at.checked_add(Bytes::new(len)).unwrap_or(BusAddr::new(u64::MAX));
        Ok(self.left == 0)
    }
}

impl Nic {
    /// Begins a registration, which is answered when its list was read.
    pub(super) fn begin_registration(&mut self, sequence: u64, arguments: [u64; 8]) -> Result<(), Refused> {
        let [domain, base, len, page_log2, list, count, ..] = arguments;
        let rights = Rights::of((domain >> 32) as u32);
        let domain = domain as u32;
        let left = Region::page_count(base, len, page_log2).filter(|pages| *pages == count).ok_or(Refused::Invalid)?;
        if !self.domains.contains_key(&domain) {
            return Err(Refused::Invalid);
        }
        let pages = Pages::Pinned(Vec::new());
        let region = Region { domain, rights, base, len, page_log2: page_log2 as u32, pages, taken: 0 };
        self.begin(sequence, Purpose::Region(region), (list, left))
    }

    /// Begins to write pages of an on-demand region, as a list like that of a registration shows them.
    pub(super) fn begin_writing(&mut self, sequence: u64, arguments: [u64; 8]) -> Result<(), Refused> {
        let [first, at, len, page_log2, list, count, ..] = arguments;
        let (key, writable) = (key(first & 0xffff_ffff)?, first >> 32 & 1 != 0);
        self.begin(sequence, Purpose::Pages { key, at, len, page_log2, writable }, (list, count))
    }

    fn begin(&mut self, sequence: u64, purpose: Purpose, (list, left): (u64, u64)) -> Result<(), Refused> {
        if left > MOST_PAGES {
            return Err(Refused::Exhausted);
        }
        let words = Vec::with_capacity(left as usize);
        self.registering = Some(Registering { sequence, purpose, words, at: BusAddr::new(list), left });
        Ok(())
    }

    /// Goes on with the list that is under way; whether there is one.
    pub(super) fn go_on_registering(&mut self, bus: &mut dyn Bus) -> bool {
        let Some(mut registering) = self.registering.take() else { return false };
        match registering.read(bus) {
            Ok(false) => self.registering = Some(registering),
            Ok(true) => {
                let Registering { sequence, purpose, words, .. } = registering;
                let result = match purpose {
                    Purpose::Region(region) => self.insert(Region { pages: Pages::Pinned(words), ..region }),
                    Purpose::Pages { key, at, len, page_log2, writable } => {
                        let listed = Listed { at, len, page_log2, words: &words, writable };
                        self.regions.write(key, &listed).map(|()| 0).ok_or(Refused::Invalid)
                    }
                };
                self.answer(sequence, result);
            }
            Err(refused) => self.answer(registering.sequence, Err(refused)),
        }
        true
    }

    /// Takes a region in; its key.
    pub(super) fn insert(&mut self, region: Region) -> Result<u64, Refused> {
        let users = self.domains.get_mut(&region.domain).ok_or(Refused::Invalid)?;
        let key = self.regions.insert(region).ok_or(Refused::Exhausted)?;
        *users += 1;
        Ok(u64::from(key.as_u32()))
    }
}
