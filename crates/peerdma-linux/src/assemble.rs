//! From a [`Snapshot`]'s facts to a topology's builder.

use crate::iomem;
use crate::pci_names::PciNames;
use crate::snapshot::{FunctionFacts, GroupFacts, MachineFacts, Snapshot, from_hex};
use peerdma::addr::{AddrRange, Iova, PhysAddr};
use peerdma::pcie::config::{ConfigBytes, ConfigSize};
use peerdma::pcie::decode::{Registers, size_of_copy};
use peerdma::pcie::express::{Link, LinkSpeed};
use peerdma::pcie::{ClassCode, Fact, PciAddr, PciId};
use peerdma::topology::{
    Bar, Builder, Cpu, CpuVendor, FunctionInfo, IommuGroup, Machine, Origin, Position, ReservedRegion,
};

/// A fact does not have the form that sysfs gives it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadFact {
    /// An address.
    #[error("function {0:?}: not a PCI address")]
    Address(String),
    /// Config bytes.
    #[error("function {0}: config is not a string of hexadecimal bytes")]
    Config(String),
    /// A path.
    #[error("function {0}: {1:?} on its path is not a PCI address or root bus")]
    Path(String, String),
}

/// Builds from facts; `origin` says where they were read.
///
/// # Errors
/// [`BadFact`], which sysfs never gives but a capture edited by hand may.
pub fn builder(snapshot: &Snapshot, origin: Origin, names: &PciNames) -> Result<Builder, BadFact> {
    let mut builder = Builder::new();
    *builder.machine() = machine(&snapshot.machine);
    builder.machine().groups_are_complete = groups_are_complete(snapshot);
    let configs: Vec<Vec<u8>> = snapshot
        .functions
        .iter()
        .map(|facts| from_hex(&facts.config).ok_or_else(|| BadFact::Config(facts.address.clone())))
        .collect::<Result<_, _>>()?;
    let others_hold_4096 = configs.iter().any(|config| config.len() >= 4096);
    let mut bridges_on_paths = Vec::new();
    for (facts, config) in snapshot.functions.iter().zip(configs) {
        let size = match facts.config_size {
            Some(size) => ConfigSize::Kernel(size),
            None => size_of_copy(config.len(), others_hold_4096),
        };
        let mut info = function(facts, ConfigBytes::new(config, size), &mut bridges_on_paths)?;
        info.origin = origin;
        info.label = info.registers.id.and_then(|id| names.label(id));
        builder.function(info);
    }
    for (address, position) in bridges_on_paths {
        if !builder.holds(address) {
            builder.function(FunctionInfo::new(address, position));
        }
    }
    for facts in &snapshot.groups {
        builder.group(group(facts));
    }
    Ok(builder)
}

fn function(
    facts: &FunctionFacts,
    config: ConfigBytes,
    bridges_on_paths: &mut Vec<(PciAddr, Position)>,
) -> Result<FunctionInfo, BadFact> {
    let address: PciAddr = facts.address.parse().map_err(|_| BadFact::Address(facts.address.clone()))?;
    let mut position = match &facts.root_bus {
        Some(root) => Position::RootBus {
            bus: root
                .rsplit_once(':')
                .and_then(|(_, bus)| u8::from_str_radix(bus, 16).ok())
                .ok_or_else(|| BadFact::Path(facts.address.clone(), root.clone()))?,
        },
        None => Position::ByBusNumber,
    };
    for bridge in &facts.bridges {
        let bridge: PciAddr = bridge.parse().map_err(|_| BadFact::Path(facts.address.clone(), bridge.clone()))?;
        bridges_on_paths.push((bridge, position));
        position = Position::Below(bridge);
    }
    let mut info = FunctionInfo::new(address, position);
    info.registers = Registers::decode(&config);
    if info.registers.id.is_none() {
        info.registers.id = match (facts.vendor, facts.device) {
            (Some(vendor), Some(device)) => Some(PciId { vendor, device }),
            _ => None,
        };
    }
    info.registers.class = info.registers.class.or(facts.class.map(ClassCode::new));
    info.bars = bars(facts, &info.registers);
    info.physfn = facts.physfn.as_ref().and_then(|physfn| physfn.parse().ok());
    info.sriov_num_vfs = facts.sriov_num_vfs;
    info.driver.clone_from(&facts.driver);
    info.names.clone_from(&facts.names);
    info.numa_node = facts.numa_node;
    info.iommu_group = facts.iommu_group;
    info.dma_mask_bits = facts.dma_mask_bits;
    info.link = facts.link.as_ref().map(link).unwrap_or_default();
    Ok(info)
}

/// Memory BARs: range from `resource`, address on the bus from the register.
fn bars(facts: &FunctionFacts, registers: &Registers) -> Vec<Bar> {
    // Linux `include/linux/ioport.h`.
    const MEM: u64 = 0x200;
    const PREFETCH: u64 = 0x2000;
    const DISABLED_OR_UNSET: u64 = 0x3000_0000;
    let number = |text: &str| u64::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok();
    let register = |index: u8| registers.bars.iter().find(|bar| bar.index == index);
    let line = |(index, line): (usize, &String)| -> Option<Bar> {
        let index = index as u8;
        let mut words = line.split_whitespace().map(number);
        let (start, end, flags) = (words.next()??, words.next()??, words.next()??);
        if flags & MEM == 0 || end == 0 {
            return None;
        }
        let range = AddrRange::from_inclusive(PhysAddr::new(start), PhysAddr::new(end))?;
        let placed = flags & DISABLED_OR_UNSET == 0;
        Some(Bar {
            index,
            cpu: placed.then_some(range),
            bus: register(index).and_then(|bar| bar.memory),
            size: Some(range.len()),
            prefetchable: flags & PREFETCH != 0,
        })
    };
    if facts.resource.is_empty() {
        return registers
            .bars
            .iter()
            .filter_map(|bar| {
                Some(Bar {
                    index: bar.index,
                    cpu: None,
                    bus: Some(bar.memory?),
                    size: None,
                    prefetchable: bar.prefetchable,
                })
            })
            .collect();
    }
    facts.resource.iter().enumerate().take(6).filter_map(line).collect()
}

