//! Everything that sysfs says about a function and VFIO, and who uses it now.
//!
//! [`Place`] is enough to open a device. Whoever decides which to take wants more: what else is in its group, how it is
//! reset, and whether somebody would miss it: a file system on it, an interface that is up, a program that has it open.
//!
//! What cannot be seen is said too ([`Standing::unseen`]): other users' open files are root's to see.

use super::error::{Neighbour, OpenError};
use super::place::{DEVICES, GROUPS, Place, driver, folder};
use crate::tree::{Tree, resolve};
use peerdma::pcie::{PciAddr, PciId};
use std::fmt;

/// How a function stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Standing {
    /// Where it is with VFIO.
    pub place: Place,
    /// Its IDs; `None` where they are not read.
    pub id: Option<PciId>,
    /// Its class code, 24 bits.
    pub class: Option<u32>,
    /// The driver that it is kept for, whoever asks.
    pub kept_for: Option<String>,
    /// Every other function of its group.
    pub neighbours: Vec<Neighbour>,
    /// How the kernel resets it, the preferred way first; empty where it cannot, `None` where the kernel does not say.
    pub reset_methods: Option<Vec<String>>,
    /// Who would miss it.
    pub uses: Vec<Use>,
    /// What of that could not be looked at.
    pub unseen: Vec<&'static str>,
}

/// Somebody who uses a function.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Use {
    /// A file system lies on it.
    Mounted {
        /// The block device.
        block: String,
        /// Where it is mounted.
        at: String,
    },
    /// The machine swaps to it.
    Swap {
        /// The block device.
        block: String,
    },
    /// Another block device is made of it.
    Part {
        /// The block device.
        block: String,
        /// What is made of it, such as `dm-0` or `md127`.
        of: String,
    },
    /// An interface is up.
    Interface {
        /// Its name.
        name: String,
    },
    /// The console shows on it.
    Console,
    /// A program has it open through VFIO.
    Open {
        /// Its process.
        pid: u32,
        /// Its command's name, where that is known.
        command: Option<String>,
    },
}

impl fmt::Display for Use {
    /// Writes `nvme0n1p1 is mounted at /`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mounted { block, at } => write!(f, "{block} is mounted at {at}"),
            Self::Swap { block } => write!(f, "the machine swaps to {block}"),
            Self::Part { block, of } => write!(f, "{of} is made of {block}"),
            Self::Interface { name } => write!(f, "the interface {name} is up"),
            Self::Console => f.write_str("the console shows on it"),
            Self::Open { pid, command: Some(command) } => write!(f, "process {pid} ({command}) has it open"),
            Self::Open { pid, command: None } => write!(f, "process {pid} has it open"),
        }
    }
}

impl Standing {
    /// Reads how `device` stands.
    ///
    /// # Errors
    /// [`OpenError::Absent`] if sysfs knows no such function.
    ///
    /// # Examples
    /// ```no_run
    /// use peerdma_linux::{tree::Tree, vfio::standing::Standing};
    ///
    /// let standing = Standing::read(&Tree::live(), "0000:05:00.0".parse()?)?;
    /// standing.uses.iter().for_each(|user| println!("{user}"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn read(tree: &Tree, device: PciAddr) -> Result<Self, OpenError> {
        let place = Place::read(tree, device)?;
        let folder = folder(tree, device);
        let (id, class) = identity(tree, device);
        let kept_for =
            tree.text(&format!("{folder}/driver_override")).filter(|text| !text.is_empty() && text != "(null)");
        let neighbours = place.group.as_ref().map(|group| neighbours(tree, group.number, device)).unwrap_or_default();
        let reset_methods = reset_methods(tree, &folder);
        let mut unseen = Vec::new();
        let uses = uses(tree, &place, &mut unseen);
        Ok(Self { class, place, id, kept_for, neighbours, reset_methods, uses, unseen })
    }

    /// Reads how every function stands, in order of addresses.
    pub fn read_all(tree: &Tree) -> Vec<Self> {
        let mut devices: Vec<PciAddr> = tree.list(DEVICES).iter().filter_map(|name| name.parse().ok()).collect();
        devices.sort_unstable();
        devices.into_iter().filter_map(|device| Self::read(tree, device).ok()).collect()
    }

    /// Whether it is a bridge, which nobody takes: what is below it would go with it.
    pub fn is_bridge(&self) -> bool {
        self.class.is_some_and(|class| class >> 16 == 0x06)
    }
}

/// A function's IDs and its class code, 24 bits, as far as they are read.
pub(crate) fn identity(tree: &Tree, device: PciAddr) -> (Option<PciId>, Option<u32>) {
    let folder = folder(tree, device);
    // Config space serves where the copy holds nothing else; a virtual function has no IDs there.
    let config = tree.read(&format!("{folder}/config")).unwrap_or_default();
    let word = |at: usize| Some(u16::from_le_bytes(*config.get(at..)?.first_chunk()?)).filter(|word| *word != 0xffff);
    let number = |name: &str| hex(&tree.text(&format!("{folder}/{name}"))?);
    let id = |name: &str, at| number(name).and_then(|number| u16::try_from(number).ok()).or_else(|| word(at));
    let id = id("vendor", 0).zip(id("device", 2)).map(|(vendor, device)| PciId { vendor, device });
    let class = || Some(u32::from(word(10)?) << 8 | u32::from(*config.get(9)?));
    (id, number("class").or_else(class))
}

