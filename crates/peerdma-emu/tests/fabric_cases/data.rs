//! The data file as it stands, and the registers of one case.

use serde::Deserialize;
use std::collections::BTreeMap;

/// The whole file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Data {
    root: toml::Table,
    function: Vec<Function>,
    pub(crate) case: Vec<Case>,
}

/// What no register says of the root complex.
#[derive(Deserialize)]
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
    spare: bool,
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
}

/// What a case changes of one function.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Change {
    #[serde(default)]
    acs: Vec<String>,
    #[serde(default)]
    vector: Vec<u16>,
    address: Option<String>,
    buses: Option<[u8; 3]>,
    bars: Option<Vec<(u8, u64, u64)>>,
    memory: Option<bool>,
    bus_master: Option<bool>,
    memory_window: Option<[u16; 2]>,
    max_payload: Option<u16>,
    atomic_routing: Option<bool>,
    atomic_egress_blocking: Option<bool>,
    /// To the fabric a virtual function is a function like others; its group is what counts.
    #[expect(dead_code, reason = "read so that an unknown word in the file is an error")]
    virtual_of: Option<String>,
}

type Changes = BTreeMap<String, Change>;

/// One case.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    pub(crate) id: String,
    pub(crate) says: String,
    #[expect(dead_code, reason = "for the reader of the file")]
    rules: Vec<String>,
    #[serde(default)]
    #[expect(dead_code, reason = "about Linux, not about the fabric")]
    linux_differs: bool,
    #[expect(dead_code, reason = "for the reader of the file")]
    judgement: Option<String>,
    #[serde(default)]
    with: Vec<String>,
    #[serde(default)]
    without: Vec<String>,
    #[serde(default)]
    set: Changes,
    #[serde(default)]
    pub(crate) inside: Vec<String>,
    #[serde(default)]
    pub(crate) groups: BTreeMap<String, u8>,
    #[serde(default)]
    root: toml::Table,
    pub(crate) order: Option<Order>,
    pub(crate) send: Vec<Sent>,
}

/// One TLP of a case.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sent {
    pub(crate) what: String,
    at: Option<String>,
    pub(crate) from: String,
    pub(crate) to: Option<String>,
    #[serde(default)]
    pub(crate) offset: u64,
    pub(crate) address: Option<u64>,
    pub(crate) rid: Option<String>,
    pub(crate) completer: Option<String>,
    len: Option<u64>,
    #[serde(default)]
    pub(crate) relaxed: bool,
    #[serde(default)]
    set: Changes,
    #[serde(default)]
    root: toml::Table,
    pub(crate) outcome: Vec<String>,
    pub(crate) completion: Option<Vec<String>>,
    pub(crate) completions: Option<u64>,
    pub(crate) sees: Option<Vec<String>>,
}

/// What is said of the order of two TLPs of a case.
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

impl Sent {
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
        let text = include_str!("../../../peerdma/tests/fabric_cases/cases.toml");
        toml::from_str(text).unwrap()
    }

    pub(crate) fn case(&self, id: &str) -> &Case {
        self.case.iter().find(|case| case.id == id).unwrap()
    }

    /// The root complex of one TLP.
    pub(crate) fn root(&self, case: &Case, sent: &Sent) -> Root {
        let mut root = self.root.clone();
        root.extend(case.root.clone());
        root.extend(sent.root.clone());
        root.try_into().unwrap()
    }

    /// The registers that one TLP meets, ports before what is below them. `also` are changes of the
    /// test's own: bits of the ACS control register, by name of the port.
    pub(crate) fn functions(&self, case: &Case, sent: &Sent, also: &[(&str, &str)]) -> Vec<Function> {
        let there = |function: &&Function| {
            !case.without.contains(&function.name) && (!function.spare || case.with.contains(&function.name))
        };
        let mut functions: Vec<Function> = self.function.iter().filter(there).cloned().collect();
        for (name, change) in case.set.iter().chain(&sent.set) {
            functions.iter_mut().find(|function| function.name == *name).unwrap().change(change);
        }
        if sent.relaxed {
            // A completer repeats the attribute of the request, which a sender needs leave for.
            functions.iter_mut().find(|function| function.name == sent.from).unwrap().device_control |= 1 << 4;
        }
        for (name, bit) in also {
            functions.iter_mut().find(|function| function.name == *name).unwrap().control(bit);
        }
        functions
    }
}

impl Function {
    fn change(&mut self, change: &Change) {
        let Change { memory, bus_master, atomic_routing, atomic_egress_blocking, .. } = *change;
        change.acs.iter().for_each(|bit| self.control(bit));
        self.vector.extend(&change.vector);
        change.address.iter().for_each(|address| self.address.clone_from(address));
        self.buses = change.buses.or(self.buses);
        change.bars.iter().for_each(|bars| self.bars.clone_from(bars));
        self.memory = change.memory_window.or(self.memory);
        let put = |register: &mut u16, bit: u16, on: bool| *register = *register & !bit | if on { bit } else { 0 };
        memory.into_iter().for_each(|on| put(&mut self.command, 2, on));
        bus_master.into_iter().for_each(|on| put(&mut self.command, 4, on));
        atomic_egress_blocking.into_iter().for_each(|on| put(&mut self.device_control_2, 1 << 7, on));
        if let Some(on) = atomic_routing {
            self.device_capabilities_2 = self.device_capabilities_2 & !(1 << 6) | u32::from(on) << 6;
        }
        if let Some(payload) = change.max_payload {
            self.device_control = self.device_control & !(7 << 5) | (payload.trailing_zeros() as u16 - 7) << 5;
        }
    }

    /// Sets a bit of the ACS control register by its name. A function that the file gives no such
    /// registers has those that functions have (PCIe 6.0 §6.12.1.2): RR, CR, EC and DT.
    fn control(&mut self, name: &str) {
        let [capability, control] = self.acs.get_or_insert([0x006c, 0]);
        let field = |shift: u16, value: &str| value.parse::<u16>().unwrap() << shift;
        *control |= match name.split_once('=') {
            Some(("DSP-MT", value)) => field(8, value),
            Some(("USP-MT", value)) => field(10, value),
            Some(_) => panic!("no ACS field {name}"),
            None if name == "ENH" => {
                *capability |= 1 << 7;
                0
            }
            None if name == "URR" => 1 << 12,
            None => {
                let names = ["SV", "TB", "RR", "CR", "UF", "EC", "DT"];
                1 << names.iter().position(|other| *other == name).unwrap()
            }
        };
    }
}
