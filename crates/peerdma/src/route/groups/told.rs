//! The groups that a machine has, as the input tells them.

use super::{GroupId, Groups};
use crate::pcie::Fact;
use crate::topology::{FunctionId, Topology};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// The groups that the kernel formed when it booted, by the numbers that the input tells;
/// those of functions without a number are unknown.
pub fn told(topology: &Topology) -> Groups {
    let mut members: BTreeMap<u32, Vec<FunctionId>> = BTreeMap::new();
    for (id, function) in topology.functions() {
        if let Some(number) = function.info().iommu_group {
            members.entry(number).or_default().push(id);
        }
    }
    let members: Vec<Vec<FunctionId>> = members.into_values().collect();
    let mut of = alloc::vec![Fact::Unknown; topology.functions().len()];
    for (index, functions) in members.iter().enumerate() {
        functions.iter().for_each(|id| of[id.index()] = Fact::Known(GroupId(index as u32)));
    }
    Groups { of, members }
}
