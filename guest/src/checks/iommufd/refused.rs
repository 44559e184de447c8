//! The same mappings of the library, which refuses by name what it can know, and before the kernel is asked.

use super::super::bench::{HERE, USED};
use super::super::claim::{Claim, Stop, equal};
use super::inputs::Of::{self, Memfd, Null, OneRange, SystemHeap, TwoRanges, Udmabuf};
use super::inputs::{ALL, AT, MSI_WINDOW, P, file};
use super::library::{VOUCHED, within};
use super::{Tried, exported};
use peerdma::addr::{AddrRange, Bytes, Iova};
use peerdma::dma::error::Misaligned;
use peerdma::dma::{Errno, IoSpace, MapError, MemAttrs, Prot, Source, SourceKind};
use peerdma_linux::iommufd::IommufdSpace;
use peerdma_linux::vfio::Command;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// What the library says of one mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Said {
    Mapped,
    /// There are no such IOVAs to name.
    NoRange,
    BeyondFile,
    /// Not whole pages: this, of IOVA, length and offset.
    Misaligned(&'static str),
    OutsideUsable,
    SourceWraps,
    /// Opened for less than was asked.
    FileMode,
    /// The kernel's answer, by name.
    SourceRefused(Errno),
    SourceRevoked,
}

const UNTAKEN: Said = Said::SourceRefused(Errno::EOPNOTSUPP);

const ROWS: [(&str, Of, u64, u64, u64, Said); 18] = [
    ("all of a dma-buf", OneRange, 0, AT, ALL, Said::Mapped),
    ("the last page of a dma-buf", OneRange, ALL - P, AT, P, Said::Mapped),
    ("a page more than the dma-buf has", OneRange, 0, AT, ALL + P, Said::BeyondFile),
    ("two pages across the end of a dma-buf", OneRange, ALL - P, AT, 2 * P, Said::BeyondFile),
    ("a page from the end of a dma-buf on", OneRange, ALL, AT, P, Said::BeyondFile),
    ("a page from half a page on", OneRange, P / 2, AT, P, Said::Misaligned("offset")),
    ("no bytes", OneRange, 0, AT, 0, Said::NoRange),
    ("half a page", OneRange, 0, AT, P / 2, Said::Misaligned("length")),
    ("a page at half a page", OneRange, 0, AT + P / 2, P, Said::Misaligned("IOVA")),
    ("a page in the MSI window", OneRange, 0, MSI_WINDOW, P, Said::OutsideUsable),
    ("two pages into the MSI window from below", OneRange, 0, MSI_WINDOW - P, 2 * P, Said::OutsideUsable),
    ("a page beyond the IOMMU's reach", OneRange, 0, 1 << 60, P, Said::OutsideUsable),
    ("two pages over the end of IOVAs", OneRange, 0, u64::MAX - (P - 1), 2 * P, Said::NoRange),
    ("two pages over the end of file offsets", OneRange, u64::MAX - (P - 1), AT, 2 * P, Said::SourceWraps),
    ("a dma-buf of two ranges", TwoRanges, 0, AT, ALL, UNTAKEN),
    ("a dma-buf of udmabuf", Udmabuf, 0, AT, ALL, UNTAKEN),
    ("a dma-buf of the system heap", SystemHeap, 0, AT, ALL, UNTAKEN),
    ("a file that is no memory, opened for reading", Null, 0, AT, P, Said::FileMode),
];

pub(super) fn claims() -> Vec<Claim<Tried>> {
    let claim = |&(what, of, start, iova, len, said): &(&'static str, Of, u64, u64, u64, Said)| {
        let is = match said {
            Said::Mapped => "maps",
            Said::NoRange => "has no words for a mapping of",
            _ => "refuses by name to map",
        };
        Claim::new(format!("the library {is} {what}"), move |bench: &mut Tried| {
            let file = Arc::new(file(bench, of)?);
            let offset = Bytes::new(start);
            within(bench, |_, space| {
                let source = Source::File { file, offset };
                let seen = said_of(space, (iova, len), &source, MemAttrs::MMIO)?;
                equal("what the library says", &said, &seen)
            })
        })
    };
    let mut claims: Vec<_> = ROWS.iter().map(claim).collect();
    claims.push(Claim::new("the library maps a memfd", memfd));
    claims.push(Claim::new("the library refuses by name to map a process's mapping of a BAR", bar_of_process));
    claims.push(Claim::new(
        "the library says that a dma-buf is revoked while memory space is off, and maps it after",
        off,
    ));
    claims.push(Claim::new("the library says that a dma-buf is revoked when its device was closed", closed));
    claims.push(Claim::new("the library refuses by name to map where a reset has killed a mapping of its own", dead));
    claims
}

