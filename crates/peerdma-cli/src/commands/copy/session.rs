//! Two devices opened, the target's range and some process memory mapped for the first.
//!
//! IOVAs are taken from 1 MiB upwards. Low ones for two reasons: edu cuts addresses to 28
//! bits unless told otherwise, and below a switch without ACS redirection a request whose
//! IOVA equals another device's bus address never reaches the IOMMU; no BAR lies that low.
//! An unmapped page stays between the two mappings, so that what runs over faults.
//!
//! Not here: whether it should be done.

use crate::args::ViaArgument;
use crate::document::GrantedDocument;
use crate::exit::Failure;
use peerdma::addr::{AddrRange, Bytes, Iova};
use peerdma::dma::{Abilities, IoSpace, MemAttrs, Prot, Source};
use peerdma::pcie::PciAddr;
use peerdma_linux::edu::Edu;
use peerdma_linux::engine::Engine;
use peerdma_linux::iommufd::IommufdSpace;
use peerdma_linux::memory::{Pages, page_size};
use peerdma_linux::type1::Type1Space;
use peerdma_linux::verified::{self, GUARD, Observer, Staging, Target, Verification, VerifyError};
use peerdma_linux::vfio::{BarMapping, BarRange, Command, DeviceNode, Nodes, VfioDevice};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Lowest IOVA that is used.
const LOWEST: u64 = 1 << 20;

type File = Arc<OwnedFd>;
type Space = Box<dyn IoSpace<File = File>>;

/// Everything that is open, in the order in which it is closed: the engine stops first, then
/// its address space goes, then memory and devices.
pub(super) struct Session {
    engine: Edu,
    space: Space,
    via: &'static str,
    staging_iova: AddrRange<Iova>,
    mapped_iova: AddrRange<Iova>,
    target_iova: AddrRange<Iova>,
    pages: Pages,
    bar: BarMapping,
    range: BarRange,
    _target: VfioDevice,
}

impl Session {
    pub(super) fn open(
        via: ViaArgument,
        initiator: PciAddr,
        target: PciAddr,
        range: BarRange,
    ) -> Result<Self, Failure> {
        let nodes = Nodes::live();
        let by_iommufd = match via {
            ViaArgument::Auto => nodes.offer_iommufd(initiator) && nodes.offer_iommufd(target),
            ViaArgument::Type1 => false,
            ViaArgument::Iommufd => true,
        };
        let failed = |error| Failure::device(format!("cannot open {initiator} and {target}"), error);
        let (mut space, source, devices) = if by_iommufd {
            let (space, initiator, target) = iommufd(&nodes, initiator, target).map_err(failed)?;
            (Box::new(space) as Space, From::File, (initiator, target))
        } else {
            let space = Type1Space::open(&nodes, &[initiator, target]).map_err(failed)?;
            let devices = (space.device(initiator).map_err(failed)?, space.device(target).map_err(failed)?);
            (Box::new(space) as Space, From::Process, devices)
        };
        let via = if by_iommufd { "iommufd" } else { "type1" };
        let (initiator_device, target_device) = devices;
        let engine = Edu::new(initiator_device)
            .map_err(|error| Failure::device(format!("cannot use {initiator} as an engine"), error))?;
        let refused = |error: &dyn std::fmt::Display| -> Failure {
            Failure::Device {
                what: format!("cannot map {target}'s {range} for {initiator} through {via}: {error}"),
                source: None,
            }
        };
        // Its BARs answer only with memory space on, to this CPU and to the engine.
        target_device.set_command(Command::MEMORY).map_err(|error| refused(&error))?;
        let bar = with_guards(&target_device, range).map_err(|error| refused(&error))?;
        let pages = Pages::zeroed(Staging::pages_for(engine.capacity()))
            .map_err(|error| Failure::device("cannot allocate memory", error))?;
        let granule = page_size().max(space.abilities().granule.bytes());
        let whole = range.whole_pages(granule).ok_or_else(|| refused(&"the range ends past 64 bits"))?;
        if target_device.bar(range.bar()).is_none_or(|bar| whole.end() > bar.size) {
            return Err(refused(&format_args!("only whole pages of {granule} can be mapped, and its BAR is smaller")));
        }
        let (staging_iova, mapped_iova) = place(space.abilities(), pages.len(), whole.len(), granule)
            .ok_or_else(|| refused(&"no usable IOVA range has that much room"))?;
        let source = match source {
            From::Process => {
                let process = bar.process_range(whole);
                let process = process.ok_or_else(|| refused(&"the CPU cannot map the pages around it"))?;
                Source::Process(process.start())
            }
            From::File => {
                let file = target_device.export(whole).map_err(|error| refused(&error))?;
                Source::File { file, offset: Bytes::ZERO }
            }
        };
        space
            .map(staging_iova, &Source::Process(pages.address()), Prot::ReadWrite, MemAttrs::empty())
            .map_err(|error| Failure::device(format!("cannot map memory for {initiator} through {via}"), error))?;
        space.map(mapped_iova, &source, Prot::ReadWrite, MemAttrs::MMIO).map_err(|error| refused(&error))?;
        let inside = Bytes::new(range.offset().as_u64() - whole.offset().as_u64());
        let target_iova = mapped_iova.slice(inside, range.len());
        let target_iova = target_iova.ok_or_else(|| refused(&"the range does not lie in its pages"))?;
        let _target = target_device;
        Ok(Self { engine, space, via, staging_iova, mapped_iova, target_iova, pages, bar, range, _target })
    }

