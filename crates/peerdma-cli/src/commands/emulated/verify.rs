//! Moves bytes and looks whether they came, by the rules of [`peerdma_linux::verified`].
//!
//! The destination first holds something else in every byte; the source gets a pattern of its
//! own; the engine moves all of it and says that it is done; then the destination's owner reads
//! every byte, and what lies around it. One direction: the one that was asked for.

use super::owner::{Owner, signed};
use super::{Pace, Place, Session, Way};
use crate::exit::Failure;
use crate::progress::Steps;
use peerdma::addr::Bytes;
use peerdma::dma::Span;
use peerdma_emu::faults::{Fault, FaultId, Plan, Spot};
use peerdma_linux::interrupt::Interrupts;
use peerdma_linux::pattern::Pattern;
use peerdma_linux::verified::{Damage, Delivery, GUARD, Side, Wrong};
use std::time::{Duration, Instant};

/// Bytes that the engine moves at a time, between two looks for an interrupt.
const STROKE: u64 = 16 << 20;
/// Bytes that are written or compared at a time.
const PIECE: u64 = 1 << 20;

/// One copy between a device's own bytes and somebody else's.
pub(crate) struct Transfer<'t> {
    pub(crate) way: Way,
    /// The bytes of the device that moves them.
    pub(crate) own: &'t Place,
    /// The others.
    pub(crate) other: &'t Place,
    /// Where the device finds the others.
    pub(crate) peer: &'t [Span],
    pub(crate) seed: u64,
    /// Whether the destination is looked at.
    pub(crate) verify: bool,
    /// What goes wrong while the bytes move.
    pub(crate) fault: Option<Fault>,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Checked {
    /// How long the engine took for the bytes that it reported as moved.
    pub(crate) pace: Pace,
    /// What the engine said in place of being done.
    pub(crate) failed: Option<String>,
    /// What the destination's owner found; `None` where nobody looked.
    pub(crate) delivery: Option<Delivery>,
    /// How often the fault struck that was asked for.
    pub(crate) strikes: Option<u64>,
}

impl Transfer<'_> {
    /// Moves everything.
    ///
    /// # Errors
    /// That an owner cannot be asked, or an interrupt. What the engine says is no error here.
    pub(crate) fn run(&self, session: &mut Session<'_>, other: &mut Owner<'_, '_>) -> Result<Checked, Failure> {
        let interrupts = Interrupts::watch();
        let (total, mut steps) = (self.own.len.as_u64(), Steps::new());
        let mut going = |what: &str, done: u64| {
            steps.show(what, Bytes::new(done), Bytes::new(total));
            if interrupts.as_ref().is_some_and(Interrupts::came) {
                let what = format!("interrupted while {what}; nothing is said about the bytes");
                return Err(Failure::Device { what, source: None });
            }
            Ok(())
        };
        let pattern = Pattern::new(self.seed, u64::from(self.way == Way::Pull));
        for (at, len) in pieces(total, PIECE) {
            going("preparing", at)?;
            let sent = pattern.bytes(Bytes::new(at), len);
            let before: Vec<u8> = sent.iter().map(|byte| !byte).collect();
            let (own, others) = if self.way == Way::Push { (&sent, &before) } else { (&before, &sent) };
            session.fill(signed(Bytes::new(at)), own)?;
            other.fill(Bytes::new(at), others)?;
        }
        session.booted().settle()?;
        let guards = if self.verify { Some(self.guards(session, other)?) } else { None };
        let armed = self.fault.map(|fault| self.arm(session, fault)).transpose()?;
        let (mut took, mut moved, mut failed) = (Duration::ZERO, 0, None);
        for (at, len) in pieces(total, STROKE) {
            going("copying", at)?;
            let begun = Instant::now();
            let done = session.carry(self.way, self.peer, Bytes::new(at), Bytes::new(len as u64));
            session.booted().settle()?;
            took += begun.elapsed();
            if let Err(error) = done {
                failed = Some(error.to_string());
                break;
            }
            moved += len as u64;
        }
        // A mirror shows itself only when the memory behind it is seen again.
        let strikes = armed.and_then(|armed| session.booted().machine().disarm(armed)).map(|armed| armed.strikes);
        let delivery = match guards {
            None => None,
            Some(guards) => {
                let mut delivery = Delivery { first_wrong: None, wrong: Bytes::ZERO, untouched: true, damage: None };
                for (at, len) in pieces(total, PIECE) {
                    going("comparing", at)?;
                    let mut came = vec![0; len];
                    self.look(session, other, signed(Bytes::new(at)), &mut came)?;
                    compare(&mut delivery, at, &pattern.bytes(Bytes::new(at), len), &came);
                }
                delivery.damage = damage(&guards, &self.guards(session, other)?);
                Some(delivery)
            }
        };
        Ok(Checked { pace: Pace { bytes: Bytes::new(moved), took }, failed, delivery, strikes })
    }

    /// Makes something go wrong between the two devices, or at the one where the other end is RAM.
    fn arm(&self, session: &Session<'_>, fault: Fault) -> Result<FaultId, Failure> {
        let plan = match (self.own.at, self.other.at) {
            (Some(own), Some(other)) => Plan::new(fault).between(own.node, other.node),
            (Some(at), None) | (None, Some(at)) => Plan::new(fault).at(Spot::Node(at.node)),
            (None, None) => Plan::new(fault),
        };
        let armed = session.booted().machine().arm(plan.seed(self.seed));
        armed.map_err(|error| Failure::usage(format!("--fault {fault}: {error}")))
    }

    fn destination(&self) -> &Place {
        if self.way == Way::Push { self.other } else { self.own }
    }

    /// Reads the destination as its owner.
    fn look(
        &self,
        session: &mut Session<'_>,
        other: &mut Owner<'_, '_>,
        at: i64,
        into: &mut [u8],
    ) -> Result<(), Failure> {
        match self.way {
            Way::Push => other.look(at, into),
            Way::Pull => session.look(at, into),
        }
    }

    /// What lies around the destination, where there is room.
    fn guards(&self, session: &mut Session<'_>, other: &mut Owner<'_, '_>) -> Result<[Vec<u8>; 2], Failure> {
        let (place, guard) = (self.destination(), GUARD.as_u64());
        let end = place.offset.as_u64() + place.len.as_u64();
        let (before, after) = match place.kind {
            // A page on each side is nobody's.
            super::Kind::Ram | super::Kind::Staged => (guard, guard),
            super::Kind::Medium | super::Kind::Memory { .. } => {
                (place.offset.as_u64().min(guard), (place.room.as_u64() - end).min(guard))
            }
        };
        let (mut low, mut high) = (vec![0; before as usize], vec![0; after as usize]);
        self.look(session, other, -(before as i64), &mut low)?;
        self.look(session, other, signed(place.len), &mut high)?;
        Ok([low, high])
    }
}

