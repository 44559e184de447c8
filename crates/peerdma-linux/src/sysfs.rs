//! Reads a [`Tree`] into a [`Snapshot`].
//!
//! Linux 7.2 `Documentation/ABI/testing/sysfs-bus-pci`. Where a function hangs is
//! told by the real path of its device folder, which starts at the last
//! `pciDDDD:BB` (a root bus; Intel VMD's child domains have one of their own below
//! another function) and names every bridge on the way, also ones without a folder
//! of their own in a copied tree.

use crate::iomem;
use crate::kernel_config;
use crate::snapshot::{FunctionFacts, GroupFacts, MachineFacts, Snapshot, to_hex};
use crate::tree::{Tree, resolve};
use peerdma::pcie::PciAddr;
use peerdma::pcie::config::{ConfigBytes, ConfigSize};
use peerdma::topology::Cpu;
use std::collections::BTreeMap;

const DEVICES: &str = "sys/bus/pci/devices";
const GROUPS: &str = "sys/kernel/iommu_groups";
/// Most names of one function: a GPU with all its engines has a dozen.
const MAX_NAMES: usize = 64;

/// Reads everything peerdma wants to know.
pub fn read(tree: &Tree) -> Snapshot {
    let mut functions: Vec<FunctionFacts> =
        device_folders(tree).into_iter().map(|(address, folder)| function(tree, address, &folder)).collect();
    functions.sort_by_key(|facts| facts.address.parse::<PciAddr>().ok());
    // Whoever reads more than anybody may was allowed to read all.
    let privileged = if functions.iter().any(|facts| facts.config.len() / 2 > open_to_all(facts)) {
        Some(true)
    } else {
        functions.iter().any(|facts| facts.config.len() / 2 >= 64).then_some(false)
    };
    let mut machine = machine(tree);
    machine.privileged = privileged;
    machine.groups_listed = tree.has_folder(GROUPS);
    let groups = groups(tree);
    tie_to_groups(tree, &groups, &mut functions);
    Snapshot { machine, functions, groups }
}

/// Bytes of config space that the kernel shows to anybody: 128 of a CardBus bridge
/// (header type 2), 64 of all others (Linux 7.2 `pci_read_config`).
fn open_to_all(facts: &FunctionFacts) -> usize {
    // The header type is the byte at 0x0e; its top bit tells of other functions.
    let is_cardbus = matches!(facts.config.get(0x1c..0x1e), Some("02" | "82"));
    if is_cardbus { 128 } else { 64 }
}

/// Device folders by address: through the bus's links, and where a copy lacks
/// those, by walking the devices.
fn device_folders(tree: &Tree) -> BTreeMap<PciAddr, String> {
    let mut folders = BTreeMap::new();
    for name in tree.list(DEVICES) {
        let Ok(address) = name.parse::<PciAddr>() else { continue };
        let folder = match tree.link(&format!("{DEVICES}/{name}")) {
            Some(target) => resolve(DEVICES, &target),
            // A copy that followed links has a folder here, which shows no path.
            None => format!("{DEVICES}/{name}"),
        };
        // A link that leads anywhere but to the function itself is none of sysfs.
        if folder.rsplit('/').next() != Some(&name) {
            continue;
        }
        folders.insert(address, folder);
    }
    // A copy may lack links, all or some; the live tree never does.
    if !tree.is_live() {
        let is_address = |name: &str| name.contains('.') && name.parse::<PciAddr>().is_ok();
        for folder in tree.find_folders("sys/devices", &is_address) {
            let name = folder.rsplit('/').next().unwrap_or_default();
            let Ok(address) = name.parse::<PciAddr>() else { continue };
            if !folders.contains_key(&address) && tree.read(&format!("{folder}/config")).is_some() {
                folders.insert(address, folder);
            }
        }
    }
    folders
}

/// The root bus and the bridges that a device's real path names.
fn path_of(folder: &str) -> (Option<String>, Vec<String>) {
    let mut root = None;
    let mut bridges: Vec<String> = Vec::new();
    for part in folder.split('/') {
        if let Some(bus) = part.strip_prefix("pci").filter(|bus| is_root_bus(bus)) {
            root = Some(bus.to_string());
            bridges.clear();
        } else if root.is_some() && part.parse::<PciAddr>().is_ok() {
            bridges.push(part.to_string());
        }
    }
    // The last one is the device itself.
    bridges.pop();
    (root, bridges)
}

