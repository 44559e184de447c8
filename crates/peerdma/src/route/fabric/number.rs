//! The view of a number: where it leads on a request's way up, whatever it was meant to be.
//!
//! A pair's view starts from a target and assumes what makes a target reachable. Here nothing is meant
//! by the number: it may be an address of a guest's RAM, and whoever claims it on the way gets it. So
//! windows and BARs that were not read make an answer unknown wherever they could claim it.
//!
//! A port compares whole ranges of numbers alike, so a range is cut at every edge of a window or BAR, one
//! walk is made for each piece, and neighbours that fare alike are joined again.

use super::Kind;
use super::course::{Assumption, Course, End, Note, Then};
use super::ground::{Ground, Role};
use super::tell::{self, READ_AS_ROOT};
use super::tlp::{At, Number, Tlp};
use crate::addr::{AddrRange, BusAddr, Bytes};
use crate::route::{Gate, Reason, whose};
use crate::topology::{FunctionId, FunctionInfo, Parent};
use alloc::format;
use alloc::vec::Vec;

/// Numbers that the fabric treats alike.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stretch {
    /// The numbers, as they stand on the wire.
    pub range: AddrRange<BusAddr>,
    /// Where they lead.
    pub led: Led,
}

/// Where a number leads before a root complex has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Led {
    /// To the root complex, which has it as it is.
    Root,
    /// Into this function's memory, and no root complex sees it.
    Function {
        /// Who takes it.
        to: FunctionId,
        /// The BAR that holds it, 0 to 5.
        bar: Option<u8>,
    },
    /// Nowhere: this port or function stops it.
    Stopped {
        /// Who stops it.
        at: FunctionId,
    },
    /// The specification does not say, for this reason.
    Undefined(Reason),
    /// What decides was not read.
    Unknown(Reason),
}

pub(super) fn follow(ground: &Ground<'_>, initiator: FunctionId, at: At, range: AddrRange<BusAddr>) -> Vec<Stretch> {
    let walk = Walk { ground, initiator, at, unsized_bars: unsized_bars(ground, initiator) };
    let mut stretches: Vec<Stretch> = Vec::new();
    for piece in pieces(ground, range) {
        let led = walk.led(piece);
        match stretches.last_mut() {
            Some(last) if last.led == led => {
                last.range = AddrRange::from_inclusive(last.range.start(), piece.last()).unwrap_or(last.range);
            }
            _ => stretches.push(Stretch { range: piece, led }),
        }
    }
    stretches
}

/// The range, cut where a window or BAR of this machine begins or ends.
fn pieces(ground: &Ground<'_>, range: AddrRange<BusAddr>) -> impl Iterator<Item = AddrRange<BusAddr>> {
    let inside = |edge: &u64| *edge > range.start().as_u64() && *edge <= range.last().as_u64();
    let mut starts = Vec::from([range.start().as_u64()]);
    let mut cut = |has: AddrRange<BusAddr>| {
        let end = has.last().as_u64().checked_add(1);
        starts.extend([Some(has.start().as_u64()), end].into_iter().flatten().filter(inside));
    };
    for (_, function) in ground.topology.functions() {
        function.info().registers.windows.open().for_each(&mut cut);
        for bar in &function.info().bars {
            let size = bar.size.or(bar.cpu.map(|cpu| cpu.len())).unwrap_or(Bytes::new(1));
            bar.bus.and_then(|bus| AddrRange::new(bus, size)).into_iter().for_each(&mut cut);
        }
    }
    starts.sort_unstable();
    starts.dedup();
    let lasts: Vec<u64> = starts.iter().skip(1).map(|next| next - 1).chain([range.last().as_u64()]).collect();
    let piece = |(first, last)| AddrRange::from_inclusive(BusAddr::new(first), BusAddr::new(last));
    // All 2^64 numbers are no range.
    starts.into_iter().zip(lasts).filter_map(piece)
}

