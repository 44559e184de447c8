//! Layouts of guests on random machines: what the check says of an address, and what comes of a request there.
//!
//! Each function is an initiator once, under a space in which guest addresses lead where a machine monitor would map
//! them. A range without a finding is asked at its ends, and each finding at its own: who is said to capture
//! a number has the bytes, and where nothing is found they are what the guest means, both ways.

use crate::draw;
use crate::probe::{Answer, Order};
use crate::world::{Place, Seen, World};
use peerdma::access::{MemAttrs, Prot};
use peerdma::addr::{AddrRange, BusAddr, Bytes, GuestPhys, Iova, PhysAddr};
use peerdma::dma::{IoSpace, Source};
use peerdma::route::guest::{Finding, GuestLayout, Initiator, Requests, Stray, check};
use peerdma::route::{Gate, Judge};
use peerdma::topology::{FunctionId, IommuMode};
use peerdma_emu::device::How;
use peerdma_emu::fabric::{Ending, NodeId};
use peerdma_emu::host::Seat;

const PAGE: u64 = 0x1000;
const BYTES: [u8; 8] = *b"by guest";

/// How often each answer was put to the test.
#[derive(Default, Debug)]
struct Tally {
    layouts: u32,
    ram: u32,
    own_number: u32,
    elsewhere: u32,
    captured: u32,
    stopped: u32,
    lost: u32,
    open: u32,
}

struct Guest<'w> {
    world: &'w World,
    judge: Judge<'w>,
    random: fastrand::Rng,
    tally: Tally,
    disagreements: Vec<String>,
}

/// A part of a layout: guest addresses, and the BAR behind them, else RAM.
#[derive(Clone, Copy)]
struct Range {
    at: AddrRange<GuestPhys>,
    bar: Option<(FunctionId, u8)>,
}

