//! Machines at random: one or two root ports, switches below them, ACS words of all kinds.

use crate::both;
use crate::tree::Tree;
use peerdma::pcie::Fact;
use peerdma::pcie::acs::{Acs, AcsAbsent, AcsBits, AcsRegisters, AcsUnread};
use peerdma::pcie::express::PortType;
use peerdma::route::Target;
use peerdma::route::fix::FixOptions;
use peerdma::topology::{FunctionId, HostBridgeFacts, IommuMode, PeerForwarding, Topology};

/// What is asked for.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) pairs: Vec<(FunctionId, Target)>,
    pub(crate) options: FixOptions,
}

/// Choices out of bytes, so that fewer and smaller bytes make a simpler machine.
pub(crate) struct Maker<'b>(std::slice::Iter<'b, u8>);

impl Maker<'_> {
    fn roll(&mut self, sides: usize) -> usize {
        usize::from(self.0.next().copied().unwrap_or(0)) % sides
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.roll(of.len())]
    }

    fn acs(&mut self) -> Acs {
        let bits = AcsBits::from_bits_retain;
        match self.roll(24) {
            0..=5 => Acs::Absent(AcsAbsent::WholeListRead),
            6 => Acs::Unknown(AcsUnread::Denied),
            // Wired: set without being offered.
            7 => Acs::Present(AcsRegisters::standard(None, bits(0x1f), bits(0x20), vec![0])),
            _ => {
                let capability = self.pick(&[0x1f, 0x5f, 0x5f, 0x4f, 0x3f]);
                let control = self.pick(&[0x00, 0x1d, 0x0d, 0x0c, 0x11, 0x1d, 0x04, 0x2c]) & capability;
                Acs::Present(AcsRegisters::standard(Some(0x148), bits(capability), bits(control), vec![0]))
            }
        }
    }

    fn port(&mut self, tree: Tree, address: &str, below: (u8, u8), kind: PortType) -> Tree {
        let acs = match kind {
            PortType::UpstreamPort => Acs::Absent(AcsAbsent::WholeListRead),
            _ => self.acs(),
        };
        tree.port(address, below.0, below.1).edit(address, |info| {
            info.registers.port_type = Fact::Known(Some(kind));
            info.registers.acs = acs;
        })
    }

    /// A root port on `bus` with a switch of one to three downstream ports, or an endpoint.
    fn hierarchy(&mut self, mut tree: Tree, device: u8, bus: u8) -> (Tree, Vec<String>) {
        let root = format!("00:{device:02x}.0");
        let ports = self.roll(4) as u8;
        tree = self.port(tree, &root, (bus, bus + 15), PortType::RootPort);
        if ports == 0 {
            let end = format!("{bus:02x}:00.0");
            return (tree.device(&end), vec![end]);
        }
        tree = self.port(tree, &format!("{bus:02x}:00.0"), (bus + 1, bus + 15), PortType::UpstreamPort);
        let mut ends = Vec::new();
        for nth in 0..ports {
            let below = bus + 2 + nth;
            let port = format!("{:02x}:{nth:02x}.0", bus + 1);
            tree = self.port(tree, &port, (below, below), PortType::DownstreamPort);
            for function in 0..=u8::from(self.roll(6) == 1) {
                let end = format!("{below:02x}:00.{function}");
                tree = tree.device(&end);
                if self.roll(8) == 1 {
                    let acs = self.acs();
                    tree = tree.edit(&end, |info| info.registers.acs = acs);
                }
                ends.push(end);
            }
        }
        (tree, ends)
    }

    pub(crate) fn machine(bytes: &[u8]) -> (Topology, Asked) {
        let mut maker = Maker(bytes.iter());
        let cpu = maker.pick(&["intel:6", "amd:0x19", "intel:6", "unknown"]);
        let id = maker.pick(&["8086:29c0", "8086:09a2"]);
        let mut tree = Tree::new(cpu, "7.2.13").device("00:00.0").id("00:00.0", id);
        let mut ends = Vec::new();
        for nth in 0..=maker.roll(2) as u8 {
            let more;
            (tree, more) = maker.hierarchy(tree, 1 + nth, 1 + 16 * nth);
            ends.extend(more);
        }
        let topology = tree.topology();
        let mut builder = topology.to_builder();
        builder.machine().iommu =
            maker.pick(&[Some(IommuMode::Translated), Some(IommuMode::Identity), Some(IommuMode::None), None]);
        let peer = maker.pick(&[None, Some(PeerForwarding::Forwards), None, Some(PeerForwarding::WritesOnly)]);
        builder.host_bridge(0, 0, HostBridgeFacts { peer, ..HostBridgeFacts::default() });
        let topology = builder.build();
        let end = |maker: &mut Maker<'_>| crate::tree::at(&topology, &ends[maker.roll(ends.len())]);
        let pairs = (0..=maker.roll(3))
            .map(|_| (end(&mut maker), Target::largest_bar(&topology, end(&mut maker))))
            .filter(|(from, to)| *from != to.function())
            .collect();
        let options = both(maker.roll(4) == 1);
        (topology, Asked { pairs, options })
    }
}
