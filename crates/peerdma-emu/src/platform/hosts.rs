//! Checks what stands around the hierarchy: CPU, kernel, IOMMU, RAM, host bridges.

use super::error::{PlatformError, Source};
use super::model::{HostBridge, Iommu, Kernel, Ram, Window};
use super::number::{first_overlap, in_range, node, range};
use super::problem::{Buses, SurroundingsProblem};
use super::raw;
use super::words::{IommuKind, ModeWord, PeerForwarding};
use peerdma::topology::{Cpu, CpuVendor, IommuMode};
use toml::Spanned;

/// The machine's name, which is printed as it is.
pub(super) fn name(source: Source<'_>, raw: &raw::Named) -> Result<String, PlatformError> {
    let name = raw.name.get_ref();
    if name.trim().is_empty() || name.chars().any(char::is_control) {
        return Err(source.error(&raw.name.span(), SurroundingsProblem::PlatformName { name: name.clone() }));
    }
    Ok(name.clone())
}

pub(super) fn cpu(source: Source<'_>, raw: &raw::Cpu) -> Result<Cpu, PlatformError> {
    let word = raw.vendor.get_ref();
    let bad_vendor = || source.error(&raw.vendor.span(), SurroundingsProblem::CpuVendor { vendor: word.clone() });
    // The core's reader knows which words are misspelt; family 0 is only there to satisfy it.
    let Cpu { vendor, .. } = format!("{word}:0").parse().map_err(|_| bad_vendor())?;
    let family = match &raw.family {
        Some(family) => in_range(source, "family", (0, u32::MAX.into()), family)?,
        None if vendor == CpuVendor::Arm => 0,
        None => return Err(source.error(&raw.vendor.span(), SurroundingsProblem::CpuFamily)),
    };
    let model = match &raw.model {
        Some(model) => Some(in_range(source, "model", (0, u32::MAX.into()), model)?),
        None => None,
    };
    Ok(Cpu { vendor, family, model })
}

pub(super) fn kernel(source: Source<'_>, raw: &raw::Kernel) -> Result<Kernel, PlatformError> {
    let version = match &raw.version {
        None => None,
        Some(text) => Some(text.get_ref().parse().map_err(|_| {
            source.error(&text.span(), SurroundingsProblem::KernelVersion { version: text.get_ref().clone() })
        })?),
    };
    Ok(Kernel { version, cmdline: raw.cmdline.clone() })
}

pub(super) fn iommu(source: Source<'_>, raw: &raw::Iommu) -> Result<Iommu, PlatformError> {
    let kind = *raw.kind.get_ref();
    let mode = match (&raw.mode, kind) {
        (None, IommuKind::None) => IommuMode::None,
        (None, _) => return Err(source.error(&raw.kind.span(), SurroundingsProblem::IommuModeMissing)),
        (Some(mode), _) => match (*mode.get_ref(), kind) {
            (ModeWord::None, _) => IommuMode::None,
            (mode_word, IommuKind::None) => {
                return Err(source.error(&mode.span(), SurroundingsProblem::IommuModeWithoutIommu { mode: mode_word }));
            }
            (ModeWord::Translated, _) => IommuMode::Translated,
            (ModeWord::Identity, _) => IommuMode::Identity,
        },
    };
    Ok(Iommu { kind, mode })
}

/// How the IOMMU treats one function, where the file says so for it alone.
pub(super) fn mode_of(
    source: Source<'_>,
    raw: Option<&Spanned<ModeWord>>,
    iommu: Option<&Iommu>,
) -> Result<Option<IommuMode>, PlatformError> {
    let Some(mode) = raw else { return Ok(None) };
    let Some(iommu) = iommu else { return Err(source.error(&mode.span(), SurroundingsProblem::IommuTableMissing)) };
    let stated = match *mode.get_ref() {
        ModeWord::None => IommuMode::None,
        word if iommu.mode == IommuMode::None => {
            return Err(source.error(&mode.span(), SurroundingsProblem::FunctionNeedsIommu { mode: word }));
        }
        ModeWord::Translated => IommuMode::Translated,
        ModeWord::Identity => IommuMode::Identity,
    };
    Ok(Some(stated))
}

pub(super) fn ram(source: Source<'_>, raw: &[raw::Ram]) -> Result<Vec<Ram>, PlatformError> {
    let mut ram = Vec::with_capacity(raw.len());
    for stretch in raw {
        let range = range(source, "base", &stretch.base, &stretch.size)?;
        ram.push(Ram { range, node: node(source, stretch.node.as_ref())? });
    }
    let ranges: Vec<_> = ram.iter().map(|stretch| stretch.range).collect();
    match first_overlap(&ranges) {
        None => Ok(ram),
        Some((first, second)) => {
            let line = source.line(&raw[first].base.span());
            Err(source.error(&raw[second].base.span(), SurroundingsProblem::RamOverlaps { line }))
        }
    }
}

