//! The transitions of a buffer's life, as data to be read; `step` is what computes them.
//!
//! The two are written apart. A test explores every state that `step` can get into, and fails where
//! an event leads to a phase that no row here names, or where a row is never met.

use super::disturbance::{DISTURBANCES, Disturbance};
use super::event::Event;
use super::phase::Phase;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// What happened, as far as the table of transitions tells events apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Trigger {
    /// A disturbance is announced.
    Begins(Disturbance),
    /// A disturbance is over, or was given up.
    Ends,
    /// An importer attaches.
    Attaches,
    /// An importer maps.
    Maps,
    /// An importer takes note of a notice, perhaps of one that is out of date.
    Notes,
    /// Fences have retired, perhaps those of a wait that is out of date.
    FencesRetire,
    /// An importer unmaps.
    Unmaps,
    /// An importer detaches.
    Detaches,
    /// An importer is gone without a word.
    HangsUp,
}

impl Trigger {
    /// What this event triggers.
    pub const fn of(event: Event) -> Self {
        match event {
            Event::Begin(disturbance) => Self::Begins(disturbance),
            Event::End { .. } => Self::Ends,
            Event::Attach { .. } => Self::Attaches,
            Event::Map(_) => Self::Maps,
            Event::Noted(..) => Self::Notes,
            Event::FencesRetired(_) => Self::FencesRetire,
            Event::Unmap(_) => Self::Unmaps,
            Event::Detach(_) => Self::Detaches,
            Event::HungUp(_) => Self::HangsUp,
        }
    }

    /// The word used in text and JSON; of a disturbance its own.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Begins(disturbance) => disturbance.word(),
            Self::Ends => "end",
            Self::Attaches => "attach",
            Self::Maps => "map",
            Self::Notes => "noted",
            Self::FencesRetire => "fences-retired",
            Self::Unmaps => "unmap",
            Self::Detaches => "detach",
            Self::HangsUp => "hang-up",
        }
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// One row: where an event that is not refused may lead from a phase.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transition {
    /// The phase before.
    pub from: Phase,
    /// Each of these.
    pub on: &'static [Trigger],
    /// The phase after; the same as before where nothing changes.
    pub to: Phase,
    /// When, and why.
    pub why: &'static str,
}

impl Transition {
    /// Whether the phase changes.
    pub fn is_change(&self) -> bool {
        self.from != self.to
    }

    /// What triggers it, as `reset, move` or `any disturbance`.
    pub fn triggers(&self) -> String {
        words(self.on)
    }
}

/// The words of triggers, or one word for all disturbances together.
pub(super) fn words(triggers: &[Trigger]) -> String {
    let all = ANY.iter().all(|any| triggers.contains(any));
    let others = triggers.iter().filter(|trigger| !all || !ANY.contains(trigger));
    let words: Vec<&str> = all.then_some("any disturbance").into_iter().chain(others.map(|on| on.word())).collect();
    words.join(", ")
}

const fn begins<const N: usize>(disturbances: [Disturbance; N]) -> [Trigger; N] {
    let mut triggers = [Trigger::Ends; N];
    let mut index = 0;
    while index < N {
        triggers[index] = Trigger::Begins(disturbances[index]);
        index += 1;
    }
    triggers
}

const fn every() -> [Trigger; Disturbance::COUNT] {
    let mut triggers = [Trigger::Ends; Disturbance::COUNT];
    let mut index = 0;
    while index < DISTURBANCES.len() {
        triggers[index] = Trigger::Begins(DISTURBANCES[index].disturbance);
        index += 1;
    }
    triggers
}

