//! Devices that isolate although no ACS word says so.
//!
//! Linux 7.2 `drivers/pci/quirks.c`, `pci_dev_acs_enabled`. Only grouping asks this list;
//! the peer-to-peer rules never do.

use crate::pcie::express::PortType;
use crate::pcie::{Fact, PciId};

/// What the list says about a function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// It isolates.
    Isolates,
    /// It does so if the kernel could switch it on in registers that no input shows.
    CannotTell,
    /// Nothing: its registers decide.
    Silent,
}

/// Asks the list. `part_of_root_bus_device`: one of several functions of a slot on a root bus.
pub(super) fn ask(id: PciId, port_type: Fact<Option<PortType>>, part_of_root_bus_device: bool) -> Verdict {
    if is_isolating_endpoint(id) || is_isolating_port(id) {
        return Verdict::Isolates;
    }
    // `pci_quirk_amd_sb_acs`; it also wants an IVRS table, without which these have no IOMMU.
    if is_amd_south_bridge(id) && part_of_root_bus_device {
        return Verdict::Isolates;
    }
    let needed = match isolates_as(id) {
        None => return Verdict::Silent,
        Some(needed) => needed,
    };
    match port_type {
        Fact::Unknown => Verdict::CannotTell,
        Fact::Known(kind) => needed(kind),
    }
}

/// Lists that also look at the port type.
fn isolates_as(id: PciId) -> Option<fn(Option<PortType>) -> Verdict> {
    use PortType::{DownstreamPort, RootComplexIntegrated, RootPort};
    fn as_root_port(kind: Option<PortType>) -> Verdict {
        if kind == Some(RootPort) { Verdict::Isolates } else { Verdict::Silent }
    }
    match (id.vendor, id.device) {
        // `pci_quirk_intel_pch_acs`: the enable hook writes chipset registers.
        (0x8086, device) if is_old_intel_pch_port(device) => Some(|kind| match kind {
            Some(RootPort) => Verdict::CannotTell,
            Some(RootComplexIntegrated) => Verdict::Isolates,
            _ => Verdict::Silent,
        }),
        // `pci_quirk_rciep_acs`: by type alone.
        (0x8086, _) => Some(|kind| match kind {
            Some(RootComplexIntegrated) => Verdict::Isolates,
            _ => Verdict::Silent,
        }),
        // `pci_quirk_cavium_acs`, `pci_quirk_al_acs`.
        (0x177d, 0xa000..=0xa7ff | 0xaf84 | 0xb884) | (0x1c36, 0x0031) => Some(as_root_port),
        // `pci_quirk_zhaoxin_pcie_ports_acs`.
        (0x1d17, 0x0710..=0x071e | 0x0721 | 0x0723..=0x0752) => Some(|kind| match kind {
            Some(RootPort | DownstreamPort) => Verdict::Isolates,
            _ => Verdict::Silent,
        }),
        _ => None,
    }
}

/// Ibex Peak to Lynx Point, Patsburg and Wellsburg (`pci_quirk_intel_pch_acs_ids`), the
/// gaps in their numbers included: what falls into one is unknown rather than isolated.
fn is_old_intel_pch_port(device: u16) -> bool {
    matches!(
        device,
        0x3b42..=0x3b51
            | 0x1c10..=0x1c1f
            | 0x1d10..=0x1d1f
            | 0x1e10..=0x1e1f
            | 0x8c10..=0x8c1f
            | 0x8c90..=0x8c9f
            | 0x8d10..=0x8d1f
            | 0x9c10..=0x9c1b
            | 0x9c90..=0x9c9b
    )
}

fn is_amd_south_bridge(id: PciId) -> bool {
    match id.vendor {
        0x1002 => matches!(id.device, 0x4383..=0x4385 | 0x4399 | 0x439c | 0x439d),
        0x1022 => matches!(id.device, 0x7809 | 0x780f),
        _ => false,
    }
}

