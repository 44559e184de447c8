//! The members of peerdma's documents that are held against the guest.

use super::Boot;
use super::compare::Foretold;
use super::seen::Groups;
use crate::failure::Failure;
use peerdma::pcie::PciAddr;
use peerdma::pcie::acs::AcsBits;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};

/// Of `peerdma fix --json`.
#[derive(Clone, Deserialize, PartialEq, Eq, Debug)]
pub(super) struct Fix {
    /// In the order in which they were asked for.
    pub(super) pairs: Vec<Fixed>,
    pub(super) ports: Vec<Port>,
    /// The parameter to use.
    cmdline: Option<String>,
    /// Every parameter that there is.
    parameters: Vec<Parameter>,
    /// A parameter that is needed besides.
    pub(super) iommu: Option<String>,
    pub(super) setpci: Vec<String>,
    groups_before: Vec<Vec<String>>,
    groups_after: Vec<Vec<String>>,
    groups_unknown: Vec<String>,
    merged: Vec<Merged>,
}

/// One of the pairs.
#[derive(Clone, Deserialize, PartialEq, Eq, Debug)]
pub(super) struct Fixed {
    /// The verdict with the ports changed.
    pub(super) then: String,
}

/// A port to change.
#[derive(Clone, Deserialize, PartialEq, Eq, Debug)]
pub(super) struct Port {
    pub(super) bdf: String,
    pub(super) clear: Vec<String>,
    pub(super) set: Vec<String>,
}

/// A kernel parameter.
#[derive(Clone, Deserialize, PartialEq, Eq, Debug)]
pub(super) struct Parameter {
    pub(super) argument: String,
    pub(super) suffices: bool,
    leaves: Vec<Left>,
}

/// What a boot with it leaves in one word; bits in neither list may be either.
#[derive(Clone, Deserialize, PartialEq, Eq, Debug)]
struct Left {
    bdf: String,
    set: Vec<String>,
    clear: Vec<String>,
}

/// Groups that become one.
#[derive(Clone, Deserialize, PartialEq, Eq, Debug)]
struct Merged {
    parts: Vec<Vec<String>>,
}

/// Of `peerdma whatif --json`.
#[derive(Clone, Deserialize, PartialEq, Eq, Debug)]
pub(super) struct Whatif {
    pub(super) then: Verdict,
    /// What was not known of the change's effect; empty where the verdict stands without reserve.
    pub(super) assumed: Vec<Assumed>,
    merged: Vec<Merged>,
}

/// Something that was taken to be as usual.
#[derive(Clone, Deserialize, PartialEq, Eq, Debug)]
pub(super) struct Assumed {
    pub(super) evidence: String,
}

/// Of `peerdma verify --json`.
#[derive(Clone, Deserialize, PartialEq, Eq, Debug)]
pub(super) struct Verify {
    ports: Vec<Check>,
    groups: Check,
    /// Groups that are apart and would be one.
    stale_apart: Vec<Merged>,
    /// Groups that are one and would be apart.
    stale_together: Vec<Merged>,
}

/// One line of it.
#[derive(Clone, Deserialize, PartialEq, Eq, Debug)]
struct Check {
    status: String,
}

/// Of `peerdma route --json`: the way there, then the way back.
#[derive(Clone, Deserialize, PartialEq, Eq, Debug)]
pub(super) struct Route {
    pub(super) pairs: Vec<Verdict>,
}

/// One pair's verdict.
#[derive(Clone, Deserialize, PartialEq, Eq, Debug)]
pub(super) struct Verdict {
    pub(super) verdict: String,
    pub(super) kernel: Kernel,
}

/// What Linux decides.
#[derive(Clone, Deserialize, PartialEq, Eq, Debug)]
pub(super) struct Kernel {
    pub(super) map_type: String,
}