fn is_root_bus(text: &str) -> bool {
    text.split_once(':').is_some_and(|(domain, bus)| {
        u32::from_str_radix(domain, 16).is_ok() && bus.len() == 2 && u8::from_str_radix(bus, 16).is_ok()
    })
}

fn function(tree: &Tree, address: PciAddr, folder: &str) -> FunctionFacts {
    let text = |name: &str| tree.text(&format!("{folder}/{name}"));
    let hex = |name: &str| text(name).and_then(|text| u32::from_str_radix(text.strip_prefix("0x")?, 16).ok());
    let number = |name: &str| text(name).and_then(|text| text.parse::<u32>().ok());
    let config = tree.read(&format!("{folder}/config")).unwrap_or_default();
    let config_size = tree
        .live_length(&format!("{folder}/config"))
        .and_then(|len| u16::try_from(len).ok())
        .filter(|len| matches!(len, 256 | 4096));
    let config = if tree.is_live() {
        ConfigBytes::new(config, ConfigSize::Unknown)
    } else {
        ConfigBytes::from_copied_file(config)
    };
    let (root_bus, bridges) = path_of(folder);
    let link = || {
        let part = |name: &str| text(name).unwrap_or_default();
        let link = ["current_link_speed", "current_link_width", "max_link_speed", "max_link_width"].map(part);
        link.iter().any(|part| !part.is_empty()).then_some(link)
    };
    FunctionFacts {
        address: address.to_string(),
        root_bus,
        bridges,
        config: to_hex(config.bytes()),
        config_size,
        vendor: hex("vendor").and_then(|id| u16::try_from(id).ok()),
        device: hex("device").and_then(|id| u16::try_from(id).ok()),
        class: hex("class").filter(|&class| class < 1 << 24),
        resource: text("resource")
            .map(|text| text.lines().take(32).map(|line| line.trim().to_string()).collect())
            .unwrap_or_default(),
        numa_node: number("numa_node"),
        driver: tree.link_name(&format!("{folder}/driver")),
        iommu_group: tree.link_name(&format!("{folder}/iommu_group")).and_then(|name| name.parse().ok()),
        physfn: tree.link_name(&format!("{folder}/physfn")).filter(|name| name.parse::<PciAddr>().is_ok()),
        sriov_num_vfs: number("sriov_numvfs").and_then(|count| u16::try_from(count).ok()),
        names: names(tree, folder),
        link: link(),
        dma_mask_bits: number("dma_mask_bits").and_then(|bits| u8::try_from(bits).ok()),
    }
}

/// Names under which people know a function, from the class folders below it.
fn names(tree: &Tree, folder: &str) -> Vec<String> {
    const CLASSES: [&str; 6] = ["net", "nvme", "infiniband", "drm", "accel", "block"];
    let mut names = Vec::new();
    let mut folders = vec![folder.to_string()];
    // Paravirtual devices put their classes one level down.
    folders.extend(
        tree.list(folder).into_iter().filter(|name| name.starts_with("virtio")).map(|name| format!("{folder}/{name}")),
    );
    for folder in folders {
        for class in CLASSES {
            for name in tree.list(&format!("{folder}/{class}")) {
                // Connectors such as card0-HDMI-A-1 and links such as net/…/device are no devices.
                let plain = !name.contains('-') || class == "net";
                if plain && names.len() < MAX_NAMES && !names.contains(&name) {
                    names.push(name);
                }
            }
        }
    }
    names
}

/// Groups list their members too, which serves where a copy lacks functions' own links.
fn tie_to_groups(tree: &Tree, groups: &[GroupFacts], functions: &mut [FunctionFacts]) {
    if functions.iter().all(|facts| facts.iommu_group.is_some()) {
        return;
    }
    let mut members: BTreeMap<String, u32> = BTreeMap::new();
    for group in groups {
        members.extend(tree.list(&format!("{GROUPS}/{}/devices", group.id)).into_iter().map(|name| (name, group.id)));
    }
    for facts in functions.iter_mut().filter(|facts| facts.iommu_group.is_none()) {
        facts.iommu_group = members.get(&facts.address).copied();
    }
}

