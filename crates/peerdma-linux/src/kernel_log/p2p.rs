//! What p2pdma and `pci=` say (Linux 7.2 `drivers/pci/p2pdma.c`, `drivers/pci/pci.c`).

use super::line::{Line, word_after};
use super::{Event, Kind};
use peerdma::pcie::{PciAddr, PciId};

pub(super) fn event(line: &Line<'_>) -> Option<Event> {
    let rest = line.rest;
    let provider = || -> Option<PciAddr> { word_after(rest, "provider (")?.parse().ok() };
    let kind = if rest.contains("cannot be used for peer-to-peer DMA as it is not a PCI device") {
        Kind::P2pNotPci
    } else if rest.contains("cannot be used for peer-to-peer DMA") {
        Kind::P2pRefused { provider: provider() }
    } else if rest.contains("ACS redirect is set between") {
        Kind::P2pRedirected { provider: provider() }
    } else if let Some((_, parameter)) =
        rest.split_once("add the kernel parameter: ").filter(|(before, _)| before.contains("ACS redirect"))
    {
        let clean = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
        Kind::P2pHint { parameter: parameter.trim().chars().map(clean).collect() }
    } else if let Some(ids) = word_after(rest, "Host bridge not in P2PDMA whitelist: ") {
        let (vendor, device) = ids.split_once(':')?;
        let id = |digits: &str| u16::from_str_radix(digits, 16).ok();
        Kind::HostBridgeNotListed { id: PciId { vendor: id(vendor)?, device: id(device)? } }
    } else if is_about_parameters(rest) {
        Kind::ParameterUnread
    } else {
        return None;
    };
    Some(line.event(kind))
}

fn is_about_parameters(rest: &str) -> bool {
    let pci = rest.strip_prefix("PCI: ");
    pci.is_some_and(|said| {
        said.starts_with("Unknown option `") || said.starts_with("Can't parse") && said.contains("parameter")
    }) || rest == "ACS Flags missing"
        || rest.starts_with("Invalid ACS flags")
}
