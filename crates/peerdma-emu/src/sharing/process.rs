//! A process that reaches the buffer by its CPU, through a closure that is let in or not.
//!
//! Its accesses are no jobs with an end that somebody signals: each is inside the [`Gate`] for as long as
//! it takes, and whoever takes the memory away closes the gate and waits until it is empty.

use super::exporter::Exporter;
use super::frames::{PAGE, pages, runs};
use super::membership::{Membership, Use};
use super::party::{Broken, Party, Past, Tally};
use super::stores::{STRIDE, Stores};
use crate::machine::Machine;
use peerdma::addr::{Bytes, PhysAddr};
use peerdma::buffer::guard::{Drained, Gate, Portable, Slot};
use peerdma::dma::consumer::stage2::GuestFrame;
use peerdma::dma::{Owners, Peers};
use std::convert::Infallible;

/// What the process has mapped.
struct View {
    held: Use,
    /// Each page of it.
    pages: Vec<PhysAddr>,
    slot: Slot<Portable>,
}

impl View {
    /// Runs `access` with the place of `len` bytes at `at`, if the gate lets it in and they are all there.
    fn with<R>(&mut self, at: Bytes, len: u64, access: impl FnOnce(PhysAddr) -> R) -> Result<R, String> {
        let inside = self.slot.enter().map_err(|closed| closed.to_string())?;
        let (page, offset) = ((at.as_u64() / PAGE) as usize, at.as_u64() % PAGE);
        let place = self.pages.get(page).filter(|_| offset + len <= PAGE);
        let place = place.and_then(|place| place.checked_add(Bytes::new(offset)));
        let done = place.map(access).ok_or_else(|| format!("{len} bytes at {:#x} are not all inside", at.as_u64()));
        drop(inside);
        done
    }
}

/// A process with a CPU mapping.
pub struct Process<'m> {
    member: Membership,
    machine: &'m Machine,
    owners: &'m Owners<Infallible>,
    part: (Bytes, Bytes),
    gate: Gate<Portable>,
    /// The gate's proof that nobody was inside when it was closed; what opens it.
    drained: Option<Drained<Portable>>,
    view: Option<View>,
    stores: Stores,
    tally: Tally,
}

impl<'m> Process<'m> {
    /// A process that writes `part` of a buffer: from where, how much.
    pub fn new(member: Membership, machine: &'m Machine, owners: &'m Owners<Infallible>, part: (Bytes, Bytes)) -> Self {
        let (gate, stores) = (Gate::new(Portable), Stores::default());
        Self { member, machine, owners, part, gate, drained: None, view: None, stores, tally: Tally::default() }
    }

    /// Closes the gate, and gives the memory back when nobody is inside; whether that is so.
    fn let_go(&mut self) -> bool {
        if self.drained.is_none() {
            let Ok(drained) = self.gate.close().try_drained() else { return false };
            self.drained = Some(drained);
        }
        self.stores.push(self.machine);
        self.tally.let_go += u64::from(self.view.take().is_some());
        true
    }

    fn map(&mut self, exporter: &Exporter) -> Result<(), Broken> {
        let Some(held) = self.member.map(exporter)? else { return Ok(()) };
        let runs = runs(&held, self.owners, GuestFrame::new(0)).map_err(|why| self.member.refused(&why))?;
        let opening = match self.drained.take() {
            Some(drained) => drained.open().map_err(|error| self.member.refused(&error.to_string()))?,
            None => self.gate.opening().map_err(|error| self.member.refused(&error.to_string()))?,
        };
        self.tally.for_reading += u64::from(!held.writes());
        let pages = pages(&runs).map(|(_, at)| at).collect();
        self.view = Some(View { held, pages, slot: opening.slot(self.member.name()) });
        self.tally.mapped += 1;
        self.stores.begin();
        Ok(())
    }

    fn access(&mut self, random: &mut fastrand::Rng) -> Result<(), Broken> {
        let Some(view) = &mut self.view else { return Ok(()) };
        let at = Bytes::new(self.part.0.as_u64() + self.stores.next().as_u64());
        let (stamp, machine, stores) = (view.held.stamp, self.machine, &mut self.stores);
        let writes = view.held.writes();
        let access = |place| match writes {
            true => stores.store(machine, place, stamp),
            false => stores.load(machine, place),
        };
        if view.with(at, STRIDE, access).is_err() {
            self.tally.cut_off += 1;
        }
        if self.stores.next() >= self.part.1 {
            self.stores.begin();
            self.stores.push(self.machine);
            self.tally.done += 1;
            if writes && random.u8(..8) == 0 {
                return self.member.all_there(&view.held.field, stamp, self.part);
            }
        }
        Ok(())
    }
}

impl Party for Process<'_> {
    fn step(&mut self, random: &mut fastrand::Rng, exporter: &Exporter, peers: &Peers<'_>) -> Result<(), Broken> {
        if random.u8(..4) == 0
            && let Some(receipt) = self.member.listen()
            && self.let_go()
        {
            receipt.noted();
        }
        if self.view.is_some() && random.u8(..200) == 0 {
            self.let_go();
        }
        if !self.member.join(random, self.view.is_some(), exporter, peers)? {
            return Ok(());
        }
        match &self.view {
            None if !self.member.must_let_go() => self.map(exporter),
            _ => self.access(random),
        }
    }

    fn member(&self) -> &Membership {
        &self.member
    }

    fn tally(&self) -> Tally {
        Tally { refused: self.member.refused, ..self.tally }
    }

    fn past_the_end(&mut self) -> Past {
        let Some(view) = &mut self.view else { return Past::NotNow };
        let (at, machine) = (view.held.field.len(), self.machine);
        match view.with(at, 8, |place| machine.cpu().store(place, &[0; 8])) {
            Ok(()) => Past::Made,
            Err(why) => Past::Refused(why),
        }
    }
}