fn hex(text: &str) -> Option<u32> {
    u32::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok()
}

fn neighbours(tree: &Tree, group: u32, device: PciAddr) -> Vec<Neighbour> {
    let members = tree.list(&format!("{GROUPS}/{group}/devices")).into_iter().filter_map(|name| name.parse().ok());
    members
        .filter(|member| *member != device)
        .map(|member| Neighbour { device: member, driver: driver(tree, member) })
        .collect()
}

fn reset_methods(tree: &Tree, folder: &str) -> Option<Vec<String>> {
    match tree.text(&format!("{folder}/reset_method")) {
        Some(methods) => Some(methods.split_whitespace().map(Into::into).collect()),
        // A kernel from 5.15 on has the file exactly where there is a way; one before it has the other file there.
        None if tree.list(folder).iter().any(|name| name == "reset") => None,
        None => Some(Vec::new()),
    }
}

/// Names below a class that lead into the function's folder, each with the folder that it is.
fn below(tree: &Tree, class: &str, device: PciAddr) -> Vec<(String, String)> {
    let class = format!("sys/class/{class}");
    let inside = format!("/{device}/");
    let entries = tree.list(&class).into_iter().filter_map(|name| {
        let folder = resolve(&class, &tree.link(&format!("{class}/{name}"))?);
        // What is below a bridge is another function's.
        let whose = folder.rsplit('/').find_map(|part| part.parse::<PciAddr>().ok());
        (whose == Some(device) || shares_subsystem(tree, &folder, &inside)).then_some((name, folder))
    });
    entries.collect()
}

/// Whether a block device is one of several ways' (NVMe multipath), of which one leads here.
fn shares_subsystem(tree: &Tree, folder: &str, inside: &str) -> bool {
    let Some((subsystem, _)) = folder.rsplit_once('/').filter(|(above, _)| above.contains("/nvme-subsystem/")) else {
        return false;
    };
    let leads_here = |name: &String| tree.link(&format!("{subsystem}/{name}")).is_some_and(|to| to.contains(inside));
    tree.list(subsystem).iter().any(leads_here)
}

fn uses(tree: &Tree, place: &Place, unseen: &mut Vec<&'static str>) -> Vec<Use> {
    let device = place.device;
    let mut uses = Vec::new();
    if !tree.has_folder("sys/class") {
        unseen.push("which drives and interfaces there are");
    }
    let blocks = below(tree, "block", device);
    let mounts = tree.text("proc/self/mountinfo");
    let swaps = tree.text("proc/swaps");
    if !blocks.is_empty() && mounts.is_none() {
        unseen.push("what is mounted");
    }
    for (block, folder) in blocks {
        let number = tree.text(&format!("{folder}/dev"));
        let mounts = mounts.as_deref().unwrap_or_default().lines().filter_map(|line| {
            // Number, parent, major:minor, root, mount point.
            let mut words = line.split(' ').skip(2);
            let (of, at) = (words.next()?, words.nth(1)?);
            (Some(of) == number.as_deref()).then(|| Use::Mounted { block: block.clone(), at: at.into() })
        });
        uses.extend(mounts);
        let device_file = format!("/dev/{block}");
        let is_swap = |line: &str| line.split_whitespace().next() == Some(device_file.as_str());
        if swaps.as_deref().unwrap_or_default().lines().any(is_swap) {
            uses.push(Use::Swap { block: block.clone() });
        }
        let holders = tree.list(&format!("{folder}/holders")).into_iter();
        uses.extend(holders.map(|of| Use::Part { block: block.clone(), of }));
    }
    for (name, folder) in below(tree, "net", device) {
        let is_up =
            tree.text(&format!("{folder}/flags")).and_then(|flags| hex(&flags)).is_some_and(|flags| flags & 1 != 0);
        if is_up || tree.text(&format!("{folder}/operstate")).as_deref() == Some("up") {
            uses.push(Use::Interface { name });
        }
    }
    if tree.text(&format!("{}/boot_vga", folder(tree, device))).as_deref() == Some("1") && !place.is_vfio {
        uses.push(Use::Console);
    }
    if place.is_vfio {
        uses.extend(open(tree, place, unseen));
    }
    uses
}

