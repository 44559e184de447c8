//! The address space of a plan: tables in a software IOMMU, or nothing that translates.

use super::device::Device;
use super::plan::{self, Look, NoTables, Outcome, Plan, Row, TOO_MANY_SEGMENTS, TableUse};
use super::refused::{NO_TABLE_MEMORY, Refused};
use super::tables::Tables;
use crate::args::{FormatArgument, MapArguments};
use crate::chunk::{Resolved, Wanted};
use crate::exit::Failure;
use crate::input::Loaded;
use peerdma::access::{MemAttrs, Prot};
use peerdma::addr::{AddrRange, Bytes, Granule, Iova, PhysAddr};
use peerdma::dma::aperture::iovas_for;
use peerdma::dma::engine::Context;
use peerdma::dma::reach::Peers;
use peerdma::dma::spaces::{DirectSpace, SoftIommu, SoftOptions};
use peerdma::dma::{Initiator, IoSpace, Segments, Windows};
use peerdma::iopt::{
    AmdOptions, AmdV1, ArmOptions, ArmStage1, ArmStage2, Format, FrameArena, Pages4K, ShapeError, TableMemory,
    VtdOptions, VtdSecondStage, X86FirstStage, X86Options,
};
use peerdma::iova::{Allocator, Depot, IovaRanges};
use peerdma::topology::FunctionId;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;

/// Where tables of a plan lie; nothing points at them but themselves.
const TABLES_AT: PhysAddr = PhysAddr::new(1 << 30);

/// Most frames for tables: 512 GiB in 4 KiB pages.
const MOST_FRAMES: u64 = 1 << 18;

/// Frames that are tried first.
const FEW_FRAMES: usize = 1 << 10;

/// Everything that a plan is made from.
pub(super) struct Setup<'a> {
    loaded: &'a Loaded,
    arguments: &'a MapArguments,
    function: FunctionId,
    resolved: &'a Resolved,
    peers: &'a Peers<'a>,
    inbound: Windows,
}

impl<'a> Setup<'a> {
    pub(super) fn new(
        loaded: &'a Loaded,
        arguments: &'a MapArguments,
        function: FunctionId,
        resolved: &'a Resolved,
        peers: &'a Peers<'a>,
    ) -> Result<Self, Failure> {
        let windows: Vec<_> = arguments.way.inbound.iter().map(|inbound| inbound.0).collect();
        for (index, window) in windows.iter().enumerate() {
            let (cpu, bus) = (window.cpu(), window.bus());
            let meets = windows[..index].iter().any(|other| {
                let apart = other.cpu().last() < cpu.start() || cpu.last() < other.cpu().start();
                let apart_below = other.bus().last() < bus.start() || bus.last() < other.bus().start();
                !apart || !apart_below
            });
            if meets {
                return Err(Failure::usage(format!("--inbound: {cpu} at {bus} overlaps one given before it")));
            }
        }
        let inbound = if windows.is_empty() { Windows::one_to_one() } else { Windows::new(windows) };
        Ok(Self { loaded, arguments, function, resolved, peers, inbound })
    }

    /// The plan, and what translates in it.
    pub(super) fn plan(&self, device: &Device) -> Result<(Option<Tables>, Plan), Failure> {
        let Some(initiator) = &device.initiator else { return Ok((None, self.without_mode(device))) };
        let tables = match device.is_translated() {
            true => Some(Tables::choose(self.loaded, self.arguments.way.format)?),
            false => None,
        };
        let mut plan = self.with(device, initiator.clone(), tables.as_ref());
        if plan.refused.as_ref().is_some_and(|refused| refused.code == TOO_MANY_SEGMENTS) {
            // What it would be for a device that takes more.
            let segments = Segments { most: None, ..initiator.segments() };
            let refused = plan.refused.take();
            plan = Plan { refused, ..self.with(device, initiator.clone().with_segments(segments), tables.as_ref()) };
        }
        Ok((tables, plan))
    }

    fn with(&self, device: &Device, initiator: Initiator, tables: Option<&Tables>) -> Plan {
        let made = match tables {
            Some(tables) => self.translated(device, initiator, tables.format),
            None => self.direct(device, initiator),
        };
        made.unwrap_or_else(|refused| Plan::not_placed(self.unplaced(), refused))
    }

    fn translated(&self, device: &Device, initiator: Initiator, format: FormatArgument) -> Result<Plan, Refused> {
        let shape = |error: ShapeError| Refused::new("format", error.to_string());
        match format {
            FormatArgument::Vtd => {
                self.in_format(device, initiator, VtdSecondStage::new(VtdOptions::default()).map_err(shape)?)
            }
            FormatArgument::AmdV1 => {
                self.in_format(device, initiator, AmdV1::new(AmdOptions::default()).map_err(shape)?)
            }
            FormatArgument::X86FirstStage => {
                self.in_format(device, initiator, X86FirstStage::new(X86Options::default()).map_err(shape)?)
            }
            FormatArgument::ArmS1 => {
                self.in_format(device, initiator, ArmStage1::<Pages4K>::new(ArmOptions::default()).map_err(shape)?)
            }
            FormatArgument::ArmS2 => {
                self.in_format(device, initiator, ArmStage2::<Pages4K>::new(ArmOptions::default()).map_err(shape)?)
            }
        }
    }

    /// Most plans take few tables; one that runs out of them is made again with more.
    fn in_format<F: Format>(&self, device: &Device, initiator: Initiator, format: F) -> Result<Plan, Refused> {
        let most = self.frames();
        let mut frames = most.min(FEW_FRAMES);
        loop {
            let plan = self.with_frames(device, initiator.clone(), format.clone(), frames)?;
            let ran_out = plan.refusals().any(|(_, refused)| refused.code == NO_TABLE_MEMORY);
            if !ran_out || frames == most {
                return Ok(plan);
            }
            frames = most.min(frames * 16);
        }
    }

