//! What the library's own space does that the kernel does not: asks for routes, looks how a file was opened; and what it takes
//! from the kernel besides, copies and options.

use super::super::bench::{ELSEWHERE, Fate, HERE, PAGE, STAGING, USED, expect, used};
use super::super::claim::{Claim, Stop, equal};
use super::{Tried, exported};
use peerdma::addr::{AddrRange, Bytes, Iova};
use peerdma::dma::{IoSpace, MapError, MemAttrs, Permit, Prot, Source};
use peerdma_linux::iommufd::IommufdSpace;
use peerdma_linux::iommufd::copy::CopyError;
use peerdma_linux::iommufd::options::{Charging, OptionError};
use peerdma_linux::memory::Pages;
use peerdma_linux::vfio::Nodes;
use std::os::fd::OwnedFd;
use std::sync::Arc;

pub(super) const VOUCHED: Permit = Permit::vouched(Prot::ReadWrite);

pub(super) fn claims() -> Vec<Claim<Tried>> {
    vec![
        Claim::new(
            "the library maps a dma-buf with a permit, and refuses one without whatever it is called",
            permitted,
        ),
        Claim::new(
            "the library maps a dma-buf that was exported read-only for reading, and refuses writing",
            read_only,
        ),
        Claim::new("a copy of memory is the same memory, also when its source is unmapped", copied_memory),
        Claim::new("a copy of a dma-buf takes a permit, reaches the BAR, and is dead after a reset", copied_bar),
        Claim::new("a copy of a mapping that a reset killed is taken, and leads nowhere", copied_dead),
        Claim::new("a copy of a hole, for more than its source, or from elsewhere is refused by name", copied_wrongly),
        Claim::new("huge pages are switched off before anything is mapped, and not afterwards", huge_pages),
        Claim::new("an iommufd charges the user, or the process where that was chosen when it was opened", charging),
    ]
}

fn range(start: Iova, len: Bytes) -> Result<AddrRange<Iova>, Stop> {
    AddrRange::new(start, len).ok_or_else(|| Stop::broken("the claim names IOVAs that do not exist"))
}

fn all_of(file: &Arc<OwnedFd>) -> Source<Arc<OwnedFd>> {
    Source::File { file: file.clone(), offset: Bytes::ZERO }
}

/// Has the engine in a space of the library's for as long as the claim runs.
pub(super) fn within(
    bench: &mut Tried,
    tries: impl FnOnce(&mut Tried, &mut IommufdSpace) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let mut space = bench.space.binder.another()?;
    let staging = Source::Process(bench.staging.address());
    space.map(range(STAGING, PAGE)?, &staging, Prot::ReadWrite, MemAttrs::empty())?;
    space.attach(bench.engine.device())?;
    let tried = tries(bench, &mut space);
    let back = bench.space.ioas().attach(bench.engine.device());
    tried?;
    super::taken("giving the engine its address space back", back).map(drop)
}

fn permitted(bench: &mut Tried) -> Result<(), Stop> {
    within(bench, |bench, space| {
        let (file, here) = (exported(bench)?, range(HERE, USED)?);
        for attrs in [MemAttrs::MMIO, MemAttrs::empty()] {
            let unasked = space.map(here, &all_of(&file), Prot::ReadWrite, attrs);
            equal("mapping it without a permit", &Err(MapError::Unasked { iova: here }), &unasked)?;
        }
        let (asked, permit) = (Prot::ReadWrite, Permit::vouched(Prot::Read));
        let beyond = space.map_peer(here, &all_of(&file), asked, MemAttrs::MMIO, &permit);
        let refused = MapError::BeyondPermit { iova: here, asked, permitted: Prot::Read };
        equal("mapping it for more than was permitted", &Err(refused), &beyond)?;
        space.map_peer(here, &all_of(&file), Prot::ReadWrite, MemAttrs::MMIO, &VOUCHED)?;
        expect("a write", Fate::Arrived, bench.write(HERE, Bytes::ZERO)?)
    })
}

fn read_only(bench: &mut Tried) -> Result<(), Stop> {
    within(bench, |bench, space| {
        let (file, here) = (bench.device()?.export_read_only(used()?)?, range(HERE, USED)?);
        for asked in [Prot::ReadWrite, Prot::Write] {
            let refused = space.map_peer(here, &all_of(&file), asked, MemAttrs::MMIO, &VOUCHED);
            equal("mapping it for writing", &Err(MapError::FileMode { asked, given: Prot::Read }), &refused)?;
        }
        space.map_peer(here, &all_of(&file), Prot::Read, MemAttrs::MMIO, &VOUCHED)?;
        expect("a read", Fate::Arrived, bench.read(HERE, Bytes::ZERO)?)?;
        expect("a write", Fate::Lost, bench.write(HERE, Bytes::ZERO)?)
    })
}