fn groups(tree: &Tree) -> Vec<GroupFacts> {
    let mut groups: Vec<GroupFacts> = tree
        .list(GROUPS)
        .into_iter()
        .filter_map(|name| {
            let id = name.parse().ok()?;
            let reserved = tree.text(&format!("{GROUPS}/{name}/reserved_regions")).unwrap_or_default();
            Some(GroupFacts {
                id,
                kind: tree.text(&format!("{GROUPS}/{name}/type")),
                reserved: reserved
                    .lines()
                    .map(|line| line.trim().to_string())
                    .filter(|line| !line.is_empty())
                    .collect(),
            })
        })
        .collect();
    groups.sort_by_key(|group: &GroupFacts| group.id);
    groups
}

fn machine(tree: &Tree) -> MachineFacts {
    let cpuinfo = tree.read("proc/cpuinfo").map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let cpu = cpuinfo.as_deref().and_then(Cpu::from_cpuinfo);
    let flags = cpuinfo.as_deref().and_then(cpu_flags);
    let kernel = tree
        .text("proc/version")
        .and_then(|text| Some(text.strip_prefix("Linux version ")?.split_whitespace().next()?.to_string()))
        // hwloc's collector leaves proc/version out and writes this file instead.
        .or_else(|| {
            let info = tree.text("proc/hwloc-nofile-info")?;
            info.lines().find_map(|line| line.strip_prefix("OSRelease: ").map(|release| release.trim().to_string()))
        });
    MachineFacts {
        cpu_vendor: cpu.as_ref().map(|cpu| cpu.vendor.to_string()),
        cpu_family: cpu.as_ref().map(|cpu| cpu.family),
        cpu_model: cpu.as_ref().and_then(|cpu| cpu.model),
        hypervisor_flag: flags.as_ref().map(|flags| flags.contains(&"hypervisor")),
        confidential_signs: confidential_signs(tree, flags.as_deref().unwrap_or_default()),
        modules: tree.read("proc/modules").map(|bytes| modules(&String::from_utf8_lossy(&bytes))),
        memory_map: tree
            .read("proc/iomem")
            .map(|bytes| iomem::lines(&String::from_utf8_lossy(&bytes)))
            .unwrap_or_default(),
        iommu_address_bits: iommu_address_bits(tree),
        // Filled in where the groups are read.
        groups_listed: false,
        kernel_config: kernel_config::read(tree, kernel.as_deref()),
        kernel,
        command_line: tree.text("proc/cmdline"),
        privileged: None,
    }
}

/// VT-d units tell their Maximum Guest Address Width in bits 21:16 of the capability
/// register (VT-d 4.1 §11.4.2), less one. Other IOMMUs show nothing of the kind in sysfs.
fn iommu_address_bits(tree: &Tree) -> Option<u8> {
    const UNITS: &str = "sys/devices/virtual/iommu";
    let width = |unit: &String| {
        let capability = tree.text(&format!("{UNITS}/{unit}/intel-iommu/cap"))?;
        let capability = u64::from_str_radix(capability.trim_start_matches("0x"), 16).ok()?;
        Some((capability >> 16 & 0x3f) as u8 + 1)
    };
    tree.list(UNITS).iter().filter_map(width).min()
}

/// The flags of the first processor, from a line that is whole.
fn cpu_flags(cpuinfo: &str) -> Option<Vec<&str>> {
    let whole = cpuinfo.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
    let flags = whole.filter_map(|line| line.split_once(':')).find(|(key, _)| key.trim() == "flags")?.1;
    Some(flags.split_whitespace().collect())
}

/// What only a guest with confidential memory has: the device through which it asks
/// for attestation reports, or TDX's flag.
fn confidential_signs(tree: &Tree, flags: &[&str]) -> Vec<String> {
    const DEVICES: [&str; 3] =
        ["sys/class/misc/sev-guest", "sys/class/misc/tdx_guest", "sys/devices/platform/arm-cca-dev"];
    let mut signs: Vec<String> = DEVICES
        .into_iter()
        .filter(|path| tree.link(path).is_some() || tree.has_folder(path))
        .filter_map(|path| path.rsplit('/').next().map(str::to_string))
        .collect();
    if flags.contains(&"tdx_guest") && !signs.iter().any(|sign| sign == "tdx_guest") {
        signs.push("tdx_guest".into());
    }
    signs
}

