//! The machine of one case: wires, registers, root complex and IOMMU.

use crate::data::{Case, Data, Root as Stated, Tlp};
use crate::{changes, registers};
use peerdma::access::{MemAttrs, Prot};
use peerdma::addr::{AddrRange, Address, BusAddr, Bytes, Iova, PhysAddr};
use peerdma::iopt::{Cursor, PageTable, VtdOptions, VtdSecondStage};
use peerdma::pcie::PciAddr;
use peerdma_emu::fabric::{Above, Fabric, Host, HostWindow, Node, NodeId, Root, Tree};
use peerdma_emu::iommu::{Attachment, Domain, DomainId, Iommu, TableFormat, Tables};
use peerdma_emu::memory::Frames;
use peerdma_emu::platform::{IommuKind, PeerForwarding};
use std::sync::Arc;

type Table = PageTable<VtdSecondStage, Frames>;

/// A machine of the file, as one TLP meets it.
pub(crate) struct Wiring {
    pub(crate) fabric: Fabric,
    pub(crate) names: Names,
    /// Memory, as CPU addresses.
    pub(crate) memory: Vec<AddrRange<PhysAddr>>,
    /// Held as long as the IOMMU reads them.
    pub(crate) tables: Vec<Table>,
}

/// Names of functions and ports, in the order of their nodes.
#[derive(Clone)]
pub(crate) struct Names(Vec<String>);

impl Names {
    pub(crate) fn of(&self, node: NodeId) -> &str {
        &self.0[node.index()]
    }

    pub(crate) fn index(&self, name: &str) -> usize {
        self.0.iter().position(|other| other == name).unwrap()
    }
}

impl Wiring {
    /// The machine that a TLP of a case meets; `also` as in [`changes::functions`].
    pub(crate) fn new(data: &Data, case: &Case, sent: &Tlp, also: &[(&str, &str)]) -> Self {
        let stated = data.root(Some((case, sent)));
        let functions = changes::functions(data, case, sent, also);
        // None of a function that the case leaves out.
        let address_of = |name: &str| -> Option<PciAddr> {
            let function = functions.iter().find(|function| function.name == name)?;
            Some(function.address.parse().unwrap())
        };
        let everybody: Vec<PciAddr> = functions.iter().filter_map(|function| address_of(&function.name)).collect();
        let mut tables = Vec::new();
        let iommu = match stated.iommu.as_str() {
            "off" => None,
            "identity" => Some(identity(&everybody)),
            "on" => Some(translating(&stated, &mut tables, address_of)),
            other => panic!("no IOMMU {other}"),
        };
        let memory: Vec<_> = stated.memory.iter().map(|&(start, len)| range(PhysAddr::new(start), len)).collect();
        let root = Root::new(vec![host(&stated)], memory.clone(), iommu);
        let top = root.hosts().next().unwrap();
        let mut tree = Tree::new(1);
        let mut ids: Vec<(String, NodeId)> = Vec::new();
        for function in &functions {
            let above = match &function.above {
                None => Above::Root(top),
                Some(port) => Above::Port(ids.iter().find(|(name, _)| name == port).unwrap().1),
            };
            let node = Node {
                address: address_of(&function.name).unwrap(),
                config: Arc::new(registers::space(function)),
                above,
                peers_inside: case.inside.contains(&function.name),
                group: case.groups.get(&function.name).copied(),
            };
            ids.push((function.name.clone(), tree.add(node).unwrap()));
        }
        let names = Names(ids.into_iter().map(|(name, _)| name).collect());
        Self { fabric: Fabric::new(tree, root), names, memory, tables }
    }

    pub(crate) fn node(&self, name: &str) -> NodeId {
        self.fabric.tree().ids().nth(self.names.index(name)).unwrap()
    }

    /// The address that a TLP carries.
    pub(crate) fn address(&self, sent: &Tlp) -> BusAddr {
        sent.address.map_or_else(
            || {
                let target = self.fabric.tree().config(self.node(sent.to.as_deref().unwrap()));
                let first = target.bar_indices().next().unwrap();
                let start = target.bar(first).unwrap().start();
                BusAddr::new(start.as_u64() + sent.offset)
            },
            BusAddr::new,
        )
    }
}

pub(crate) fn range<A: Address>(start: A, len: u64) -> AddrRange<A> {
    AddrRange::new(start, Bytes::new(len)).unwrap()
}

fn host(stated: &Stated) -> Host {
    let window = |&(cpu, bus, len): &(u64, u64, u64)| HostWindow {
        cpu: range(PhysAddr::new(cpu), len),
        bus: range(BusAddr::new(bus), len),
    };
    Host {
        segment: 0,
        root_bus: 0,
        windows: stated.windows.iter().map(window).collect(),
        peer: match stated.peer.as_str() {
            "forwards" => PeerForwarding::Forwards,
            "writes only" => PeerForwarding::WritesOnly,
            "nothing" => PeerForwarding::None,
            other => panic!("no forwarding {other}"),
        },
        interrupts: Some(range(BusAddr::new(stated.interrupts.0), stated.interrupts.1)),
        replaces_requester: stated.replaces_requester,
        between_ports: stated.between_ports,
        splits: stated.splits,
    }
}

/// An IOMMU that passes everybody's addresses through.
fn identity(everybody: &[PciAddr]) -> Arc<Iommu> {
    let iommu = Iommu::new(IommuKind::Vtd);
    for &requester in everybody {
        assert_eq!(iommu.attach(requester, Attachment::Identity), None);
    }
    Arc::new(iommu)
}

/// An IOMMU with a table for each requester that something is mapped for; the others are blocked.
fn translating(stated: &Stated, tables: &mut Vec<Table>, address_of: impl Fn(&str) -> Option<PciAddr>) -> Arc<Iommu> {
    let iommu = Iommu::new(IommuKind::Vtd);
    // Frames anywhere: the IOMMU reads them and no request of a case reaches them.
    let frames = Frames::new(PhysAddr::new(0x80_0000_0000), 64).unwrap();
    let mut mapped: Vec<&str> = stated.map.iter().map(|(name, ..)| name.as_str()).collect();
    mapped.dedup();
    for name in mapped {
        let format = VtdSecondStage::new(VtdOptions::default()).unwrap();
        let table = PageTable::new(format, frames.clone()).unwrap();
        let leaf = table.leaf(Prot::ReadWrite, MemAttrs::empty());
        for (_, iova, to, len) in stated.map.iter().filter(|(other, ..)| other == name) {
            table.map(&mut Cursor::new(), range(Iova::new(*iova), *len), PhysAddr::new(*to), leaf).unwrap();
        }
        let root = table.root().at;
        let format = TableFormat::VtdSecondStage { levels: 4 };
        let id = DomainId::new(tables.len() as u32 + 1);
        let domain = Domain { id, tables: Tables { format, root, memory: Arc::new(frames.clone()) } };
        if let Some(requester) = address_of(name) {
            iommu.attach(requester, Attachment::Translated(domain));
        }
        tables.push(table);
    }
    stated.trusted.iter().filter_map(|name| address_of(name)).for_each(|trusted| iommu.allow_ats(trusted, true));
    Arc::new(iommu)
}
