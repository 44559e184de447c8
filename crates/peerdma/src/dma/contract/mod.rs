//! What every address space promises, as a list of claims that can be tried on any.
//!
//! The same list runs on the recording fake, on the software IOMMU, and in a guest on
//! VFIO type1 and iommufd themselves, so that code which was tested on one of them may
//! rely on the others. A claim speaks of what a caller can see through [`IoSpace`]; where
//! spaces may differ it asks the space's [`Abilities`](super::Abilities) what to expect, so
//! that a space which says one thing and does another breaks its contract.
//!
//! Looking at the space from a device's side is left to the [`Fixture`], whose
//! [`reaches`](Fixture::reaches) may translate (a fake) or run a DMA engine (hardware), or know
//! nothing, in which case claims rest on answers alone.
//!
//! The suite maps only in an area that the fixture names and unmaps there what it has
//! mapped, also after a claim that broke.
//!
//! ```
//! use peerdma::dma::contract;
//! use peerdma::dma::recording::{Profile, RecordingSpace};
//!
//! for profile in [Profile::Type1, Profile::Iommufd] {
//!     let mut fixture = contract::Recorded::new(RecordingSpace::new(profile));
//!     let tally = contract::run(&mut fixture, &mut |outcome| println!("{outcome}"));
//!     assert!(tally.passed());
//! }
//! ```
//!
//! Not here: revocation, since no call of `IoSpace` causes one; and what a space does
//! when it is closed.

mod linking;
mod mapping;
mod recorded;
mod refusing;
mod trial;
mod unmapping;

use super::abilities::{Changes, Placement};
use super::error::UnmapError;
use super::io_space::{IoSpace, Source, SourceKind};
pub use crate::access::Access;
use crate::access::MemAttrs;
use crate::addr::{AddrRange, Address, Bytes, Iova};
use alloc::format;
use alloc::string::String;
use core::fmt;
pub use recorded::Recorded;
use trial::Trial;

/// Size of the pieces that claims map: the granule, or 4 KiB where that is larger.
///
/// Smaller granules (an iommufd space without a device has one of a single byte) would
/// have the claims map parts of pages, which is not what they are about.
const LEAST_UNIT: Bytes = Bytes::new(4096);

/// How many units of IOVA [`Fixture::area`] holds at least.
pub const AREA_UNITS: u64 = 128;

/// How many units of source [`Fixture::lend`] lends at least.
pub const LENT_UNITS: u64 = 4;

/// An address space with what its claims need around it.
pub trait Fixture {
    /// The address space under trial.
    type Space: IoSpace;

    /// The space.
    fn space(&mut self) -> &mut Self::Space;

    /// Lends a source of one kind, at least [`LENT_UNITS`] units long and writable.
    ///
    /// Where the space dictates placement it has to be [`AREA_UNITS`] units long, since each
    /// claim can map only what appears where it looks.
    ///
    /// `None` where there is none, which leaves that kind untried. A file is welcome also
    /// from a space that takes none, to see it refused.
    fn lend(&mut self, kind: SourceKind) -> Option<Lent<<Self::Space as IoSpace>::File>>;

    /// IOVAs that the suite may use, at least [`AREA_UNITS`] units inside one usable range.
    ///
    /// Nothing else is mapped there during the run. As written here it is the start of the
    /// first usable range that is large enough, and in a space that dictates placement where
    /// the source on loan appears; `None` ends the run.
    fn area(&mut self) -> Option<AddrRange<Iova>> {
        let unit = unit_of(self.space());
        let len = Bytes::new(unit.as_u64().checked_mul(AREA_UNITS)?);
        if let Placement::Dictated(windows) = self.space().abilities().placement.clone() {
            let lent = self.lend(SourceKind::Physical)?;
            let Source::Physical(at) = lent.source else { return None };
            return AddrRange::new(windows.appears(at, len, lent.attrs)?, len);
        }
        let usable = (*self.space()).abilities().usable.as_slice();
        usable.iter().find_map(|range| {
            let start = range.start().as_u64().checked_next_multiple_of(unit.as_u64())?;
            let area = AddrRange::new(Iova::new(start), len)?;
            range.contains_range(&area).then_some(area)
        })
    }

    /// Whether a device that accesses one unit at `iova` reaches the first unit of `source`.
    ///
    /// False if it reaches nothing, or something else. `None` where the fixture cannot tell; it may
    /// answer some questions and not others.
    fn reaches(&mut self, iova: Iova, source: &Source<<Self::Space as IoSpace>::File>, access: Access) -> Option<bool> {
        let _ = (iova, source, access);
        None
    }
}

/// A source on loan for the run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lent<F> {
    /// Where it starts.
    pub source: Source<F>,
    /// How long it is; a file ends there.
    pub len: Bytes,
    /// What it is: empty for memory, [`MemAttrs::MMIO`] for a BAR.
    pub attrs: MemAttrs,
}

/// What became of one claim with one kind of source.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// The claim.
    pub claim: &'static str,
    /// What was mapped to try it; `None` for a claim about the whole space.
    pub source: Option<SourceKind>,
    /// What became of it.
    pub verdict: Verdict,
}

