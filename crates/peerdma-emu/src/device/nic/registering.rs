//! A registration under way: its list of pages, of which each step reads a piece.
//!
//! A list may be 8 MiB long. Read in one step it would keep every other device of the machine, and
//! every queue pair of this one, waiting as long.

use super::command::Refused;
use super::engine::Nic;
use super::region::{Region, Rights};
use crate::device::bus::{Bus, How};
use peerdma::addr::{BusAddr, Bytes};

/// Most pages of one region: 4 GiB in pages of 4 KiB.
const MOST_PAGES: u64 = 1 << 20;
/// Bytes of a list that one step reads at most.
const PIECE: u64 = 64 << 10;

/// A region in the making.
#[derive(Debug)]
pub(super) struct Registering {
    /// Of the command that is to be answered.
    sequence: u64,
    /// With those of its pages that were read.
    region: Region,
    /// Where the rest of the list is, and how many entries that is.
    at: BusAddr,
    left: u64,
}

impl Registering {
    /// Reads a piece of the list; whether that was the last.
    fn read(&mut self, bus: &mut dyn Bus) -> Result<bool, Refused> {
        let len = (self.left * 8).min(PIECE);
        let mut bytes = vec![0; len as usize];
        bus.read(How::default(), self.at, &mut bytes).map_err(|_| Refused::Request)?;
        let (words, _) = bytes.as_chunks::<8>();
        self.region.pages.extend(words.iter().map(|word| u64::from_le_bytes(*word)));
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
        if left > MOST_PAGES {
            return Err(Refused::Exhausted);
        }
        let pages = Vec::with_capacity(left as usize);
        let region = Region { domain, rights, base, len, page_log2: page_log2 as u32, pages };
        self.registering = Some(Registering { sequence, region, at: BusAddr::new(list), left });
        Ok(())
    }

    /// Goes on with the registration that is under way; whether there is one.
    pub(super) fn go_on_registering(&mut self, bus: &mut dyn Bus) -> bool {
        let Some(mut registering) = self.registering.take() else { return false };
        match registering.read(bus) {
            Ok(false) => self.registering = Some(registering),
            Ok(true) => {
                let inserted = self.insert(registering.region);
                self.answer(registering.sequence, inserted);
            }
            Err(refused) => self.answer(registering.sequence, Err(refused)),
        }
        true
    }

    /// Takes a region in; its key.
    fn insert(&mut self, region: Region) -> Result<u64, Refused> {
        let users = self.domains.get_mut(&region.domain).ok_or(Refused::Invalid)?;
        let key = self.regions.insert(region).ok_or(Refused::Exhausted)?;
        *users += 1;
        Ok(u64::from(key.as_u32()))
    }
}
