//! Gives BARs their addresses.
//!
//! A file states sizes; where BARs end up follows from them alone, so that a file
//! read twice yields the same machine. The rules are those of a resource allocator
//! that sees the whole machine at once:
//!
//! 1. A BAR is aligned to its size, and to 4 KiB at least, so that no two functions
//!    ever share a page.
//! 2. All BARs of one kind below a port lie in one window of that port, which starts
//!    and ends at multiples of 1 MiB (PCIe 6.0 §7.5.1.3.8) and holds nothing else.
//! 3. Prefetchable BARs go to prefetchable windows of the host bridge; where it has
//!    none, they go where the others go. The others stay below bus address 4 GiB,
//!    which is all that a port's non-prefetchable window can say.
//! 4. The widest alignment goes first; between equals, the file's order decides.
//! 5. Nothing is put below 1 MiB: address 0 would read as "no address", and what
//!    follows it is legacy.

use super::model::{HostBridge, HostBridgeId, Parent, Window};
use peerdma::addr::{AddrRange, BusAddr, Bytes};
use peerdma::pcie::Fact;
use peerdma::pcie::decode::BridgeWindows;

const PAGE: u64 = 4096;
const GRANULE: u64 = 1 << 20;
const FIRST: u64 = 1 << 20;
const LAST_32_BIT: u64 = 0xffff_ffff;

/// A BAR that wants addresses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) parent: Parent,
    pub(super) host: HostBridgeId,
    /// A power of two.
    pub(super) size: Bytes,
    pub(super) prefetchable: bool,
}

/// Addresses of all BARs, in the order of the requests, and windows of all ports.
#[derive(Debug)]
pub(super) struct Placement {
    pub(super) bars: Vec<AddrRange<BusAddr>>,
    pub(super) windows: Vec<BridgeWindows>,
}

/// Something fits nowhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct NoRoom {
    /// The largest BAR of what did not fit.
    pub(super) request: usize,
    /// What had to be placed in one piece.
    pub(super) needed: Bytes,
    /// Whether it was to go to prefetchable windows.
    pub(super) prefetchable: bool,
}

/// What takes a stretch of addresses.
#[derive(Clone, Copy)]
enum Taker {
    Bar(usize),
    WindowOf(usize),
}

#[derive(Clone, Copy)]
struct Item {
    taker: Taker,
    size: u64,
    align: u64,
    /// Largest request inside.
    largest: usize,
}

impl Item {
    /// The widest alignment first; between equals BARs before windows, each in the file's order.
    fn order(&self) -> (std::cmp::Reverse<(u64, u64)>, bool, usize) {
        let (is_window, index) = match self.taker {
            Taker::Bar(request) => (false, request),
            Taker::WindowOf(port) => (true, port),
        };
        (std::cmp::Reverse((self.align, self.size)), is_window, index)
    }
}

/// Places all requests. `ports` are the parents of the ports, `parents_first` an
/// order of them in which each comes after its parent.
pub(super) fn place(
    hosts: &[HostBridge],
    ports: &[Parent],
    parents_first: &[usize],
    requests: &[Request],
) -> Result<Placement, NoRoom> {
    let mut bars: Vec<Option<AddrRange<BusAddr>>> = vec![None; requests.len()];
    let mut windows = vec![BridgeWindows::CLOSED; ports.len()];
    for prefetchable in [true, false] {
        let mut kind = Kind { hosts, prefetchable, at_host: vec![], at_port: vec![], ports };
        for (taker, range) in kind.place(parents_first, requests)? {
            match taker {
                Taker::Bar(request) => bars[request] = Some(range),
                Taker::WindowOf(port) if prefetchable => windows[port].prefetchable = Fact::Known(Some(range)),
                Taker::WindowOf(port) => windows[port].memory = Fact::Known(Some(range)),
            }
        }
    }
    // Every request is of one of the two kinds, so none is left over.
    Ok(Placement { bars: bars.into_iter().flatten().collect(), windows })
}

/// Placement of one of the two kinds of memory.
struct Kind<'a> {
    hosts: &'a [HostBridge],
    ports: &'a [Parent],
    prefetchable: bool,
    at_host: Vec<Vec<Item>>,
    at_port: Vec<Vec<Item>>,
}