/// BARs of which only the start was read, below the initiator's host bridge.
fn unsized_bars(ground: &Ground<'_>, initiator: FunctionId) -> Vec<(FunctionId, u8, BusAddr)> {
    let host = whose::host_of(ground.topology, initiator);
    let mut all = Vec::new();
    for (id, function) in ground.topology.functions() {
        let bars = function.info().bars.iter().filter(|bar| bar.size.is_none() && bar.cpu.is_none());
        let starts: Vec<_> = bars.filter_map(|bar| Some((id, bar.index, bar.bus?))).collect();
        if id != initiator && !starts.is_empty() && whose::host_of(ground.topology, id) == host {
            all.extend(starts);
        }
    }
    all
}

/// Whether nothing was read of a function that would tell what it claims.
fn is_a_place_only(info: &FunctionInfo) -> bool {
    info.registers.header.is_none() && info.registers.class.is_none() && info.bars.is_empty()
}

struct Walk<'g, 't> {
    ground: &'g Ground<'t>,
    initiator: FunctionId,
    at: At,
    unsized_bars: Vec<(FunctionId, u8, BusAddr)>,
}

impl Walk<'_, '_> {
    fn led(&self, range: AddrRange<BusAddr>) -> Led {
        let requester = self.ground.info(self.initiator).address;
        let number = Number { range: Some(range), target: None };
        let kind = if self.at == At::TranslationRequest { Kind::Read } else { Kind::Write };
        let tlp = Tlp::Request { kind, at: self.at, number, requester, payload: None, operand: None };
        let course = self.ground.leave(self.initiator, &tlp);
        let mut notes = Vec::new();
        let led = self.fold(&course, range, &mut notes);
        let missing = match led {
            Led::Unknown(_) => None,
            _ => self.missing(&led, &notes).or_else(|| self.unseen(&led, range)),
        };
        missing.map_or(led, Led::Unknown)
    }

    /// Where all branches lead, with all notes on the way.
    fn fold(&self, course: &Course, range: AddrRange<BusAddr>, notes: &mut Vec<Note>) -> Led {
        notes.extend(&course.notes);
        let mut alike = |branches: &[Course], otherwise: Reason, differing: fn(Reason) -> Led| {
            let all: Vec<Led> = branches.iter().map(|branch| self.fold(branch, range, notes)).collect();
            match all.split_first() {
                Some((first, others)) if others.iter().all(|other| other == first) => first.clone(),
                // A fact that is missing is to be supplied before anything else is said.
                _ => all.into_iter().find(|led| matches!(led, Led::Unknown(_))).unwrap_or_else(|| differing(otherwise)),
            }
        };
        match &course.then {
            Then::End(end) => self.end(*end, range, notes),
            Then::Unread { at, branches, .. } => alike(branches, tell::acs_unread(self.ground, *at), Led::Unknown),
            Then::Open { at, choice, branches } => {
                alike(branches, self.at_port(*at, tell::left_open(*choice)), Led::Undefined)
            }
        }
    }

    fn end(&self, end: End, range: AddrRange<BusAddr>, notes: &[Note]) -> Led {
        match end {
            End::Root { .. } => Led::Root,
            // A translation request that a function gets is an Unsupported Request there (PCIe 6.0 §10.2.3).
            End::Unsupported(at) if self.at == At::TranslationRequest && self.bar(at, range).is_some() => {
                Led::Function { to: at, bar: self.bar(at, range) }
            }
            End::Delivered { to, .. } => Led::Function { to, bar: self.bar(to, range) },
            End::Violation(at)
            | End::Unsupported(at)
            | End::EgressBlocked(at)
            | End::Malformed(at)
            | End::Adrift(at) => Led::Stopped { at },
            // What a root complex does with it is nobody's question here.
            End::NotForwarded => Led::Root,
            End::Undefined(at) => {
                let rule = notes.iter().rev().find_map(|note| match note {
                    Note::Rule(place, cause) if *place == at => Some(cause.words()),
                    _ => None,
                });
                let internal = "sits on the internal bus of a switch, for which the specification has no requests";
                Led::Undefined(self.at_port(at, rule.unwrap_or(internal)))
            }
            End::Unplaced(at) => Led::Unknown(tell::unplaced(self.ground, at)),
            End::Untyped(at) => Led::Unknown(tell::untyped(self.ground, at)),
        }
    }

