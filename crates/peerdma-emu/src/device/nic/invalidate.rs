//! Pages that are taken away, and when nobody uses them any more.
//!
//! An entry that is gone stops accesses that begin later. Those that began before end one after the
//! other: loans of the bytes are turned into staged copies, and for each page that may have been
//! written one byte is read, which pushes the writes before it, also those to a peer (PCIe 6.0
//! §2.4.1). Only then does the adapter say that the invalidation is done; it never waits for another adapter.

use super::Refused;
use super::engine::Nic;
use super::payload::Ended;
use super::region::Key;
use super::register::INVALIDATED;
use crate::device::bus::{Bus, How};
use peerdma::addr::BusAddr;
use std::collections::VecDeque;

/// Most invalidations that are not done.
const MOST: usize = 64;
/// Reads of one step.
const READS: usize = 64;

/// Whom to tell that nobody uses the pages any more.
#[derive(Clone, Copy, Debug)]
enum Told {
    /// Whoever reads the register of invalidations.
    Invalidation(u64),
    /// Whoever waits for the command of this sequence number.
    Command(u64),
}

/// Pages that somebody may still use.
#[derive(Debug)]
struct Drain {
    key: Key,
    /// First and last address.
    range: (u64, u64),
    /// Loans from before so many times were of these pages, later ones of those that took their place.
    before: u64,
    /// Pages to read from.
    written: Vec<BusAddr>,
    told: Told,
}

/// Everything that was taken away and may still be used, in the order of commands.
#[derive(Debug, Default)]
pub(super) struct Drains {
    queue: VecDeque<Drain>,
    /// Invalidations so far.
    count: u64,
}

impl Nic {
    /// Takes pages of an on-demand region away; the number of the invalidation.
    pub(super) fn invalidate(&mut self, key: Key, at: u64, len: u64) -> Result<u64, Refused> {
        if self.drains.queue.len() >= MOST {
            return Err(Refused::Exhausted);
        }
        let taken = self.regions.take_away(key, at, len).ok_or(Refused::Invalid)?;
        self.drains.count += 1;
        let told = Told::Invalidation(self.drains.count);
        self.drains.queue.push_back(Drain {
            key,
            range: taken.range,
            before: taken.count,
            written: taken.written,
            told,
        });
        Ok(self.drains.count)
    }

    /// Ends the uses of a region that is gone, before its command is done.
    pub(super) fn drain_all_of(&mut self, key: Key, sequence: u64) {
        let told = Told::Command(sequence);
        self.drains.queue.push_back(Drain { key, range: (0, u64::MAX), before: u64::MAX, written: Vec::new(), told });
    }

    /// Ends one use, or says that there is none left; whether there was anything to do.
    pub(super) fn drain(&mut self, bus: &mut dyn Bus) -> bool {
        let Some(drain) = self.drains.queue.front_mut() else { return false };
        let (key, before, (first, last)) = (drain.key, drain.before, drain.range);
        let ended = self.pool.end_one(bus, |loan| {
            loan.key == key && loan.taken < before && loan.range.0 <= last && first <= loan.range.1
        });
        if ended == Ended::One {
            return true;
        }
        let left = drain.written.len().saturating_sub(READS);
        for page in drain.written.drain(left..) {
            // What answers with an error has nothing of ours that could still arrive.
            let _ = bus.read(How::default(), page, &mut [0]);
        }
        if drain.written.is_empty() {
            match drain.told {
                Told::Invalidation(number) => self.registers.set(INVALIDATED, number),
                Told::Command(sequence) => self.answer(sequence, Ok(0)),
            }
            self.drains.queue.pop_front();
        }
        true
    }
}
