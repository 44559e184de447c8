//! What a change costs in isolation, in words: IOMMU groups before and after.

use crate::document::whatif::addresses;
use crate::output;
use peerdma::route::groups::{self, Groups, Merged};
use peerdma::topology::{FunctionId, IommuMode, Topology};
use std::collections::BTreeSet;
use std::io::{self, Write};

/// IOMMU groups as boots before and after a change form them.
pub(crate) struct Isolation<'t> {
    topology: &'t Topology,
    pub(crate) before: Groups,
    pub(crate) after: Groups,
    pub(crate) merged: Vec<Merged>,
    pub(crate) split: Vec<Merged>,
    /// Functions whose group is unknown in either.
    pub(crate) unknown: Vec<FunctionId>,
    had_iommu: bool,
    has_iommu: bool,
}

impl<'t> Isolation<'t> {
    /// Both topologies hold the same functions.
    pub(crate) fn new(topology: &'t Topology, changed: &Topology) -> Self {
        let (before, after) = (groups::predict(topology), groups::predict(changed));
        let (merged, split) = (groups::merged(&before, &after), groups::merged(&after, &before));
        let unknown: BTreeSet<FunctionId> = before.unknown().chain(after.unknown()).collect();
        let has_iommu = |topology: &Topology| topology.machine().iommu != Some(IommuMode::None);
        Self {
            topology,
            before,
            after,
            merged,
            split,
            unknown: unknown.into_iter().collect(),
            had_iommu: has_iommu(topology),
            has_iommu: has_iommu(changed),
        }
    }

    /// One line each, after `title`.
    pub(crate) fn print(&self, out: &mut impl Write, title: &str) -> io::Result<()> {
        if !self.has_iommu {
            return writeln!(out, "{title}without an IOMMU there are no groups: any device reaches any memory");
        }
        if !self.had_iommu {
            writeln!(out, "{title}the IOMMU forms groups, where there were none before")?;
        }
        if self.merged.is_empty() {
            let sure =
                if self.unknown.is_empty() { "no IOMMU groups merge" } else { "no IOMMU groups are known to merge" };
            writeln!(out, "{title}{sure}")?;
        }
        let warning = output::warning();
        for merged in &self.merged {
            let parts = self.parts(merged);
            writeln!(out, "{title}{warning}one IOMMU group{warning:#} of what were several: {parts}")?;
        }
        for several in &self.split {
            writeln!(out, "{title}several IOMMU groups of what was one: {}", self.parts(several))?;
        }
        if !self.unknown.is_empty() {
            writeln!(
                out,
                "{title}the groups of {} of {} functions are unknown: they hinge on ACS words, IDs or a place in the tree \
                 that the input does not tell",
                self.unknown.len(),
                self.topology.functions().len()
            )?;
        }
        Ok(())
    }

    fn parts(&self, merged: &Merged) -> String {
        merged.parts.iter().map(|part| addresses(self.topology, part).join(" ")).collect::<Vec<_>>().join(" | ")
    }
}
