//! How large packets are, and what the slowest link on the way is.
//!
//! A packet with more data than the receiver's Max_Payload_Size is malformed and
//! dropped, and switches neither split nor merge (PCIe 6.0 §2.2.2, §7.5.3.4). Linux
//! matches each device to the bridge above it, not to its peers, so two devices below
//! one switch may differ. A root complex may split what it forwards (§1.3.1).
//!
//! Max_Read_Request_Size bounds what a requester asks for; the data comes back in
//! pieces of the *completer's* payload size. So a write is judged by the initiator's
//! payload size, a read by the target's.

use super::kernel_view::{Common, KernelView};
use crate::addr::Bytes;
use crate::pcie::Fact;
use crate::pcie::acs::AcsBits;
use crate::pcie::express::{Express, Link, LinkSpeed};
use crate::topology::{FunctionId, Topology};
use alloc::vec::Vec;

/// A sender whose payloads somebody on the way does not take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Clash {
    /// Who sends the data: the initiator of a write, the target of a read.
    pub sender: FunctionId,
    /// Its Max_Payload_Size.
    pub sends: Bytes,
    /// The first function on the way that takes less.
    pub receiver: FunctionId,
    /// Its Max_Payload_Size.
    pub takes: Bytes,
    /// Whether it may arrive all the same, as the receiver is the root port by which a root complex
    /// sends it on, which may cut it there (PCIe 6.0 §1.3.1). On its way up to the root complex nobody
    /// cuts it, and on the way down from the root port nobody does again.
    pub may_be_cut: bool,
}

/// Payload sizes between two functions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Payload {
    /// What stands against writes.
    pub write: Option<Clash>,
    /// What stands against the completions of reads.
    pub read: Option<Clash>,
    /// Functions on the way, both ends included, whose payload size was not read.
    pub unread: Vec<FunctionId>,
    /// Largest read that the initiator requests, where read.
    pub max_read_request: Option<Bytes>,
    /// The link on the way that carries least, where all that are told are compared.
    pub narrowest: Option<Narrowest>,
}

/// The link that carries least.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Narrowest {
    /// The function at one end of it.
    pub function: FunctionId,
    /// Negotiated speed.
    pub speed: LinkSpeed,
    /// Negotiated width in lanes.
    pub width: u8,
}

/// How data goes between two functions, as far as payload sizes depend on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Between {
    /// From port to port below this function, which hands packets across inside and
    /// whose own link carries nothing.
    Below(FunctionId),
    /// Up to the root complex and down again.
    Root,
    /// Not known, so nothing is compared.
    Unknown,
}

impl Between {
    /// The way of data that turns where the two ways up meet.
    pub fn below(common: Common) -> Self {
        match common {
            Common::At(common) => Self::Below(common),
            Common::Nowhere => Self::Root,
            Common::AtOrBelow(_) | Common::Unknown => Self::Unknown,
        }
    }
}

/// The functions that data of `sender` passes on the way to `receiver`: up, and down from there.
fn legs(view: &KernelView<'_>, sender: FunctionId, receiver: FunctionId, between: Between) -> [Vec<FunctionId>; 2] {
    let below = |function| -> Vec<FunctionId> {
        let up = view.way_up(function);
        match between {
            Between::Below(common) => up.take_while(|&step| step != common).collect(),
            Between::Root => up.collect(),
            Between::Unknown => Vec::new(),
        }
    };
    let mut down = below(receiver);
    down.reverse();
    [below(sender), down]
}

