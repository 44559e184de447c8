//! What a stated root complex does with a request: an interrupt, a translation,
//! memory, or a peer below one of its ports.

use super::{Ending, Request, StatedFabric, ending};
use crate::addr::{AddrRange, BusAddr, Iova, PhysAddr};
use crate::route::fabric::Kind;
use crate::route::fabric::tlp::{At, Number, Tlp};
use crate::route::payload;
use crate::topology::{FunctionId, HostBridgeId, Parent};

impl StatedFabric<'_> {
    /// The root complex has it: an interrupt, a translation, memory, or a peer.
    pub(super) fn at_root(&self, request: &Request, from: FunctionId, translated: &mut Option<PhysAddr>) -> Ending {
        let as_bus = AddrRange::new(request.address, request.len);
        let is_interrupt = |range: &AddrRange<BusAddr>| as_bus.is_some_and(|bus| range.contains_range(&bus));
        if request.kind == Kind::Write
            && request.at == At::Untranslated
            && self.root.interrupts.as_ref().is_some_and(is_interrupt)
        {
            return Ending::Interrupt;
        }
        let raw = request.address.as_u64();
        let address = match (request.at, self.root.iommu) {
            (At::TranslationRequest, Some(_)) => return Ending::Translation,
            (At::TranslationRequest, None) => return Ending::Unsupported(from),
            (At::Translated, Some(iommu)) if !iommu.trusts(request.requester) => return Ending::Fault,
            (At::Translated, _) | (At::Untranslated, None) => PhysAddr::new(raw),
            (At::Untranslated, Some(iommu)) => {
                let Some(address) = iommu.translate(request.requester, Iova::new(raw), request.kind) else {
                    return Ending::Fault;
                };
                *translated = Some(address);
                address
            }
        };
        let Some(range) = AddrRange::new(address, request.len) else { return Ending::Dropped };
        if self.root.memory.iter().any(|memory| memory.contains_range(&range)) {
            return Ending::Memory;
        }
        match self.host_of(&range) {
            Some((host, bus)) => self.to_peer(request, from, host, bus),
            None => Ending::Dropped,
        }
    }

    /// The host bridge that passes a CPU address down, and its number there. One that
    /// states no windows passes everything down as it is.
    fn host_of(&self, range: &AddrRange<PhysAddr>) -> Option<(HostBridgeId, AddrRange<BusAddr>)> {
        let same = AddrRange::new(BusAddr::new(range.start().as_u64()), range.len())?;
        self.ground.topology.host_bridges().find_map(|(id, host)| match host.facts().windows.as_slice() {
            [] => Some((id, same)),
            windows => windows.iter().find_map(|window| window.to_bus(range)).map(|bus| (id, bus)),
        })
    }

    fn to_peer(&self, request: &Request, from: FunctionId, host: HostBridgeId, bus: AddrRange<BusAddr>) -> Ending {
        let peer = self.root.peer;
        let delivers = if request.kind == Kind::Write { peer.delivers_writes() } else { peer.delivers_reads() };
        if !delivers {
            return Ending::Dropped;
        }
        let down = Tlp::Request {
            kind: request.kind,
            at: request.at,
            number: Number { range: Some(bus), target: None },
            requester: request.requester,
            // What it splits fits.
            payload: None,
            operand: (request.kind == Kind::Atomic).then_some(request.len),
        };
        let go_on = || self.ground.descend_from_root(host, from, &down);
        let is_port = self.ground.info(from).is_bridge();
        let course = if is_port { self.ground.routed_atomics(from, &down, false, &go_on) } else { go_on() };
        match ending(&course) {
            Ending::Function(to) if self.is_too_long(request, to) && !self.root.splits => Ending::Dropped,
            end => end,
        }
    }

    /// Whether a port on the way down from the root complex sends less than this at once.
    fn is_too_long(&self, request: &Request, to: FunctionId) -> bool {
        let too_long = |at: FunctionId| {
            payload::in_force(self.ground.topology, at).max_payload.is_some_and(|most| most < request.len)
        };
        let mut at = to;
        let mut found = too_long(at);
        while let Parent::Bridge(above) = self.ground.topology.upstream(at) {
            found |= too_long(above);
            at = above;
        }
        found && request.kind == Kind::Write
    }
}
