//! What the suite maps: memory of this process and a memfd, or a BAR and its dma-buf.

use super::super::answer::taken;
use super::super::bench::{MEMORY_BAR, PAGE};
use super::super::claim::Stop;
use super::probe::{Probe, View};
use peerdma::addr::{Bytes, Iova};
use peerdma::dma::contract::{Access, Fixture, Lent};
use peerdma::dma::{IoSpace, MemAttrs, Mmio, Source, SourceKind};
use peerdma_linux::edu::Edu;
use peerdma_linux::memory::Pages;
use peerdma_linux::raw::Mapped;
use peerdma_linux::vfio::{BarIndex, BarRange, Command, VfioDevice};
use rustix::fs::MemfdFlags;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Length of every source: more than the suite asks for.
const LENGTH: Bytes = Bytes::new(16 * PAGE.as_u64());

/// Which sources a run lends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lends {
    /// Memory of this process, and a memfd.
    Memory,
    /// A BAR of another device, as this process maps it and as a dma-buf.
    Bar,
}

/// A space with an engine in it and sources around it.
pub(super) struct OnSpace<S: IoSpace<File = Arc<OwnedFd>>> {
    // Dropped first: it unmaps while what it has mapped is still there.
    space: S,
    probe: Probe,
    lent: Vec<(SourceKind, Lent<S::File>, View)>,
    /// Keeps the BAR's memory space on.
    _target: Option<VfioDevice>,
}

impl<S: IoSpace<File = Arc<OwnedFd>>> OnSpace<S> {
    pub(super) fn new(mut space: S, engine: Edu, target: Option<VfioDevice>, lends: Lends) -> Result<Self, Stop> {
        let probe = Probe::new(&mut space, engine)?;
        let lent = match (lends, &target) {
            (Lends::Memory, _) => vec![memory()?, memfd()?],
            (Lends::Bar, None) => return Err(Stop::broken("no BAR to lend")),
            (Lends::Bar, Some(target)) => {
                target.set_command(Command::MEMORY)?;
                let mut lent = vec![dma_buf(target)?];
                // A space that takes process addresses for memory only is not offered a BAR there.
                if space.abilities().sources.process.is_some_and(|mmio| mmio != Mmio::Refused) {
                    lent.push(bar(target)?);
                }
                lent
            }
        };
        Ok(Self { space, probe, lent, _target: target })
    }

    /// Breaks the claim if the probe could not tell what it was asked.
    pub(super) fn last_words(&self) -> Result<(), Stop> {
        self.probe.last_words()
    }
}

impl<S: IoSpace<File = Arc<OwnedFd>>> Fixture for OnSpace<S> {
    type Space = S;

    fn space(&mut self) -> &mut S {
        &mut self.space
    }

    fn lend(&mut self, kind: SourceKind) -> Option<Lent<S::File>> {
        self.lent.iter().find(|(of, ..)| *of == kind).map(|(_, lent, _)| lent.clone())
    }

    fn reaches(&mut self, iova: Iova, source: &Source<S::File>, access: Access) -> Option<bool> {
        let (_, lent, view) = self.lent.iter().find(|(kind, ..)| *kind == source.kind())?;
        let offset = match (&lent.source, source) {
            (Source::Process(start), Source::Process(at)) => at.as_u64().checked_sub(start.as_u64())?,
            (Source::File { offset: start, .. }, Source::File { offset: at, .. }) => {
                at.as_u64().checked_sub(start.as_u64())?
            }
            _ => return None,
        };
        self.probe.reaches(iova, view, Bytes::new(offset), access)
    }
}

type Lending = (SourceKind, Lent<Arc<OwnedFd>>, View);

fn memory() -> Result<Lending, Stop> {
    let pages = Pages::zeroed(LENGTH)?;
    let lent = Lent { source: Source::Process(pages.address()), len: LENGTH, attrs: MemAttrs::empty() };
    Ok((SourceKind::Process, lent, View::Pages(pages)))
}

fn memfd() -> Result<Lending, Stop> {
    let memfd = rustix::fs::memfd_create("peerdma-contract", MemfdFlags::CLOEXEC)?;
    rustix::fs::ftruncate(&memfd, LENGTH.as_u64())?;
    let view = taken("mapping the memfd", Mapped::of_file(&memfd, LENGTH))?;
    let source = Source::File { file: Arc::new(memfd), offset: Bytes::ZERO };
    Ok((SourceKind::File, Lent { source, len: LENGTH, attrs: MemAttrs::empty() }, View::File(view)))
}

fn range() -> Result<BarRange, Stop> {
    let range = BarIndex::new(MEMORY_BAR).and_then(|bar| BarRange::new(bar, Bytes::ZERO, LENGTH));
    range.ok_or_else(|| Stop::broken("the suite names a range that does not exist"))
}

fn bar(target: &VfioDevice) -> Result<Lending, Stop> {
    let view = target.map(range()?)?;
    let address =
        view.process_range(range()?).ok_or_else(|| Stop::broken("the BAR's mapping does not hold its range"))?;
    let lent = Lent { source: Source::Process(address.start()), len: LENGTH, attrs: MemAttrs::MMIO };
    Ok((SourceKind::Process, lent, View::Bar(view)))
}

fn dma_buf(target: &VfioDevice) -> Result<Lending, Stop> {
    let source = Source::File { file: target.export(range()?)?, offset: Bytes::ZERO };
    let lent = Lent { source, len: LENGTH, attrs: MemAttrs::MMIO };
    Ok((SourceKind::File, lent, View::Bar(target.map(range()?)?)))
}