/// Names of `/proc/modules`, each the first word of a whole line.
fn modules(text: &str) -> Vec<String> {
    /// A kernel of a distribution loads some two hundred.
    const MAX_MODULES: usize = 4096;
    let plain = |name: &&str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        name.len() < 64 && name.bytes().all(is_plain)
    };
    text.split_inclusive('\n')
        .filter_map(|line| line.strip_suffix('\n')?.split_whitespace().next())
        .filter(plain)
        .take(MAX_MODULES)
        .map(str::to_string)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Node;

    #[test]
    fn a_path_starts_at_its_last_root_bus() {
        let (root, bridges) = path_of("sys/devices/pci0000:00/0000:00:0e.0/pci10000:e0/10000:e0:1d.0/10000:e1:00.0");
        assert_eq!(root.as_deref(), Some("10000:e0"));
        assert_eq!(bridges, ["10000:e0:1d.0"]);
        let (root, bridges) = path_of("sys/devices/platform/40000000.pcie/pci0001:00/0001:00:00.0");
        assert_eq!((root.as_deref(), bridges.len()), (Some("0001:00"), 0));
        assert_eq!(path_of("sys/bus/pci/devices/0000:00:00.0"), (None, vec![]));
    }

    fn tree_of(files: &[(&str, &str)]) -> Tree {
        let node = |(path, text): &(&str, &str)| match text.strip_prefix("-> ") {
            Some(target) => (path.to_string(), Node::Link(target.to_string())),
            None => (path.to_string(), Node::File(text.as_bytes().to_vec())),
        };
        Tree::from_nodes(files.iter().map(node).collect())
    }

    #[test]
    fn what_was_not_read_of_the_machine_is_not_told() {
        let facts = read(&tree_of(&[("sys/bus/pci/devices/x", "")])).machine;
        assert_eq!(facts, MachineFacts::default());
        let cut = read(&tree_of(&[("proc/cpuinfo", "flags : fpu hyperv")])).machine;
        assert_eq!(cut.hypervisor_flag, None, "the line is cut");
    }

    #[test]
    fn the_machine_around_the_functions_is_read() {
        let facts = read(&tree_of(&[
            (
                "proc/cpuinfo",
                "vendor_id : GenuineIntel\ncpu family : 6\nmodel : 167\nflags : fpu hypervisor tdx_guest\n",
            ),
            ("proc/modules", "nvme 65536 1 - Live 0x0\nib_core 1 0 - Live 0x0\nvfio_pc"),
            ("proc/iomem", "00001000-00001fff : System RAM\n"),
            ("sys/class/misc/tdx_guest", "-> ../../devices/virtual/misc/tdx_guest"),
            ("sys/devices/virtual/iommu/dmar0/intel-iommu/cap", "d2008c40660462\n"),
            ("sys/devices/virtual/iommu/dmar1/intel-iommu/cap", "1c0000c40260462\n"),
        ]))
        .machine;
        assert_eq!(facts.iommu_address_bits, Some(39), "the narrowest unit counts");
        assert_eq!((facts.cpu_model, facts.hypervisor_flag), (Some(167), Some(true)));
        assert_eq!(facts.modules.unwrap(), ["nvme", "ib_core"], "the last line is cut");
        assert_eq!((facts.memory_map.len(), facts.confidential_signs), (1, vec!["tdx_guest".to_string()]));
        assert!(!facts.groups_listed);
    }

    #[test]
    fn a_group_s_list_of_members_serves_where_a_function_s_link_is_missing() {
        let function = "sys/devices/pci0000:00/0000:00:01.0";
        let config = format!("{function}/config");
        let snapshot = read(&tree_of(&[
            (config.as_str(), "x"),
            ("sys/kernel/iommu_groups/7/type", "DMA"),
            ("sys/kernel/iommu_groups/7/devices/0000:00:01.0", "-> ../../../../devices/pci0000:00/0000:00:01.0"),
        ]));
        assert_eq!(snapshot.functions[0].iommu_group, Some(7));
        assert!(snapshot.machine.groups_listed);
    }
}