fn link([speed, width, max_speed, max_width]: &[String; 4]) -> Link {
    // The kernel writes 255 for a width it does not know (`PCIE_LNK_WIDTH_UNKNOWN`).
    let width_of = |text: &String| text.parse().ok().filter(|&width| width != 255);
    Link {
        speed: LinkSpeed::from_text(speed),
        width: width_of(width),
        max_speed: LinkSpeed::from_text(max_speed),
        max_width: width_of(max_width),
    }
}

fn machine(facts: &MachineFacts) -> Machine {
    let cpu = match (&facts.cpu_vendor, facts.cpu_family) {
        (Some(vendor), Some(family)) => {
            Some(Cpu { vendor: CpuVendor::from_word(vendor), family, model: facts.cpu_model })
        }
        _ => None,
    };
    let confidential = !facts.confidential_signs.is_empty();
    let in_guest = if confidential { Fact::Known(true) } else { facts.hypervisor_flag.into() };
    Machine {
        cpu,
        kernel: facts.kernel.as_ref().and_then(|release| release.parse().ok()),
        command_line: facts.command_line.clone(),
        p2pdma_configured: Fact::from(facts.kernel_config.get("CONFIG_PCI_P2PDMA").map(|value| value == "y")),
        kernel_config: facts.kernel_config.clone(),
        modules: facts.modules.clone(),
        iommu_address_bits: facts.iommu_address_bits,
        memory_map: facts.memory_map.iter().filter_map(|line| iomem::region(line)).collect(),
        in_guest,
        in_confidential_guest: match in_guest {
            Fact::Known(false) => Fact::Known(false),
            // A guest without a sign may be one whose driver is not loaded.
            _ if confidential => Fact::Known(true),
            _ => Fact::Unknown,
        },
        ..Machine::default()
    }
}

/// Whether a function without a group has no IOMMU in front of it.
///
/// A copy may hold the groups and lack what ties functions to them: then none of the
/// functions has one, and nothing follows.
fn groups_are_complete(snapshot: &Snapshot) -> bool {
    let tied = snapshot.functions.iter().any(|facts| facts.iommu_group.is_some());
    snapshot.machine.groups_listed && (snapshot.groups.is_empty() || tied)
}

fn group(facts: &GroupFacts) -> IommuGroup {
    let region = |line: &String| -> Option<ReservedRegion> {
        let mut words = line.split_whitespace();
        let mut address = || u64::from_str_radix(words.next()?.trim_start_matches("0x"), 16).ok().map(Iova::new);
        let (first, last) = (address()?, address()?);
        let range = AddrRange::from_inclusive(first, last)?;
        Some(ReservedRegion { range, kind: words.next()?.to_string() })
    };
    IommuGroup { id: facts.id, kind: facts.kind.clone(), reserved: facts.reserved.iter().filter_map(region).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine_of(snapshot: &Snapshot) -> Machine {
        builder(snapshot, Origin::Sysfs, &PciNames::built_in()).unwrap().machine().clone()
    }

    fn snapshot(groups: &[u32], group_of_function: Option<u32>) -> Snapshot {
        let function = FunctionFacts {
            address: "0000:00:01.0".into(),
            iommu_group: group_of_function,
            ..FunctionFacts::default()
        };
        let groups = groups.iter().map(|&id| GroupFacts { id, ..GroupFacts::default() }).collect();
        let machine = MachineFacts { groups_listed: true, ..MachineFacts::default() };
        Snapshot { machine, functions: vec![function], groups }
    }

    #[test]
    fn groups_that_no_function_is_tied_to_prove_nothing() {
        assert!(machine_of(&snapshot(&[], None)).groups_are_complete, "an IOMMU makes groups, so there is none");
        assert!(machine_of(&snapshot(&[3], Some(3))).groups_are_complete);
        assert!(!machine_of(&snapshot(&[3], None)).groups_are_complete, "the links were not copied");
        let mut unlisted = snapshot(&[], None);
        unlisted.machine.groups_listed = false;
        assert!(!machine_of(&unlisted).groups_are_complete);
    }

    #[test]
    fn a_guest_without_a_sign_may_still_be_confidential() {
        let of = |hypervisor_flag, signs: &[&str]| {
            let confidential_signs = signs.iter().map(|sign| sign.to_string()).collect();
            let machine = MachineFacts { hypervisor_flag, confidential_signs, ..MachineFacts::default() };
            let machine = machine_of(&Snapshot { machine, ..Snapshot::default() });
            (machine.in_guest, machine.in_confidential_guest)
        };
        assert_eq!(of(None, &[]), (Fact::Unknown, Fact::Unknown));
        assert_eq!(of(Some(false), &[]), (Fact::Known(false), Fact::Known(false)));
        assert_eq!(of(Some(true), &[]), (Fact::Known(true), Fact::Unknown));
        assert_eq!(of(None, &["arm-cca-dev"]), (Fact::Known(true), Fact::Known(true)));
    }
}
