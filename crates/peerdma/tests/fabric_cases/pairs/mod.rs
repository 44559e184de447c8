//! The view of pairs, on the machine of the cases with this and that not read.

mod addresses;
mod devices;
mod ports;

use crate::data::Data;
use crate::machine::Machine;
use peerdma::addr::{AddrRange, BusAddr, Bytes, PhysAddr};
use peerdma::pcie::Fact;
use peerdma::pcie::acs::{Acs, AcsBits, AcsRegisters, AcsUnread};
use peerdma::pcie::decode::{BridgeBuses, BridgeWindows};
use peerdma::pcie::express::AtomicSizes;
use peerdma::pcie::virt::Ats;
use peerdma::route::fabric::{Explanation, FabricView, Fate, Handed, Kind, Passage, Way};
use peerdma::route::{Gate, Reason, Target};
use peerdma::topology::{Cpu, FunctionId, FunctionInfo, IommuMode, PeerForwarding, Topology};

/// A passage with its explanation.
#[derive(Debug)]
struct Passed {
    fate: Fate,
    way: Option<Way>,
    reasons: Vec<Reason>,
    assumed: Vec<Reason>,
}

impl Passed {
    fn of(topology: &Topology, from: FunctionId, target: &Target, kind: Kind, handed: Handed) -> Self {
        let view = FabricView::new(topology);
        let Passage { fate, way, .. } = view.pass(from, target, kind, handed);
        let Explanation { reasons, assumed } = view.explain(from, target, kind, handed);
        Self { fate, way, reasons, assumed }
    }
}

/// The machine with some of it changed.
struct Setup {
    topology: Topology,
}

fn acs(control: AcsBits, vector: u32) -> Acs {
    Acs::Present(AcsRegisters::standard(None, AcsBits::from_bits_retain(0x7f), control, vec![vector; 8]))
}

const UNREAD: Acs = Acs::Unknown(AcsUnread::NeverSeen);

impl Setup {
    fn new(edit: &dyn Fn(&str, &mut FunctionInfo)) -> Self {
        Self::with(&[], edit, None)
    }

    fn with(spare: &[&str], edit: &dyn Fn(&str, &mut FunctionInfo), peer: Option<PeerForwarding>) -> Self {
        Self { topology: Machine::edited(&Data::read(), spare, edit, peer) }
    }

    /// With these ACS control words; the vectors are zero.
    fn controls(words: &[(&str, AcsBits)], peer: Option<PeerForwarding>) -> Self {
        let edit = |name: &str, info: &mut FunctionInfo| {
            if let Some((_, bits)) = words.iter().find(|(port, _)| *port == name) {
                info.registers.acs = acs(*bits, 0);
            }
        };
        Self::with(&[], &edit, peer)
    }

    fn id(&self, name: &str) -> FunctionId {
        let address = Data::read().function.iter().find(|function| function.name == name).unwrap().address.clone();
        self.topology.at(address.parse().unwrap()).unwrap()
    }

    fn pass(&self, from: &str, to: &str, kind: Kind, handed: Handed) -> Passed {
        let target = Target::of_bar(&self.topology, self.id(to), 0, None).unwrap();
        Passed::of(&self.topology, self.id(from), &target, kind, handed)
    }

    fn fates(&self, from: &str, to: &str, handed: Handed) -> (Fate, Fate) {
        let fate = |kind| self.pass(from, to, kind, handed).fate;
        (fate(Kind::Write), fate(Kind::Read))
    }
}

const FORWARDS: Option<PeerForwarding> = Some(PeerForwarding::Forwards);

fn names(passage: &Passed, gate: Gate) -> Vec<&str> {
    passage.reasons.iter().filter(|reason| reason.gate == gate).map(|reason| reason.object.as_str()).collect()
}