    fn bar(&self, function: FunctionId, range: AddrRange<BusAddr>) -> Option<u8> {
        let holds = |bar: &&crate::topology::Bar| {
            let size = bar.size.or(bar.cpu.map(|cpu| cpu.len())).unwrap_or(Bytes::new(1));
            bar.bus.and_then(|bus| AddrRange::new(bus, size)).is_some_and(|bar| bar.contains_range(&range))
        };
        self.ground.info(function).bars.iter().find(holds).map(|bar| bar.index)
    }

    /// What the walk took for granted, where another register could have led elsewhere.
    fn missing(&self, led: &Led, notes: &[Note]) -> Option<Reason> {
        // Without UF a U-turn is undefined, TB stops what is translated or asks for it, DT lets it across.
        let bits_matter = matches!(led, Led::Undefined(_)) || self.at != At::Untranslated;
        notes.iter().find_map(|note| match *note {
            Note::Assumed(at, Assumption::OtherNumbers) => {
                let evidence = "its windows were not all read, and may hold this number (PCIe 6.0 §7.5.1.3)";
                Some(tell::about(self.ground, at, Gate::FabricPort, evidence, Some(READ_AS_ROOT)))
            }
            Note::Assumed(at, Assumption::OtherAcsBits) if bits_matter => {
                let evidence = "its ACS controls were not read, and decide about this number (PCIe 6.0 §6.12.1.1)";
                Some(tell::about(self.ground, at, Gate::AcsUnknown, evidence, Some(READ_AS_ROOT)))
            }
            Note::Assumed(at, Assumption::FunctionGroups) => {
                let evidence = "whether its egress vector counts functions or groups was not read";
                Some(tell::about(self.ground, at, Gate::AcsUnknown, evidence, None))
            }
            _ => None,
        })
    }

    /// A BAR without its size, or a function without its registers, that may claim the number.
    fn unseen(&self, led: &Led, range: AddrRange<BusAddr>) -> Option<Reason> {
        let stopped = match led {
            Led::Stopped { .. } => true,
            Led::Root | Led::Undefined(_) => false,
            // Somebody is known to have it, and two do not have one number.
            Led::Function { .. } | Led::Unknown(_) => return None,
        };
        let may_reach = |id: FunctionId| match self.ground.topology.upstream(id) {
            Parent::Bridge(above) => {
                let windows = &self.ground.info(above).registers.windows;
                let held = !windows.all_read() || windows.open().any(|window| window.contains_range(&range));
                // Where a window was crossed downwards its whole side is of interest, else who is beside the way up.
                (held && stopped) || self.is_beside(id)
            }
            _ => self.is_beside(id),
        };
        let bar = self.unsized_bars.iter().find(|(id, _, start)| *start <= range.start() && may_reach(*id));
        if let Some(&(id, index, _)) = bar {
            let evidence = format!("the size of bar{index} was not read, and it may hold this number");
            return Some(tell::about(self.ground, id, Gate::FabricPort, &evidence, Some(READ_AS_ROOT)));
        }
        let (id, _) =
            self.ground.topology.functions().find(|(id, function)| {
                *id != self.initiator && is_a_place_only(function.info()) && self.is_beside(*id)
            })?;
        let evidence = "only its place is known, so neither are its BARs nor the windows that it may have";
        Some(tell::about(self.ground, id, Gate::FabricPort, evidence, Some(READ_AS_ROOT)))
    }

    /// Whether a function is seen on the way up: beside the initiator on its bus, or beside a port on a switch's.
    fn is_beside(&self, function: FunctionId) -> bool {
        let topology = self.ground.topology;
        let above = topology.upstream(function);
        let mut at = self.initiator;
        loop {
            let here = topology.upstream(at);
            if at != function && here == above {
                // On a root bus only a device's own functions are neighbours of an endpoint.
                let device = |id: FunctionId| self.ground.info(id).address.devfn().device();
                return match here {
                    Parent::Root(_) if at == self.initiator => device(at) == device(function),
                    Parent::Root(_) => self.ground.role(function) == Role::Root,
                    _ => true,
                };
            }
            match here {
                Parent::Bridge(bridge) if bridge == function => return true,
                Parent::Bridge(bridge) => at = bridge,
                Parent::Root(_) | Parent::Unknown { .. } => return false,
            }
        }
    }

    fn at_port(&self, at: FunctionId, evidence: &str) -> Reason {
        tell::about(self.ground, at, Gate::FabricPort, evidence, None)
    }
}