/// Reads what `peerdma COMMAND --json` wrote.
pub(super) fn read<T: DeserializeOwned>(command: &str, document: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(document).map_err(|error| {
        let said: String = String::from_utf8_lossy(document).chars().take(200).collect();
        changed(command, &format!("{error}: {said}"))
    })
}

fn changed(command: &str, what: &str) -> Failure {
    Failure::Stopped(format!("peerdma {command} --json is not as this suite knows it: {what}"))
}

impl Fix {
    /// Groups before, groups after, and the functions of which neither tells.
    pub(super) fn groups(&self) -> Result<[Groups; 2], Failure> {
        let groups =
            |lists: &[Vec<String>]| -> Result<Groups, Failure> { lists.iter().map(|group| addresses(group)).collect() };
        Ok([groups(&self.groups_before)?, groups(&self.groups_after)?])
    }

    /// Functions that are in no group of either list.
    pub(super) fn of_unknown_group(&self) -> Result<BTreeSet<PciAddr>, Failure> {
        addresses(&self.groups_unknown)
    }

    /// Groups that become one, each as its parts.
    pub(super) fn merged(&self) -> Result<BTreeSet<Groups>, Failure> {
        merged(&self.merged)
    }

    /// Whether it says how to boot.
    pub(super) fn names_parameters(&self) -> bool {
        self.cmdline.is_some() || !self.parameters.is_empty()
    }

    /// Whether this is the parameter to use.
    pub(super) fn prefers(&self, parameter: &Parameter) -> bool {
        self.cmdline.as_ref() == Some(&parameter.argument)
    }

    /// The parameters to boot with, never fewer than were meant.
    pub(super) fn to_boot(&self, boot: Boot) -> Result<Vec<&Parameter>, Failure> {
        let chosen = self.parameters.iter().filter(|parameter| boot == Boot::Both || self.prefers(parameter));
        let chosen: Vec<&Parameter> = chosen.collect();
        let meant = if boot == Boot::Both { 2 } else { 1 };
        if chosen.len() == meant && chosen.iter().any(|parameter| self.prefers(parameter)) {
            return Ok(chosen);
        }
        Err(Failure::Found(format!(
            "{meant} parameters were to be booted, the preferred one among them; fix prefers {:?} of {:?}",
            self.cmdline, self.parameters
        )))
    }

    /// What the words become where the ports are changed and nothing else is.
    pub(super) fn wanted(&self) -> Result<BTreeMap<PciAddr, Foretold>, Failure> {
        self.ports.iter().map(|port| foretold(&port.bdf, &port.clear, &port.set)).collect()
    }
}

impl Parameter {
    /// What it leaves in the words of the ports.
    pub(super) fn leaves(&self) -> Result<BTreeMap<PciAddr, Foretold>, Failure> {
        self.leaves.iter().map(|left| foretold(&left.bdf, &left.clear, &left.set)).collect()
    }
}

impl Whatif {
    /// Groups that become one, each as its parts.
    pub(super) fn merged(&self) -> Result<BTreeSet<Groups>, Failure> {
        merged(&self.merged)
    }
}

impl Verify {
    /// What it says of the ports, each kind of answer once, and of the groups.
    pub(super) fn words(&self) -> (BTreeSet<&str>, &str) {
        (self.ports.iter().map(|check| check.status.as_str()).collect(), &self.groups.status)
    }

    /// Groups that a boot would make one; `None` where some would come apart.
    pub(super) fn stale(&self) -> Result<Option<BTreeSet<Groups>>, Failure> {
        Ok(Some(merged(&self.stale_apart)?).filter(|_| self.stale_together.is_empty()))
    }
}

fn merged(all: &[Merged]) -> Result<BTreeSet<Groups>, Failure> {
    all.iter().map(|merged| merged.parts.iter().map(|part| addresses(part)).collect()).collect()
}

fn address(text: &str) -> Result<PciAddr, Failure> {
    text.parse().map_err(|_| changed("fix", &format!("{text:?} for an address")))
}

