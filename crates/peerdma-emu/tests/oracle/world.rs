//! One machine: built, booted, and asked to send requests whose ways are read off its log.

use crate::probe::{Answer, Handle, Order};
use peerdma::addr::{BusAddr, Bytes, PhysAddr};
use peerdma::topology::FunctionId;
use peerdma_emu::device::How;
use peerdma_emu::fabric::{Above, Egress, Ending, NodeId};
use peerdma_emu::host::Kernel;
use peerdma_emu::machine::{Builder, Happened, Machine};
use peerdma_emu::memory::Memory;
use peerdma_emu::platform::{PeerForwarding, Platform};
use std::collections::HashMap;
use std::sync::Arc;

/// A machine whose functions are all probes.
pub(crate) struct World {
    pub(crate) platform: Platform,
    pub(crate) machine: Arc<Machine>,
    pub(crate) kernel: Kernel,
    probes: HashMap<NodeId, Handle>,
}

/// A piece of a BAR, by what its function is to the machine and to the resolver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) node: NodeId,
    pub(crate) function: FunctionId,
    pub(crate) bar: u8,
    pub(crate) offset: u64,
    pub(crate) cpu: PhysAddr,
    pub(crate) bus: BusAddr,
}

/// What the machine did with a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Seen {
    pub(crate) answer: Answer,
    /// Functions whose BARs it came to, each with BAR and offset.
    pub(crate) at: Vec<(NodeId, u8, u64)>,
    /// Whether any of it came to memory.
    pub(crate) in_memory: bool,
    /// Whether any of it came out of a root complex again.
    pub(crate) through_root: bool,
    /// How it, or its completion, ended.
    pub(crate) ended: Vec<Ending>,
}

impl Seen {
    /// Whether it came to this place first, and to no other function.
    pub(crate) fn came_to(&self, place: &Place) -> bool {
        let first = self.at.first().is_some_and(|at| *at == (place.node, place.bar, place.offset));
        first && self.at.iter().all(|(node, ..)| *node == place.node) && !self.in_memory
    }
}

impl World {
    /// The machine of a platform file.
    pub(crate) fn new(text: &str, seed: u64) -> Self {
        let platform = Platform::parse(text, "random.toml").unwrap_or_else(|error| panic!("{error}\n{text}"));
        let mut builder = Builder::new(&platform).seed(seed);
        let mut handles = Vec::new();
        for function in platform.functions() {
            let handle = Handle::new(function.bars.iter().map(|bar| (bar.index, bar.bus.len())));
            builder = builder.device(&function.name, handle.device());
            handles.push((function.name.clone(), handle));
        }
        let machine = Arc::new(builder.build().unwrap_or_else(|error| panic!("{error}\n{text}")));
        let kernel = Kernel::boot(machine.clone(), &platform);
        machine.settle(1000);
        machine.log().keep(true);
        let probes = handles.into_iter().map(|(name, handle)| (machine.named(&name).unwrap(), handle)).collect();
        Self { platform, machine, kernel, probes }
    }

    /// Every function that can send, by both names.
    pub(crate) fn initiators(&self) -> Vec<(NodeId, FunctionId)> {
        let mut all: Vec<_> =
            self.probes.keys().filter_map(|node| Some((*node, self.kernel.function(*node)?))).collect();
        all.sort();
        all
    }

    /// A place in each BAR of each function.
    pub(crate) fn places(&self, random: &mut fastrand::Rng) -> Vec<Place> {
        let mut places = Vec::new();
        for (node, function) in self.initiators() {
            for bar in &self.kernel.topology().function(function).info().bars {
                let (Some(cpu), Some(bus), Some(size)) = (bar.cpu, bar.bus, bar.size) else { continue };
                // Half of them in the last page, whose end is the BAR's end.
                let pages = size.as_u64() >> 12;
                let page = if random.bool() { pages - 1 } else { random.u64(0..pages) };
                let offset = page << 12;
                let at = |start: u64| start + offset;
                let (cpu, bus) = (PhysAddr::new(at(cpu.start().as_u64())), BusAddr::new(at(bus.as_u64())));
                places.push(Place { node, function, bar: bar.index, offset, cpu, bus });
            }
        }
        places
    }

    /// Sends one request and lets the machine come to rest.
    pub(crate) fn send(&self, from: NodeId, how: How, at: BusAddr, order: Order) -> Seen {
        let probe = &self.probes[&from];
        self.machine.log().take();
        probe.order(how, at, order);
        self.machine.step_device(from);
        assert!(self.machine.settle(100_000), "the machine does not come to rest");
        let answer = probe.answer().expect("a probe that was stepped answers");
        let mut seen = Seen { answer, at: Vec::new(), in_memory: false, through_root: false, ended: Vec::new() };
        for event in self.machine.log().take() {
            match event.what {
                Happened::AtFunction { node, bar, offset } => seen.at.push((node, bar, offset.as_u64())),
                Happened::InMemory { .. } | Happened::Interrupted { .. } => seen.in_memory = true,
                Happened::Went { egress: Egress::Down(node) | Egress::Into(node), .. } => {
                    seen.through_root |= self.is_on_root_bus(node);
                }
                Happened::Ended(ending) | Happened::CompletionEnded(ending) => seen.ended.push(ending),
                _ => {}
            }
        }
        seen
    }

    fn is_on_root_bus(&self, node: NodeId) -> bool {
        matches!(self.machine.fabric().tree().node(node).above, Above::Root(_))
    }

    fn memory(&self, place: &Place) -> &dyn Memory {
        let bars = &self.probes[&place.node].bars;
        &**bars.iter().find(|(index, _)| *index == place.bar).map(|(_, memory)| memory).expect("the BAR was found")
    }

    /// Bytes behind a BAR, past the fabric.
    pub(crate) fn load(&self, place: &Place, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory(place).read(Bytes::new(place.offset), &mut bytes).expect("a place has a page");
        bytes
    }

    /// Puts bytes behind a BAR, past the fabric.
    pub(crate) fn store(&self, place: &Place, bytes: &[u8]) {
        self.memory(place).write(Bytes::new(place.offset), bytes).expect("a place has a page");
    }

    /// The function's name in the file.
    pub(crate) fn name(&self, node: NodeId) -> &str {
        self.machine.name(node).unwrap_or("?")
    }

    /// Whether the file does not say what the root complex above a node does.
    pub(crate) fn root_is_silent(&self, node: NodeId) -> bool {
        let host = self.machine.fabric().tree().host(node);
        self.platform.host_bridges()[host.index()].peer == PeerForwarding::Unknown
    }

    /// Whether a function's device has others.
    pub(crate) fn has_siblings(&self, node: NodeId) -> bool {
        self.probes.keys().any(|other| *other != node && self.of_one_device(node, *other))
    }

    /// Whether two functions are of one device.
    pub(crate) fn of_one_device(&self, one: NodeId, other: NodeId) -> bool {
        let slot = |node| {
            let address = self.machine.fabric().tree().node(node).address;
            (address.domain(), address.bus(), address.devfn().device())
        };
        slot(one) == slot(other)
    }
}