/// Every disturbance.
const ANY: &[Trigger] = &every();
/// Those after which there is no memory.
const FINAL: &[Trigger] = &begins([Disturbance::Close, Disturbance::Removal]);
/// Those after which there is no memory for a while.
const PASSING: &[Trigger] = &begins([
    Disturbance::DecodeOff,
    Disturbance::PowerDown,
    Disturbance::Reset,
    Disturbance::HotReset,
    Disturbance::FunctionReset,
    Disturbance::Lock,
]);
/// Those during which memory exists all the while.
const MOVES: &[Trigger] = &begins([Disturbance::Permission, Disturbance::BarMove, Disturbance::Move]);
/// What an importer or a fence does that is out of date, or says nothing about who else holds on.
const COMES_AND_GOES: &[Trigger] = &[Trigger::Attaches, Trigger::Detaches, Trigger::HangsUp];
const LATE: &[Trigger] = &[Trigger::Notes, Trigger::FencesRetire];

macro_rules! rows {
    ($($from:ident [$($on:tt)*] $to:ident: $why:literal;)*) => {
        [$(Transition { from: Phase::$from, on: rows!(@ $($on)*), to: Phase::$to, why: $why }),*]
    };
    (@ begin $which:ident) => { &[Trigger::Begins(Disturbance::$which)] };
    (@ each $list:ident) => { $list };
    (@ $($which:ident),+) => { &[$(Trigger::$which),+] };
}

