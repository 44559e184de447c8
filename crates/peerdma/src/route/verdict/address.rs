//! The address that the initiator must be given, and what another one leads to.

use super::{PairVerdict, Verdict};
use crate::addr::{AddrRange, BusAddr, PhysAddr};
use crate::route::domain::{Domain, Owner};
use crate::route::fabric::Fate;
use crate::route::kernel_view::{Common, MapType};
use crate::route::lint::passthrough_parameter;
use crate::route::{Gate, Reason, Target};
use crate::topology::{IommuMode, Machine};
use alloc::format;
use alloc::string::String;
use core::fmt;

/// Which kind of address leads to the target by the verdict's route.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum AddressKind {
    /// The target's bus address.
    Bus,
    /// An I/O virtual address of the initiator.
    Iova,
    /// The target's address as the CPU sees it.
    CpuPhysical,
    /// The input cannot tell.
    Unknown,
    /// None does.
    None,
}

impl AddressKind {
    /// The word used in text and JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Bus => "bus",
            Self::Iova => "iova",
            Self::CpuPhysical => "cpu_physical",
            Self::Unknown => "unknown",
            Self::None => "none",
        }
    }
}

impl fmt::Display for AddressKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// The address to hand out, with its number where it is not the mapper's choice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Address {
    /// The target's bus address; `None` where the input does not tell its number.
    Bus(Option<AddrRange<BusAddr>>),
    /// An I/O virtual address, which whoever maps the target chooses.
    Iova,
    /// The target's address as the CPU sees it; `None` where the input does not tell its number.
    CpuPhysical(Option<AddrRange<PhysAddr>>),
    /// The input cannot tell which kind.
    Unknown,
    /// None leads there.
    None,
}

impl Address {
    /// The kind alone.
    pub const fn kind(self) -> AddressKind {
        match self {
            Self::Bus(_) => AddressKind::Bus,
            Self::Iova => AddressKind::Iova,
            Self::CpuPhysical(_) => AddressKind::CpuPhysical,
            Self::Unknown => AddressKind::Unknown,
            Self::None => AddressKind::None,
        }
    }

    /// The address on the route that Linux chose, for an initiator in this domain
    /// (kernel-side: Linux 7.2 `dma_map_phys`, `pci_p2pdma_bus_addr_map`).
    pub(super) fn on_route(map_type: MapType, domain: &Domain, target: &Target) -> Self {
        match (map_type, domain.owner, domain.mode) {
            (MapType::NotSupported, ..) => Self::None,
            (MapType::Unknown, ..) => Self::Unknown,
            (_, Owner::Vfio, _) => Self::Iova,
            // No domain matters: the request never reaches the IOMMU.
            (MapType::BusAddr, Owner::Kernel, _) => Self::Bus(target.bus()),
            (MapType::ThruHostBridge, Owner::Kernel, Some(IommuMode::Translated)) => Self::Iova,
            (MapType::ThruHostBridge, Owner::Kernel, Some(IommuMode::Identity | IommuMode::None)) => {
                Self::CpuPhysical(target.cpu())
            }
            (MapType::ThruHostBridge, Owner::Kernel, None) => Self::Unknown,
        }
    }

    /// The highest number the initiator has to form, where it is told.
    pub(super) fn highest(self) -> Option<u64> {
        match self {
            Self::Bus(range) => range.map(|range| range.last().as_u64()),
            Self::CpuPhysical(range) => range.map(|range| range.last().as_u64()),
            Self::Iova | Self::Unknown | Self::None => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bus(Some(range)) => write!(f, "bus {range}"),
            Self::CpuPhysical(Some(range)) => write!(f, "cpu_physical {range}"),
            _ => write!(f, "{}", self.kind()),
        }
    }
}