impl Guest<'_> {
    fn run(&mut self) {
        for (node, function) in self.world.initiators() {
            if self.world.kernel.mode(node) != Some(IommuMode::Translated) {
                continue;
            }
            let seat = self.world.kernel.seat(node).expect("every function of a platform has a seat");
            for _ in 0..4 {
                self.layout(&seat, function);
            }
        }
    }

    /// Numbers that mean something below the machine's host bridges.
    fn numbers(&self) -> Vec<u64> {
        let topology = self.world.kernel.topology();
        let mut all = vec![draw::OUTSIDE_WINDOWS, 0x70_0000_0000];
        for (_, function) in topology.functions() {
            all.extend(function.info().bars.iter().filter_map(|bar| Some(bar.bus?.as_u64())));
            all.extend(function.info().registers.windows.open().map(|window| window.start().as_u64()));
        }
        all
    }

    fn layout(&mut self, seat: &Seat<'_>, initiator: FunctionId) {
        let topology = self.world.kernel.topology();
        let numbers = self.numbers();
        let pick = |random: &mut fastrand::Rng| numbers[random.usize(0..numbers.len())];
        let mut bars = Vec::new();
        for (_, target) in self.world.initiators() {
            for bar in &topology.function(target).info().bars {
                let (Some(bus), Some(size)) = (bar.bus, bar.size) else { continue };
                if target == initiator || self.random.bool() {
                    continue;
                }
                let number = match self.random.u32(0..3) {
                    0 => bus.as_u64(),
                    1 => pick(&mut self.random),
                    _ => 0x80_0000_0000 + self.random.u64(0..0x40) * 0x1_0000_0000,
                };
                bars.push((target, bar.index, GuestPhys::new(number & !(size.as_u64() - 1))));
            }
        }
        let start = pick(&mut self.random).saturating_sub(self.random.u64(0..4) * 0x1_0000);
        let ram = AddrRange::new(GuestPhys::new(start), Bytes::new(self.random.u64(1..0x100) * 0x1_0000)).unwrap();
        let sends = Initiator { function: initiator, requests: Requests::Untranslated };
        // What overlaps is refused, and less is asked of.
        let layout = loop {
            match GuestLayout::new(topology, &[sends], &[ram], &bars) {
                Ok(layout) => break layout,
                Err(_) if bars.pop().is_some() => {}
                Err(error) => panic!("RAM alone overlaps nothing: {error}"),
            }
        };
        self.tally.layouts += 1;
        let report = check(&self.judge, &layout);
        let bar = |bar: &peerdma::route::guest::GuestBar| {
            let target = bar.target();
            Range { at: bar.at(), bar: target.bar().map(|index| (target.function(), index)) }
        };
        let ranges = layout.bars().iter().map(bar).chain([Range { at: ram, bar: None }]);
        for range in ranges {
            let inside = |finding: &&Finding| range.at.contains_range(&finding.range);
            let mut points = vec![range.at.start().as_u64(), range.at.last().as_u64() & !7];
            for finding in report.findings.iter().filter(inside) {
                let (first, last) = (finding.range.start().as_u64(), finding.range.last().as_u64());
                points.extend([first, last & !7, first.saturating_sub(8), (last & !7).saturating_add(8)]);
            }
            points.retain(|point| (range.at.start().as_u64()..=range.at.last().as_u64() - 7).contains(point));
            points.sort_unstable();
            points.dedup();
            for point in points {
                let at = GuestPhys::new(point);
                let found = report
                    .findings
                    .iter()
                    .filter(inside)
                    .find(|finding| finding.range.start() <= at && at <= finding.range.last());
                self.ask(seat, initiator, range, at, found.map(|finding| &finding.stray));
            }
        }
    }

    fn ask(&mut self, seat: &Seat<'_>, initiator: FunctionId, range: Range, at: GuestPhys, found: Option<&Stray>) {
        let topology = self.world.kernel.topology();
        let bits = topology.function(initiator).info().dma_mask_bits.unwrap_or(64);
        if u64::BITS - (at.as_u64() + 7).leading_zeros() > u32::from(bits) {
            return;
        }
        let (page, within) = (at.as_u64() & !(PAGE - 1), at.as_u64() & (PAGE - 1));
        let buffer = self.world.kernel.allocate(Bytes::new(PAGE)).expect("a page of RAM");
        let place = range.bar.map(|(function, bar)| self.place(function, bar, at.as_u64() - range.at.start().as_u64()));
        let behind = match &place {
            None => buffer.range().start(),
            Some(place) => PhysAddr::new(place.cpu.as_u64() & !(PAGE - 1)),
        };
        let mut space = seat.handle();
        let iova = AddrRange::new(Iova::new(page), Bytes::new(PAGE)).unwrap();
        // A window of entries holds few addresses that a guest would choose.
        if space.map(iova, &Source::Physical(behind), Prot::ReadWrite, MemAttrs::empty()).is_err() {
            return;
        }
        let memory = PhysAddr::new(buffer.range().start().as_u64() + within);
        self.world.machine.cpu().store(memory, &[0; 8]);
        if let Some(place) = &place {
            self.world.store(place, &[0; 8]);
        }
        let [write, read] = [Order::Write(BYTES.to_vec()), Order::Read(8)]
            .map(|order| self.world.send(seat.node(), How::default(), BusAddr::new(at.as_u64()), order));
        space.unmap(iova).expect("what was mapped is unmapped");
        let mut bytes = [0; 8];
        self.world.machine.cpu().load(memory, &mut bytes);
        let arrives = match &place {
            None => bytes == BYTES && write.at.is_empty(),
            Some(place) => write.came_to(place) && self.world.load(place, 8) == BYTES,
        };
        let arrives = arrives && read.answer == Answer::Data(BYTES.to_vec());
        // Linux's list, or somebody's report, stands in for what the file does not say of a root complex.
        let silent = |node| self.world.root_is_silent(node);
        let open =
            [&write, &read].iter().any(|seen| seen.ended.iter().any(|end| matches!(end, Ending::UndefinedRoot(_))));
        if open && (silent(seat.node()) || place.as_ref().is_some_and(|place| silent(place.node))) {
            return;
        }
        if let Some(complaint) = self.judged(range, at, found, arrives, &write) {
            let name = self.world.name(seat.node()).to_string();
            self.disagreements.push(format!("{name} at {at}: {complaint}; write {write:?}, read {read:?}"));
        }
    }

    /// A sentence where what happened is not what was said.
    fn judged(
        &mut self,
        range: Range,
        at: GuestPhys,
        found: Option<&Stray>,
        arrives: bool,
        write: &Seen,
    ) -> Option<String> {
        let says = |right: bool, what: String| (!right).then_some(what);
        let topology = self.world.kernel.topology();
        match found {
            None => {
                let is_own = range.bar.is_some_and(|(function, index)| {
                    let mut bars = topology.function(function).info().bars.iter();
                    bars.any(|bar| {
                        bar.index == index && bar.bus.is_some_and(|bus| bus.as_u64() == range.at.start().as_u64())
                    })
                });
                match range.bar {
                    None => self.tally.ram += 1,
                    Some(_) if is_own => self.tally.own_number += 1,
                    Some(_) => self.tally.elsewhere += 1,
                }
                says(arrives, "nothing was found, and it does not arrive".into())
            }
            Some(Stray::Captured { by, bar }) => {
                self.tally.captured += 1;
                let info = topology.function(*by).info();
                let bus = info.bars.iter().find(|one| Some(one.index) == *bar).and_then(|one| one.bus);
                let (Some(bus), Some(bar), Some(node)) = (bus, *bar, self.node(*by)) else {
                    return Some(format!("captured by {} in no BAR", info.address));
                };
                let offset = at.as_u64() - bus.as_u64();
                let has_it = write.at.first() == Some(&(node, bar, offset)) && !write.through_root && !write.in_memory;
                says(has_it, format!("said to be captured by {} bar{bar}", info.address))
            }
            Some(Stray::Stopped { .. }) => {
                self.tally.stopped += 1;
                says(write.at.is_empty() && !write.in_memory, "said to be stopped".into())
            }
            // Eight bytes fit everywhere.
            Some(Stray::Lost(reasons)) if reasons.iter().all(|reason| reason.gate == Gate::PayloadSize) => None,
            Some(Stray::Lost(_)) => {
                self.tally.lost += 1;
                says(!arrives, "said to be lost".into())
            }
            Some(Stray::Undefined(_) | Stray::Unknown(_)) => {
                self.tally.open += 1;
                None
            }
            Some(other) => Some(format!("this machine has nothing like {}", other.word())),
        }
    }

    fn node(&self, function: FunctionId) -> Option<NodeId> {
        self.world.initiators().into_iter().find(|(_, id)| *id == function).map(|(node, _)| node)
    }

    fn place(&self, function: FunctionId, bar: u8, offset: u64) -> Place {
        let info = self.world.kernel.topology().function(function).info();
        let bar = info.bars.iter().find(|one| one.index == bar).unwrap();
        let cpu = PhysAddr::new(bar.cpu.unwrap().start().as_u64() + offset);
        let bus = BusAddr::new(bar.bus.unwrap().as_u64() + offset);
        Place { node: self.node(function).unwrap(), function, bar: bar.index, offset, cpu, bus }
    }
}

#[test]
fn a_layout_without_findings_arrives_and_what_is_captured_is_where_the_check_says() {
    let mut tally = Tally::default();
    let mut all = Vec::new();
    for seed in 0..40 {
        let world = World::new(&draw::platform(seed), seed);
        let judge = Judge::new(world.kernel.topology());
        let random = fastrand::Rng::with_seed(seed ^ 0x0067_7565_7374);
        let mut guest = Guest { world: &world, judge, random, tally, disagreements: Vec::new() };
        guest.run();
        tally = guest.tally;
        all.extend(guest.disagreements.into_iter().map(|what| format!("seed {seed}: {what}")));
    }
    assert!(all.is_empty(), "{} disagreements:\n{}", all.len(), all[..all.len().min(30)].join("\n"));
    let Tally { layouts, ram, own_number, elsewhere, captured, stopped, lost, open } = &tally;
    let each = [*ram, *own_number, *elsewhere, *captured, *stopped, *lost, *open];
    assert!(*layouts > 200 && each.iter().all(|count| *count > 20), "{tally:?}");
}