/// `pci_quirk_mf_endpoint_acs`, `pci_quirk_wangxun_nic_acs`: functions of one chip that
/// do not reach each other.
fn is_isolating_endpoint(PciId { vendor, device }: PciId) -> bool {
    match vendor {
        // Solarflare.
        0x1924 => matches!(device, 0x0903 | 0x0923 | 0x0a03),
        // Intel 82598, 82599, 82580, 82576, 82575, I350, 82571, I219.
        0x8086 => matches!(
            device,
            0x10c6 | 0x10db | 0x10dd | 0x10e1 | 0x10f1 | 0x10f7..=0x10fc | 0x1507 | 0x1514 | 0x151c | 0x1529 | 0x152a
                | 0x154d | 0x154f | 0x1551 | 0x1558
                | 0x1509 | 0x150e..=0x1511 | 0x1516 | 0x1527
                | 0x10c9 | 0x10e6..=0x10e8 | 0x150a | 0x150d | 0x1518 | 0x1526
                | 0x10a7 | 0x10a9 | 0x10d6
                | 0x1521..=0x1524
                | 0x105e..=0x1060 | 0x10d9
                | 0x15b7 | 0x15b8
        ),
        // Emulex.
        0x19a2 => device == 0x0710,
        0x10df => device == 0x0720,
        // Cavium.
        0x177d => matches!(device, 0xa026 | 0xa059 | 0xa060),
        // Broadcom.
        0x14e4 => matches!(device, 0x16d7 | 0x1750..=0x1752 | 0x1760..=0x1763),
        // Zhaoxin.
        0x1d17 => matches!(device, 0x3038 | 0x3104 | 0x9083),
        // Wangxun.
        0x8088 => {
            matches!(device, 0x0100..=0x010f | 0x1001 | 0x2001 | 0x5010 | 0x5025 | 0x5040 | 0x5110 | 0x5125 | 0x5140)
        }
        _ => false,
    }
}

/// Root ports without the capability, by ID alone: Qualcomm, HXT, AppliedMicro, Ampere,
/// Broadcom, Loongson, NXP.
fn is_isolating_port(PciId { vendor, device }: PciId) -> bool {
    match vendor {
        0x17cb => matches!(device, 0x0400 | 0x0401 | 0x0111 | 0x0115 | 0x0120),
        0x1dbf => device == 0x0401,
        0x10e8 => device == 0xe004,
        0x1def => matches!(device, 0xe005..=0xe00c),
        0x14e4 => device == 0xd714,
        0x0014 => {
            matches!(device, 0x3c09 | 0x3c19 | 0x3c29 | 0x7a09 | 0x7a19 | 0x7a29 | 0x7a39 | 0x7a49 | 0x7a59 | 0x7a69)
        }
        0x1957 => matches!(
            device,
            0x8d80..=0x8d83
                | 0x8d88..=0x8d8b
                | 0x8d90..=0x8d93
                | 0x8d98..=0x8d9b
                | 0x8da0
                | 0x8da1
                | 0x8da8
                | 0x8da9
                | 0x8db0
                | 0x8db1
                | 0x8db8
                | 0x8db9
        ),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(vendor: u16, device: u16, kind: Fact<Option<PortType>>) -> Verdict {
        ask(PciId { vendor, device }, kind, false)
    }

    #[test]
    fn integrated_endpoints_of_intel_isolate_by_type_and_those_of_others_do_not() {
        let integrated = Fact::Known(Some(PortType::RootComplexIntegrated));
        assert_eq!(verdict(0x8086, 0x0b25, integrated), Verdict::Isolates);
        assert_eq!(verdict(0x8086, 0x0b25, Fact::Known(Some(PortType::Endpoint))), Verdict::Silent);
        assert_eq!(verdict(0x8086, 0x0b25, Fact::Unknown), Verdict::CannotTell);
        assert_eq!(verdict(0x1022, 0x0b25, integrated), Verdict::Silent);
    }

    #[test]
    fn chipset_ports_whose_switch_no_register_shows_cannot_be_told() {
        let root = Fact::Known(Some(PortType::RootPort));
        assert_eq!(verdict(0x8086, 0x8c10, root), Verdict::CannotTell);
        assert_eq!(verdict(0x8086, 0xa110, root), Verdict::Silent, "these have registers, if elsewhere");
        assert_eq!(verdict(0x1d17, 0x0722, root), Verdict::Silent, "a gap in the list");
        assert_eq!(verdict(0x1d17, 0x0723, root), Verdict::Isolates);
    }

    #[test]
    fn amds_old_south_bridges_isolate_as_multifunction_devices_of_a_root_bus() {
        let id = PciId { vendor: 0x1002, device: 0x4385 };
        assert_eq!(ask(id, Fact::Known(None), true), Verdict::Isolates);
        assert_eq!(ask(id, Fact::Known(None), false), Verdict::Silent);
    }
}