/// The first function on the way that takes less than is sent to it; `cuts` says whether a root complex
/// stands between the legs.
fn clash(topology: &Topology, from: FunctionId, [up, down]: &[Vec<FunctionId>; 2], cuts: bool) -> Option<Clash> {
    let size = |function: FunctionId| in_force(topology, function).max_payload;
    // Conventional PCI knows no payload sizes; what comes from there is made into packets by the bridge.
    let is_conventional = |function| topology.function(function).info().registers.port_type == Fact::Known(None);
    let sender = match is_conventional(from) {
        true => up.iter().copied().find(|&bridge| !is_conventional(bridge))?,
        false => from,
    };
    let sends = size(sender)?;
    let found = |receiver: FunctionId, sends: Bytes, may_be_cut: bool| {
        let takes = size(receiver).filter(|takes| *takes < sends)?;
        Some(Clash { sender, sends, receiver, takes, may_be_cut })
    };
    let on_the_way = |way: &[FunctionId], sends| way.iter().find_map(|&receiver| found(receiver, sends, false));
    if let Some(clash) = on_the_way(up, sends) {
        return Some(clash);
    }
    let (Some((&root_port, below)), true) = (down.split_first(), cuts) else { return on_the_way(down, sends) };
    // What is cut is as long as the root port sends.
    let sends_on = size(root_port).map_or(sends, |takes| takes.min(sends));
    // Where that was not read, it may be as short as is needed.
    let unread = size(root_port).is_none();
    let below = below.iter().find_map(|&receiver| found(receiver, sends_on, unread));
    below.or_else(|| found(root_port, sends, true))
}

/// Whether completions of `target` for `initiator` are redirected where their way across would begin;
/// `None` where there is no way across (PCIe 6.0 §6.12.1.1, ACS P2P Completion Redirect).
fn is_redirected(view: &KernelView<'_>, initiator: FunctionId, target: FunctionId) -> Option<bool> {
    let to: Vec<FunctionId> = view.way_up(initiator).collect();
    let up: Vec<FunctionId> = view.way_up(target).collect();
    let meet = up.iter().position(|step| to.contains(step))?;
    let port = *up.get(meet.checked_sub(1)?)?;
    let registers = view.topology().function(port).info().registers.acs.registers();
    let control = registers.and_then(|registers| Some(registers.control.known()? & registers.capability));
    Some(control.is_some_and(|control| control.contains(AcsBits::CR)))
}

impl Payload {
    /// Payload sizes and links on the way of data between two functions.
    pub fn between(view: &KernelView<'_>, initiator: FunctionId, target: FunctionId, between: Between) -> Self {
        let topology = view.topology();
        let there = legs(view, initiator, target, between);
        // A completion is routed by itself. Where the two share a switch, one that is redirected goes up
        // although the request went across; one that nobody redirects goes across, uncut, although
        // the request went up.
        let redirected = is_redirected(view, initiator, target);
        let (below, between_back) = match between {
            Between::Below(_) if redirected == Some(true) => (false, Between::Root),
            Between::Root => (redirected == Some(false), between),
            Between::Below(_) | Between::Unknown => (true, between),
        };
        let back = legs(view, target, initiator, between_back);
        let way: Vec<FunctionId> = there.iter().flatten().copied().collect();
        let size = |function: FunctionId| in_force(topology, function).max_payload;
        Self {
            write: clash(topology, initiator, &there, between == Between::Root),
            read: clash(topology, target, &back, !below),
            unread: way.iter().copied().filter(|&function| size(function).is_none()).collect(),
            max_read_request: in_force(topology, initiator).max_read_request,
            narrowest: narrowest(topology, &way),
        }
    }
}

/// The Express capability whose sizes and enables hold for a function. A virtual
/// function's own are reserved and read as zero, so its physical one's do (PCIe 6.0 §9.3.5).
pub fn in_force(topology: &Topology, function: FunctionId) -> &Express {
    &topology.function(topology.placed_as(function)).info().registers.express
}

