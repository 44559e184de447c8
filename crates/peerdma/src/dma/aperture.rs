//! Which IOVAs an initiator's domain may hand out.
//!
//! Not all that an IOMMU can map is fit. What a host bridge's windows show below it never
//! reaches the IOMMU where a port claims it, so an IOVA with the number of a peer's BAR goes
//! to that peer (Linux 7.2 `iova_reserve_pci_windows` leaves those out, which is what lets bus
//! addresses and translated traffic coexist). Nor does what lies outside the ranges in which
//! the bridge takes requests, or the window of message-signalled interrupts.
//!
//! Where Linux reserves one granule too many at the start of each range in which requests are
//! taken (`iova_reserve_pci_windows`, an inclusive bound), this does not.

use super::abilities::Abilities;
use super::reach::bridge_of;
use super::windows::Windows;
use crate::addr::{AddrRange, BusAddr, Bytes, Iova};
use crate::iova::{Allocator, ExcludeError, NothingUsable};
use crate::topology::{FunctionId, HostBridgeId, Topology};
use alloc::vec::Vec;

/// Where x86 takes a write for an interrupt; inclusive.
pub const X86_INTERRUPTS: (Iova, Iova) = (Iova::new(0xfee0_0000), Iova::new(0xfeef_ffff));

/// Why no allocator was made.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApertureError {
    /// The space maps nothing.
    #[error(transparent)]
    NothingUsable(#[from] NothingUsable),
    /// A range could not be left out.
    #[error(transparent)]
    Exclude(#[from] ExcludeError),
}

/// The free IOVAs of a domain in which `initiators` are.
///
/// Left out are: what the windows of their host bridges show (where the input tells no windows, the
/// BARs below each bridge; where it does not tell which host bridge an initiator is below, both of
/// all of them), what their IOMMU groups reserve, what lies outside `inbound` where that is
/// not one to one, and [`X86_INTERRUPTS`], which no space on any architecture misses.
///
/// # Errors
/// [`ApertureError`]; attach a device first, or take another space.
pub fn iovas_for(
    abilities: &Abilities,
    topology: &Topology,
    initiators: &[FunctionId],
    inbound: &Windows,
) -> Result<Allocator, ApertureError> {
    let mut free = Allocator::new(abilities.granule, &abilities.usable)?;
    let bridges: Vec<Option<HostBridgeId>> = initiators.iter().map(|at| bridge_of(topology, *at)).collect();
    let anywhere = bridges.contains(&None);
    let mut taken: Vec<(u64, u64)> = Vec::new();
    if anywhere {
        taken.extend(bars_below(topology, None).map(|bar| numbers(&bar)));
    }
    for (bridge, host) in topology.host_bridges().filter(|(bridge, _)| anywhere || bridges.contains(&Some(*bridge))) {
        let windows = &host.facts().windows;
        taken.extend(windows.iter().map(|window| numbers(&window.bus())));
        if windows.is_empty() {
            taken.extend(bars_below(topology, Some(bridge)).map(|bar| numbers(&bar)));
        }
    }
    let groups: Vec<u32> = initiators.iter().filter_map(|at| topology.function(*at).info().iommu_group).collect();
    for group in topology.groups().iter().filter(|group| groups.contains(&group.id)) {
        taken.extend(group.reserved.iter().map(|region| (region.range.start().as_u64(), region.range.last().as_u64())));
    }
    taken.push((X86_INTERRUPTS.0.as_u64(), X86_INTERRUPTS.1.as_u64()));
    taken.extend(outside(inbound));
    for (first, last) in taken {
        if let Some(range) = whole_granules(first, last, abilities.granule.bytes()) {
            free.exclude(range)?;
        }
    }
    Ok(free)
}

fn numbers(range: &AddrRange<BusAddr>) -> (u64, u64) {
    (range.start().as_u64(), range.last().as_u64())
}

/// BARs of functions below one host bridge, or below one that is not told, where their bus addresses and
/// sizes are known.
fn bars_below(topology: &Topology, bridge: Option<HostBridgeId>) -> impl Iterator<Item = AddrRange<BusAddr>> + '_ {
    let below = topology.functions().filter(move |(id, _)| bridge_of(topology, *id) == bridge);
    below.flat_map(|(_, function)| {
        let bars = function.info().bars.iter();
        bars.filter_map(|bar| AddrRange::new(bar.bus?, bar.size.or(bar.cpu.map(|range| range.len()))?))
    })
}

