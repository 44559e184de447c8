//! The target's range and some process memory mapped for the initiator.
//!
//! IOVAs are taken from 1 MiB upwards. Low ones for two reasons: edu cuts addresses to 28
//! bits unless told otherwise (a range that needs more is refused, since what is cut lands
//! elsewhere), and below a switch without ACS redirection a request whose IOVA equals another
//! device's bus address never reaches the IOMMU; no BAR lies that low.
//! An unmapped page stays between the two mappings, so that what runs over faults.
//!
//! Not here: opening ([`super::open`]), and whether it should be done.

use super::NoSession;
use super::open::{self, Opened, Space, Wanted};
use crate::args::ViaArgument;
use crate::document::GrantedDocument;
use crate::exit::Failure;
use peerdma::addr::{AddrRange, Bytes, Iova};
use peerdma::dma::{Abilities, MemAttrs, Permit, Prot, Source};
use peerdma_linux::edu::Edu;
use peerdma_linux::engine::Engine;
use peerdma_linux::memory::Pages;
use peerdma_linux::verified::{self, GUARD, Observer, Staging, Target, Verification, VerifyError};
use peerdma_linux::vfio::{BarMapping, BarRange, VfioDevice};

/// Lowest IOVA that is used.
const LOWEST: u64 = 1 << 20;

/// Everything that is open, in the order in which it is closed: the engine stops first, then
/// its address space goes, then memory and devices.
pub(crate) struct Session {
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
    pub(crate) fn open(via: ViaArgument, wanted: Wanted) -> Result<Self, NoSession> {
        let Wanted { initiator, range, .. } = wanted;
        let Opened { via, mut space, initiator: initiator_device, target, whole, file } = open::open(via, wanted)?;
        let engine = Edu::new(initiator_device).map_err(|error| {
            NoSession::NotReady(Failure::device(format!("cannot use {initiator} as an engine"), error))
        })?;
        let refused = |error: &dyn std::fmt::Display| wanted.refused(via, error);
        let bar = with_guards(&target, range).map_err(|error| refused(&error))?;
        let pages = Pages::zeroed(Staging::pages_for(engine.capacity()))
            .map_err(|error| NoSession::NotReady(Failure::device("cannot allocate memory", error)))?;
        let granule = open::granule(&*space);
        let (staging_iova, mapped_iova) = place(space.abilities(), engine.highest(), pages.len(), whole.len(), granule)
            .map_err(|why| refused(&why))?;
        let source = match file {
            Some(file) => Source::File { file, offset: Bytes::ZERO },
            None => {
                let process = bar.process_range(whole);
                let process = process.ok_or_else(|| refused(&"the CPU cannot map the pages around it"))?;
                Source::Process(process.start())
            }
        };
        space.map(staging_iova, &Source::Process(pages.address()), Prot::ReadWrite, MemAttrs::empty()).map_err(
            |error| {
                let what = format!("cannot map memory for {initiator} through {}", via.word());
                NoSession::NotReady(Failure::device(what, error))
            },
        )?;
        // The verdict was asked before anything was opened, and what it does not permit was forced.
        let permit = Permit::vouched(Prot::ReadWrite);
        space
            .map_peer(mapped_iova, &source, Prot::ReadWrite, MemAttrs::MMIO, &permit)
            .map_err(|error| refused(&error))?;
        let inside = Bytes::new(range.offset().as_u64() - whole.offset().as_u64());
        let target_iova = mapped_iova.slice(inside, range.len());
        let target_iova = target_iova.ok_or_else(|| refused(&"the range does not lie in its pages"))?;
        let via = via.word();
        Ok(Self { engine, space, via, staging_iova, mapped_iova, target_iova, pages, bar, range, _target: target })
    }

    pub(crate) fn granted(&self) -> GrantedDocument {
        GrantedDocument::new(self.via, self.target_iova, self.mapped_iova, self.staging_iova)
    }

    pub(crate) fn verify(&mut self, seed: u64, observe: Observer<'_>) -> Result<Verification, VerifyError> {
        let target = Target::new(&self.bar, self.range.offset(), self.target_iova)?;
        let staging = Staging::new(&self.pages, self.staging_iova.start())?;
        verified::verify(&mut self.engine, &target, &staging, seed, observe)
    }

    pub(crate) fn transfer(&mut self, seed: u64, observe: Observer<'_>) -> Result<(), VerifyError> {
        let target = Target::new(&self.bar, self.range.offset(), self.target_iova)?;
        let staging = Staging::new(&self.pages, self.staging_iova.start())?;
        verified::transfer(&mut self.engine, &target, &staging, seed, observe)
    }

    /// Stops the engine and unmaps, and says if that went wrong; dropping does the same in
    /// silence.
    pub(crate) fn close(self) -> Result<(), Failure> {
        let Self { engine, mut space, via, staging_iova, mapped_iova, .. } = self;
        drop(engine);
        for iova in [mapped_iova, staging_iova] {
            space.unmap(iova).map_err(|error| Failure::device(format!("cannot unmap {iova} from {via}"), error))?;
        }
        Ok(())
    }
}

