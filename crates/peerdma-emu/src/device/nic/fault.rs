//! Page faults: what the driver is asked for, and who waits for it.
//!
//! An access to an on-demand region that finds no page stops, and only the side of the queue pair that
//! it is of: the other side, and all other queue pairs, go on. The driver reads of it in a ring of *events*,
//! writes pages, and *resumes* the fault, by which the access is tried again; or it resumes it as
//! refused, and the access ends as one without the right to it.
//!
//! An event is a slot of 32 bytes, as those of completions: the first address without page (8),
//! how many bytes of the access have none (8), the region's key (4), the fault's number with bit 31
//! set where pages are to be written (4), and last the count of events so far (8).
//!
//! There are no more faults at a time than slots for events, and what finds no room waits for it.

use super::pair::Context;
use super::region::Missing;
use super::register::EVENTS_CONSUMED;
use crate::device::bus::{Bus, How};
use crate::device::channel::{Completion, Ring};
use crate::device::registers::Registers;

/// Set in an event whose access is a write.
pub(super) const WRITE: u32 = 1 << 31;
/// Most faults at a time.
const MOST: u32 = 64;

/// How often a side may fault in a row without getting on: pages that go again each time before they
/// are used, or that the driver says it has written and has not, are not waited for without end.
const MOST_TRIES: u8 = 16;

/// Names a fault for as long as its driver has not resumed it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ticket(u32);

/// A fault that the driver was told of.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// 15 bits.
    generation: u16,
    /// Somebody waits for its outcome.
    awaited: bool,
    /// The driver has not resumed it.
    open: bool,
    /// What the driver said.
    refused: bool,
}

/// The faults of an adapter, and the ring that its driver reads of them in.
#[derive(Debug, Default)]
pub(super) struct Faults {
    ring: Option<Ring>,
    vector: Option<u16>,
    posted: u64,
    places: Vec<Place>,
}

impl Faults {
    /// With a ring for events; faults of an earlier one are over.
    pub(super) fn new(ring: Ring, vector: Option<u16>) -> Self {
        let places = vec![Place::default(); ring.slots().min(MOST) as usize];
        Self { ring: Some(ring), vector, posted: 0, places }
    }

    /// Whether there is somebody to serve them.
    pub(super) fn are_served(&self) -> bool {
        self.ring.is_some()
    }

    /// Whether the driver has some that it has not resumed, or somebody waits for one.
    pub(super) fn is_busy(&self) -> bool {
        self.places.iter().any(|place| place.open || place.awaited)
    }

    /// Tells the driver of a fault; `None` while there is no room for another one.
    fn raise(&mut self, bus: &mut dyn Bus, registers: &Registers, missing: Missing) -> Option<Ticket> {
        let ring = self.ring?;
        let unread = (self.posted as u32).wrapping_sub(registers.get(EVENTS_CONSUMED) as u32);
        let index = self.places.iter().position(|place| !place.open && !place.awaited)?;
        let place = self.places.get_mut(index).filter(|_| unread < ring.slots())?;
        let generation = place.generation.wrapping_add(1) & 0x7fff;
        let ticket = index as u32 | u32::from(generation) << 16;
        let Missing { key, at, len, write } = missing;
        let detail = ticket | if write { WRITE } else { 0 };
        let event = Completion { value: at, tag: len, status: key.as_u32(), detail };
        // A ring that cannot be written to tells nobody, and the fault would never be resumed.
        event.post(bus, How::default(), ring.slot(self.posted), self.posted + 1).ok()?;
        self.posted += 1;
        *place = Place { generation, awaited: true, open: true, refused: false };
        if let Some(vector) = self.vector {
            bus.interrupt(vector);
        }
        Some(Ticket(ticket))
    }

    fn place(&mut self, ticket: u32) -> Option<&mut Place> {
        let place = self.places.get_mut((ticket & 0xffff) as usize)?;
        (u32::from(place.generation) == ticket >> 16).then_some(place)
    }

    /// Takes the driver's word; `None` where it has no such fault.
    pub(super) fn resume(&mut self, ticket: u32, refused: bool) -> Option<()> {
        let place = self.place(ticket).filter(|place| place.open)?;
        (place.open, place.refused) = (false, refused);
        Some(())
    }

    /// Whether a fault was refused, once that is known; asked until it is.
    fn outcome(&mut self, ticket: Ticket) -> Option<bool> {
        let place = self.place(ticket.0)?;
        if place.open {
            return None;
        }
        place.awaited = false;
        Some(place.refused)
    }

    /// Nobody waits for it any more.
    fn abandon(&mut self, ticket: Ticket) {
        if let Some(place) = self.place(ticket.0) {
            place.awaited = false;
        }
    }
}

/// What a side of a queue pair finds where it waited for pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Look {
    /// It may try.
    Ready,
    /// Nothing yet.
    Waiting,
    /// They do not come.
    Refused,
}

/// One side of a queue pair, as far as it waits for pages.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Patience {
    waits: Option<(Missing, Option<Ticket>)>,
    tries: u8,
}

impl Patience {
    /// Waits for pages; `false` where it has waited often enough.
    pub(super) fn begin(&mut self, cx: &mut Context<'_>, missing: Missing) -> bool {
        self.end(cx);
        if self.tries >= MOST_TRIES {
            return false;
        }
        self.tries += 1;
        self.waits = Some((missing, cx.faults.raise(cx.bus, cx.registers, missing)));
        true
    }

    /// Looks whether the wait is over.
    pub(super) fn look(&mut self, cx: &mut Context<'_>) -> Look {
        let Some((missing, ticket)) = self.waits else { return Look::Ready };
        if !cx.regions.has(missing.key) {
            self.end(cx);
            return Look::Refused;
        }
        let Some(ticket) = ticket else {
            self.waits = Some((missing, cx.faults.raise(cx.bus, cx.registers, missing)));
            return Look::Waiting;
        };
        match cx.faults.outcome(ticket) {
            None => Look::Waiting,
            Some(refused) => {
                self.waits = None;
                if refused { Look::Refused } else { Look::Ready }
            }
        }
    }

    /// Forgets earlier faults, since it got on.
    pub(super) fn got_on(&mut self) {
        self.tries = 0;
    }

    /// Waits no longer.
    pub(super) fn end(&mut self, cx: &mut Context<'_>) {
        if let Some((_, Some(ticket))) = self.waits.take() {
            cx.faults.abandon(ticket);
        }
    }
}
