//! Pair by pair: what the resolver says, and what the machine does.

use crate::draw;
use crate::probe::{Answer, Order};
use crate::tally::Tally;
use crate::world::{Place, Seen, World};
use peerdma::access::{MemAttrs, Prot};
use peerdma::addr::{AddrRange, BusAddr, Bytes, Iova};
use peerdma::chunk::Chunk;
use peerdma::dma::engine::Context;
use peerdma::dma::{IoSpace, Owner, Peers, Source};
use peerdma::iova::Allocator;
use peerdma::pcie::Fact;
use peerdma::pcie::acs::{AcsBits, has_dword_registers};
use peerdma::pcie::express::PortType;
use peerdma::route::domain::Owner as DomainOwner;
use peerdma::route::fabric::{Fate, Handed, Kind, Passage, Way};
use peerdma::route::verdict::Address;
use peerdma::route::{Need, PairVerdict, Permission, Target};
use peerdma::topology::{FunctionId, IommuMode, Parent};
use peerdma_emu::device::How;
use peerdma_emu::fabric::{Ending, NodeId};
use peerdma_emu::host::{Seat, Space, wire_address};
use peerdma_emu::wire::AddressType;
use std::cell::RefCell;

const PAGE: u64 = 0x1000;

/// One machine under comparison.
pub(crate) struct Comparison<'w> {
    pub(crate) world: &'w World,
    pub(crate) random: fastrand::Rng,
    pub(crate) tally: Tally,
    /// A sentence for each request on which the two do not agree.
    pub(crate) disagreements: Vec<String>,
}

/// Who asks whom.
#[derive(Clone, Copy)]
struct Pair<'p> {
    node: NodeId,
    place: &'p Place,
    verdict: &'p PairVerdict,
}

type Engine<'a> = Context<'a, Space, RefCell<Allocator>>;