    pub(super) fn granted(&self) -> GrantedDocument {
        GrantedDocument::new(self.via, self.target_iova, self.mapped_iova, self.staging_iova)
    }

    pub(super) fn verify(&mut self, seed: u64, observe: Observer<'_>) -> Result<Verification, VerifyError> {
        let target = Target::new(&self.bar, self.range.offset(), self.target_iova)?;
        let staging = Staging::new(&self.pages, self.staging_iova.start())?;
        verified::verify(&mut self.engine, &target, &staging, seed, observe)
    }

    pub(super) fn transfer(&mut self, seed: u64, observe: Observer<'_>) -> Result<(), VerifyError> {
        let target = Target::new(&self.bar, self.range.offset(), self.target_iova)?;
        let staging = Staging::new(&self.pages, self.staging_iova.start())?;
        verified::transfer(&mut self.engine, &target, &staging, seed, observe)
    }

    /// Stops the engine and unmaps, and says if that went wrong; dropping does the same in
    /// silence.
    pub(super) fn close(self) -> Result<(), Failure> {
        let Self { engine, mut space, via, staging_iova, mapped_iova, .. } = self;
        drop(engine);
        for iova in [mapped_iova, staging_iova] {
            space.unmap(iova).map_err(|error| Failure::device(format!("cannot unmap {iova} from {via}"), error))?;
        }
        Ok(())
    }
}

/// What stands for a BAR.
enum From {
    /// Its mapping in this process.
    Process,
    /// A dma-buf of it.
    File,
}

fn iommufd(
    nodes: &Nodes,
    initiator: PciAddr,
    target: PciAddr,
) -> Result<(IommufdSpace, VfioDevice, VfioDevice), peerdma_linux::vfio::OpenError> {
    let (initiator, target) = (DeviceNode::open(nodes, initiator)?, DeviceNode::open(nodes, target)?);
    let mut space = IommufdSpace::open(nodes)?;
    let initiator = space.bind(initiator)?;
    // The target does no DMA, so it gets no address space.
    let target = space.bind(target)?;
    space.attach(&initiator)?;
    Ok((space, initiator, target))
}

/// Maps the range and, where the BAR has them and offers them, the bytes around it.
fn with_guards(device: &VfioDevice, range: BarRange) -> Result<BarMapping, peerdma_linux::vfio::MapBarError> {
    let size = device.bar(range.bar()).map_or(range.end(), |bar| bar.size);
    let start = range.offset().as_u64().saturating_sub(GUARD.as_u64());
    let end = range.end().as_u64().saturating_add(GUARD.as_u64()).min(size.as_u64()).max(range.end().as_u64());
    let wider = BarRange::new(range.bar(), Bytes::new(start), Bytes::new(end - start));
    match wider.map(|wider| device.map(wider)) {
        Some(Ok(mapping)) => Ok(mapping),
        _ => device.map(range),
    }
}

/// IOVAs for two mappings, a granule apart, as low as possible from [`LOWEST`] on.
fn place(
    abilities: &Abilities,
    staging: Bytes,
    target: Bytes,
    granule: Bytes,
) -> Option<(AddrRange<Iova>, AddrRange<Iova>)> {
    let round = |value: u64| value.checked_next_multiple_of(granule.as_u64());
    let free = |from: u64, len: Bytes| {
        let fit = |usable: &AddrRange<Iova>| {
            let start = round(usable.start().as_u64().max(from))?;
            AddrRange::new(Iova::new(start), len).filter(|range| usable.contains_range(range))
        };
        abilities.usable.as_slice().iter().find_map(fit)
    };
    let staging = free(LOWEST, Bytes::new(round(staging.as_u64())?))?;
    let after = staging.last().as_u64().checked_add(1)?.checked_add(granule.as_u64())?;
    Some((staging, free(after, target)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use peerdma::dma::{Changes, Granule, IovaRanges, Sources, WriteOnly};

    fn abilities(usable: &[(u64, u64)]) -> Abilities {
        let pairs = usable.iter().map(|(first, last)| (Iova::new(*first), Iova::new(*last)));
        Abilities {
            sources: Sources::default(),
            granule: Granule::PAGE_4K,
            usable: IovaRanges::from_inclusive(pairs).unwrap_or_default(),
            attrs: MemAttrs::empty(),
            write_only: WriteOnly::MayRead,
            changes: Changes::empty(),
            max_mappings: None,
        }
    }

    #[test]
    fn iovas_are_low_and_leave_a_page_between_them() {
        let page = Bytes::new(4096);
        let place = |usable: &[(u64, u64)], target| {
            let (staging, target) = place(&abilities(usable), Bytes::new(3 * 4096), Bytes::new(target), page)?;
            Some((staging.start().as_u64(), target.start().as_u64()))
        };
        assert_eq!(place(&[(0, u64::MAX - 1)], 4096), Some((0x10_0000, 0x10_4000)));
        // The first range ends before the target fits, the second starts off the granule.
        assert_eq!(place(&[(0, 0x10_4fff), (0x20_0800, 0xfff_ffff)], 8192), Some((0x10_0000, 0x20_1000)));
        assert_eq!(place(&[(0, 0x10_4fff)], 8192), None);
        assert_eq!(place(&[(u64::MAX - 4096, u64::MAX)], 4096), None);
    }
}