pub(super) fn host_bridges(source: Source<'_>, raw: &[raw::HostBridge]) -> Result<Vec<HostBridge>, PlatformError> {
    let hosts = raw.iter().map(|raw| host_bridge(source, raw)).collect::<Result<Vec<_>, _>>()?;
    buses_apart(source, raw, &hosts)?;
    windows_apart(source, raw, &hosts)?;
    Ok(hosts)
}

fn host_bridge(source: Source<'_>, raw: &raw::HostBridge) -> Result<HostBridge, PlatformError> {
    let segment = match &raw.segment {
        Some(segment) => in_range(source, "segment", (0, u32::MAX.into()), segment)?,
        None => 0,
    };
    let (root_bus, last_bus) = match &raw.buses {
        None => (0, u8::MAX),
        Some(buses) => {
            let [first, last] = buses.get_ref().as_slice() else {
                return Err(
                    source.error(&buses.span(), SurroundingsProblem::NotTwoBuses { found: buses.get_ref().len() })
                );
            };
            let first: u8 = in_range(source, "buses", (0, 0xff), first)?;
            let last: u8 = in_range(source, "buses", (0, 0xff), last)?;
            if last < first {
                return Err(source.error(&buses.span(), SurroundingsProblem::BusesReversed { first, last }));
            }
            (first, last)
        }
    };
    let windows = raw.windows.iter().map(|raw| window(source, &raw.0)).collect::<Result<_, _>>()?;
    Ok(HostBridge {
        name: raw.name.get_ref().clone(),
        segment,
        root_bus,
        last_bus,
        node: node(source, raw.node.as_ref())?,
        first_device: raw.first_device.as_ref().map(|id| id.get_ref().0),
        windows,
        peer: raw.peer.unwrap_or(PeerForwarding::Unknown),
        replaces_requester: raw.replaces_requester.unwrap_or(false),
        between_ports: raw.between_ports.unwrap_or(false),
    })
}

fn window(source: Source<'_>, raw: &raw::Window) -> Result<Window, PlatformError> {
    Ok(Window {
        cpu: range(source, "cpu", &raw.cpu, &raw.size)?,
        bus: range(source, "bus", &raw.bus, &raw.size)?,
        prefetchable: raw.prefetch.unwrap_or(false),
    })
}

/// No bus of a segment belongs to two host bridges.
fn buses_apart(source: Source<'_>, raw: &[raw::HostBridge], hosts: &[HostBridge]) -> Result<(), PlatformError> {
    let mut order: Vec<usize> = (0..hosts.len()).collect();
    order.sort_by_key(|&index| (hosts[index].segment, hosts[index].root_bus, index));
    for pair in order.windows(2) {
        let &[a, b] = pair else { continue };
        if hosts[a].segment != hosts[b].segment || hosts[b].root_bus > hosts[a].last_bus {
            continue;
        }
        let (first, second) = (a.min(b), a.max(b));
        let host = &hosts[second];
        let span = raw[second].buses.as_ref().map_or(raw[second].name.span(), Spanned::span);
        return Err(source.error(
            &span,
            SurroundingsProblem::HostBridgesCross {
                buses: Buses { first: host.root_bus, last: host.last_bus },
                segment: host.segment,
                other: hosts[first].name.clone(),
                line: source.line(&raw[first].name.span()),
            },
        ));
    }
    Ok(())
}

/// The CPU addresses one window at most, and so does the bus of each host bridge.
fn windows_apart(source: Source<'_>, raw: &[raw::HostBridge], hosts: &[HostBridge]) -> Result<(), PlatformError> {
    let overlap = |spans: &[std::ops::Range<usize>], (first, second): (usize, usize), space| {
        let line = source.line(&spans[first]);
        source.error(&spans[second], SurroundingsProblem::WindowsOverlap { space, line })
    };
    for (raw, host) in raw.iter().zip(hosts) {
        let ranges: Vec<_> = host.windows.iter().map(|window| window.bus).collect();
        if let Some(pair) = first_overlap(&ranges) {
            let spans: Vec<_> = raw.windows.iter().map(|window| window.0.bus.span()).collect();
            return Err(overlap(&spans, pair, "bus"));
        }
    }
    let ranges: Vec<_> = hosts.iter().flat_map(|host| &host.windows).map(|window| window.cpu).collect();
    match first_overlap(&ranges) {
        None => Ok(()),
        Some(pair) => {
            let windows = raw.iter().flat_map(|raw| &raw.windows);
            let spans: Vec<_> = windows.map(|window| window.0.cpu.span()).collect();
            Err(overlap(&spans, pair, "cpu"))
        }
    }
}