impl Comparison<'_> {
    /// Every ordered pair of the machine.
    pub(crate) fn run(&mut self) {
        let places = self.world.places(&mut self.random);
        let owners = self.world.kernel.owners();
        let peers = Peers::of(self.world.kernel.topology());
        for (node, function) in self.world.initiators() {
            let seat = self.world.kernel.seat(node).expect("every function of a platform has a seat");
            // Before the context takes the seat's space, as both hold the same.
            let context = seat.context(&owners, &peers).expect("a seat has a context");
            for place in places.iter().filter(|place| place.node != node) {
                self.pair(&seat, &context, &peers, function, place);
            }
        }
    }

    fn pair(&mut self, seat: &Seat<'_>, context: &Engine<'_>, peers: &Peers<'_>, function: FunctionId, place: &Place) {
        let judge = peers.judge().expect("these peers are judged");
        let target = Target::of_bar(judge.topology(), place.function, place.bar, None).expect("the BAR was found");
        let verdict = judge.judge(function, &target);
        let pair = Pair { node: seat.node(), place, verdict: &verdict };
        self.tally.pair(&verdict);
        let mode = verdict.domain.mode.expect("a platform says how each function is treated");
        for handed in [Handed::Bus, Handed::CpuPhysical, Handed::Iova, Handed::Translated] {
            let has_iovas = mode == IommuMode::Translated;
            let has_ats = self.has_ats(function);
            if handed == Handed::Iova && !has_iovas || handed == Handed::Translated && !has_ats {
                continue;
            }
            // The page alone: of a larger range a part may lie where another's windows are.
            let page = Some((Bytes::new(place.offset), Bytes::new(PAGE)));
            let page = Target::of_bar(judge.topology(), place.function, place.bar, page).expect("a page of the BAR");
            for kind in [Kind::Write, Kind::Read, Kind::Atomic] {
                let passage = judge.fabric().pass(function, &page, kind, handed);
                if let Some(complaint) = self.forced(seat, pair, passage) {
                    let told = judge.fabric().explain(function, &page, kind, handed);
                    let reasons: Vec<String> = told.reasons.iter().map(ToString::to_string).collect();
                    self.disagree(pair, &format!("{complaint} as {}", reasons.join("; ")));
                }
            }
        }
        for need in [Need::Write, Need::Read] {
            self.mapped(context, pair, need);
        }
        self.too_long(seat, pair);
    }

    fn has_ats(&self, function: FunctionId) -> bool {
        let registers = &self.world.kernel.topology().function(function).info().registers;
        registers.ats.known().flatten().is_some_and(|ats| ats.enabled)
    }

    /// A request with a number that a driver hands out without asking, against the hardware's view.
    fn forced(&mut self, seat: &Seat<'_>, pair: Pair<'_>, passage: Passage) -> Option<String> {
        if passage.kind == Kind::Atomic && !self.sends_atomics(pair.node) {
            return None;
        }
        let (start, at) = match passage.handed {
            Handed::Bus => (pair.place.bus, AddressType::Untranslated),
            Handed::CpuPhysical => (BusAddr::new(pair.place.cpu.as_u64()), AddressType::Untranslated),
            Handed::Translated => (BusAddr::new(pair.place.cpu.as_u64()), AddressType::Translated),
            Handed::Iova => (BusAddr::new(draw::OUTSIDE_WINDOWS), AddressType::Untranslated),
        };
        if !self.can_form(pair.node, start.as_u64() + PAGE - 1) {
            return None;
        }
        let mut space = seat.handle();
        let range = AddrRange::new(Iova::new(draw::OUTSIDE_WINDOWS), Bytes::new(PAGE)).expect("a page");
        if passage.handed == Handed::Iova {
            let source = Source::Physical(pair.place.cpu);
            space.map(range, &source, Prot::ReadWrite, MemAttrs::MMIO).expect("a forced mapping is possible");
        }
        let within = self.random.u64(0..PAGE / 8) * 8;
        let place = Place { offset: pair.place.offset + within, ..*pair.place };
        let how = How { at, ..How::default() };
        let (seen, arrived) = self.send(pair.node, how, start.as_u64() + within, &place, passage.kind, 8);
        if passage.handed == Handed::Iova {
            space.unmap(range).expect("what was mapped is unmapped");
        }
        self.tally.passage(passage, arrived);
        let complaint = self.judged(pair, passage, &seen, arrived)?;
        let Passage { kind, fate, way, .. } = passage;
        let how = format!("{kind:?} handed {:?} at {start}+{within:#x}", passage.handed);
        Some(format!("{how}: {complaint}; machine {seen:?}; resolver {fate:?} {way:?}"))
    }

    /// What is wrong with what was seen, if anything is.
    fn judged(&self, pair: Pair<'_>, passage: Passage, seen: &Seen, arrived: bool) -> Option<&'static str> {
        let root_open = seen.ended.iter().any(|ending| matches!(ending, Ending::UndefinedRoot(_)));
        let silent = self.world.root_is_silent(pair.node) || self.world.root_is_silent(pair.place.node);
        match passage.fate {
            // Linux's list, or somebody's report, stands in for what the file does not say.
            Fate::Arrives | Fate::Undefined if root_open && silent => None,
            Fate::Arrives if !arrived => Some("it does not arrive"),
            Fate::Arrives => match passage.way {
                Some(Way::BelowRoot) if seen.through_root => Some("it arrives through the root complex"),
                Some(Way::RootComplex) if !seen.through_root => Some("it arrives below the root complex"),
                _ => None,
            },
            Fate::Lost => arrived.then_some("it arrives"),
            Fate::Undefined if seen.ended.iter().any(|ending| matches!(ending, Ending::Undefined(_))) => None,
            // A port that routes no AtomicOps may see that before it sees where one leads (PCIe 6.0 §6.15.2).
            Fate::Undefined if passage.kind == Kind::Atomic && matches!(seen.ended[..], [Ending::Unsupported(_)]) => {
                None
            }
            Fate::Undefined => (!self.is_choice(pair, passage, seen)).then_some("nothing here is left open"),
            Fate::Unknown => (!silent && !self.hides_a_vector(pair.verdict.initiator))
                .then_some("everything is in registers or in the file"),
        }
    }

    /// Whether an implementation may choose what becomes of such a request.
    fn is_choice(&self, pair: Pair<'_>, passage: Passage, seen: &Seen) -> bool {
        let offset = pair.place.cpu.as_u64() != pair.place.bus.as_u64();
        // A CPU's number may be that of a function beside the initiator, and is then inside's affair too.
        let beside = offset && passage.handed == Handed::CpuPhysical && self.world.has_siblings(pair.node);
        let inside = beside || self.world.of_one_device(pair.node, pair.place.node);
        // Whether a root complex that passes a read on asks in its own name.
        let renamed = passage.kind != Kind::Write && seen.through_root;
        let addressed = offset && matches!(passage.handed, Handed::Translated | Handed::Bus);
        // Egress control of a root port acts only where the root complex has a path between its ports.
        // By such a path a number may also get past the IOMMU, which would have stopped it.
        let numbers = matches!(passage.handed, Handed::Bus | Handed::CpuPhysical);
        let past = numbers && self.are_beside(pair.verdict.initiator, pair.place.function);
        let between = self.root_port_blocks(pair.verdict.initiator) || past;
        inside || renamed || addressed || between
    }

    /// What the verdict permits, at the address that the mapping engine gives.
    fn mapped(&mut self, context: &Engine<'_>, pair: Pair<'_>, need: Need) {
        let (prot, kind) = match need {
            Need::Write => (Prot::Write, Kind::Write),
            Need::Read | Need::Both => (Prot::Read, Kind::Read),
        };
        let permission = pair.verdict.permits(need);
        let owner = Owner::Bar { function: pair.place.function, bar: pair.place.bar };
        let chunk = Chunk::new(owner, Bytes::new(pair.place.offset), Bytes::new(PAGE), MemAttrs::MMIO).expect("a page");
        let mapping = match context.map_p2p(chunk, prot) {
            Ok(mapping) => mapping,
            Err(error) => {
                if permission == Permission::Permitted {
                    self.disagree(pair, &format!("{need:?} is permitted, and mapping says: {error}"));
                }
                return;
            }
        };
        let on_request = pair.verdict.domain.owner == DomainOwner::Vfio;
        if permission != Permission::Permitted {
            self.disagree(pair, &format!("{need:?} is {permission}, and mapped all the same"));
            return;
        }
        let at = wire_address(&mapping.spans().next().expect("a page has a span"));
        let expected = match pair.verdict.address {
            Address::Bus(_) => at == pair.place.bus,
            Address::CpuPhysical(_) => at.as_u64() == pair.place.cpu.as_u64(),
            Address::Iova => true,
            Address::Unknown | Address::None => false,
        };
        if !expected && !on_request {
            self.disagree(pair, &format!("the verdict says {:?}, and {at} was mapped", pair.verdict.address));
        }
        // Any length within a page; payload sizes count here.
        let len = [8, 64, 512, 1000, PAGE][self.random.usize(0..5)];
        let within = self.random.u64(0..=(PAGE - len) / 8) * 8;
        let place = Place { offset: pair.place.offset + within, ..*pair.place };
        let (seen, arrived) = self.send(pair.node, How::default(), at.as_u64() + within, &place, kind, len as usize);
        self.tally.mapped(arrived);
        let silent = self.world.root_is_silent(pair.node) || self.world.root_is_silent(pair.place.node);
        let open = seen.ended.iter().any(|ending| matches!(ending, Ending::UndefinedRoot(_))) && silent;
        if !arrived && !open {
            self.disagree(pair, &format!("{need:?} of {len} at {at}+{within:#x} is permitted and lost: {seen:?}"));
        }
    }

    /// A write or completion that is too long for somebody on the way does not arrive whole.
    fn too_long(&mut self, seat: &Seat<'_>, pair: Pair<'_>) {
        let payload = &pair.verdict.payload;
        for (clash, passage, permission) in [
            (payload.write, pair.verdict.fabric_write, pair.verdict.write),
            (payload.read, pair.verdict.fabric_read, pair.verdict.read),
        ] {
            let Some(clash) = clash else { continue };
            let refused = permission == Permission::Refused && passage.fate == Fate::Arrives && clash.is_certain();
            if !refused || pair.verdict.too_narrow.is_some() || passage.way.is_none() {
                continue;
            }
            if !matches!(passage.handed, Handed::Bus | Handed::CpuPhysical) {
                continue;
            }
            let start = if passage.handed == Handed::Bus { pair.place.bus.as_u64() } else { pair.place.cpu.as_u64() };
            let request = self.world.machine.fabric().tree().config(seat.node()).max_read_request();
            let len = if passage.kind == Kind::Read {
                clash.sends.as_u64().min(request.map_or(PAGE, |request| request.as_u64()))
            } else {
                clash.sends.as_u64()
            };
            // What a port with a smaller payload does with what it is to send on is its own business; the
            // receiver finds it malformed (PCIe 6.0 §2.2.2).
            if len <= clash.takes.as_u64() || !self.receives(clash.sender, clash.receiver) {
                continue;
            }
            let (seen, arrived) = self.send(pair.node, How::default(), start, pair.place, passage.kind, len as usize);
            self.tally.too_long += 1;
            if arrived {
                self.disagree(pair, &format!("{:?} of {len} arrives although {clash:?}: {seen:?}", passage.kind));
            }
        }
    }

    /// Whether some port above a function has its registers in double words, in which no vector is found.
    fn hides_a_vector(&self, function: FunctionId) -> bool {
        let topology = self.world.kernel.topology();
        let mut at = function;
        while let Parent::Bridge(bridge) = topology.upstream(at) {
            at = bridge;
            if topology.function(at).info().registers.id.is_some_and(has_dword_registers) {
                return true;
            }
        }
        false
    }

    /// The root port above a function, or the function itself on a root bus.
    fn root_port(&self, function: FunctionId) -> FunctionId {
        let topology = self.world.kernel.topology();
        let mut at = function;
        while let Parent::Bridge(bridge) = topology.upstream(at) {
            at = bridge;
        }
        at
    }

    /// Whether two functions are below different root ports of one host bridge.
    fn are_beside(&self, one: FunctionId, other: FunctionId) -> bool {
        let topology = self.world.kernel.topology();
        let [one, other] = [one, other].map(|function| self.root_port(function));
        one != other && topology.upstream(one) == topology.upstream(other)
    }

    /// Whether the root port above a function has egress control on.
    fn root_port_blocks(&self, function: FunctionId) -> bool {
        let topology = self.world.kernel.topology();
        let registers = topology.function(self.root_port(function)).info().registers.acs.registers();
        registers.and_then(|registers| registers.control.known()).is_some_and(|control| control.contains(AcsBits::EC))
    }

    /// Whether a function on the way from a sender gets packets by a link, and does not only send them on.
    fn receives(&self, sender: FunctionId, function: FunctionId) -> bool {
        let topology = self.world.kernel.topology();
        let port_type = topology.function(function).info().registers.port_type;
        let faces_down = matches!(port_type, Fact::Known(Some(PortType::RootPort | PortType::DownstreamPort)));
        let mut above = topology.upstream(sender);
        while let Parent::Bridge(bridge) = above {
            if bridge == function {
                return faces_down;
            }
            above = topology.upstream(bridge);
        }
        !faces_down
    }

    fn sends_atomics(&self, node: NodeId) -> bool {
        self.world.machine.fabric().tree().config(node).atomic_requester()
    }

    fn can_form(&self, node: NodeId, highest: u64) -> bool {
        let name = self.world.name(node);
        let bits = self.world.platform.function_named(name).map_or(64, |function| function.mask_bits);
        bits >= 64 || highest >> bits == 0
    }

    /// Sends a request and says whether all of it arrived at the place, and the answer came back.
    fn send(&mut self, from: NodeId, how: How, at: u64, place: &Place, kind: Kind, len: usize) -> (Seen, bool) {
        // Never all ones and never zeros, which others make up.
        let mut pattern = || -> Vec<u8> { (0..len).map(|_| self.random.u8(1..=0xfe)).collect() };
        let (before, sent) = (pattern(), pattern());
        self.world.store(place, &before);
        let order = match kind {
            Kind::Write => Order::Write(sent.clone()),
            Kind::Read => Order::Read(len),
            Kind::Atomic => Order::Add,
        };
        let seen = self.world.send(from, how, BusAddr::new(at), order);
        let there = self.world.load(place, len);
        let arrived = match kind {
            Kind::Write => there == sent,
            Kind::Read => seen.answer == Answer::Data(before.clone()) && there == before,
            Kind::Atomic => {
                let value = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
                seen.answer == Answer::Data(before.clone()) && value(&there) == value(&before).wrapping_add(1)
            }
        };
        // What arrives arrives there and nowhere else.
        let arrived = arrived && seen.came_to(place);
        self.tally.requests += 1;
        (seen, arrived)
    }

    fn disagree(&mut self, pair: Pair<'_>, what: &str) {
        let (from, to) = (self.world.name(pair.node), self.world.name(pair.place.node));
        self.disagreements.push(format!("{from} to {to} BAR{}: {what}", pair.place.bar));
    }
}
