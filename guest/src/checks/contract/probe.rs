//! Looks at an IOVA from a device's side.
//!
//! The `edu` holds a page in its buffer. Told to write it to an IOVA, it has reached a source
//! if the CPU finds that page there; told to read, if the page that the CPU put there comes
//! out of the buffer again, through memory of the probe's own that is mapped beside the
//! suite's area. A page that is neither what was there nor what was sent is a fault of the
//! machine or of the probe, and no answer: it ends up in [`Probe::last_words`].

use super::super::bench::{PAGE, pattern};
use super::super::claim::Stop;
use peerdma::addr::{AddrRange, Bytes, Iova};
use peerdma::dma::contract::Access;
use peerdma::dma::{IoSpace, MemAttrs, Prot, Source};
use peerdma_linux::edu::Edu;
use peerdma_linux::engine::Engine;
use peerdma_linux::memory::Pages;
use peerdma_linux::raw::Mapped;
use peerdma_linux::vfio::BarMapping;

/// Where the probe's own memory lies; the suite works at the start of the IOVAs.
const STAGING: Iova = Iova::new(0x1_0000_0000);

/// A source as the CPU reaches it.
pub(super) enum View {
    Pages(Pages),
    File(Mapped),
    Bar(BarMapping),
}

impl View {
    fn read(&self, offset: Bytes) -> Result<Vec<u8>, Stop> {
        let mut page = vec![0; PAGE.as_u64() as usize];
        match self {
            Self::Pages(pages) => pages.read(offset, &mut page)?,
            Self::Bar(bar) => bar.read(offset, &mut page)?,
            Self::File(file) => inside(file.read(offset, &mut page))?,
        }
        Ok(page)
    }

    fn write(&self, offset: Bytes, page: &[u8]) -> Result<(), Stop> {
        match self {
            Self::Pages(pages) => Ok(pages.write(offset, page)?),
            Self::Bar(bar) => Ok(bar.write(offset, page)?),
            Self::File(file) => inside(file.write(offset, page)),
        }
    }
}

fn inside(moved: bool) -> Result<(), Stop> {
    if moved { Ok(()) } else { Err(Stop::broken("the suite asks past the end of its file")) }
}

/// An engine in the space under trial.
pub(super) struct Probe {
    engine: Edu,
    staging: Pages,
    /// What the engine's buffer holds.
    buffer: Vec<u8>,
    seed: u64,
    /// The first question that could not be answered, and why.
    trouble: Option<String>,
    looks: usize,
}

impl Probe {
    /// Maps the probe's memory into the space and fills the engine's buffer.
    pub(super) fn new(space: &mut impl IoSpace, mut engine: Edu) -> Result<Self, Stop> {
        let staging = Pages::zeroed(PAGE)?;
        let iova = AddrRange::new(STAGING, PAGE).ok_or_else(|| Stop::broken("no room for the probe"))?;
        space.map(iova, &Source::Process(staging.address()), Prot::ReadWrite, MemAttrs::empty())?;
        let buffer = pattern(0, PAGE.as_u64() as usize);
        staging.write(Bytes::ZERO, &buffer)?;
        engine.fetch(STAGING, PAGE)?;
        Ok(Self { engine, staging, buffer, seed: 0, trouble: None, looks: 0 })
    }

    /// Whether the device reaches the page at `offset` of `view` at `iova`.
    pub(super) fn reaches(&mut self, iova: Iova, view: &View, offset: Bytes, access: Access) -> Option<bool> {
        self.looks += 1;
        let seen = match access {
            Access::Write => self.written(iova, view, offset),
            Access::Read => self.read(iova, view, offset),
        };
        match seen {
            Ok(reached) => Some(reached),
            Err(stop) => {
                let why = match stop {
                    Stop::Broken(why) | Stop::DoesNotApply(why) => why,
                };
                self.trouble.get_or_insert(format!("a {access:?} at {iova}: {why}"));
                None
            }
        }
    }

    fn written(&mut self, iova: Iova, view: &View, offset: Bytes) -> Result<bool, Stop> {
        let before = self.fresh();
        view.write(offset, &before)?;
        self.engine.store(iova, PAGE)?;
        let after = view.read(offset)?;
        if after == self.buffer {
            return Ok(true);
        }
        if after == before {
            return Ok(false);
        }
        Err(Stop::broken("the page is neither what was there nor what was sent"))
    }

    fn read(&mut self, iova: Iova, view: &View, offset: Bytes) -> Result<bool, Stop> {
        let page = self.fresh();
        view.write(offset, &page)?;
        self.engine.fetch(iova, PAGE)?;
        self.engine.store(STAGING, PAGE)?;
        let mut seen = vec![0; page.len()];
        self.staging.read(Bytes::ZERO, &mut seen)?;
        let reached = seen == page;
        self.buffer = seen;
        Ok(reached)
    }

    fn fresh(&mut self) -> Vec<u8> {
        self.seed += 1;
        pattern(self.seed, PAGE.as_u64() as usize)
    }

    /// Breaks the claim if a question went unanswered, or none was asked.
    pub(super) fn last_words(&self) -> Result<(), Stop> {
        match &self.trouble {
            Some(why) => Err(Stop::Broken(format!("the probe could not tell: {why}"))),
            None if self.looks == 0 => Err(Stop::broken("no claim looked from the device's side")),
            None => Ok(()),
        }
    }
}
