//! What is said once, at boot or when a device is opened: windows, encryption, VFIO's trouble.

use super::line::{Line, hex, word_after};
use super::{Event, Kind};
use peerdma::addr::{AddrRange, BusAddr, PhysAddr};
use peerdma::topology::HostWindow;

pub(super) fn event(line: &Line<'_>) -> Option<Event> {
    let kind = host_window(line).or_else(|| encryption(line)).or_else(|| vfio(line))?;
    Some(line.event(kind))
}

/// `pci_bus 0000:00: root bus resource [mem 0x… window] (bus address [0x…])`, the latter where
/// the two differ (Linux 7.2 `pci_register_host_bridge`).
fn host_window(line: &Line<'_>) -> Option<Kind> {
    let (place, resource) = line.message.strip_prefix("pci_bus ")?.split_once(": root bus resource [mem ")?;
    let (domain, bus) = place.split_once(':')?;
    let range = |text: &str| {
        let (first, last) = text.split_once('-')?;
        Some((hex(first)?, hex(last)?))
    };
    let (first, last) = range(resource.split([' ', ']']).next()?)?;
    let cpu = AddrRange::from_inclusive(PhysAddr::new(first), PhysAddr::new(last))?;
    let below = match resource.split_once("(bus address [") {
        Some((_, bus_range)) => range(bus_range.split(']').next()?)?.0,
        None => first,
    };
    Some(Kind::HostWindow {
        domain: u32::from_str_radix(domain, 16).ok()?,
        bus: u8::from_str_radix(bus, 16).ok()?,
        window: HostWindow::new(cpu, BusAddr::new(below))?,
    })
}

/// `Memory Encryption Features active: AMD SEV SEV-ES SEV-SNP` (Linux 7.2 `print_mem_encrypt_feature_info`).
/// SME alone is a host's.
fn encryption(line: &Line<'_>) -> Option<Kind> {
    let features = line.rest.split_once("Memory Encryption Features active: ")?.1;
    let guest = features.split_whitespace().any(|word| word.starts_with("SEV") || word == "TDX");
    Some(Kind::MemoryEncryption { guest })
}

/// Lines of VFIO's and iommufd's modules that tell of trouble.
fn vfio(line: &Line<'_>) -> Option<Kind> {
    const TROUBLE: [&str; 9] = [
        "fail",
        "exceed",
        "can't",
        "cannot",
        "invalid",
        "no interrupt remapping",
        "not supported",
        "timed out",
        "blocked",
    ];
    let speaks = line.message.starts_with("vfio") || line.message.starts_with("iommufd");
    // Intel's driver refuses a device that firmware keeps for itself, which VFIO then cannot take.
    let reserved = line.rest.contains("Firmware has requested this device have a 1:1 IOMMU mapping");
    let said = line.message.to_ascii_lowercase();
    (reserved || speaks && word_after(line.message, " ").is_some() && TROUBLE.iter().any(|word| said.contains(word)))
        .then_some(Kind::Vfio)
}