fn copied_memory(bench: &mut Tried) -> Result<(), Stop> {
    let pages = Pages::zeroed(PAGE)?;
    within(bench, |bench, space| {
        let mut source = space.another()?;
        let (there, here) = (range(ELSEWHERE, PAGE)?, range(HERE, PAGE)?);
        source.map(there, &Source::Process(pages.address()), Prot::ReadWrite, MemAttrs::empty())?;
        space.copy(here, &source, ELSEWHERE, Prot::ReadWrite)?;
        equal("bytes unmapped of the source", &PAGE, &source.unmap(there)?)?;
        let (sent, mut seen) = (bench.pattern(PAGE), vec![0; PAGE.as_u64() as usize]);
        bench.send(&sent, HERE)?;
        pages.read(Bytes::ZERO, &mut seen)?;
        equal("bytes that the engine wrote through the copy", &true, &(seen == sent))?;
        equal("bytes unmapped of the copy", &PAGE, &space.unmap(here)?)
    })
}

fn copied_bar(bench: &mut Tried) -> Result<(), Stop> {
    within(bench, |bench, space| {
        let (file, mut source) = (exported(bench)?, space.another()?);
        let (there, here) = (range(ELSEWHERE, USED)?, range(HERE, USED)?);
        source.map_peer(there, &all_of(&file), Prot::ReadWrite, MemAttrs::MMIO, &VOUCHED)?;
        let unasked = space.copy(here, &source, ELSEWHERE, Prot::ReadWrite);
        equal("copying it without a permit", &Err(CopyError::Map(MapError::Unasked { iova: here })), &unasked)?;
        space.copy_peer(here, &source, ELSEWHERE, Prot::ReadWrite, &VOUCHED)?;
        expect("a write", Fate::Arrived, bench.write(HERE, Bytes::ZERO)?)?;
        bench.device()?.reset()?;
        expect("a write after a reset", Fate::Lost, bench.write(HERE, Bytes::ZERO)?)
    })
}

fn copied_dead(bench: &mut Tried) -> Result<(), Stop> {
    within(bench, |bench, space| {
        let (file, mut source) = (exported(bench)?, space.another()?);
        source.map_peer(range(ELSEWHERE, USED)?, &all_of(&file), Prot::ReadWrite, MemAttrs::MMIO, &VOUCHED)?;
        bench.device()?.reset()?;
        space.copy_peer(range(HERE, USED)?, &source, ELSEWHERE, Prot::ReadWrite, &VOUCHED)?;
        expect("a write", Fate::Lost, bench.write(HERE, Bytes::ZERO)?)
    })
}

fn copied_wrongly(bench: &mut Tried) -> Result<(), Stop> {
    let pages = Pages::zeroed(PAGE)?;
    within(bench, |_, space| {
        let mut source = space.another()?;
        let (there, here) = (range(ELSEWHERE, PAGE)?, range(HERE, PAGE)?);
        let hole = CopyError::NotMapped { from: ELSEWHERE, len: PAGE };
        equal("copying a hole", &Err(hole), &space.copy(here, &source, ELSEWHERE, Prot::Read))?;
        source.map(there, &Source::Process(pages.address()), Prot::Read, MemAttrs::empty())?;
        let beyond = CopyError::BeyondSource { from: ELSEWHERE, asked: Prot::ReadWrite };
        equal("copying for writing", &Err(beyond), &space.copy(here, &source, ELSEWHERE, Prot::ReadWrite))?;
        let stranger = IommufdSpace::open(&Nodes::live())?;
        let strange = space.copy(here, &stranger, ELSEWHERE, Prot::Read);
        equal("copying from another iommufd", &Err(CopyError::AnotherIommufd), &strange)?;
        space.copy(here, &source, ELSEWHERE, Prot::Read)?;
        let taken = space.copy(here, &source, ELSEWHERE, Prot::Read);
        let in_the_way = MapError::Overlap { iova: here, existing: Some(here) };
        equal("copying to where something is", &Err(CopyError::Map(in_the_way)), &taken)
    })
}

fn huge_pages(bench: &mut Tried) -> Result<(), Stop> {
    let mut free = bench.space.binder.another()?;
    equal("huge pages of a new space", &true, &free.read_huge_pages()?)?;
    equal("its granule", &Bytes::new(1), &free.abilities().granule.bytes())?;
    free.set_huge_pages(false)?;
    equal("huge pages when they are off", &false, &free.read_huge_pages()?)?;
    equal("its granule then", &PAGE, &free.abilities().granule.bytes())?;
    free.set_huge_pages(true)?;
    equal("huge pages when they are on again", &true, &free.read_huge_pages()?)?;
    within(bench, |_, space| match space.set_huge_pages(false) {
        Err(OptionError::Mapped { .. }) => equal("huge pages after that", &true, &space.read_huge_pages()?),
        other => Err(Stop::Broken(format!("with something mapped: expected a refusal as Mapped, seen {other:?}"))),
    })
}

fn charging(bench: &mut Tried) -> Result<(), Stop> {
    equal("who is charged by default", &Charging::User, &bench.space.binder.read_charging()?)?;
    let space = IommufdSpace::open_charging(&Nodes::live(), Charging::Process)?;
    equal("who is charged where it was chosen", &Charging::Process, &space.read_charging()?)?;
    equal("who is charged by another space of it", &Charging::Process, &space.another()?.read_charging()?)
}