/// What lies outside the windows through which the bridge takes requests.
fn outside(inbound: &Windows) -> Vec<(u64, u64)> {
    let mut shown: Vec<(u64, u64)> = inbound.as_slice().iter().map(|window| numbers(&window.bus())).collect();
    shown.sort_unstable();
    let mut gaps = Vec::new();
    let mut next = Some(0_u64);
    if shown.is_empty() {
        return gaps;
    }
    for (first, last) in shown {
        if let Some(start) = next
            && start < first
        {
            gaps.push((start, first - 1));
        }
        next = next.and_then(|start| last.checked_add(1).map(|end| end.max(start)));
    }
    gaps.extend(next.map(|start| (start, u64::MAX)));
    gaps
}

/// `first..=last` rounded out to whole granules; the very last granule of 64 bits is cut by a byte,
/// since no length holds all of them.
fn whole_granules(first: u64, last: u64, granule: Bytes) -> Option<AddrRange<Iova>> {
    let mask = granule.as_u64() - 1;
    let (first, last) = (first & !mask, last | mask);
    let last = if first == 0 && last == u64::MAX { last - 1 } else { last };
    AddrRange::from_inclusive(Iova::new(first), Iova::new(last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::PhysAddr;
    use crate::dma::recording::Profile;
    use crate::iova::Want;
    use crate::topology::{Builder, FunctionInfo, HostBridgeFacts, HostWindow, Position};

    fn range(first: u64, last: u64) -> AddrRange<Iova> {
        AddrRange::from_inclusive(Iova::new(first), Iova::new(last)).unwrap()
    }

    fn window(cpu: u64, bus: u64, len: u64) -> HostWindow {
        HostWindow::new(AddrRange::new(PhysAddr::new(cpu), Bytes::new(len)).unwrap(), BusAddr::new(bus)).unwrap()
    }

    fn machine(windows: Vec<HostWindow>) -> (Topology, FunctionId) {
        let mut builder = Builder::new();
        let mut info = FunctionInfo::new("00:01.0".parse().unwrap(), Position::RootBus { bus: 0 });
        let bar = AddrRange::new(PhysAddr::new(0x9000_0000), Bytes::new(0x10_0000));
        let size = bar.map(|bar| bar.len());
        info.bars = [crate::topology::Bar {
            index: 0,
            cpu: bar,
            bus: Some(BusAddr::new(0x9000_0000)),
            size,
            prefetchable: false,
        }]
        .into();
        builder.function(info);
        builder.host_bridge(0, 0, HostBridgeFacts { windows, ..HostBridgeFacts::default() });
        let topology = builder.build();
        let at = topology.at("00:01.0".parse().unwrap()).unwrap();
        (topology, at)
    }

    #[test]
    fn what_a_host_bridge_shows_is_never_handed_out_as_an_iova() {
        let (topology, at) = machine([window(0x60_8000_0000, 0x8000_0000, 0x4000_0000)].into());
        let mut free = iovas_for(&Profile::Type1.abilities(), &topology, &[at], &Windows::one_to_one()).unwrap();
        assert!(free.claim(range(0x8000_0000, 0x8000_0fff)).is_err(), "the window as the bus counts it");
        assert!(free.claim(range(0xbfff_f000, 0xbfff_ffff)).is_err());
        assert_eq!(free.claim(range(0x7fff_f000, 0x7fff_ffff)), Ok(()));
        assert_eq!(free.claim(range(0xc000_0000, 0xc000_0fff)), Ok(()));
        assert!(free.claim(range(0xfee0_0000, 0xfee0_0fff)).is_err(), "interrupts");
    }

    #[test]
    fn where_no_windows_are_told_the_bars_below_are_left_out() {
        let (topology, at) = machine(Vec::new());
        let mut free = iovas_for(&Profile::Type1.abilities(), &topology, &[at], &Windows::one_to_one()).unwrap();
        assert!(free.claim(range(0x900f_f000, 0x900f_ffff)).is_err());
        assert_eq!(free.claim(range(0x9010_0000, 0x9010_0fff)), Ok(()));
        let mut other = iovas_for(&Profile::Type1.abilities(), &topology, &[], &Windows::one_to_one()).unwrap();
        assert_eq!(
            other.claim(range(0x900f_f000, 0x900f_ffff)),
            Ok(()),
            "another host bridge's devices do not meet it"
        );
    }

    #[test]
    fn what_the_initiators_group_reserves_is_left_out() {
        let (topology, at) = machine(Vec::new());
        let mut builder = topology.to_builder();
        let reserved =
            crate::topology::ReservedRegion { range: range(0x4000_0000, 0x4000_ffff), kind: "direct".into() };
        builder.group(crate::topology::IommuGroup { id: 3, kind: None, reserved: [reserved].into() });
        let topology = builder.build();
        let outside = iovas_for(&Profile::Type1.abilities(), &topology, &[at], &Windows::one_to_one()).unwrap();
        let mut info = topology.function(at).info().clone();
        info.iommu_group = Some(3);
        let mut builder = Builder::new();
        builder.function(info);
        topology.groups().iter().for_each(|group| builder.group(group.clone()));
        let topology = builder.build();
        let at = topology.at("00:01.0".parse().unwrap()).unwrap();
        let mut inside = iovas_for(&Profile::Type1.abilities(), &topology, &[at], &Windows::one_to_one()).unwrap();
        assert_eq!(outside.free_bytes().as_u64() - inside.free_bytes().as_u64(), 0x1_0000);
        assert!(inside.claim(range(0x4000_0000, 0x4000_0fff)).is_err());
    }

    /// An IOVA with the number of a BAR beside the initiator would go to that BAR.
    #[test]
    fn an_initiator_of_which_nobody_knows_the_host_bridge_keeps_off_the_windows_of_all() {
        let mut builder = machine([window(0x60_8000_0000, 0x8000_0000, 0x1000_0000)].into()).0.to_builder();
        let mut info = FunctionInfo::new("05:00.0".parse().unwrap(), Position::Below("04:1f.0".parse().unwrap()));
        let (at, len) = (BusAddr::new(0xa000_0000), Bytes::new(0x1000));
        info.bars =
            [crate::topology::Bar { index: 0, cpu: None, bus: Some(at), size: Some(len), prefetchable: false }].into();
        builder.function(info);
        let topology = builder.build();
        let lost = topology.at("05:00.0".parse().unwrap()).unwrap();
        assert_eq!(bridge_of(&topology, lost), None);
        let mut free = iovas_for(&Profile::Type1.abilities(), &topology, &[lost], &Windows::one_to_one()).unwrap();
        assert!(free.claim(range(0x8000_0000, 0x8000_0fff)).is_err());
        assert!(free.claim(range(0xa000_0000, 0xa000_0fff)).is_err(), "the BAR of one that is as lost");
    }

    /// Linux reserves the first granule of each range after a gap too.
    #[test]
    fn only_what_the_bridge_takes_requests_for_is_handed_out_and_all_of_that() {
        let (topology, at) = machine(Vec::new());
        let inbound =
            Windows::new([window(0, 0x1_0000_0000, 0x1000_0000), window(0x4000_0000, 0x2_0000_0000, 0x1000)].into());
        let mut free = iovas_for(&Profile::Type1.abilities(), &topology, &[at], &inbound).unwrap();
        assert_eq!(free.free_bytes(), Bytes::new(0x1000_1000));
        assert_eq!(free.claim(range(0x2_0000_0000, 0x2_0000_0fff)), Ok(()));
        assert_eq!(free.claim(range(0x1_0000_0000, 0x1_0000_0fff)), Ok(()));
        assert!(free.claim(range(0x1_1000_0000, 0x1_1000_0fff)).is_err());
        let all = free.allocate(&Want::new(Bytes::new(0x800_0000))).unwrap();
        assert!(all.start() >= Iova::new(0x1_0000_1000) && all.last() <= Iova::new(0x1_0fff_ffff));
    }
}
