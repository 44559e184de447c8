//! A guest that goes on running while memory is taken from its second stage.
//!
//! It is never asked. Its virtual processor touches guest memory; where the second stage has no entry
//! it faults, and its monitor serves the fault in the one order of
//! [`SecondStage`], or lets it try again later. When told to let go the monitor takes the entries out, and the
//! guest finds out at its next access.

use super::exporter::Exporter;
use super::frames::{PAGE, pages, runs};
use super::membership::{Membership, Use};
use super::party::{Broken, Party, Past, Tally};
use super::stores::Stores;
use crate::machine::Machine;
use peerdma::addr::{Bytes, PhysAddr};
use peerdma::buffer::fence::{SecondStage, Served, Usage};
use peerdma::dma::consumer::stage2::GuestFrame;
use peerdma::dma::{Owners, Peers};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

/// Where the guest sees the buffer.
const FIRST: GuestFrame = GuestFrame::new(0x10_0000);

/// The entries that the guest's processor walks; its monitor changes them through [`SecondStage`] alone.
#[derive(Clone, Debug, Default)]
struct Entries(Arc<Mutex<BTreeMap<u64, PhysAddr>>>);

impl Entries {
    fn walk(&self, frame: GuestFrame) -> Option<PhysAddr> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&frame.number()).copied()
    }

    fn enter(&self, all: impl Iterator<Item = (GuestFrame, PhysAddr)>) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.extend(all.map(|(frame, at)| (frame.number(), at)));
    }

    fn take_out(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// A guest, and its monitor.
pub struct Guest<'m> {
    member: Membership,
    machine: &'m Machine,
    owners: &'m Owners<Infallible>,
    part: (Bytes, Bytes),
    /// What its processor walks.
    entries: Entries,
    stage: SecondStage<Entries>,
    held: Option<Use>,
    stores: Stores,
    tally: Tally,
}

impl<'m> Guest<'m> {
    /// A guest that writes `part` of a buffer: from where, how much.
    pub fn new(member: Membership, machine: &'m Machine, owners: &'m Owners<Infallible>, part: (Bytes, Bytes)) -> Self {
        let entries = Entries::default();
        let (stage, stores) = (SecondStage::new(entries.clone()), Stores::default());
        Self { member, machine, owners, part, entries, stage, held: None, stores, tally: Tally::default() }
    }

    /// The monitor takes everything out, and nothing that the guest stored is under way then.
    fn take_out(&mut self) {
        self.stage.invalidate(|entries| entries.take_out());
        self.stores.push(self.machine);
        self.tally.let_go += u64::from(self.held.take().is_some());
    }

    /// The monitor serves a fault; whether there are entries now.
    fn fault(&mut self, exporter: &Exporter) -> Result<bool, Broken> {
        let (Some(seat), None) = (self.member.seat(), &self.held) else { return Ok(false) };
        let (fault, ()) = self.stage.fault(|_| ());
        // Outside the locks, as the record may have to be given back.
        let Some(held) = self.member.map(exporter)? else { return Ok(false) };
        let runs = runs(&held, self.owners, FIRST).map_err(|why| self.member.refused(&why))?;
        let served = fault.serve(
            seat.reservation(),
            // What the kernel does with the memory comes first, such as filling it after a move.
            |reservation| match reservation.waits_for(Usage::Kernel).next() {
                Some(fence) => Err(fence.name()),
                None => Ok(runs),
            },
            |entries, runs| entries.enter(pages(&runs)),
        );
        match served {
            Ok(Served::Installed) => {
                self.tally.for_reading += u64::from(!held.writes());
                self.held = Some(held);
                self.tally.mapped += 1;
                self.stores.begin();
                Ok(true)
            }
            Ok(Served::Again) | Err(_) => Ok(false),
        }
    }

    /// The guest's processor makes one access; faults are its monitor's.
    fn run(&mut self, random: &mut fastrand::Rng, exporter: &Exporter) -> Result<(), Broken> {
        let at = self.part.0.as_u64() + self.stores.next().as_u64();
        let Some(page) = self.entries.walk(GuestFrame::new(FIRST.number() + at / PAGE)) else {
            if !self.fault(exporter)? {
                // It goes on with something else, and tries again.
                self.tally.cut_off += 1;
            }
            return Ok(());
        };
        let (Some(held), Some(at)) = (&self.held, page.checked_add(Bytes::new(at % PAGE))) else { return Ok(()) };
        match held.writes() {
            true => self.stores.store(self.machine, at, held.stamp),
            false => self.stores.load(self.machine, at),
        }
        if self.stores.next() >= self.part.1 {
            self.stores.begin();
            self.stores.push(self.machine);
            self.tally.done += 1;
            if held.writes() && random.u8(..8) == 0 {
                return self.member.all_there(&held.field, held.stamp, self.part);
            }
        }
        Ok(())
    }
}

impl Party for Guest<'_> {
    fn step(&mut self, random: &mut fastrand::Rng, exporter: &Exporter, peers: &Peers<'_>) -> Result<(), Broken> {
        if random.u8(..4) == 0
            && let Some(receipt) = self.member.listen()
        {
            self.take_out();
            receipt.noted();
        }
        if self.held.is_some() && random.u8(..200) == 0 {
            self.take_out();
        }
        if !self.member.join(random, self.held.is_some(), exporter, peers)? {
            return Ok(());
        }
        self.run(random, exporter)
    }

    fn member(&self) -> &Membership {
        &self.member
    }

    fn tally(&self) -> Tally {
        Tally { refused: self.member.refused, ..self.tally }
    }

    fn past_the_end(&mut self) -> Past {
        let Some(held) = &self.held else { return Past::NotNow };
        let frame = GuestFrame::new(FIRST.number() + held.field.len().as_u64().div_ceil(PAGE));
        match self.entries.walk(frame) {
            Some(_) => Past::Made,
            None => Past::Refused(format!("{frame} has no entry, and its monitor has none to make")),
        }
    }
}