/// What became of a claim.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It held.
    Held,
    /// It did not hold.
    Broken {
        /// What was expected and what was seen.
        why: String,
    },
    /// There was nothing to try.
    DoesNotApply {
        /// Why not.
        reason: &'static str,
    },
}

impl fmt::Display for Outcome {
    /// Writes `held: CLAIM (files)`, `broken: CLAIM (files): WHY`, `does not apply: CLAIM: REASON`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.verdict {
            Verdict::Held => "held",
            Verdict::Broken { .. } => "broken",
            Verdict::DoesNotApply { .. } => "does not apply",
        };
        write!(f, "{word}: {}", self.claim)?;
        if let Some(kind) = self.source {
            write!(f, " ({kind})")?;
        }
        match &self.verdict {
            Verdict::Held => Ok(()),
            Verdict::Broken { why } => write!(f, ": {why}"),
            Verdict::DoesNotApply { reason } => write!(f, ": {reason}"),
        }
    }
}

/// How many claims went which way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Held.
    pub held: usize,
    /// Broken.
    pub broken: usize,
    /// Not applicable.
    pub not_applicable: usize,
}

impl Tally {
    /// Whether something was tried and nothing broke.
    pub const fn passed(&self) -> bool {
        self.held > 0 && self.broken == 0
    }
}

/// Tries every claim on the fixture's space and reports each as it is decided.
///
/// Claims about mappings run once for each kind of source that the space takes and the
/// fixture lends. Blocks as long as the space's calls and the fixture's engine take.
pub fn run<X: Fixture>(fixture: &mut X, report: &mut dyn FnMut(&Outcome)) -> Tally {
    let mut tally = Tally::default();
    let mut told = |claim, source, verdict| {
        match verdict {
            Verdict::Held => tally.held += 1,
            Verdict::Broken { .. } => tally.broken += 1,
            Verdict::DoesNotApply { .. } => tally.not_applicable += 1,
        }
        report(&Outcome { claim, source, verdict });
    };

    const LENDS: &str = "the fixture lends an area and a source of each kind that the space takes";
    let unit = unit_of(fixture.space());
    let Some(area) = fixture.area() else {
        told(LENDS, None, Verdict::Broken { why: String::from("no usable range is large enough for the suite") });
        return tally;
    };
    let sources = fixture.space().abilities().sources;
    for kind in sources.kinds() {
        let Some(lent) = fixture.lend(kind) else {
            told(LENDS, Some(kind), Verdict::DoesNotApply { reason: "none is lent" });
            continue;
        };
        let mut trial = match Trial::new(fixture, unit, area, lent) {
            Ok(trial) => trial,
            Err(stop) => {
                told(LENDS, Some(kind), stop.into());
                continue;
            }
        };
        let claims = mapping::claims().into_iter().chain(refusing::claims());
        for claim in claims.chain(unmapping::claims()).chain(linking::claims()) {
            told(claim.sentence, Some(kind), trial.run(&claim));
        }
    }
    for kind in [SourceKind::Physical, SourceKind::Process, SourceKind::File] {
        let verdict = refusing::untaken(fixture, unit, area, kind);
        told(refusing::UNTAKEN, Some(kind), verdict.map_or_else(Verdict::from, |()| Verdict::Held));
    }
    told("the suite leaves nothing mapped in its area", None, emptied(fixture.space(), area));
    tally
}

/// Unmaps all of the area, in which nothing should be left.
fn emptied(space: &mut impl IoSpace, area: AddrRange<Iova>) -> Verdict {
    if !space.abilities().changes.contains(Changes::UNMAP_SEVERAL) {
        return Verdict::DoesNotApply { reason: "the space unmaps one mapping at a time" };
    }
    let nothing_is_fine = space.abilities().changes.contains(Changes::UNMAP_NOTHING);
    match space.unmap(area) {
        Ok(Bytes::ZERO) if nothing_is_fine => Verdict::Held,
        Err(UnmapError::NothingMapped { .. }) if !nothing_is_fine => Verdict::Held,
        Ok(len) => Verdict::Broken { why: format!("{len} came out of {area}") },
        Err(error) => Verdict::Broken { why: format!("unmapping {area} failed: {error}") },
    }
}

/// Size of the pieces that claims map in this space.
fn unit_of(space: &impl IoSpace) -> Bytes {
    space.abilities().granule.bytes().max(LEAST_UNIT)
}

/// The source `by` further on, which is what a claim maps when it maps a middle.
fn advanced<F: Clone>(source: &Source<F>, by: Bytes) -> Option<Source<F>> {
    fn moved<A: Address>(at: A, by: Bytes) -> Option<A> {
        at.as_u64().checked_add(by.as_u64()).map(A::from_raw)
    }
    Some(match source {
        Source::Physical(at) => Source::Physical(moved(*at, by)?),
        Source::Process(at) => Source::Process(moved(*at, by)?),
        Source::File { file, offset } => Source::File { file: file.clone(), offset: offset.checked_add(by)? },
    })
}
