//! From a decision to reasons that a person and a program can both act on.

use super::possible::Possible;
use super::{Common, Decision, GateAnswer, KernelView, MapType, Representative, TableChoice, gate};
use crate::pcie::Fact;
use crate::pcie::acs::{Acs, AcsAbsent, AcsBits, AcsRegisters, AcsUnread};
use crate::route::{Gate, Reason};
use crate::topology::{FunctionId, HostBridgeId, Origin, Parent};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

impl KernelView<'_> {
    /// Everything that led to a decision, in the order in which Linux meets it.
    pub fn reasons(&self, decision: &Decision) -> Vec<Reason> {
        let mut reasons = Vec::new();
        if decision.configured_out {
            reasons.push(Reason {
                gate: Gate::KernelConfig,
                object: "kernel".into(),
                evidence: "built without CONFIG_PCI_P2PDMA, so every peer mapping is refused".into(),
                fix: Some("boot a kernel with CONFIG_PCI_P2PDMA=y (it needs CONFIG_ZONE_DEVICE)".into()),
            });
            return reasons;
        }
        for function in decision.redirects() {
            reasons.push(self.redirect_reason(decision, function));
        }
        // Once requests go up for sure, an unread word or a hidden bridge below changes nothing.
        let may_stay_below = decision.goes_up == Fact::Unknown;
        if may_stay_below {
            reasons.extend(decision.unread().map(|function| self.unread_reason(function)));
        }
        if decision.map_type == MapType::Unknown {
            let hidden = if may_stay_below { decision.hidden_below.clone() } else { self.host_hidden_above(decision) };
            reasons.extend(hidden.into_iter().map(|function| self.hidden_reason(function)));
        }
        // Where requests may stay below, a gate whose answer is known is not what is missing.
        if let Some(gate) = decision.gate.as_ref().filter(|gate| !may_stay_below || gate.opens == Fact::Unknown) {
            self.gate_reasons(gate, &mut reasons);
        }
        reasons
    }

    /// One sentence on what a function's ACS says, and where that was read.
    pub fn acs_evidence(&self, id: FunctionId) -> String {
        let info = self.topology.function(id).info();
        let origin = info.origin;
        match &info.registers.acs {
            Acs::Present(registers) => control_evidence(registers, origin),
            Acs::Absent(why) => format!("no ACS capability: {} ({origin})", absent_because(*why)),
            Acs::Unknown(why) => format!("ACS not read: {} ({origin})", unread_because(*why)),
        }
    }

    /// The functions of both ways up above which it is not known how they go on to a host bridge.
    fn host_hidden_above(&self, decision: &Decision) -> Vec<FunctionId> {
        let mut functions: Vec<FunctionId> = [decision.provider, decision.client]
            .into_iter()
            .filter(|&function| self.host_bridge_above(function).is_none())
            .filter_map(|function| self.way_up(function).last())
            .collect();
        functions.dedup();
        functions
    }

    fn redirect_reason(&self, decision: &Decision, id: FunctionId) -> Reason {
        let function = self.topology.function(id);
        let address = function.address();
        let mut evidence = self.acs_evidence(id);
        // At a common function that is neither's own, requests only turn.
        let turns = id != decision.provider && id != decision.client;
        evidence.push_str(match decision.common {
            Common::At(common) if common == id && turns => {
                "; the requests only turn here, but Linux counts the common device too"
            }
            Common::AtOrBelow(common) if common == id => "; it counts unless the two ways up meet below it",
            _ => "",
        });
        let misread = self.is_misread(id);
        let fix = if misread {
            "Linux reads these bits at the wrong place on this root port, so clearing them does not change its verdict"
                .into()
        } else {
            // The kernel keeps one parameter, the last: a list port by port would clear one.
            let ports: Vec<String> = (decision.redirects().filter(|&port| !self.is_misread(port)))
                .map(|port| self.topology.function(port).address().to_string())
                .collect();
            let shared = if function.info().is_bridge() { "devices below it" } else { "it and its other functions" };
            let quoting = if ports.len() > 1 { "one parameter; quote the ; for the boot loader; " } else { "" };
            format!(
                "boot with pci=disable_acs_redir={} ({quoting}peerdma fix prints it quoted, and with paths that survive \
                 renumbering) to clear RR, CR and EC there; {shared} may then share an IOMMU group with their peers",
                ports.join(";")
            )
        };
        Reason { gate: Gate::AcsRedirect, object: address.to_string(), evidence, fix: Some(fix) }
    }

    fn is_misread(&self, id: FunctionId) -> bool {
        self.topology.function(id).info().registers.acs.registers().is_some_and(AcsRegisters::linux_misreads)
    }

    fn unread_reason(&self, id: FunctionId) -> Reason {
        let function = self.topology.function(id);
        let info = function.info();
        let fix = match info.registers.acs {
            Acs::Unknown(why) => Some(fix_for_unread(why, info.origin).into()),
            Acs::Present(_) | Acs::Absent(_) => None,
        };
        Reason {
            gate: Gate::AcsUnknown,
            object: function.address().to_string(),
            evidence: format!("{}; if RR, CR or EC is set there, requests go up to the root", self.acs_evidence(id)),
            fix,
        }
    }

    fn hidden_reason(&self, id: FunctionId) -> Reason {
        let placed = self.topology.function(self.topology.placed_as(id));
        let bus = placed.address().bus();
        let evidence = match placed.parent() {
            Parent::Unknown { enclosing: Some(bridge) } => format!(
                "bus {bus:02x} lies inside the range of {}, but no listed bridge leads to it and no listed physical \
                 function yields it",
                self.topology.function(bridge).address()
            ),
            _ => format!("the input does not show which bridge leads to bus {bus:02x}"),
        };
        Reason {
            gate: Gate::ParentUnknown,
            object: self.topology.function(id).address().to_string(),
            evidence,
            fix: Some("list every function, with lspci -vvv -PP as root or with peerdma capture".into()),
        }
    }

    /// The CPU first, as Linux asks; it alone may open, or leave it to the whitelist.
    fn gate_reasons(&self, gate: &GateAnswer, reasons: &mut Vec<Reason>) {
        if gate.cpu_opens == Fact::Known(true) || gate.listed != Fact::Known(true) {
            reasons.push(self.cpu_reason());
        }
        if gate.cpu_opens == Fact::Known(true) {
            return;
        }
        for host in self.hosts_to_name(gate) {
            reasons.push(self.host_reason(gate, host));
        }
        if gate.provider.is_none() || gate.client.is_none() {
            reasons.push(Reason {
                gate: Gate::HostBridge,
                object: "unknown host bridge".into(),
                evidence: "the way up to it is not known to the end".into(),
                fix: None,
            });
        }
    }

    /// The host bridges that decided: those that fail, or else those that may, or else all.
    fn hosts_to_name(&self, gate: &GateAnswer) -> Vec<HostBridgeId> {
        let mut hosts: Vec<HostBridgeId> = gate.provider.into_iter().chain(gate.client).collect();
        hosts.dedup();
        if gate.listed == Fact::Known(true) {
            return hosts;
        }
        let same = gate.provider == gate.client;
        let of =
            |verdict: Fact<bool>| hosts.iter().copied().filter(move |&host| self.host_verdict(host, same) == verdict);
        let failing: Vec<_> = of(Fact::Known(false)).collect();
        if failing.is_empty() { of(Fact::Unknown).collect() } else { failing }
    }

    /// What each table that may hold says of a host bridge.
    fn table_answers(&self, host: HostBridgeId, same: bool) -> impl Iterator<Item = Possible> + '_ {
        self.tables.candidates().map(move |table| gate::host_passes(self.topology, table, host, same))
    }

    fn host_verdict(&self, host: HostBridgeId, same: bool) -> Fact<bool> {
        gate::fact(self.table_answers(host, same).fold(Possible::NONE, Possible::or))
    }

    fn host_reason(&self, gate: &GateAnswer, id: HostBridgeId) -> Reason {
        let host = self.topology.host_bridge(id);
        let same = gate.provider == gate.client;
        // What stands for it, and what would tell where the input does not.
        let (device, unread) = match gate::representative(self.topology, host) {
            Representative::Device(first) => {
                (self.device_words(first), Some("give IDs in numbers: lspci -nn, or --pci-ids FILE"))
            }
            Representative::Nobody(first) => (
                format!(
                    "{}, neither device 00.0 nor a root port, so Linux finds nothing to look up",
                    self.topology.function(first).address()
                ),
                None,
            ),
            Representative::PortTypeUnread(first) => (
                format!("{} (if it is a root port: its port type was not read)", self.device_words(first)),
                Some("read its PCIe capability: run as root, or take the dump as root"),
            ),
            Representative::NotListed => {
                ("unknown, for no device of its root bus was listed".into(), Some("list every function"))
            }
        };
        let (rule, fix) = match (self.host_verdict(id, same), self.tables) {
            (_, TableChoice::OlderThanOldest(oldest)) => (
                format!("the kernel is older than the oldest whitelist known here, that of Linux {oldest}"),
                Some("give the kernel the machine will run with --kernel"),
            ),
            (Fact::Unknown, TableChoice::Between(older, newer))
                if self.table_answers(id, same).all(|answer| gate::fact(answer) != Fact::Unknown) =>
            {
                (
                    format!(
                        "the whitelists of Linux {older} and {newer} differ for it, and the kernel lies between them"
                    ),
                    Some("give a kernel version whose table is known with --kernel"),
                )
            }
            (Fact::Unknown, _) => {
                (format!("whether it is in the whitelist of {} cannot be told", self.table_words()), unread)
            }
            (Fact::Known(true), _) => (format!("in the whitelist of {}", self.table_words()), None),
            (Fact::Known(false), _) if !same && self.host_verdict(id, true) == Fact::Known(true) => {
                (format!("in the whitelist of {} only for pairs below this one host bridge", self.table_words()), None)
            }
            (Fact::Known(false), _) => (format!("not in the whitelist of {}", self.table_words()), None),
        };
        Reason {
            gate: Gate::HostBridge,
            object: format!("{:04x}:{:02x}", host.domain(), host.bus()),
            evidence: format!("first device {device}; {rule}"),
            fix: fix.map(ToString::to_string),
        }
    }

    fn device_words(&self, id: FunctionId) -> String {
        let function = self.topology.function(id);
        let ids: Vec<String> = function.info().candidate_ids().iter().map(ToString::to_string).collect();
        let vendors = &function.info().vendors_by_name;
        let ids = match (ids.is_empty(), vendors.is_empty()) {
            (false, _) => ids.join(" or "),
            (true, true) => "of unknown ID".into(),
            (true, false) => {
                let vendors: Vec<String> = vendors.iter().map(|vendor| format!("{vendor:04x}")).collect();
                format!("of vendor {}, device unknown", vendors.join(" or "))
            }
        };
        format!("{} {ids}", function.address())
    }

    fn table_words(&self) -> String {
        match self.tables {
            TableChoice::Exact(table) => format!("Linux {table}"),
            TableChoice::NewestAssumed(table) => {
                format!("Linux {table}, the newest known (no kernel version was told)")
            }
            TableChoice::NewerThanNewest(table) => {
                format!("Linux {table}, the newest known (the kernel is newer still)")
            }
            TableChoice::Between(older, newer) => {
                format!("Linux {older} and of {newer}, between which the kernel lies")
            }
            TableChoice::OlderThanOldest(table) => format!("a Linux older than {table}, which is not known here"),
        }
    }

    fn cpu_reason(&self) -> Reason {
        let (evidence, fix) = match &self.topology.machine().cpu {
            Some(cpu) if cpu.is_zen_or_newer() => (
                format!("{cpu}: Linux takes every host bridge of AMD family 0x17 and later to forward peer requests"),
                None,
            ),
            Some(cpu) => (format!("{cpu}: not AMD family 0x17 or later, so the whitelist decides"), None),
            None => (
                "the input does not tell the CPU; on AMD family 0x17 and later every host bridge forwards".into(),
                Some("give it with --cpu VENDOR:FAMILY, such as --cpu amd:0x19 or --cpu intel:6".into()),
            ),
        };
        Reason { gate: Gate::Cpu, object: "cpu".into(), evidence, fix }
    }
}

