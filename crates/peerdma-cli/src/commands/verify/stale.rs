//! IOMMU groups that were formed before ACS words became what they are.

use super::{Check, Status};
use crate::document::whatif::{MergedDocument, addresses};
use peerdma::pcie::Fact;
use peerdma::route::groups::{self, Groups, Merged};
use peerdma::topology::{FunctionId, IommuMode, Parent, Topology};
use std::collections::BTreeSet;

/// The differences between the groups that are and those that a boot would form.
pub(super) struct Stale<'t> {
    topology: &'t Topology,
    told: Groups,
    predicted: Groups,
    /// Groups that would be one, and groups that would be several, as far as they hold a
    /// wanted port or something below one.
    apart: Vec<Merged>,
    together: Vec<Merged>,
    /// Differences elsewhere, which no wanted port can have made.
    elsewhere: usize,
    concerned: Vec<bool>,
}

impl<'t> Stale<'t> {
    pub(super) fn among(topology: &'t Topology, ports: &[FunctionId]) -> Self {
        let (told, predicted) = (groups::told(topology), groups::predict(topology));
        let ports: BTreeSet<FunctionId> = ports.iter().copied().collect();
        let concerned: Vec<bool> = topology.functions().map(|(id, _)| is_at_or_below(topology, id, &ports)).collect();
        let concerns = |merged: &Merged| merged.parts.iter().flatten().any(|id| concerned[id.index()]);
        let (apart, other_apart): (Vec<_>, Vec<_>) = groups::merged(&told, &predicted).into_iter().partition(concerns);
        let (together, other_together): (Vec<_>, Vec<_>) =
            groups::merged(&predicted, &told).into_iter().partition(concerns);
        let elsewhere = other_apart.len() + other_together.len();
        Self { topology, told, predicted, apart, together, elsewhere, concerned }
    }

    pub(super) fn check(&self) -> Check {
        let check = |status, evidence: String| Check { object: "groups".into(), status, evidence };
        let machine = self.topology.machine();
        if !self.apart.is_empty() || !self.together.is_empty() {
            return check(Status::Fail, "stale: formed before the change; reboot".into());
        }
        if self.told.iter().next().is_none() {
            return match machine.iommu {
                _ if machine.groups_are_complete => check(Status::Ok, "the machine has no IOMMU groups".into()),
                Some(IommuMode::None) => check(Status::Ok, "the machine has no IOMMU".into()),
                _ => check(Status::Unknown, "the input tells no IOMMU groups; a live machine and a capture do".into()),
            };
        }
        let open = self.topology.functions().filter(|&(id, _)| {
            self.concerned[id.index()]
                && matches!((self.told.of(id), self.predicted.of(id)), (Fact::Known(_), Fact::Unknown))
        });
        match open.count() {
            0 => check(Status::Ok, format!("as a boot with these ACS words forms them{}", self.other_words())),
            count => {
                check(Status::Unknown, format!("groups of {count} functions hinge on ACS words that were not read"))
            }
        }
    }

    fn other_words(&self) -> String {
        match self.elsewhere {
            0 => String::new(),
            count => format!("; {count} away from the wanted ports differ"),
        }
    }

    /// What is stale, one line each.
    pub(super) fn lines(&self) -> Vec<String> {
        let parts = |merged: &Merged| -> String {
            merged.parts.iter().map(|part| addresses(self.topology, part).join(" ")).collect::<Vec<_>>().join(" | ")
        };
        let apart = self.apart.iter().map(|merged| format!("apart now, one group after a boot: {}", parts(merged)));
        let together =
            self.together.iter().map(|merged| format!("one group now, apart after a boot: {}", parts(merged)));
        apart.chain(together).collect()
    }

    pub(super) fn apart(&self) -> Vec<MergedDocument> {
        self.apart.iter().map(|merged| MergedDocument::new(self.topology, merged)).collect()
    }

    pub(super) fn together(&self) -> Vec<MergedDocument> {
        self.together.iter().map(|merged| MergedDocument::new(self.topology, merged)).collect()
    }
}

/// Whether one of `ports` is `function` or a bridge above it.
fn is_at_or_below(topology: &Topology, function: FunctionId, ports: &BTreeSet<FunctionId>) -> bool {
    let above = |&id: &FunctionId| match topology.upstream(id) {
        Parent::Bridge(bridge) => Some(bridge),
        Parent::Root(_) | Parent::Unknown { .. } => None,
    };
    std::iter::successors(Some(function), above).any(|id| ports.contains(&id))
}
