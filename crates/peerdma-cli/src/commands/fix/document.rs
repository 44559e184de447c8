//! The answer as JSON.

use super::{Answer, words};
use crate::document::fix::{FixDocument, FixedPair, LeftDocument, ParameterDocument, PortDocument};
use crate::document::whatif::{MergedDocument, addresses, groups};
use crate::document::{SCHEMA, Source};
use peerdma::route::fix::{self, Outcome, Parameter, PlannedPair, PortChange};

impl Answer<'_> {
    pub(super) fn document(&self) -> FixDocument {
        let topology = &self.loaded.topology;
        let preferred = self.parameters.as_ref().and_then(|parameters| parameters.preferred());
        let isolation = &self.isolation;
        let (outcome, reasons) = match &self.plan.outcome {
            Outcome::Found(_) => ("found", &[][..]),
            Outcome::NotNeeded => ("not_needed", &[][..]),
            Outcome::Impossible { why } => ("none", &why[..]),
            Outcome::FactsMissing { reasons } => ("facts_missing", &reasons[..]),
        };
        let all = self.parameters.iter();
        let all = all.flat_map(|all| [Some(&all.config_acs), all.disable_acs_redir.as_ref()]).flatten();
        FixDocument {
            schema: SCHEMA,
            source: Source::new(self.loaded),
            outcome,
            pairs: self.plan.pairs.iter().map(|pair| self.pair(pair)).collect(),
            ports: self.plan.ports().iter().map(|port| self.port(port)).collect(),
            proven_smallest: self.plan.proven_smallest,
            cmdline: preferred.map(|parameter| parameter.argument.clone()),
            parameters: all.map(|parameter| self.parameter(parameter)).collect(),
            iommu: self.passthrough.map(ToString::to_string),
            grub: preferred.map(|parameter| fix::grub_default_line(&parameter.argument)),
            setpci: self.plan.ports().iter().map(|port| fix::setpci(topology, port)).collect(),
            groups_before: groups(topology, &isolation.before),
            groups_after: groups(topology, &isolation.after),
            groups_unknown: addresses(topology, &isolation.unknown),
            merged: isolation.merged.iter().map(|merged| MergedDocument::new(topology, merged)).collect(),
            reasons: reasons.iter().cloned().map(Into::into).collect(),
            notes: self.notes.clone(),
        }
    }

    fn pair(&self, pair: &PlannedPair) -> FixedPair {
        FixedPair {
            initiator: self.address(pair.now.initiator),
            target: self.address(pair.now.target.function()),
            now: pair.now.verdict.word(),
            then: pair.then.verdict.word(),
            address: pair.then.address.kind().word(),
        }
    }

    fn port(&self, port: &PortChange) -> PortDocument {
        PortDocument {
            bdf: Some(self.address(port.function)),
            path: fix::selector(&self.loaded.topology, port.function),
            clear: words(port.clear()),
            set: words(port.set()),
        }
    }

    fn parameter(&self, parameter: &Parameter) -> ParameterDocument {
        let left = parameter.leaves.iter().map(|left| LeftDocument {
            bdf: self.address(left.function),
            set: words(left.set),
            clear: words(left.clear),
            firmware: words(left.open),
        });
        ParameterDocument {
            argument: parameter.argument.clone(),
            replaces: parameter.replaces.clone(),
            line: parameter.line.clone(),
            suffices: parameter.suffices,
            known_to_kernel: parameter.known_to_kernel,
            leaves: left.collect(),
        }
    }
}