/// Where each event leads from each phase. What has no row is refused there.
pub const TRANSITIONS: &[Transition] = &rows! {
    Live [begin DecodeOff] Invalidating: "importers let go before the command register is written";
    Live [begin PowerDown] Invalidating: "importers let go before the function leaves D0";
    Live [begin Reset] Invalidating: "importers let go before the device is reset";
    Live [begin HotReset] Invalidating: "importers of every device below let go before the bus is reset";
    Live [begin FunctionReset] Invalidating: "importers let go before the function is reset";
    Live [begin Close] Invalidating: "importers let go before the memory is anybody else's; pins put it off";
    Live [begin Removal] Invalidating: "the device is gone already; importers are told to stop";
    Live [begin Lock] Invalidating: "importers let go before the interface is locked; nobody maps it from outside then";
    Live [begin Permission] Invalidating: "importers let go of what they may no longer do, and map anew with what is left";
    Live [begin BarMove] Invalidating: "importers let go of the old bus address before the register is written";
    Live [begin Move] Invalidating: "importers let go of the old place before the bytes leave it";
    Live [Attaches, Maps, Unmaps, Detaches, HangsUp] Live: "what importers do while memory is within reach";
    Live [each LATE] Live: "late answers: to a notice or a wait that is out of date";

    Invalidating [each ANY] Invalidating: "one reason more; who has been told is not told again";
    Invalidating [FencesRetire] Draining: "all fences have retired, so nobody writes any more; somebody still has a mapping";
    Invalidating [FencesRetire] Revoked: "all fences have retired and nobody has a mapping";
    Invalidating [FencesRetire] Moving: "all fences have retired and nobody has a mapping; the bytes, the address or the permissions may change";
    Invalidating [FencesRetire] Dead: "all fences have retired and nobody has a mapping of memory that is given up or gone";
    Invalidating [Ends] Restored: "given up before it began, so memory was never out of reach; importers are told that too";
    Invalidating [Ends] Live: "given up, and nobody is attached who would have to be told";
    Invalidating [Ends] Invalidating: "another reason lasts";
    Invalidating [each LATE] Invalidating: "somebody has yet to take note, or fences have yet to retire";
    Invalidating [Unmaps] Invalidating: "the fences of what was unmapped may not have retired";
    Invalidating [each COMES_AND_GOES] Invalidating: "fences are waited for whoever comes or goes; who comes now must not map";

    Draining [each ANY] Draining: "one reason more; who holds on has been told to let go";
    Draining [Unmaps] Draining: "there is another mapping";
    Draining [Unmaps] Revoked: "the last mapping is gone";
    Draining [Unmaps] Moving: "the last mapping is gone; the bytes, the address or the permissions may change";
    Draining [Unmaps] Dead: "the last mapping of memory that is given up or gone";
    Draining [HangsUp] Draining: "there is another mapping";
    Draining [HangsUp] Revoked: "the last mapping went with its importer";
    Draining [HangsUp] Moving: "the last mapping went with its importer; the bytes, the address or the permissions may change";
    Draining [HangsUp] Dead: "the last mapping of memory that is given up or gone went with its importer";
    Draining [Ends] Restored: "given up before it began; what was mapped counts as mapped until it is unmapped";
    Draining [Ends] Draining: "another reason lasts";
    Draining [Attaches, Detaches] Draining: "who has no mapping holds nothing up";
    Draining [each LATE] Draining: "late answers: to a notice or a wait that is out of date";

    Revoked [each PASSING] Revoked: "one reason more to stay out of reach";
    Revoked [each MOVES] Revoked: "memory is not there just now, and will be elsewhere when it is";
    Revoked [each FINAL] Dead: "nobody has a mapping, so nothing is waited for";
    Revoked [Ends] Restored: "the last reason is gone; importers are told that they may map anew";
    Revoked [Ends] Live: "the last reason is gone, and nobody is attached who would have to be told";
    Revoked [Ends] Moving: "memory answers again; it is still on its way to another place";
    Revoked [Ends] Revoked: "another reason lasts, or the registers say that memory does not answer";
    Revoked [each COMES_AND_GOES] Revoked: "who comes now is told when memory is back";
    Revoked [each LATE] Revoked: "late answers: to a notice or a wait that is out of date";

    Moving [each MOVES] Moving: "one move more";
    Moving [each PASSING] Revoked: "there is no memory for a while, wherever it is";
    Moving [each FINAL] Dead: "nobody has a mapping, so nothing is waited for";
    Moving [Ends] Restored: "memory is in its place; importers are told that they may map anew";
    Moving [Ends] Live: "memory is in its place, and nobody is attached who would have to be told";
    Moving [Ends] Moving: "another move lasts";
    Moving [Ends] Revoked: "the registers say that memory does not answer";
    Moving [each COMES_AND_GOES] Moving: "who comes now is told when memory is in its place";
    Moving [each LATE] Moving: "late answers: to a notice or a wait that is out of date";

    Restored [each ANY] Invalidating: "taken away before everybody heard that it was back; answers to that are late now";
    Restored [Notes] Live: "the last importer has taken note";
    Restored [Detaches] Live: "the last importer that had not taken note has detached";
    Restored [HangsUp] Live: "the last importer that had not taken note is gone";
    Restored [Notes] Restored: "another importer has not taken note; who has may map";
    Restored [Attaches, Maps, Unmaps] Restored: "who has taken note, or came since, does as in a live buffer";
    Restored [Detaches, HangsUp] Restored: "another importer has not taken note";
    Restored [FencesRetire] Restored: "a late answer to the wait of a disturbance that was given up";

    Dead [each ANY] Dead: "dead stays dead";
    Dead [Ends] Dead: "what overlapped with its death is over; dead stays dead";
    Dead [Detaches, HangsUp] Dead: "importers go";
    Dead [each LATE] Dead: "late answers: to a notice or a wait that is out of date";
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::life::Duration;
    use alloc::collections::BTreeSet;

    #[test]
    fn no_transition_stands_twice() {
        let mut cells = BTreeSet::new();
        for row in TRANSITIONS {
            for &on in row.on {
                assert!(cells.insert((row.from, on, row.to)), "{} on {on} to {}", row.from, row.to);
            }
        }
    }

    /// The three groups are the disturbances, cut by what their own rows say.
    #[test]
    fn the_groups_of_disturbances_follow_from_their_rows() {
        for about in &DISTURBANCES {
            let begins = Trigger::Begins(about.disturbance);
            assert_eq!(FINAL.contains(&begins), about.duration == Duration::Final);
            assert_eq!(MOVES.contains(&begins), about.disturbance.is_move());
            assert_eq!(PASSING.contains(&begins), about.duration != Duration::Final && !about.disturbance.is_move());
        }
    }
}