fn narrowest(topology: &Topology, way: &[FunctionId]) -> Option<Narrowest> {
    let links = way.iter().filter_map(|&function| {
        let Link { speed, width, .. } = topology.function(function).info().link_state();
        Some(Narrowest { function, speed: speed?, width: width.filter(|&width| width != 0)? })
    });
    links.min_by_key(|link| u32::from(link.speed.tenths()) * u32::from(link.width))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pcie::acs::{Acs, AcsRegisters};
    use crate::pcie::decode::{BridgeBuses, HeaderType};
    use crate::pcie::express::PortType;
    use crate::topology::{Builder, FunctionInfo, Position};
    use alloc::string::ToString;

    /// A switch with two ports, one device below each; payload sizes of device, port, port, device.
    fn switch(sizes: [u64; 4]) -> (Topology, FunctionId, FunctionId) {
        let mut builder = Builder::new();
        let mut add = |address: &str, below: Option<&str>, buses: Option<(u8, u8)>, size: Option<u64>| {
            let position = match below {
                Some(bridge) => Position::Below(bridge.parse().unwrap()),
                None => Position::RootBus { bus: 0 },
            };
            let mut info = FunctionInfo::new(address.parse().unwrap(), position);
            info.registers.header = Some(if buses.is_some() { HeaderType::Bridge } else { HeaderType::Device });
            info.registers.buses = buses.map(|(secondary, subordinate)| BridgeBuses {
                primary: info.address.bus(),
                secondary,
                subordinate,
            });
            info.registers.express.max_payload = size.map(Bytes::new);
            info.link = Link {
                speed: LinkSpeed::from_field(if address == "02:01.0" { 3 } else { 4 }),
                width: Some(if address == "01:00.0" { 1 } else { 16 }),
                ..Link::default()
            };
            builder.function(info);
        };
        add("00:01.0", None, Some((1, 4)), Some(128));
        add("01:00.0", Some("00:01.0"), Some((2, 4)), Some(128));
        add("02:00.0", Some("01:00.0"), Some((3, 3)), Some(sizes[1]));
        add("02:01.0", Some("01:00.0"), Some((4, 4)), Some(sizes[2]));
        add("03:00.0", Some("02:00.0"), None, Some(sizes[0]));
        add("04:00.0", Some("02:01.0"), None, Some(sizes[3]));
        let topology = builder.build();
        let at = |address: &str| topology.at(address.parse().unwrap()).unwrap();
        let (a, b) = (at("03:00.0"), at("04:00.0"));
        (topology, a, b)
    }

    fn between(topology: &Topology, a: FunctionId, b: FunctionId) -> Payload {
        let view = KernelView::new(topology);
        let common = view.decide(b, a).common;
        Payload::between(&view, a, b, Between::below(common))
    }

    #[test]
    fn a_write_must_fit_every_port_and_a_read_is_bounded_by_the_target_s_payload() {
        let (topology, a, b) = switch([512, 512, 512, 256]);
        let payload = between(&topology, a, b);
        let clash = payload.write.unwrap();
        assert_eq!((clash.receiver, clash.sends, clash.takes), (b, Bytes::new(512), Bytes::new(256)));
        assert_eq!(payload.read, None, "completions of 256 bytes fit everywhere");
        let back = between(&topology, b, a);
        assert_eq!(back.write, None);
        assert_eq!(back.read.unwrap().sender, a);
    }

    #[test]
    fn a_virtual_function_sends_what_its_physical_one_is_set_to() {
        let (topology, _, _) = switch([512, 512, 512, 256]);
        let mut builder = topology.to_builder();
        let mut info = FunctionInfo::new("03:00.1".parse().unwrap(), Position::ByBusNumber);
        info.physfn = Some("03:00.0".parse().unwrap());
        // What its reserved fields read as.
        info.registers.express.max_payload = Some(Bytes::new(128));
        info.registers.express.max_read_request = Some(Bytes::new(128));
        builder.function(info);
        let topology = builder.build();
        let at = |address: &str| topology.at(address.parse().unwrap()).unwrap();
        let payload = between(&topology, at("03:00.1"), at("04:00.0"));
        assert_eq!(payload.write.unwrap().sends, Bytes::new(512));
        assert_eq!(payload.max_read_request, None, "nobody read the physical function's");
        let back = between(&topology, at("04:00.0"), at("03:00.1"));
        assert_eq!(back.write, None, "256 bytes fit everywhere");
    }

    /// The same functions with other registers, and more functions.
    fn altered(topology: &Topology, more: Vec<FunctionInfo>, alter: impl Fn(&str, &mut FunctionInfo)) -> Topology {
        let mut builder = Builder::new();
        for (_, function) in topology.functions() {
            let mut info = function.info().clone();
            alter(&info.address.to_string(), &mut info);
            builder.function(info);
        }
        more.into_iter().for_each(|info| builder.function(info));
        builder.build()
    }

    /// By way of the root complex, each at a root port of its own; payload sizes of device, port, port, device.
    fn apart(sizes: [u64; 4]) -> Payload {
        let mut builder = Builder::new();
        for (address, below, bus, size) in [
            ("00:01.0", None, Some(1), sizes[1]),
            ("00:02.0", None, Some(2), sizes[2]),
            ("01:00.0", Some("00:01.0"), None, sizes[0]),
            ("02:00.0", Some("00:02.0"), None, sizes[3]),
        ] {
            let position = below.map_or(Position::RootBus { bus: 0 }, |port| Position::Below(port.parse().unwrap()));
            let mut info = FunctionInfo::new(address.parse().unwrap(), position);
            info.registers.header = Some(if bus.is_some() { HeaderType::Bridge } else { HeaderType::Device });
            info.registers.buses = bus.map(|bus| BridgeBuses { primary: 0, secondary: bus, subordinate: bus });
            info.registers.express.max_payload = Some(Bytes::new(size));
            builder.function(info);
        }
        let topology = builder.build();
        let at = |address: &str| topology.at(address.parse().unwrap()).unwrap();
        Payload::between(&KernelView::new(&topology), at("01:00.0"), at("02:00.0"), Between::Root)
    }

    #[test]
    fn a_root_complex_cuts_what_it_sends_on_and_not_what_comes_up_to_it() {
        let on_the_way_up = apart([512, 256, 512, 512]).write.unwrap();
        assert_eq!((on_the_way_up.takes, on_the_way_up.may_be_cut), (Bytes::new(256), false));
        let on_the_way_down = apart([512, 512, 256, 256]).write.unwrap();
        assert_eq!((on_the_way_down.takes, on_the_way_down.may_be_cut), (Bytes::new(256), true));
        let below_that = apart([512, 512, 256, 128]).write.unwrap();
        assert_eq!((below_that.takes, below_that.may_be_cut), (Bytes::new(128), false), "nobody cuts twice");
        assert_eq!(apart([128, 512, 512, 512]).write, None);
        assert!(!apart([512, 512, 256, 512]).read.unwrap().may_be_cut, "completions come up by that port");
    }

    #[test]
    fn a_completion_that_is_redirected_has_to_fit_the_ports_above_too() {
        let (topology, a, b) = switch([256, 256, 256, 256]);
        assert_eq!(between(&topology, a, b).read, None);
        let redirecting = AcsRegisters::standard(None, AcsBits::CR, AcsBits::CR, Vec::new());
        let topology = altered(&topology, Vec::new(), |address, info| {
            if address == "0000:02:01.0" {
                info.registers.acs = Acs::Present(redirecting.clone());
            }
        });
        let at = |address: &str| topology.at(address.parse().unwrap()).unwrap();
        let payload = between(&topology, at("03:00.0"), at("04:00.0"));
        assert_eq!(payload.write, None);
        assert_eq!(payload.read.map(|clash| clash.takes), Some(Bytes::new(128)), "the root port takes 128");
    }

    #[test]
    fn what_comes_from_conventional_pci_is_as_long_as_the_bridge_sends() {
        let (topology, _, _) = switch([512, 256, 256, 256]);
        let mut old = FunctionInfo::new("09:00.0".parse().unwrap(), Position::Below("03:00.0".parse().unwrap()));
        old.registers.port_type = Fact::Known(None);
        let topology = altered(&topology, [old].into(), |address, info| {
            if address == "0000:03:00.0" {
                info.registers.header = Some(HeaderType::Bridge);
                info.registers.buses = Some(BridgeBuses { primary: 3, secondary: 9, subordinate: 9 });
                info.registers.port_type = Fact::Known(Some(PortType::PciExpressToPci));
            }
        });
        let at = |address: &str| topology.at(address.parse().unwrap()).unwrap();
        let clash = between(&topology, at("09:00.0"), at("04:00.0")).write.unwrap();
        assert_eq!((clash.sender, clash.sends, clash.takes), (at("03:00.0"), Bytes::new(512), Bytes::new(256)));
    }

    #[test]
    fn the_port_that_only_joins_the_two_carries_nothing() {
        // The upstream port takes 128 bytes and has one lane.
        let (topology, a, b) = switch([256, 256, 256, 256]);
        let payload = between(&topology, a, b);
        assert_eq!((payload.write, payload.read), (None, None));
        let narrowest = payload.narrowest.unwrap();
        assert_eq!(topology.function(narrowest.function).address().to_string(), "0000:02:01.0");
        assert_eq!(narrowest.width, 16);
    }
}
