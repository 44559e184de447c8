//! From a [`Snapshot`]'s facts to a topology's builder.

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
        (Some(vendor), Some(family)) => Some(Cpu { vendor: CpuVendor::from_word(vendor), family }),
        _ => None,
    };
    Machine {
        cpu,
        kernel: facts.kernel.as_ref().and_then(|release| release.parse().ok()),
        command_line: facts.command_line.clone(),
        p2pdma_configured: Fact::from(facts.kernel_config.get("CONFIG_PCI_P2PDMA").map(|value| value == "y")),
        iommu: None,
    }
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