/// Processes with the group's node or the function's own open.
fn open(tree: &Tree, place: &Place, unseen: &mut Vec<&'static str>) -> Vec<Use> {
    if !tree.is_live() {
        unseen.push("who has it open");
        return Vec::new();
    }
    let group = place.group.as_ref().map(|group| format!("/dev/vfio/{}", group.number));
    let node = place.node.as_ref().map(|node| format!("/dev/vfio/devices/{node}"));
    let files: Vec<String> = [group, node].into_iter().flatten().collect();
    let mut hidden = false;
    let mut users = Vec::new();
    for pid in tree.list("proc").iter().filter_map(|name| name.parse::<u32>().ok()) {
        let folder = format!("proc/{pid}/fd");
        let descriptors = std::fs::read_dir(format!("/{folder}"));
        hidden |= descriptors.is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied);
        let has = |name: &String| tree.link(&format!("{folder}/{name}")).is_some_and(|to| files.contains(&to));
        if tree.list(&folder).iter().any(has) {
            users.push(Use::Open { pid, command: tree.text(&format!("proc/{pid}/comm")) });
        }
    }
    if hidden {
        unseen.push("which other users' programs have it open");
    }
    users
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::tree::Node;

    /// A drive with a mounted partition, a network card that is up, an engine for VFIO beside its port.
    pub(in super::super) fn machine() -> Vec<(String, Node)> {
        let mut nodes = Vec::new();
        let mut file =
            |path: &str, text: &str| nodes.push((path.to_string(), Node::File(format!("{text}\n").into_bytes())));
        for (device, ids) in [("0000:03:00.0", "0x010802"), ("0000:04:00.0", "0x020000"), ("0000:05:00.0", "0x00ff00")]
        {
            let folder = format!("sys/devices/pci0000:00/{device}");
            for at in [&folder, &format!("{DEVICES}/{device}")] {
                file(&format!("{at}/vendor"), "0x1234");
                file(&format!("{at}/device"), "0x11e8");
                file(&format!("{at}/class"), ids);
                file(&format!("{at}/driver_override"), "(null)");
                file(&format!("{at}/reset_method"), if device.starts_with("0000:03") { "flr bus" } else { "bus" });
            }
        }
        file("sys/devices/pci0000:00/0000:03:00.0/nvme/nvme0/nvme0n1/nvme0n1p1/dev", "259:1");
        file("sys/devices/pci0000:00/0000:04:00.0/net/eth0/flags", "0x1003");
        file("proc/self/mountinfo", "22 1 259:1 / /srv/data rw,relatime shared:1 - ext4 /dev/nvme0n1p1 rw");
        file("proc/swaps", "Filename Type Size Used Priority");
        let mut link = |path: &str, to: &str| nodes.push((path.to_string(), Node::Link(to.to_string())));
        link("sys/class/block/nvme0n1p1", "../../devices/pci0000:00/0000:03:00.0/nvme/nvme0/nvme0n1/nvme0n1p1");
        link("sys/class/net/eth0", "../../devices/pci0000:00/0000:04:00.0/net/eth0");
        for (device, group, driver) in
            [("0000:03:00.0", 3, Some("nvme")), ("0000:04:00.0", 4, Some("e1000e")), ("0000:05:00.0", 4, None)]
        {
            link(&format!("{DEVICES}/{device}/iommu_group"), &format!("../../kernel/iommu_groups/{group}"));
            link(&format!("{GROUPS}/{group}/devices/{device}"), &format!("../../../devices/{device}"));
            if let Some(driver) = driver {
                link(&format!("{DEVICES}/{device}/driver"), &format!("../../bus/pci/drivers/{driver}"));
            }
        }
        nodes
    }

    fn read(device: &str) -> Standing {
        let tree = Tree::from_nodes(machine().into_iter().collect());
        Standing::read(&tree, device.parse().unwrap()).unwrap()
    }

    #[test]
    fn a_drive_with_a_mounted_partition_and_a_card_that_is_up_are_in_use() {
        let uses = |device| read(device).uses.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(uses("0000:03:00.0"), ["nvme0n1p1 is mounted at /srv/data"]);
        assert_eq!(uses("0000:04:00.0"), ["the interface eth0 is up"]);
        assert_eq!(uses("0000:05:00.0"), [""; 0]);
    }

    #[test]
    fn ids_neighbours_and_ways_of_reset_are_told() {
        let engine = read("0000:05:00.0");
        assert_eq!(engine.id, Some(PciId { vendor: 0x1234, device: 0x11e8 }));
        assert_eq!(engine.neighbours.iter().map(ToString::to_string).collect::<Vec<_>>(), ["0000:04:00.0 (e1000e)"]);
        assert_eq!(engine.kept_for, None);
        assert_eq!(read("0000:03:00.0").reset_methods, Some(vec!["flr".into(), "bus".into()]));
        let tree = Tree::from_nodes(machine().into_iter().collect());
        assert_eq!(Standing::read_all(&tree).len(), 3);
    }

    #[test]
    fn a_copy_without_mounts_does_not_say_that_nothing_is_mounted() {
        let mut nodes = machine();
        nodes.retain(|(path, _)| !path.starts_with("proc"));
        let tree = Tree::from_nodes(nodes.into_iter().collect());
        let drive = Standing::read(&tree, "0000:03:00.0".parse().unwrap()).unwrap();
        assert_eq!((drive.uses, drive.unseen), (vec![], vec!["what is mounted"]));
    }
}
