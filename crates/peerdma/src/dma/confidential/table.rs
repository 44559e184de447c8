//! The rules, as rows.

use super::{Case, Interface, MemoryKind, Rule, Way};

/// One row: whoever, whatever and by whichever way it names have this answer.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// States of the initiator's interface.
    pub initiators: &'static [Interface],
    /// Kinds of memory.
    pub memories: &'static [MemoryKind],
    /// Ways.
    pub ways: &'static [Way],
    /// Whether the two belong to one guest; `None` where that does not matter.
    pub same_guest: Option<bool>,
    /// Permitted, or the rule against it.
    pub answer: Result<(), Rule>,
}

impl Row {
    /// Whether this row is about the case.
    pub fn holds(&self, case: &Case) -> bool {
        self.initiators.contains(&case.initiator)
            && self.memories.contains(&case.memory)
            && self.ways.contains(&case.way)
            && self.same_guest.is_none_or(|same| same == case.same_guest)
    }
}

/// Requests without the T bit.
const WITHOUT_T: &[Interface] = &[Interface::Plain, Interface::Unlocked];
/// Requests with the T bit: only an interface in RUN sends it.
const WITH_T: &[Interface] = &[Interface::Run];
/// Interfaces that send requests at all.
const SENDING: &[Interface] = &[Interface::Plain, Interface::Unlocked, Interface::Run];

const ANYTHING: &[MemoryKind] = &MemoryKind::ALL;
const RAM: &[MemoryKind] = &[MemoryKind::SharedRam, MemoryKind::PrivateRam];
const SHARED_RAM: &[MemoryKind] = &[MemoryKind::SharedRam];
const PRIVATE_RAM: &[MemoryKind] = &[MemoryKind::PrivateRam];
/// Device memory that takes requests without T.
const OPEN: &[MemoryKind] = &[
    MemoryKind::Mmio(Interface::Plain),
    MemoryKind::Mmio(Interface::Unlocked),
    MemoryKind::OpenMmio(Interface::Plain),
    MemoryKind::OpenMmio(Interface::Unlocked),
    MemoryKind::OpenMmio(Interface::Locked),
    MemoryKind::OpenMmio(Interface::Run),
];
const BROKEN: &[MemoryKind] = &[MemoryKind::Mmio(Interface::Error), MemoryKind::OpenMmio(Interface::Error)];
/// Device memory that belongs to a guest.
const GUESTS: &[MemoryKind] = &[MemoryKind::Mmio(Interface::Locked), MemoryKind::Mmio(Interface::Run)];
const LOCKED: &[MemoryKind] = &[MemoryKind::Mmio(Interface::Locked)];
const RUNNING: &[MemoryKind] = &[MemoryKind::Mmio(Interface::Run)];

const ANY_WAY: &[Way] = &Way::ALL;
const ACROSS: &[Way] = &[Way::Bus, Way::BoundStream];
const UP: &[Way] = &[Way::HostBridge, Way::Iommu];
const BUS: &[Way] = &[Way::Bus];
const BOUND: &[Way] = &[Way::BoundStream];

const fn row(
    initiators: &'static [Interface],
    memories: &'static [MemoryKind],
    ways: &'static [Way],
    same_guest: Option<bool>,
    answer: Result<(), Rule>,
) -> Row {
    Row { initiators, memories, ways, same_guest, answer }
}

/// The rules. Rows do not overlap, so their order means nothing.
#[rustfmt::skip]
pub const TABLE: &[Row] = &[
    // Who sends nothing.
    row(&[Interface::Error],  ANYTHING, ANY_WAY, None, Err(Rule::InitiatorFailed)),
    row(&[Interface::Locked], ANYTHING, ANY_WAY, None, Err(Rule::InitiatorNotStarted)),
    // RAM. It lies above the root complex, and the platform's tables look at each request there.
    row(SENDING,   RAM,         ACROSS,  None,        Err(Rule::RamAcross)),
    row(SENDING,   SHARED_RAM,  UP,      None,        Ok(())),
    row(WITHOUT_T, PRIVATE_RAM, UP,      None,        Err(Rule::PrivateRam)),
    row(WITH_T,    PRIVATE_RAM, UP,      Some(true),  Ok(())),
    row(WITH_T,    PRIVATE_RAM, UP,      Some(false), Err(Rule::AnotherGuest)),
    // Device memory that is nobody's alone.
    row(SENDING,   BROKEN,      ANY_WAY, None,        Err(Rule::TargetFailed)),
    row(WITHOUT_T, OPEN,        ANY_WAY, None,        Ok(())),
    row(WITH_T,    OPEN,        UP,      None,        Ok(())),
    row(WITH_T,    OPEN,        ACROSS,  None,        Err(Rule::TrustedAcross)),
    // Device memory of a guest.
    row(WITHOUT_T, GUESTS,      ANY_WAY, None,        Err(Rule::PrivateMmio)),
    row(WITH_T,    GUESTS,      ANY_WAY, Some(false), Err(Rule::AnotherGuest)),
    row(WITH_T,    LOCKED,      ANY_WAY, Some(true),  Err(Rule::TargetNotStarted)),
    row(WITH_T,    RUNNING,     UP,      Some(true),  Err(Rule::PrivateMmioUp)),
    row(WITH_T,    RUNNING,     BUS,     Some(true),  Err(Rule::NoPeerStream)),
    row(WITH_T,    RUNNING,     BOUND,   Some(true),  Ok(())),
];