fn control_evidence(registers: &AcsRegisters, origin: Origin) -> String {
    let linux = registers.control_read_by_linux;
    let place = match registers.offset {
        Some(offset) => format!("config {:#05x}", offset.saturating_add(6)),
        None => "control".into(),
    };
    let bits: Vec<&str> = [(AcsBits::RR, "RR"), (AcsBits::CR, "CR"), (AcsBits::EC, "EC")]
        .into_iter()
        .filter_map(|(bit, name)| linux.contains(bit).then_some(name))
        .collect();
    let finding = match bits.as_slice() {
        [] => "no bit that redirects".into(),
        bits => format!("{} set", bits.join(", ")),
    };
    let mut evidence = format!("ACS control {linux} = {:#06x} at {place} ({origin}): {finding}", linux.bits());
    if registers.linux_misreads() {
        evidence.push_str(&match registers.control {
            Fact::Known(control) => format!(
                "; this is the upper half of the capability, the hardware obeys {control} = {:#06x} two bytes further",
                control.bits()
            ),
            Fact::Unknown => {
                "; this is the upper half of the capability, the word that the hardware obeys was not read".into()
            }
        });
    }
    evidence
}

fn absent_because(why: AcsAbsent) -> &'static str {
    match why {
        AcsAbsent::WholeListRead => "the extended list was read to its end",
        AcsAbsent::NoCapabilityList => "the function has no capability list",
        AcsAbsent::NotExpress => "neither PCIe nor PCI-X 266/533, so no extended config space",
        AcsAbsent::SpaceEndsAt256 => "the kernel's config space of the function ends at 256 bytes",
        AcsAbsent::NotListed => "not among the capabilities that a privileged lspci -vv lists",
        AcsAbsent::Declared => "acs = \"none\"",
    }
}

