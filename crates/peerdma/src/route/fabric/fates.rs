//! From a course to a fate.
//!
//! Branches of unread registers are alternatives: the fate is unknown exactly when
//! two of them differ. Branches that the specification leaves open are not: whoever
//! relies on one relies on an implementation, so the fate is undefined when they differ.

use super::course::{Course, End, Then};
use super::{Fate, Way};
use crate::topology::FunctionId;

bitflags::bitflags! {
    /// The fates that different ways of filling in lead to.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub(super) struct Fates: u8 {
        const ARRIVES = 1;
        const LOST = 2;
        const UNDEFINED = 4;
    }
}

impl Fates {
    pub(super) fn fate(self) -> Fate {
        if self == Self::ARRIVES {
            Fate::Arrives
        } else if self == Self::LOST {
            Fate::Lost
        } else if self == Self::UNDEFINED {
            Fate::Undefined
        } else {
            Fate::Unknown
        }
    }

    /// What comes of a choice between a branch of these fates and one of `other`.
    fn or_else(self, other: Self) -> Self {
        let mut all = Self::empty();
        for one in self.iter() {
            for two in other.iter() {
                all |= if one == two { one } else { Self::UNDEFINED };
            }
        }
        all
    }
}

/// The fate of a course that is meant to end at `wanted`.
pub(super) fn fates(course: &Course, wanted: FunctionId) -> Fates {
    match &course.then {
        Then::End(end) => of_end(*end, wanted),
        Then::Unread { branches, .. } => {
            branches.iter().fold(Fates::empty(), |all, branch| all | fates(branch, wanted))
        }
        Then::Open { branches, .. } => {
            branches.iter().map(|branch| fates(branch, wanted)).reduce(Fates::or_else).unwrap_or(Fates::UNDEFINED)
        }
    }
}

fn of_end(end: End, wanted: FunctionId) -> Fates {
    match end {
        End::Delivered { to, .. } if to == wanted => Fates::ARRIVES,
        End::Undefined(_) => Fates::UNDEFINED,
        End::Unplaced(_) | End::Untyped(_) => Fates::all(),
        End::Delivered { .. }
        | End::Violation(_)
        | End::Unsupported(_)
        | End::EgressBlocked(_)
        | End::Malformed(_)
        | End::Root { .. }
        | End::NotForwarded
        | End::Adrift(_) => Fates::LOST,
    }
}

/// The way of a request, where all that becomes of it agrees.
pub(super) fn way(course: &Course) -> Option<Way> {
    match &course.then {
        Then::End(End::Delivered { through_root: false, .. }) => Some(Way::BelowRoot),
        Then::End(End::Delivered { through_root: true, .. } | End::NotForwarded) => Some(Way::RootComplex),
        Then::End(_) => None,
        Then::Unread { branches, .. } | Then::Open { branches, .. } => {
            let mut ways = branches.iter().map(way);
            let first = ways.next()?;
            // A branch that ends on the way to where another arrives tells nothing.
            ways.all(|way| way == first).then_some(first)?
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_of_the_implementation_between_two_fates_is_undefined_and_not_unknown() {
        assert_eq!(Fates::ARRIVES.or_else(Fates::LOST), Fates::UNDEFINED);
        assert_eq!(Fates::ARRIVES.or_else(Fates::ARRIVES), Fates::ARRIVES);
        assert_eq!(Fates::UNDEFINED.or_else(Fates::all()), Fates::UNDEFINED);
        let unread = Fates::ARRIVES | Fates::LOST;
        assert_eq!(unread.fate(), Fate::Unknown);
        assert_eq!(Fates::ARRIVES.or_else(unread), Fates::ARRIVES | Fates::UNDEFINED);
    }
}