impl Kind<'_> {
    fn place(
        &mut self,
        parents_first: &[usize],
        requests: &[Request],
    ) -> Result<Vec<(Taker, AddrRange<BusAddr>)>, NoRoom> {
        self.at_host = vec![Vec::new(); self.hosts.len()];
        self.at_port = vec![Vec::new(); self.ports.len()];
        for (index, request) in requests.iter().enumerate() {
            let separate = self.hosts[request.host.0].windows.iter().any(|window| window.prefetchable);
            if (request.prefetchable && separate) == self.prefetchable {
                let size = request.size.as_u64();
                let item = Item { taker: Taker::Bar(index), size, align: size.max(PAGE), largest: index };
                self.push(request.parent, item);
            }
        }
        // From the leaves up: how large each port's window is, and what lies where in it.
        let mut offsets: Vec<Vec<u64>> = vec![Vec::new(); self.ports.len()];
        for &port in parents_first.iter().rev() {
            let items = &mut self.at_port[port];
            items.sort_by_key(Item::order);
            let Some(&first) = items.first() else { continue };
            let largest = |a: Item, b: Item| {
                if requests[b.largest].size > requests[a.largest].size { b } else { a }
            };
            let culprit = items.iter().copied().fold(first, largest).largest;
            let Some((inside, size)) = pack(items) else {
                return Err(self.no_room(culprit, u64::MAX));
            };
            offsets[port] = inside;
            let item = Item { taker: Taker::WindowOf(port), size, align: first.align.max(GRANULE), largest: culprit };
            self.push(self.ports[port], item);
        }
        // From the root down: where that is.
        let mut placed = Vec::new();
        let mut starts = vec![0u64; self.ports.len()];
        for (host, items) in self.hosts.iter().zip(&mut self.at_host) {
            items.sort_by_key(Item::order);
            let mut free: Vec<(u64, u64)> =
                host.windows.iter().filter_map(|window| usable(window, self.prefetchable)).collect();
            for item in items.iter() {
                let no_room =
                    NoRoom { request: item.largest, needed: Bytes::new(item.size), prefetchable: self.prefetchable };
                let start = take(&mut free, item).ok_or(no_room)?;
                record(item, start, &mut starts, &mut placed);
            }
        }
        for &port in parents_first {
            for (item, offset) in self.at_port[port].iter().zip(&offsets[port]) {
                // Offsets stay below the size of a window that was found room for.
                record(item, starts[port] + offset, &mut starts, &mut placed);
            }
        }
        Ok(placed)
    }

    fn push(&mut self, parent: Parent, item: Item) {
        match parent {
            Parent::HostBridge(host) => self.at_host[host.0].push(item),
            Parent::Port(port) => self.at_port[port.0].push(item),
        }
    }

    fn no_room(&self, request: usize, needed: u64) -> NoRoom {
        NoRoom { request, needed: Bytes::new(needed), prefetchable: self.prefetchable }
    }
}

fn record(item: &Item, start: u64, starts: &mut [u64], placed: &mut Vec<(Taker, AddrRange<BusAddr>)>) {
    if let Taker::WindowOf(port) = item.taker {
        starts[port] = start;
    }
    // Room was found, so the range neither is empty nor wraps.
    placed.extend(AddrRange::new(BusAddr::new(start), Bytes::new(item.size)).map(|range| (item.taker, range)));
}

/// Offsets of items laid one after another, and what they take in multiples of 1 MiB;
/// `None` past 2^64.
fn pack(items: &[Item]) -> Option<(Vec<u64>, u64)> {
    let mut end = 0u64;
    let mut offsets = Vec::with_capacity(items.len());
    for item in items {
        let start = end.checked_next_multiple_of(item.align)?;
        end = start.checked_add(item.size)?;
        offsets.push(start);
    }
    Some((offsets, end.checked_next_multiple_of(GRANULE)?))
}

/// First and last free address of a window, for one kind of memory.
fn usable(window: &Window, prefetchable: bool) -> Option<(u64, u64)> {
    if window.prefetchable != prefetchable {
        return None;
    }
    let first = window.bus.start().as_u64().max(FIRST);
    let last = window.bus.last().as_u64();
    let last = if prefetchable { last } else { last.min(LAST_32_BIT) };
    (first <= last).then_some((first, last))
}