/// Offsets and lengths of pieces.
fn pieces(total: u64, piece: u64) -> impl Iterator<Item = (u64, usize)> {
    (0..total).step_by(piece as usize).map(move |at| (at, piece.min(total - at) as usize))
}

/// Adds what came of one piece.
fn compare(delivery: &mut Delivery, at: u64, sent: &[u8], came: &[u8]) {
    if sent == came {
        delivery.untouched = false;
        return;
    }
    let mut wrong = 0;
    for (index, (&expected, &seen)) in sent.iter().zip(came).enumerate() {
        if expected != seen {
            let offset = Bytes::new(at + index as u64);
            delivery.first_wrong.get_or_insert(Wrong { offset, expected, seen });
            wrong += 1;
        }
        // Before the copy every byte was the complement.
        delivery.untouched &= seen == !expected;
    }
    delivery.wrong = Bytes::new(delivery.wrong.as_u64() + wrong);
}

/// The first byte around the destination that changed.
fn damage(was: &[Vec<u8>; 2], is: &[Vec<u8>; 2]) -> Option<Damage> {
    let find = |side: Side| {
        let (was, is) = match side {
            Side::Before => (&was[0], &is[0]),
            Side::After => (&was[1], &is[1]),
        };
        let at = was.iter().zip(is).position(|(was, is)| was != is)?;
        let distance = if side == Side::Before { was.len() - at } else { at + 1 };
        Some(Damage { side, distance: Bytes::new(distance as u64), was: was[at], is: is[at] })
    };
    find(Side::Before).or_else(|| find(Side::After))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_that_holds_what_it_held_is_told_from_one_with_a_wrong_byte() {
        let sent = [1, 2, 3, 4];
        let none = Delivery { first_wrong: None, wrong: Bytes::ZERO, untouched: true, damage: None };
        let mut delivery = none;
        compare(&mut delivery, 0, &sent, &sent.map(|byte: u8| !byte));
        assert!(delivery.untouched && delivery.wrong == Bytes::new(4));
        let mut delivery = none;
        compare(&mut delivery, 8, &sent, &[1, 2, 0xff, 4]);
        assert!(!delivery.untouched);
        assert_eq!(delivery.first_wrong, Some(Wrong { offset: Bytes::new(10), expected: 3, seen: 0xff }));
        compare(&mut delivery, 12, &sent, &sent);
        assert_eq!(delivery.wrong, Bytes::new(1));
    }

    #[test]
    fn a_changed_byte_is_told_by_its_distance_from_the_edge() {
        let was = [vec![0; 4], vec![0; 4]];
        assert_eq!(damage(&was, &was), None);
        let found = damage(&was, &[vec![0, 0, 0, 7], vec![0; 4]]).unwrap();
        assert_eq!((found.side, found.distance, found.is), (Side::Before, Bytes::new(1), 7));
        let found = damage(&was, &[vec![0; 4], vec![0, 9, 0, 0]]).unwrap();
        assert_eq!((found.side, found.distance), (Side::After, Bytes::new(2)));
    }
}
