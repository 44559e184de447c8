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

/// The functions that data between the two passes, `initiator` first and `target` last.
fn way(view: &KernelView<'_>, initiator: FunctionId, target: FunctionId, between: Between) -> Vec<FunctionId> {
    let below = |function| -> Vec<FunctionId> {
        let up = view.way_up(function);
        match between {
            Between::Below(common) => up.take_while(|&step| step != common).collect(),
            Between::Root => up.collect(),
            Between::Unknown => Vec::new(),
        }
    };
    let mut way = below(initiator);
    way.extend(below(target).into_iter().rev());
    way
}

impl Payload {
    /// Payload sizes and links on the way of data between two functions.
    pub fn between(view: &KernelView<'_>, initiator: FunctionId, target: FunctionId, between: Between) -> Self {
        let topology = view.topology();
        let way = way(view, initiator, target, between);
        let size = |function: FunctionId| in_force(topology, function).max_payload;
        let clash = |sender: FunctionId, others: &mut dyn Iterator<Item = FunctionId>| {
            let sends = size(sender)?;
            others
                .filter_map(|receiver| Some((receiver, size(receiver)?)))
                .find(|&(_, takes)| takes < sends)
                .map(|(receiver, takes)| Clash { sender, sends, receiver, takes })
        };
        Self {
            write: clash(initiator, &mut way.iter().copied()),
            read: clash(target, &mut way.iter().rev().copied()),
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
    use crate::pcie::decode::{BridgeBuses, HeaderType};
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
