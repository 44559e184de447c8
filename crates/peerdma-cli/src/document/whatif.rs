//! The document of `whatif`.

use super::{Pair, ReasonDocument, Source};
use peerdma::pcie::PciAddr;
use peerdma::route::groups::{Groups, Merged};
use peerdma::topology::{FunctionId, Topology};
use schemars::JsonSchema;
use serde::Serialize;

/// Document of `whatif`.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct WhatifDocument {
    /// Version of this schema.
    pub(crate) schema: u32,
    /// Where the facts came from.
    pub(crate) source: Source,
    /// The verdict as it is.
    pub(crate) now: Pair,
    /// The verdict after the changes.
    pub(crate) then: Pair,
    /// IOMMU groups as a boot of the machine as it is forms them, predicted for an IOMMU in use.
    pub(crate) groups_before: Vec<Vec<String>>,
    /// IOMMU groups as a boot after the changes forms them, predicted for an IOMMU in use.
    pub(crate) groups_after: Vec<Vec<String>>,
    /// Functions whose group, before or after, what was read does not tell.
    pub(crate) groups_unknown: Vec<String>,
    /// IOMMU groups that become one: their functions can no longer be given to different owners.
    pub(crate) merged: Vec<MergedDocument>,
    /// IOMMU groups that become several.
    pub(crate) split: Vec<MergedDocument>,
    /// What is not known about the changes' effect, and what was taken instead.
    pub(crate) assumed: Vec<ReasonDocument>,
}

/// Groups that become one, or that came out of one.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct MergedDocument {
    /// The groups, each as the addresses of its functions.
    pub(crate) parts: Vec<Vec<String>>,
}

impl MergedDocument {
    pub(crate) fn new(topology: &Topology, merged: &Merged) -> Self {
        Self { parts: merged.parts.iter().map(|part| addresses(topology, part)).collect() }
    }
}

/// The groups, each as the addresses of the functions known to be in it.
pub(crate) fn groups(topology: &Topology, groups: &Groups) -> Vec<Vec<String>> {
    groups.iter().map(|(_, members)| addresses(topology, members)).collect()
}

pub(crate) fn addresses(topology: &Topology, functions: &[FunctionId]) -> Vec<String> {
    let address = |&id: &FunctionId| -> PciAddr { topology.function(id).address() };
    functions.iter().map(address).map(|address| address.to_string()).collect()
}