/// Takes room for an item from the first stretch that has it.
fn take(free: &mut [(u64, u64)], item: &Item) -> Option<u64> {
    for stretch in free {
        let (first, last) = *stretch;
        let Some(start) = first.checked_next_multiple_of(item.align) else { continue };
        let Some(end) = item.size.checked_sub(1).and_then(|more| start.checked_add(more)) else { continue };
        if end <= last {
            // A stretch used to its end is left empty: its first address past its last.
            *stretch = match end.checked_add(1) {
                Some(next) => (next, last),
                None => (u64::MAX, 0),
            };
            return Some(start);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::words::PeerForwarding;
    use super::*;
    use peerdma::addr::PhysAddr;
    use proptest::prelude::*;

    const HOST: Parent = Parent::HostBridge(HostBridgeId(0));

    fn window(bus: u64, len: u64, prefetchable: bool) -> Window {
        Window {
            cpu: AddrRange::new(PhysAddr::new(bus + 0x10_0000_0000), Bytes::new(len)).unwrap(),
            bus: AddrRange::new(BusAddr::new(bus), Bytes::new(len)).unwrap(),
            prefetchable,
        }
    }

    fn host(windows: &[Window]) -> HostBridge {
        HostBridge {
            name: "hb".to_string(),
            segment: 0,
            root_bus: 0,
            last_bus: 255,
            node: None,
            first_device: None,
            windows: windows.to_vec(),
            peer: PeerForwarding::Unknown,
            replaces_requester: false,
            between_ports: false,
        }
    }

    fn request(parent: Parent, size: u64, prefetchable: bool) -> Request {
        Request { parent, host: HostBridgeId(0), size: Bytes::new(size), prefetchable }
    }

    fn starts(placement: &Placement) -> Vec<u64> {
        placement.bars.iter().map(|range| range.start().as_u64()).collect()
    }

    #[test]
    fn the_widest_goes_first_and_equals_keep_their_order() {
        let hosts = [host(&[window(0x8000_0000, 1 << 30, false)])];
        let requests = [0x4000, 0x10_0000, 0x4000].map(|size| request(HOST, size, false));
        let placement = place(&hosts, &[], &[], &requests).unwrap();
        assert_eq!(starts(&placement), [0x8010_0000, 0x8000_0000, 0x8010_4000]);
    }

    #[test]
    fn small_bars_never_share_a_page() {
        let hosts = [host(&[window(0x8000_0000, 1 << 30, false)])];
        let placement = place(&hosts, &[], &[], &[request(HOST, 16, false), request(HOST, 256, false)]).unwrap();
        assert_eq!(starts(&placement), [0x8000_1000, 0x8000_0000]);
    }

    #[test]
    fn a_port_s_window_is_no_larger_than_what_is_below_in_steps_of_1_mib() {
        let hosts = [host(&[window(0x8000_0000, 1 << 30, false)])];
        let ports = [HOST, HOST];
        let requests = [0, 1].map(|port| request(Parent::Port(super::super::PortId(port)), 0x4000, false));
        let placement = place(&hosts, &ports, &[0, 1], &requests).unwrap();
        let windows = placement.windows.iter().map(|window| window.memory.known().unwrap().unwrap().to_string());
        assert_eq!(windows.collect::<Vec<_>>(), ["0x80000000-0x800fffff", "0x80100000-0x801fffff"]);
        assert_eq!(placement.windows[0].prefetchable, Fact::Known(None));
    }

    #[test]
    fn prefetchable_bars_join_the_others_only_where_they_have_no_window() {
        let both = [host(&[window(0x8000_0000, 1 << 30, false), window(1 << 40, 1 << 30, true)])];
        assert_eq!(starts(&place(&both, &[], &[], &[request(HOST, 4096, true)]).unwrap()), [1 << 40]);
        let one = [host(&[window(0x8000_0000, 1 << 30, false)])];
        assert_eq!(starts(&place(&one, &[], &[], &[request(HOST, 4096, true)]).unwrap()), [0x8000_0000]);
    }

    #[test]
    fn what_is_not_prefetchable_stays_below_4_gib_of_bus_addresses() {
        let high = [host(&[window(0xffff_0000, 1 << 30, false)])];
        assert_eq!(starts(&place(&high, &[], &[], &[request(HOST, 0x1_0000, false)]).unwrap()), [0xffff_0000]);
        let full = place(&high, &[], &[], &[request(HOST, 0x2_0000, false)]).unwrap_err();
        assert_eq!(full, NoRoom { request: 0, needed: Bytes::new(0x2_0000), prefetchable: false });
    }

    #[test]
    fn bus_address_0_is_not_given_out() {
        let hosts = [host(&[window(0, 1 << 30, false)])];
        assert_eq!(starts(&place(&hosts, &[], &[], &[request(HOST, 4096, false)]).unwrap()), [FIRST]);
    }

    #[test]
    fn what_does_not_fit_is_blamed_on_the_largest_bar_of_it() {
        let hosts = [host(&[window(0x8000_0000, 4 << 20, false)])];
        let below = Parent::Port(super::super::PortId(0));
        let requests = [0x1000, 4 << 20, 0x1000].map(|size| request(below, size, false));
        let full = place(&hosts, &[HOST], &[0], &requests).unwrap_err();
        assert_eq!(full, NoRoom { request: 1, needed: Bytes::new(5 << 20), prefetchable: false });
    }

    #[test]
    fn sizes_that_add_up_past_2_to_the_64_are_no_room() {
        let hosts = [host(&[window(1 << 40, 1 << 62, true)])];
        let requests = [1u64 << 63; 3].map(|size| request(Parent::Port(super::super::PortId(0)), size, true));
        assert_eq!(place(&hosts, &[HOST], &[0], &requests).unwrap_err().request, 0);
    }

    /// Ports, each below the host bridge or a port before it, and BARs below either.
    fn machine() -> impl Strategy<Value = (Vec<Parent>, Vec<Request>, bool)> {
        let parent = |pick: usize, ports: usize| match pick % (ports + 1) {
            0 => HOST,
            port => Parent::Port(super::super::PortId(port - 1)),
        };
        let ports = prop::collection::vec(any::<usize>(), 0..12);
        let bars = prop::collection::vec((any::<usize>(), 4u32..26, any::<bool>()), 0..24);
        (ports, bars, any::<bool>()).prop_map(move |(ports, bars, separate)| {
            let parents: Vec<_> = ports.iter().enumerate().map(|(index, pick)| parent(*pick, index)).collect();
            let bars = bars.iter().map(|(pick, order_log2, prefetchable)| {
                request(parent(*pick, parents.len()), 1 << order_log2, *prefetchable)
            });
            let bars = bars.collect();
            (parents, bars, separate)
        })
    }

    fn is_below(ports: &[Parent], mut at: Parent, port: usize) -> bool {
        while let Parent::Port(id) = at {
            if id.index() == port {
                return true;
            }
            at = ports[id.index()];
        }
        false
    }

    proptest! {
        #[test]
        fn every_bar_is_aligned_alone_and_inside_exactly_the_windows_above_it((ports, requests, separate) in machine()) {
            let low = window(0x4000_0000, 0xa000_0000, false);
            let high = window(0x40_0010_0000, 1 << 40, separate);
            let hosts = [host(&[low, high])];
            let order: Vec<usize> = (0..ports.len()).collect();
            let placement = place(&hosts, &ports, &order, &requests).unwrap();
            prop_assert_eq!(placement.bars.len(), requests.len());
            for (index, (bar, request)) in placement.bars.iter().zip(&requests).enumerate() {
                prop_assert_eq!(bar.len(), request.size);
                prop_assert!(bar.start().as_u64().is_multiple_of(request.size.as_u64().max(PAGE)));
                let outer = if request.prefetchable && separate { high } else { low };
                prop_assert!(outer.bus.contains_range(bar));
                prop_assert_eq!(outer.to_cpu(bar).unwrap().start().as_u64(), bar.start().as_u64() + 0x10_0000_0000);
                for other in &placement.bars[..index] {
                    prop_assert!(other.last() < bar.start() || bar.last() < other.start());
                }
                for (port, windows) in placement.windows.iter().enumerate() {
                    let holding = if request.prefetchable && separate { windows.prefetchable } else { windows.memory };
                    let holding = holding.known().unwrap();
                    let inside = holding.is_some_and(|window| window.contains_range(bar));
                    prop_assert_eq!(inside, is_below(&ports, request.parent, port));
                }
            }
            for windows in &placement.windows {
                for window in windows.open() {
                    prop_assert!(window.start().as_u64().is_multiple_of(GRANULE));
                    prop_assert!(window.len().as_u64().is_multiple_of(GRANULE));
                }
            }
        }
    }
}
