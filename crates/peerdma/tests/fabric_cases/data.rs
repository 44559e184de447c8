//! The data file, as it stands.

use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Data {
    pub(crate) root: Root,
    pub(crate) function: Vec<Function>,
    pub(crate) case: Vec<Case>,
}

/// `[root]`, and changes of it.
#[derive(Deserialize, Clone, Default)]
#[serde(deny_unknown_fields)]
pub(crate) struct Root {
    pub(crate) memory: Option<Vec<[u64; 2]>>,
    pub(crate) interrupts: Option<[u64; 2]>,
    pub(crate) windows: Option<Vec<[u64; 3]>>,
    pub(crate) iommu: Option<String>,
    pub(crate) map: Option<Vec<(String, u64, u64, u64)>>,
    pub(crate) trusted: Option<Vec<String>>,
    pub(crate) peer: Option<String>,
    pub(crate) replaces_requester: Option<bool>,
    pub(crate) between_ports: Option<bool>,
    pub(crate) splits: Option<bool>,
}

impl Root {
    /// This, changed by `other`.
    pub(crate) fn changed(&self, other: &Self) -> Self {
        Self {
            memory: other.memory.clone().or(self.memory.clone()),
            interrupts: other.interrupts.or(self.interrupts),
            windows: other.windows.clone().or(self.windows.clone()),
            iommu: other.iommu.clone().or(self.iommu.clone()),
            map: other.map.clone().or(self.map.clone()),
            trusted: other.trusted.clone().or(self.trusted.clone()),
            peer: other.peer.clone().or(self.peer.clone()),
            replaces_requester: other.replaces_requester.or(self.replaces_requester),
            between_ports: other.between_ports.or(self.between_ports),
            splits: other.splits.or(self.splits),
        }
    }
}

/// `[[function]]`.
#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
pub(crate) struct Function {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) spare: bool,
    pub(crate) address: String,
    pub(crate) above: Option<String>,
    pub(crate) port_type: Option<u16>,
    #[serde(default)]
    pub(crate) port_number: u32,
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
    #[serde(skip)]
    pub(crate) vector: [u32; 8],
    #[serde(skip)]
    pub(crate) virtual_of: Option<String>,
}

/// One function's entry of `set`.
#[derive(Deserialize, Clone, Default)]
#[serde(deny_unknown_fields)]
pub(crate) struct Change {
    pub(crate) acs: Option<Vec<String>>,
    pub(crate) vector: Option<Vec<u32>>,
    pub(crate) address: Option<String>,
    pub(crate) buses: Option<[u8; 3]>,
    pub(crate) bars: Option<Vec<(u8, u64, u64)>>,
    pub(crate) memory: Option<bool>,
    pub(crate) bus_master: Option<bool>,
    pub(crate) memory_window: Option<[u16; 2]>,
    pub(crate) max_payload: Option<u32>,
    pub(crate) atomic_routing: Option<bool>,
    pub(crate) atomic_egress_blocking: Option<bool>,
    pub(crate) virtual_of: Option<String>,
}

pub(crate) type Changes = BTreeMap<String, Change>;

/// `[[case]]`.
#[derive(Deserialize)]
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
    pub(crate) root: Root,
    pub(crate) order: Option<Order>,
    pub(crate) send: Vec<Send>,
}

/// `[[case.send]]`.
#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
pub(crate) struct Send {
    pub(crate) what: String,
    #[serde(default)]
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
    pub(crate) root: Root,
    pub(crate) outcome: Vec<String>,
    pub(crate) completion: Option<Vec<String>>,
    pub(crate) completions: Option<u64>,
    pub(crate) sees: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Order {
    pub(crate) first: usize,
    pub(crate) second: usize,
    pub(crate) proof: Option<usize>,
    #[serde(default)]
    pub(crate) completion: bool,
    pub(crate) is: String,
}

impl Data {
    pub(crate) fn read() -> Self {
        toml::from_str(include_str!("cases.toml")).unwrap()
    }
}
