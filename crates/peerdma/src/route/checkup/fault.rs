//! What an address is that an IOMMU or a port complained about.
//!
//! The number stood on the wire before any translation, so in a translated domain it
//! should have been an IOVA. If it is some BAR's address instead, a driver handed out the
//! wrong kind, the commonest mistake of all. Linux keeps IOVAs out of the windows of host
//! bridges (`iova_reserve_pci_windows`), so a hit there is no accident; a hit in RAM may
//! be one, because IOVAs are chosen below 4 GiB first, where RAM lies too. Whoever owns a device
//! through VFIO chooses its IOVAs freely, so there any hit may be one.

use crate::addr::{AddrRange, Address as _, BusAddr, Bytes, Iova, PhysAddr};
use crate::route::whose::{self, Reading, Thing};
use crate::topology::{FunctionId, MemoryRegion, Topology};
use alloc::format;
use alloc::string::{String, ToString};

/// What the number is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum SentKind {
    /// A BAR's address below the host bridge.
    Bus,
    /// A BAR's address as the CPU sees it, another number than below the host bridge.
    CpuPhysical,
    /// A BAR's address, which is one number on both sides.
    BusAndCpuPhysical,
    /// In a window of a port or host bridge, and in no BAR that is known.
    Window,
    /// In a region that the IOMMU does not translate, such as that of interrupts.
    Reserved,
    /// A number that RAM has too.
    Ram,
    /// Nothing known has it: an IOVA.
    Iova,
}

impl SentKind {
    /// The word used in text and JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Bus => "bus",
            Self::CpuPhysical => "cpu_physical",
            Self::BusAndCpuPhysical => "bus_and_cpu_physical",
            Self::Window => "window",
            Self::Reserved => "reserved",
            Self::Ram => "ram",
            Self::Iova => "iova",
        }
    }
}

/// What an address is, whose, and what that means.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Meaning {
    /// What the number is.
    pub kind: SentKind,
    /// Whose memory, where it is a BAR's.
    pub owner: Option<FunctionId>,
    /// The BAR with its function, likewise.
    pub bar: Option<String>,
    /// One sentence.
    pub words: String,
}

/// What `sent`, which `device` put on the wire, is.
pub fn meaning(topology: &Topology, device: Option<FunctionId>, sent: Iova) -> Meaning {
    let number = sent.as_u64();
    let one = Bytes::new(1);
    // Ranges of one byte always fit.
    let (Some(bus), Some(cpu), Some(iova)) = (
        AddrRange::new(BusAddr::from_raw(number), one),
        AddrRange::new(PhysAddr::from_raw(number), one),
        AddrRange::new(sent, one),
    ) else {
        return of_iova();
    };
    let below = match device.and_then(|device| whose::host_of(topology, device)) {
        Some(host) => whose::at_bus(topology, host, bus),
        None => whose::at_any_bus(topology, bus),
    };
    let above = whose::at_cpu(topology, cpu);
    let bar = |reading: &Reading| reading.owners.iter().rev().find_map(|owner| bar_of(topology, &owner.what));
    let (by_bus, by_cpu) = (bar(&below), bar(&above));
    let hit = match (&by_bus, &by_cpu) {
        (Some((owner, name)), Some((other, _))) if owner == other => Some((SentKind::BusAndCpuPhysical, *owner, name)),
        (Some((owner, name)), _) => Some((SentKind::Bus, *owner, name)),
        (None, Some((owner, name))) => Some((SentKind::CpuPhysical, *owner, name)),
        (None, None) => None,
    };
    if let Some((kind, owner, name)) = hit {
        let mut meaning = of_bar(kind, owner, name, device);
        if device.is_some_and(|device| topology.function(device).info().is_vfio_owned()) {
            meaning.words.push_str("; VFIO owns the sender, so it may also be an IOVA that its owner chose");
        }
        return meaning;
    }
    if let Some(kind) = reserved(topology, device, iova) {
        let words = format!("in a region that the IOMMU keeps for itself ({kind}), where nothing may be mapped");
        return Meaning { kind: SentKind::Reserved, owner: None, bar: None, words };
    }
    let in_window = |reading: &Reading| {
        reading.owners.iter().any(|owner| matches!(owner.what, Thing::PortWindow { .. } | Thing::HostWindow { .. }))
    };
    if in_window(&below) || in_window(&above) {
        let words = "in a window for devices and in no BAR that is known: a device's address where an IOVA was due";
        return Meaning { kind: SentKind::Window, owner: None, bar: None, words: words.into() };
    }
    let is_ram = |thing: &Thing| matches!(thing, Thing::Region(region) if region.name == MemoryRegion::SYSTEM_RAM);
    if above.owners.iter().any(|owner| is_ram(&owner.what)) {
        let words =
            "RAM has this number too: a CPU-physical address where an IOVA was due, or an IOVA that is not mapped";
        return Meaning { kind: SentKind::Ram, owner: None, bar: None, words: words.into() };
    }
    of_iova()
}

fn of_iova() -> Meaning {
    let words =
        "nothing known has this number: an IOVA that is not mapped, was unmapped too early, or not for this access";
    Meaning { kind: SentKind::Iova, owner: None, bar: None, words: words.into() }
}

fn of_bar(kind: SentKind, owner: FunctionId, name: &str, device: Option<FunctionId>) -> Meaning {
    let what = match kind {
        SentKind::Bus => "the bus address",
        SentKind::CpuPhysical => "the CPU-physical address",
        _ => "the bus and CPU-physical address",
    };
    let words = if device == Some(owner) {
        format!("{what} of its own {name}")
    } else {
        format!("{what} of {name}, where its IOMMU domain translates and an IOVA was due")
    };
    Meaning { kind, owner: Some(owner), bar: Some(name.to_string()), words }
}

fn bar_of(topology: &Topology, thing: &Thing) -> Option<(FunctionId, String)> {
    match thing {
        Thing::Bar { function, bar, .. } => {
            Some((*function, format!("{} bar{bar}", topology.function(*function).address())))
        }
        _ => None,
    }
}

/// The kind of the reserved region of the device's group, or of any where its group is not known.
fn reserved(topology: &Topology, device: Option<FunctionId>, sent: AddrRange<Iova>) -> Option<String> {
    let wanted = device.and_then(|device| topology.function(device).info().iommu_group);
    whose::at_iova(topology, sent).owners.into_iter().find_map(|owner| match owner.what {
        Thing::Reserved { group, kind, .. } if wanted.is_none_or(|wanted| wanted == group) => Some(kind.to_string()),
        _ => None,
    })
}