    fn with_frames<F: Format>(
        &self,
        device: &Device,
        initiator: Initiator,
        format: F,
        frames: usize,
    ) -> Result<Plan, Refused> {
        let frames = FrameArena::new(TABLES_AT, frames);
        let topology = &self.loaded.topology;
        let group = topology.function(self.function).info().iommu_group;
        let reserved = topology.groups().iter().filter(|known| Some(known.id) == group);
        let reserved = reserved.flat_map(|group| group.reserved.iter().map(|region| region.range));
        let options = reserved.fold(SoftOptions::default(), SoftOptions::reserving);
        let refused = |error: &dyn std::error::Error| Refused::new("address_space", error.to_string());
        let domain = SoftIommu::with(format, &frames, &options).map_err(|error| refused(&error))?;
        let free = iovas_for(domain.abilities(), topology, &[self.function], &self.inbound);
        let depot = RefCell::new(free.map_err(|error| refused(&error))?);
        self.over(device, initiator, domain.attach(), &depot, &domain)
    }

    fn direct(&self, device: &Device, initiator: Initiator) -> Result<Plan, Refused> {
        let space = DirectSpace::new(self.inbound.clone(), Iova::new(initiator.highest()));
        // Asked for nothing, since placement is dictated.
        let all = IovaRanges::from_inclusive([(Iova::new(0), Iova::new(u64::MAX))]).unwrap_or_default();
        let depot = Allocator::new(Granule::PAGE_4K, &all);
        let depot = RefCell::new(depot.map_err(|error| Refused::new("address_space", error.to_string()))?);
        self.over(device, initiator, space, &depot, &NoTables)
    }

    fn over<S: IoSpace<File = Infallible>, D: Depot>(
        &self,
        device: &Device,
        initiator: Initiator,
        space: S,
        depot: &D,
        look: &dyn Look,
    ) -> Result<Plan, Refused> {
        let context = Context::new(initiator, space, &self.resolved.owners, self.peers, depot);
        let mut context = context.map_err(|error| Refused::new("address_space", error.to_string()))?;
        if let Some(pool) = &device.pool {
            context = context.with_bouncer(pool);
        }
        Ok(plan::make(&context, self.resolved, look, &|wanted| self.verdict(wanted), self.arguments.spans))
    }

    /// The verdict of a chunk's pair, in a word.
    fn verdict(&self, wanted: &Wanted) -> &'static str {
        match self.peers.judge().zip(wanted.target) {
            Some((judge, target)) => judge.judge(self.function, &target).verdict.word(),
            None if wanted.chunk.owner().is_mmio() => "unknown",
            None => "memory",
        }
    }

    fn unplaced(&self) -> Vec<Row> {
        let wanted = self.resolved.wanted.iter();
        wanted.map(|wanted| Row { route: self.verdict(wanted), outcome: Outcome::NotPlaced }).collect()
    }

    /// Without a mode there is no address; a route that is refused in any mode is refused all the same.
    fn without_mode(&self, device: &Device) -> Plan {
        let mut rows = self.unplaced();
        for (row, wanted) in rows.iter_mut().zip(&self.resolved.wanted) {
            let Some((judge, target)) = self.peers.judge().zip(wanted.target) else { continue };
            if row.route == "refused" {
                let pair = judge.judge(self.function, &target);
                let owner = self.resolved.named(&wanted.chunk.owner().to_string());
                let refused = Refused::new("route", format!("in no IOMMU mode does the initiator reach {owner}"));
                row.outcome = Outcome::Refused(Refused { reasons: judge.reasons(&pair), ..refused });
            }
        }
        let what = format!("which addresses it is to be given is not known: {}; give --iommu", device.domain.evidence);
        Plan::not_placed(rows, Refused::unknown("iommu_mode", what))
    }

    /// As many frames as tables of 4 KiB pages may need, within reason.
    fn frames(&self) -> usize {
        let chunks = self.resolved.wanted.iter().map(|wanted| wanted.chunk.len().as_u64());
        // Each level has one table for 512 below it, and one more at either end of a chunk.
        let leaf = |len: u64| len >> 21;
        let all = chunks.fold(64_u64, |sum, len| sum.saturating_add(leaf(len) + (leaf(len) >> 8) + 16));
        usize::try_from(all.min(MOST_FRAMES)).unwrap_or(usize::MAX)
    }
}

impl<F: Format, M: TableMemory> Look for SoftIommu<F, M> {
    fn pages(&self, iova: AddrRange<Iova>) -> (BTreeMap<Bytes, u64>, Option<(Prot, MemAttrs)>) {
        let (mut pages, mut said) = (BTreeMap::new(), None);
        let mut at = iova.start();
        while let Ok(found) = self.table().walk(at) {
            *pages.entry(found.page_size).or_insert(0_u64) += 1;
            said.get_or_insert((found.prot, found.attrs));
            let into = at.as_u64() & (found.page_size.as_u64() - 1);
            match at.checked_add(Bytes::new(found.page_size.as_u64() - into)) {
                Some(next) if next <= iova.last() => at = next,
                _ => break,
            }
        }
        (pages, said)
    }

    fn granule(&self) -> Granule {
        self.abilities().granule
    }

    fn tables(&self) -> Option<TableUse> {
        Some(TableUse { count: self.table().tables(), bytes: self.table().table_bytes() })
    }
}
