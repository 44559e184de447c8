//! The data file as it stands, for the two fabrics that it is held against.
//!
//! What a word in it does to a register is no part of this: the resolver's tests and the emulated
//! platform's, which take this file by its path, each say that for themselves.

use serde::Deserialize;
use std::collections::BTreeMap;

/// The whole file.
#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
pub(crate) struct Data {
    root: toml::Table,
    pub(crate) function: Vec<Function>,
    pub(crate) case: Vec<Case>,
}

/// What no register says of the root complex.
#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
pub(crate) struct Root {
    pub(crate) memory: Vec<(u64, u64)>,
    pub(crate) interrupts: (u64, u64),
    pub(crate) windows: Vec<(u64, u64, u64)>,
    pub(crate) iommu: String,
    pub(crate) map: Vec<(String, u64, u64, u64)>,
    pub(crate) trusted: Vec<String>,
    pub(crate) peer: String,
    pub(crate) replaces_requester: bool,
    pub(crate) between_ports: bool,
    pub(crate) splits: bool,
}

/// Registers of one function.
#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
pub(crate) struct Function {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) spare: bool,
    pub(crate) address: String,
    pub(crate) above: Option<String>,
    pub(crate) port_type: Option<u8>,
    #[serde(default)]
    pub(crate) port_number: u8,
    pub(crate) command: u16,
    pub(crate) buses: Option<[u8; 3]>,
    pub(crate) memory: Option<[u16; 2]>,
    pub(crate) prefetchable: Option<[u32; 4]>,
    #[serde(default)]
    pub(crate) bars: Vec<(u8, u64, u64)>,
    #[serde(default)]
    pub(crate) device_control: u16,
    #[serde(default)]
    pub(crate) device_capabilities_2: u32,
    #[serde(default)]
    pub(crate) device_control_2: u16,
    pub(crate) acs: Option<[u16; 2]>,
    /// Set bits of the egress vector.
    #[serde(skip)]
    pub(crate) vector: Vec<u16>,
    /// The physical function, of a virtual one.
    #[serde(skip)]
    pub(crate) virtual_of: Option<String>,
}

/// What a case changes of one function.
#[derive(Deserialize, Clone, Default)]
#[serde(deny_unknown_fields)]
pub(crate) struct Change {
    #[serde(default)]
    pub(crate) acs: Vec<String>,
    #[serde(default)]
    pub(crate) vector: Vec<u16>,
    pub(crate) address: Option<String>,
    pub(crate) buses: Option<[u8; 3]>,
    pub(crate) bars: Option<Vec<(u8, u64, u64)>>,
    pub(crate) memory: Option<bool>,
    pub(crate) bus_master: Option<bool>,
    pub(crate) memory_window: Option<[u16; 2]>,
    pub(crate) max_payload: Option<u16>,
    pub(crate) atomic_routing: Option<bool>,
    pub(crate) atomic_egress_blocking: Option<bool>,
    pub(crate) virtual_of: Option<String>,
}

pub(crate) type Changes = BTreeMap<String, Change>;

/// One case.
#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    pub(crate) id: String,
    pub(crate) says: String,
    pub(crate) rules: Vec<String>,
    #[serde(default)]
    pub(crate) linux_differs: bool,
    pub(crate) judgement: Option<String>,
    #[serde(default)]
    pub(crate) with: Vec<String>,
    #[serde(default)]
    pub(crate) without: Vec<String>,
    #[serde(default)]
    pub(crate) set: Changes,
    #[serde(default)]
    pub(crate) inside: Vec<String>,
    #[serde(default)]
    pub(crate) groups: BTreeMap<String, u8>,
    #[serde(default)]
    root: toml::Table,
    pub(crate) order: Option<Order>,
    pub(crate) send: Vec<Tlp>,
}

/// One TLP of a case.
#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tlp {
    pub(crate) what: String,
    pub(crate) at: Option<String>,
    pub(crate) from: String,
    pub(crate) to: Option<String>,
    #[serde(default)]
    pub(crate) offset: u64,
    pub(crate) address: Option<u64>,
    pub(crate) rid: Option<String>,
    pub(crate) completer: Option<String>,
    pub(crate) len: Option<u64>,
    #[serde(default)]
    pub(crate) relaxed: bool,
    #[serde(default)]
    pub(crate) set: Changes,
    #[serde(default)]
    root: toml::Table,
    pub(crate) outcome: Vec<String>,
    pub(crate) completion: Option<Vec<String>>,
    pub(crate) completions: Option<u64>,
    pub(crate) sees: Option<Vec<String>>,
}

/// What is said of the order of two TLPs of a case.
#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
pub(crate) struct Order {
    pub(crate) first: usize,
    pub(crate) second: usize,
    pub(crate) proof: Option<usize>,
    #[serde(default)]
    pub(crate) completion: bool,
    pub(crate) is: String,
}

impl Tlp {
    /// The AT field.
    pub(crate) fn at(&self) -> &str {
        self.at.as_deref().unwrap_or("00")
    }

    pub(crate) fn is_atomic(&self) -> bool {
        matches!(self.what.as_str(), "FetchAdd" | "Swap" | "CAS")
    }

    /// Bytes of data.
    pub(crate) fn len(&self) -> u64 {
        self.len.unwrap_or(if self.is_atomic() { 8 } else { 4 })
    }
}

impl Data {
    pub(crate) fn read() -> Self {
        toml::from_str(include_str!("cases.toml")).unwrap()
    }

    pub(crate) fn case(&self, id: &str) -> &Case {
        self.case.iter().find(|case| case.id == id).unwrap()
    }

    /// The root complex, as a case and then one TLP of it change it.
    pub(crate) fn root(&self, changed: Option<(&Case, &Tlp)>) -> Root {
        let mut root = self.root.clone();
        if let Some((case, tlp)) = changed {
            root.extend(case.root.clone());
            root.extend(tlp.root.clone());
        }
        root.try_into().unwrap()
    }

    /// The functions that there are, ports before what is below them, each with what a case and then
    /// one TLP of it change of its registers.
    pub(crate) fn functions(&self, case: &Case, tlp: &Tlp, change: impl Fn(&mut Function, &Change)) -> Vec<Function> {
        let there = |function: &&Function| {
            !case.without.contains(&function.name) && (!function.spare || case.with.contains(&function.name))
        };
        let mut functions: Vec<Function> = self.function.iter().filter(there).cloned().collect();
        for (name, changes) in case.set.iter().chain(&tlp.set) {
            let function = functions.iter_mut().find(|function| function.name == *name);
            change(function.unwrap_or_else(|| panic!("case {}: no function {name}", case.id)), changes);
        }
        functions
    }
}