fn unread_because(why: AcsUnread) -> String {
    match why {
        AcsUnread::Cut(at) => format!("the list goes on at {at:#05x}, where the bytes at hand end"),
        AcsUnread::Denied => "<access denied>".into(),
        AcsUnread::TextTooTerse => "the text is not of a privileged lspci -vv".into(),
        AcsUnread::TextEnds => "the text ends inside this function's block, without the empty line after it".into(),
        AcsUnread::NeverSeen => "none of its registers is in the input".into(),
        AcsUnread::Contradicted => "the input describes the function twice, differently".into(),
        AcsUnread::Declared => "acs = \"unknown\"".into(),
    }
}

fn fix_for_unread(why: AcsUnread, origin: Origin) -> &'static str {
    match (why, origin) {
        (AcsUnread::Declared, _) => "say what the port has in the platform file",
        (AcsUnread::TextEnds, _) => "take the dump again and keep all of it",
        (AcsUnread::Contradicted, _) => "give one dump of one moment",
        (_, Origin::LspciText | Origin::LspciHex) => "take the dump as root: sudo lspci -vvv, or -xxxx",
        (_, Origin::Capture) => "take the capture as root: sudo peerdma capture -o FILE",
        (_, Origin::Sysfs | Origin::PathOnly | Origin::Platform) => {
            "read all of config space: run as root, or copy the tree as root"
        }
    }
}