/// Maps the range and, where the BAR has them and offers them, the bytes around it.
pub(super) fn with_guards(
    device: &VfioDevice,
    range: BarRange,
) -> Result<BarMapping, peerdma_linux::vfio::MapBarError> {
    let size = device.bar(range.bar()).map_or(range.end(), |bar| bar.size);
    let start = range.offset().as_u64().saturating_sub(GUARD.as_u64());
    let end = range.end().as_u64().saturating_add(GUARD.as_u64()).min(size.as_u64()).max(range.end().as_u64());
    let wider = BarRange::new(range.bar(), Bytes::new(start), Bytes::new(end - start));
    match wider.map(|wider| device.map(wider)) {
        Some(Ok(mapping)) => Ok(mapping),
        _ => device.map(range),
    }
}

/// Why there is no place for the mappings.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
enum NoPlace {
    #[error(
        "no usable IOVAs up to {highest}, the highest that the engine is sure to address, have room for its buffer"
    )]
    Buffer { highest: Iova },
    #[error(
        "no usable IOVAs up to {highest}, the highest that the engine is sure to address, have room for {len}; copy a shorter range"
    )]
    Target { highest: Iova, len: Bytes },
}

/// IOVAs for two mappings, a granule apart, as low as possible from [`LOWEST`] on and none above
/// `highest`.
fn place(
    abilities: &Abilities,
    highest: Iova,
    staging: Bytes,
    target: Bytes,
    granule: Bytes,
) -> Result<(AddrRange<Iova>, AddrRange<Iova>), NoPlace> {
    let round = |value: u64| value.checked_next_multiple_of(granule.as_u64());
    let free = |from: u64, len: Bytes| {
        let fit = |usable: &AddrRange<Iova>| {
            let start = round(usable.start().as_u64().max(from))?;
            AddrRange::new(Iova::new(start), len).filter(|range| usable.contains_range(range))
        };
        // Of the ranges that fit the first is the lowest; if it ends too high, so do all.
        let lowest = abilities.usable.as_slice().iter().find_map(fit);
        lowest.filter(|range| range.last() <= highest)
    };
    let staging = round(staging.as_u64()).and_then(|len| free(LOWEST, Bytes::new(len)));
    let staging = staging.ok_or(NoPlace::Buffer { highest })?;
    let after = staging.last().as_u64().checked_add(1).and_then(|end| end.checked_add(granule.as_u64()));
    let target_range = after.and_then(|after| free(after, target));
    Ok((staging, target_range.ok_or(NoPlace::Target { highest, len: target })?))
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
            placement: peerdma::dma::Placement::Chosen,
            write_only: WriteOnly::MayRead,
            changes: Changes::empty(),
            max_mappings: None,
        }
    }

    #[test]
    fn iovas_are_low_and_leave_a_page_between_them() {
        let page = Bytes::new(4096);
        let place = |usable: &[(u64, u64)], target| {
            let (buffer, any) = (Bytes::new(3 * 4096), Iova::new(u64::MAX));
            let (staging, target) = place(&abilities(usable), any, buffer, Bytes::new(target), page).ok()?;
            Some((staging.start().as_u64(), target.start().as_u64()))
        };
        assert_eq!(place(&[(0, u64::MAX - 1)], 4096), Some((0x10_0000, 0x10_4000)));
        // The first range ends before the target fits, the second starts off the granule.
        assert_eq!(place(&[(0, 0x10_4fff), (0x20_0800, 0xfff_ffff)], 8192), Some((0x10_0000, 0x20_1000)));
        assert_eq!(place(&[(0, 0x10_4fff)], 8192), None);
        assert_eq!(place(&[(u64::MAX - 4096, u64::MAX)], 4096), None);
    }
    #[test]
    fn a_range_that_would_end_where_edu_cuts_addresses_is_refused_by_name() {
        let (page, buffer, highest) = (Bytes::new(4096), Bytes::new(3 * 4096), Edu::HIGHEST);
        let place = |usable: &[(u64, u64)], target| {
            place(&abilities(usable), highest, buffer, Bytes::new(target), page).map(|(_, target)| target.last())
        };
        let longest = (1 << 28) - 0x10_4000;
        assert_eq!(place(&[(0, u64::MAX)], longest), Ok(Iova::new(0xfff_ffff)));
        let longer = Bytes::new(longest + 4096);
        let error = place(&[(0, u64::MAX)], longest + 4096).unwrap_err();
        assert_eq!(error, NoPlace::Target { highest, len: longer });
        let text = error.to_string();
        assert!(text.contains("copy a shorter range") && text.contains("0xfffffff"), "{text}");
        assert_eq!(place(&[(1 << 28, u64::MAX)], 4096), Err(NoPlace::Buffer { highest }));
    }
}
