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

/// Predicted IOMMU groups.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct GroupsDocument {
    /// The groups, each as the addresses of its functions.
    pub(crate) groups: Vec<Vec<String>>,
    /// Functions whose group what was read does not tell.
    pub(crate) unknown: Vec<String>,
}

impl GroupsDocument {
    pub(crate) fn new(topology: &Topology, groups: &Groups) -> Self {
        let unknown: Vec<FunctionId> = groups.unknown().collect();
        Self {
            groups: groups.iter().map(|(_, members)| addresses(topology, members)).collect(),
            unknown: addresses(topology, &unknown),
        }
    }
}

pub(crate) fn addresses(topology: &Topology, functions: &[FunctionId]) -> Vec<String> {
    let address = |&id: &FunctionId| -> PciAddr { topology.function(id).address() };
    functions.iter().map(address).map(|address| address.to_string()).collect()
}