fn addresses(texts: &[String]) -> Result<BTreeSet<PciAddr>, Failure> {
    texts.iter().map(|text| address(text)).collect()
}

fn foretold(bdf: &str, clear: &[String], set: &[String]) -> Result<(PciAddr, Foretold), Failure> {
    Ok((address(bdf)?, Foretold { clear: bits(clear)?, set: bits(set)? }))
}

fn bits(words: &[String]) -> Result<u16, Failure> {
    words.iter().try_fold(0, |bits, word| {
        let bit = AcsBits::from_name(&word.to_ascii_uppercase());
        Ok(bits | bit.ok_or_else(|| changed("fix", &format!("{word:?} for an ACS bit")))?.bits())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIX: &str = r#"{
        "schema": 1, "outcome": "found", "pairs": [{"now": "host_bridge", "then": "direct"}],
        "ports": [{"bdf": "0000:00:04.0", "path": "0000:00:04.0", "clear": ["rr", "cr"], "set": []}],
        "cmdline": "pci=config_acs=0x10001@0000:00:04.0",
        "parameters": [{"argument": "pci=config_acs=0x10001@0000:00:04.0", "suffices": true,
            "leaves": [{"bdf": "0000:00:04.0", "set": ["sv", "uf"], "clear": ["tb", "rr", "cr", "dt"], "firmware": []}]}],
        "iommu": null, "setpci": ["setpci -s 0000:00:04.0 ECAP_ACS+0x6.w=0:c"],
        "groups_before": [["0000:00:04.0"], ["0000:01:00.0", "0000:01:00.1"]],
        "groups_after": [["0000:00:04.0", "0000:01:00.0", "0000:01:00.1"]],
        "groups_unknown": ["10000:00:00.0"],
        "merged": [{"parts": [["0000:00:04.0"], ["0000:01:00.0", "0000:01:00.1"]]}]
    }"#;

    #[test]
    fn a_document_of_fix_is_read_whole() {
        let fix: Fix = read("fix", FIX.as_bytes()).unwrap();
        let port: PciAddr = "00:04.0".parse().unwrap();
        assert_eq!(fix.wanted().unwrap(), [(port, Foretold { clear: 0x0c, set: 0 })].into());
        assert_eq!(fix.parameters[0].leaves().unwrap(), [(port, Foretold { clear: 0x4e, set: 0x11 })].into());
        let [before, after] = fix.groups().unwrap();
        assert_eq!((before.len(), after.len(), fix.of_unknown_group().unwrap().len()), (2, 1, 1));
        assert_eq!(fix.merged().unwrap(), [before].into());
    }

    #[test]
    fn a_parameter_that_is_lacking_or_not_preferred_is_not_passed_over() {
        let fix: Fix = read("fix", FIX.as_bytes()).unwrap();
        assert_eq!(fix.to_boot(Boot::Preferred).unwrap(), [&fix.parameters[0]]);
        assert!(fix.to_boot(Boot::Both).is_err());
        let other = Fix { cmdline: None, ..fix.clone() };
        assert!(other.to_boot(Boot::Preferred).is_err());
        let both = [fix.parameters[0].clone(), Parameter { argument: "pci=a=b".into(), ..fix.parameters[0].clone() }];
        assert_eq!(Fix { parameters: both.into(), ..fix }.to_boot(Boot::Both).unwrap().len(), 2);
    }

    #[test]
    fn a_document_of_another_form_is_an_error_and_not_an_empty_one() {
        for (was, becomes) in [("\"ports\"", "\"port\""), ("\"rr\"", "\"redirect\""), ("01:00.1", "01:00")] {
            let outcome = read::<Fix>("fix", FIX.replace(was, becomes).as_bytes())
                .and_then(|fix| fix.wanted().and_then(|_| fix.groups()).and_then(|_| fix.merged()).map(drop));
            assert!(outcome.is_err(), "{was}");
        }
    }
}
