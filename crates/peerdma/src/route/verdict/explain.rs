//! From a verdict to its reasons.

use super::{Address, Judge, PairVerdict};
use crate::route::domain::Owner;
use crate::route::fabric::{Explanation, Fate, Passage, Way};
use crate::route::kernel_view::MapType;
use crate::route::payload::Clash;
use crate::route::{Gate, Reason};
use crate::topology::{FunctionId, Topology};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

impl Judge<'_> {
    /// Everything that led to a verdict: Linux's reasons, the hardware's, then those of
    /// the address, its width and payload sizes.
    pub fn reasons(&self, pair: &PairVerdict) -> Vec<Reason> {
        let mut reasons = self.kernel.reasons(&pair.kernel);
        for reason in self.fabric_reasons(pair) {
            push_new(&mut reasons, reason);
        }
        reasons.extend(pair.address_reason(self.name(pair.initiator), self.topology().machine()));
        reasons.extend(pair.alias_reason(self.name(pair.target.function())));
        reasons.extend(self.merging_reason(pair));
        reasons.extend(self.width_reason(pair));
        reasons.extend(self.aperture_reason(pair));
        reasons.extend(self.payload_reasons(pair));
        reasons
    }

    /// What was not read and is taken to be as usual.
    pub fn assumed(&self, pair: &PairVerdict) -> Vec<Reason> {
        let mut assumed = Vec::new();
        for passage in [&pair.fabric_write, &pair.fabric_read] {
            for reason in self.hardware(pair, passage).assumed {
                push_new(&mut assumed, reason);
            }
        }
        assumed
    }

    /// Why a passage of the pair is what it is.
    pub fn hardware(&self, pair: &PairVerdict, passage: &Passage) -> Explanation {
        self.fabric().explain(pair.initiator, &pair.target, passage.kind, passage.handed)
    }

    /// What the hardware has to say beyond Linux's reasons. Of a pair that Linux refuses
    /// and that would not arrive either, Linux's are enough.
    fn fabric_reasons(&self, pair: &PairVerdict) -> Vec<Reason> {
        let mut reasons = Vec::new();
        let [write, read] = [&pair.fabric_write, &pair.fabric_read];
        let matters = |passage: &&Passage| match pair.kernel.map_type {
            MapType::Unknown => passage.fate == Fate::Lost,
            MapType::NotSupported => pair.difference.is_some() || passage.fate == Fate::Lost,
            MapType::BusAddr | MapType::ThruHostBridge => true,
        };
        for passage in [write, read].into_iter().filter(matters) {
            for reason in self.hardware(pair, passage).reasons {
                push_new(&mut reasons, reason);
            }
        }
        reasons.extend(self.atomic_reason(pair));
        reasons
    }

    /// What AtomicOps meet and reads do not, in one reason: often nothing was read of any port.
    fn atomic_reason(&self, pair: &PairVerdict) -> Option<Reason> {
        let maps = matches!(pair.kernel.map_type, MapType::BusAddr | MapType::ThruHostBridge);
        if !maps || pair.fabric_read.fate != Fate::Arrives {
            return None;
        }
        let all = self.hardware(pair, &pair.fabric_atomic).reasons;
        // What was not read has a remedy; of what loses them for sure only that is told.
        let is_lost = pair.fabric_atomic.fate == Fate::Lost;
        let tells = |reason: &Reason| reason.gate == Gate::Atomics && !(is_lost && reason.fix.is_some());
        let mut of_atomics = all.into_iter().filter(tells);
        let mut first = of_atomics.next()?;
        let more = of_atomics.count();
        if more != 0 {
            first
                .evidence
                .push_str(&format!(", and {more} more facts about AtomicOps on the way are against them or missing"));
        }
        Some(first)
    }

    /// Linux 7.2 `vfio_iommu_map`: type1 maps everything as cacheable memory, BARs too.
    fn merging_reason(&self, pair: &PairVerdict) -> Option<Reason> {
        let through_vfio = pair.domain.owner == Owner::Vfio && pair.address == Address::Iova;
        through_vfio.then(|| Reason {
            gate: Gate::IommuMode,
            object: self.name(pair.initiator),
            evidence:
                "VFIO's type1 maps a BAR with the attributes of cacheable memory, so what is written to it may be \
                       merged and reordered like memory"
                    .into(),
            fix: Some(
                "map the exported BAR through iommufd, which maps it as device memory (Linux 6.19 and newer)".into(),
            ),
        })
    }

    fn width_reason(&self, pair: &PairVerdict) -> Option<Reason> {
        let (has, needs) = pair.too_narrow?;
        let target = self.name(pair.target.function());
        let bar = pair.target.bar().map_or_else(String::new, |bar| format!(" bar{bar}"));
        Some(Reason {
            gate: Gate::AddressWidth,
            object: self.name(pair.initiator),
            evidence: format!("forms addresses of {has} bits; {target}{bar} ends at an address of {needs} bits"),
            fix: Some(format!(
                "bring the BAR below {has} bits in firmware (above-4G decoding, MMIO base or size), or let an IOMMU \
                 translate for the initiator"
            )),
        })
    }

    /// Machine monitors give a guest's BAR the address it has in the guest, often its own.
    fn aperture_reason(&self, pair: &PairVerdict) -> Option<Reason> {
        let takes = self.topology().machine().iommu_address_bits?;
        if pair.domain.owner != Owner::Vfio || pair.address != Address::Iova {
            return None;
        }
        let needs = u64::BITS - pair.target.cpu()?.last().as_u64().leading_zeros();
        (needs > u32::from(takes)).then(|| Reason {
            gate: Gate::AddressWidth,
            object: self.name(pair.initiator),
            evidence: format!(
                "an IOMMU of this machine takes addresses of {takes} bits, and {} ends at a CPU address of {needs} bits: \
                 an IOVA equal to that cannot be mapped",
                self.name(pair.target.function())
            ),
            fix: Some("map the BAR at a lower IOVA, or place it lower in firmware (above-4G decoding, MMIO base)".into()),
        })
    }

    fn payload_reasons(&self, pair: &PairVerdict) -> Vec<Reason> {
        let words = |clash: &Clash, what: &str, way: Option<Way>| clash_reason(self.topology(), clash, what, way);
        let mut reasons = Vec::new();
        if pair.kernel.map_type != MapType::NotSupported {
            let write = pair.payload.write.as_ref().map(|clash| words(clash, "writes", pair.fabric_write.way));
            let read =
                pair.payload.read.as_ref().map(|clash| words(clash, "completions of reads", pair.fabric_read.way));
            reasons.extend(write.into_iter().chain(read));
        }
        reasons
    }

    fn name(&self, function: FunctionId) -> String {
        self.topology().function(function).address().to_string()
    }
}

/// A clash of payload sizes in words; `what` carries the data.
pub(in crate::route) fn clash_reason(topology: &Topology, clash: &Clash, what: &str, way: Option<Way>) -> Reason {
    let name = |function| topology.function(function).address().to_string();
    let Clash { sender, sends, receiver, takes, may_be_cut, may_be_avoided } = *clash;
    let consequence = match (may_be_cut, way) {
        _ if may_be_avoided => {
            "larger ones are dropped as malformed, unless they go another way, which nothing here tells"
        }
        (true, _) => "the root complex may split them, or drop them",
        (false, Some(Way::RootComplex)) => {
            "a root complex splits nothing before it has it, and ports do not, so larger ones are dropped as malformed"
        }
        (false, _) => "switches do not split, so larger ones are dropped as malformed",
    };
    Reason {
        gate: Gate::PayloadSize,
        object: name(sender),
        evidence: format!("{what} carry up to {sends}, and {} takes {takes}: {consequence}", name(receiver)),
        fix: Some("boot with pci=pcie_bus_peer2peer, which gives every device 128 bytes".into()),
    }
}

fn push_new(reasons: &mut Vec<Reason>, reason: Reason) {
    if !reasons.contains(&reason) {
        reasons.push(reason);
    }
}
