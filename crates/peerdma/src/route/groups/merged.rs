//! What isolation a change costs.

use super::Groups;
use crate::pcie::Fact;
use crate::topology::FunctionId;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// Functions that had several groups and share one afterwards: no longer to be given
/// to different owners.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Merged {
    /// What were groups of their own, each in order of addresses; two at least.
    pub parts: Vec<Vec<FunctionId>>,
}

/// The groups of `before` that are one in `after`, both over the same functions.
///
/// Functions whose group is unknown in either are left out. With the arguments the other
/// way round this tells which groups split.
pub fn merged(before: &Groups, after: &Groups) -> Vec<Merged> {
    let merged = after.iter().map(|(_, members)| {
        let mut parts: BTreeMap<_, Vec<FunctionId>> = BTreeMap::new();
        for &member in members {
            if let Fact::Known(group) = before.of(member) {
                parts.entry(group).or_default().push(member);
            }
        }
        Merged { parts: parts.into_values().collect() }
    });
    merged.filter(|merged| merged.parts.len() > 1).collect()
}