fn said_of(
    space: &mut IommufdSpace,
    (iova, len): (u64, u64),
    source: &Source<Arc<OwnedFd>>,
    attrs: MemAttrs,
) -> Result<Said, Stop> {
    let Some(iova) = AddrRange::new(Iova::new(iova), Bytes::new(len)) else { return Ok(Said::NoRange) };
    Ok(match space.map_peer(iova, source, Prot::ReadWrite, attrs, &VOUCHED) {
        Ok(()) => {
            equal("bytes unmapped", &iova.len(), &space.unmap(iova)?)?;
            Said::Mapped
        }
        Err(MapError::BeyondFile { .. }) => Said::BeyondFile,
        Err(MapError::Misaligned { what: Misaligned::Iova(_), .. }) => Said::Misaligned("IOVA"),
        Err(MapError::Misaligned { what: Misaligned::Length(_), .. }) => Said::Misaligned("length"),
        Err(MapError::Misaligned { what: Misaligned::FileOffset(_), .. }) => Said::Misaligned("offset"),
        Err(MapError::OutsideUsable { .. }) => Said::OutsideUsable,
        Err(MapError::SourceWraps { .. }) => Said::SourceWraps,
        Err(MapError::FileMode { .. }) => Said::FileMode,
        Err(MapError::SourceRefused { errno, .. }) => Said::SourceRefused(errno),
        Err(MapError::SourceRevoked { .. }) => Said::SourceRevoked,
        Err(other) => return Err(other.into()),
    })
}

fn all_of(file: &Arc<OwnedFd>) -> Source<Arc<OwnedFd>> {
    Source::File { file: file.clone(), offset: Bytes::ZERO }
}

fn memfd(bench: &mut Tried) -> Result<(), Stop> {
    let file = Arc::new(file(bench, Memfd)?);
    within(bench, |_, space| {
        let here = AddrRange::new(HERE, USED).ok_or_else(|| Stop::broken("the place wraps"))?;
        space.map(here, &all_of(&file), Prot::ReadWrite, MemAttrs::empty())?;
        equal("bytes unmapped", &USED, &space.unmap(here)?)
    })
}

fn bar_of_process(bench: &mut Tried) -> Result<(), Stop> {
    within(bench, |bench, space| {
        let here = AddrRange::new(HERE, USED).ok_or_else(|| Stop::broken("the place wraps"))?;
        let bar = Source::Process(bench.bar_address()?);
        // As what it is there is no such source, and as memory the kernel has the last word.
        let as_memory = space.map(here, &bar, Prot::ReadWrite, MemAttrs::empty());
        let (kind, errno) = (SourceKind::Process, Errno::EFAULT);
        equal("mapping it as memory", &Err(MapError::SourceRefused { kind, errno }), &as_memory)?;
        let as_device = space.map_peer(here, &bar, Prot::ReadWrite, MemAttrs::MMIO, &VOUCHED);
        equal("whether it is refused", &true, &matches!(as_device, Err(MapError::AttrsNotTaken { .. })))
    })
}

fn off(bench: &mut Tried) -> Result<(), Stop> {
    let file = exported(bench)?;
    within(bench, |bench, space| {
        bench.device()?.clear_command(Command::MEMORY)?;
        let seen = said_of(space, (AT, ALL), &all_of(&file), MemAttrs::MMIO)?;
        equal("with memory space off", &Said::SourceRevoked, &seen)?;
        bench.device()?.set_command(Command::MEMORY)?;
        equal("with it on", &Said::Mapped, &said_of(space, (AT, ALL), &all_of(&file), MemAttrs::MMIO)?)
    })
}

fn closed(bench: &mut Tried) -> Result<(), Stop> {
    let file = exported(bench)?;
    within(bench, |bench, space| {
        bench.close_target();
        let seen = said_of(space, (AT, ALL), &all_of(&file), MemAttrs::MMIO)?;
        equal("when its device was closed", &Said::SourceRevoked, &seen)?;
        bench.open_target()?;
        let seen = said_of(space, (AT, ALL), &all_of(&file), MemAttrs::MMIO)?;
        equal("when it was opened again", &Said::SourceRevoked, &seen)
    })
}

fn dead(bench: &mut Tried) -> Result<(), Stop> {
    let file = exported(bench)?;
    within(bench, |bench, space| {
        let here = AddrRange::new(HERE, USED).ok_or_else(|| Stop::broken("the place wraps"))?;
        space.map_peer(here, &all_of(&file), Prot::ReadWrite, MemAttrs::MMIO, &VOUCHED)?;
        bench.device()?.reset()?;
        bench.device()?.set_command(Command::MEMORY)?;
        let again = space.map_peer(here, &all_of(&file), Prot::ReadWrite, MemAttrs::MMIO, &VOUCHED);
        equal("mapping there again", &Err(MapError::Overlap { iova: here, existing: Some(here) }), &again)?;
        equal("bytes unmapped", &USED, &space.unmap(here)?)?;
        space.map_peer(here, &all_of(&file), Prot::ReadWrite, MemAttrs::MMIO, &VOUCHED)?;
        equal("bytes unmapped", &USED, &space.unmap(here)?)
    })
}