impl PairVerdict {
    /// What happens if the initiator is handed another kind of address than
    /// [`address`](Self::address) says; one sentence, or none where no address leads there.
    pub fn wrong_address(&self) -> Option<String> {
        let offset = self
            .target
            .bus()
            .zip(self.target.cpu())
            .is_some_and(|(bus, cpu)| bus.start().as_u64() != cpu.start().as_u64());
        Some(match (self.address, self.domain.translates()) {
            (Address::None | Address::Unknown, _) => return None,
            (Address::Bus(_), Some(true)) => {
                let then = match self.astray.map(|passages| passages.map(|passage| passage.fate)) {
                    Some([Fate::Arrives, Fate::Arrives]) => "which this one does",
                    Some([Fate::Lost, Fate::Lost]) => "which this one does not: the bytes are lost",
                    Some([Fate::Arrives, Fate::Lost]) => "which this one does for writes and not for reads",
                    _ => "which this one is not known to do",
                };
                format!(
                    "an IOVA leaves the switch upwards instead: the IOMMU translates it and the root complex would have \
                     to send it back down, {then}"
                )
            }
            (Address::Bus(_), _) if offset => {
                "the CPU's address is another number here (the host bridge's window lies at an offset): no port claims it, \
                 so it goes up to the root complex"
                    .into()
            }
            (Address::Bus(_), Some(false)) => {
                "the CPU's address is the same number here; an IOVA of a translating domain would leave the switch upwards"
                    .into()
            }
            (Address::Bus(_), None) => {
                "if the initiator's domain translates, an IOVA leaves the switch upwards to the IOMMU and the root complex \
                 instead, without any error of the switch"
                    .into()
            }
            (Address::Iova, _) => {
                "a bus or CPU-physical address is compared with the windows of every port on the way up: where a port \
                 claims it, it bypasses the IOMMU; where none does, the IOMMU takes it for an IOVA and refuses it (write \
                 dropped, read failed), or reaches whatever is mapped there"
                    .into()
            }
            (Address::CpuPhysical(_), _) if offset => {
                let means = self.aliased_ram.map_or_else(|| "other memory".into(), |ram| format!("the RAM at {ram}"));
                format!(
                    "the bus address is another number here (the host bridge's window lies at an offset): above the \
                     ports it means {means}"
                )
            }
            (Address::CpuPhysical(_), _) => "an IOVA means nothing without a translating domain: it reaches whatever memory has that number".into(),
        })
    }

    /// A window at an offset may show BARs at numbers that are RAM's to the CPU. Ports compare
    /// numbers and nothing else, so below them that RAM is out of an untranslated reach.
    pub(super) fn alias_reason(&self, target: String) -> Option<Reason> {
        let ram = self.aliased_ram?;
        let meet = matches!(self.kernel.common, Common::At(_) | Common::AtOrBelow(_));
        (meet && self.domain.translates() != Some(true)).then(|| Reason {
            gate: Gate::FabricPort,
            object: target,
            evidence: format!(
                "its bus address holds the numbers of the RAM at {ram}: where no port redirects, what the initiator sends \
                 to that RAM without translation arrives here"
            ),
            fix: Some("let an IOMMU translate for the initiator, which keeps its addresses out of all windows".into()),
        })
    }

    /// What the domain has to do with the address, as a reason.
    pub(super) fn address_reason(&self, initiator: String, machine: &Machine) -> Option<Reason> {
        let reason = |evidence: String, fix: Option<String>| Reason {
            gate: Gate::IommuMode,
            object: initiator.clone(),
            evidence,
            fix,
        };
        let how = &self.domain.evidence;
        let passthrough = passthrough_parameter(machine);
        // Where ports redirect, the reader is about to clear them; that is not all.
        let would_be_direct = self.kernel.redirects().next().is_some()
            && matches!(self.kernel.common, Common::At(_) | Common::AtOrBelow(_));
        match (self.address, self.domain.owner, self.domain.translates()) {
            (Address::None | Address::Unknown, Owner::Kernel, Some(true) | None) if would_be_direct => Some(reason(
                format!(
                    "{how}; once no port redirects, this pair takes bus addresses, and where the domain translates (type \
                     DMA or DMA-FQ) a driver that hands out IOVAs for peer memory still sends its requests up to the \
                     IOMMU and the root complex: clearing ACS is not enough for it"
                ),
                Some(format!("boot with {passthrough} besides; peerdma fix prints both")),
            )),
            (Address::Iova | Address::None, Owner::Vfio, _) if self.kernel.map_type == MapType::BusAddr => Some(reason(
                format!(
                    "{how}; they go up to the host bridge, past the switch that would deliver bus addresses directly"
                ),
                Some(
                    "the direct route is available on request: map the target's bus address for the initiator, which \
                     takes it out of the IOMMU's hands"
                        .into(),
                ),
            )),
            (Address::None, ..) => None,
            (Address::Bus(_), _, Some(true)) => Some(reason(
                format!(
                    "{how}; this route takes bus addresses all the same, and a driver that hands out IOVAs for peer \
                     memory sends its requests up to the IOMMU instead: clear ACS bits alone do not help it"
                ),
                Some(format!("boot with {passthrough}, or use a driver that maps by Linux's peer-to-peer rules")),
            )),
            (Address::Bus(_), _, None) => Some(reason(
                format!(
                    "{how}; bus addresses are right in every mode, but in a translated domain (type DMA or DMA-FQ) a \
                     driver that hands out IOVAs for peer memory sends its requests up to the IOMMU instead"
                ),
                Some("look at /sys/kernel/iommu_groups/*/type, or give the mode with --iommu".into()),
            )),
            (Address::Unknown, _, None) if self.verdict != Verdict::Unknown => Some(reason(
                format!(
                    "{how}; through the host bridge it must be given IOVAs where its domain translates, else CPU-physical addresses"
                ),
                Some("give the mode with --iommu translated, identity or none".into()),
            )),
            (Address::Unknown, ..) => None,
            _ => Some(reason(how.clone(), None)),
        }
    }
}
