//! A bus with address spaces, for trying what happens where a page is not there.

use crate::device::{Bus, Flat, How, PageResponse, RegisterWrite, Translation};
use crate::memory::Memory;
use crate::wire::{AddressType, Atomic, Failure, Pasid};
use peerdma::addr::{BusAddr, Bytes};
use std::collections::{BTreeMap, VecDeque};

/// A bus with address spaces of pages, and a kernel that brings some of them when asked.
pub(super) struct Spaces {
    pub(super) flat: Flat,
    /// Pages that are there, by PASID and number, with whether they may be written.
    pub(super) pages: BTreeMap<(u32, u64), (u64, bool)>,
    /// Pages that the kernel brings when asked for them.
    pub(super) absent: BTreeMap<(u32, u64), (u64, bool)>,
    pub(super) asked: VecDeque<(Option<Pasid>, u64, u16)>,
    pub(super) answers: VecDeque<(u16, PageResponse)>,
    /// Page requests that may be on the way at once.
    pub(super) most: usize,
    /// Untranslated requests that came through; there have to be none.
    pub(super) untranslated: usize,
}

impl Spaces {
    pub(super) fn answer(&mut self) -> bool {
        let Some((pasid, page, group)) = self.asked.pop_front() else { return false };
        let key = (pasid.map_or(0, Pasid::number), page);
        let response = match self.absent.remove(&key) {
            Some(found) => {
                self.pages.insert(key, found);
                PageResponse::Success
            }
            None => PageResponse::Invalid,
        };
        self.answers.push_back((group, response));
        true
    }

    fn note(&mut self, how: How) {
        self.untranslated += usize::from(how.at != AddressType::Translated || how.pasid.is_some());
    }
}

impl Bus for Spaces {
    fn next_write(&mut self) -> Option<RegisterWrite> {
        self.flat.next_write()
    }

    fn read(&mut self, how: How, at: BusAddr, into: &mut [u8]) -> Result<(), Failure> {
        self.note(how);
        self.flat.read(how, at, into)
    }

    fn write(&mut self, how: How, at: BusAddr, from: &[u8]) -> Result<(), Failure> {
        self.note(how);
        self.flat.write(how, at, from)
    }

    fn fetch(&mut self, how: How, at: BusAddr, memory: (&dyn Memory, Bytes), len: Bytes) -> Result<(), Failure> {
        self.flat.fetch(how, at, memory, len)
    }

    fn send(&mut self, how: How, memory: (&dyn Memory, Bytes), at: BusAddr, len: Bytes) -> Result<(), Failure> {
        self.flat.send(how, memory, at, len)
    }

    fn copy(&mut self, how: How, from: BusAddr, to: BusAddr, len: Bytes) -> Result<(), Failure> {
        self.note(how);
        self.flat.copy(how, from, to, len)
    }

    fn atomic(&mut self, how: How, at: BusAddr, atomic: Atomic) -> Result<u64, Failure> {
        self.flat.atomic(how, at, atomic)
    }

    fn interrupt(&mut self, vector: u16) {
        self.flat.interrupt(vector);
    }

    fn translate(&mut self, how: How, at: BusAddr, _write: bool) -> Result<Option<Translation>, Failure> {
        let key = (how.pasid.map_or(0, Pasid::number), at.as_u64() >> 12);
        let within = at.as_u64() & 0xfff;
        Ok(self.pages.get(&key).map(|(frame, write)| Translation {
            to: BusAddr::new(frame << 12 | within),
            len: Bytes::new(0x1000 - within),
            write: *write,
        }))
    }

    fn request_page(&mut self, how: How, at: BusAddr, _write: bool, group: u16) -> Result<(), Failure> {
        if self.asked.len() + self.answers.len() >= self.most {
            return Err(Failure::NotSent);
        }
        self.asked.push_back((how.pasid, at.as_u64() >> 12, group));
        Ok(())
    }

    fn next_page_response(&mut self) -> Option<(u16, PageResponse)> {
        self.answers.pop_front()
    }
}
