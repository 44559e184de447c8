//! One claim under trial: maps, unmaps and looks, and remembers what is mapped.
//!
//! Every step either went as expected or ends the claim with a sentence on what was
//! expected and what was seen. Whatever a claim leaves mapped is unmapped after it, so
//! that one broken claim does not break the next.

use super::{AREA_UNITS, Access, Fixture, LENT_UNITS, Lent, Verdict, advanced};
use crate::access::{MemAttrs, Prot};
use crate::addr::{AddrRange, Bytes, Iova};
use crate::dma::abilities::{Abilities, Changes, Placement};
use crate::dma::error::{MapError, UnmapError};
use crate::dma::io_space::{IoSpace, Source};
use crate::dma::permit::Permit;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// What stands for a file in the fixture's space.
pub(super) type FileOf<X> = <<X as Fixture>::Space as IoSpace>::File;

/// Why a claim ended early.
pub(super) enum Stop {
    Broken(String),
    DoesNotApply(&'static str),
}

impl From<Stop> for Verdict {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Broken(why) => Self::Broken { why },
            Stop::DoesNotApply(reason) => Self::DoesNotApply { reason },
        }
    }
}

/// A sentence and what tries it.
pub(super) struct Claim<X: Fixture> {
    pub(super) sentence: &'static str,
    pub(super) tries: fn(&mut Trial<'_, X>) -> Result<(), Stop>,
}

/// A refusal that a claim expects.
pub(super) struct Expected<E> {
    /// Its name, for the report.
    pub(super) name: &'static str,
    /// Whether this is it.
    pub(super) is: fn(&E) -> bool,
}

/// The space, a source on loan, and what is mapped at the moment.
pub(super) struct Trial<'a, X: Fixture> {
    fixture: &'a mut X,
    unit: Bytes,
    area: AddrRange<Iova>,
    lent: Lent<FileOf<X>>,
    held: Vec<AddrRange<Iova>>,
}

impl<'a, X: Fixture> Trial<'a, X> {
    /// Refuses a fixture that lends less than the claims map.
    pub(super) fn new(
        fixture: &'a mut X,
        unit: Bytes,
        area: AddrRange<Iova>,
        lent: Lent<FileOf<X>>,
    ) -> Result<Self, Stop> {
        let units = |len: Bytes| len.as_u64() / unit.as_u64();
        if units(area.len()) < AREA_UNITS {
            return Err(Stop::Broken(format!("the area {area} holds fewer than {AREA_UNITS} units of {unit}")));
        }
        if units(lent.len) < LENT_UNITS {
            return Err(Stop::Broken(format!("{} of source are fewer than {LENT_UNITS} units of {unit}", lent.len)));
        }
        let mut trial = Self { fixture, unit, area, lent, held: Vec::new() };
        if trial.chooses_freely().is_err() && trial.lent.len < area.len() {
            return Err(Stop::Broken(format!("{} of source are shorter than the area {area}", trial.lent.len)));
        }
        Ok(trial)
    }

    /// Tries a claim and leaves nothing mapped.
    pub(super) fn run(&mut self, claim: &Claim<X>) -> Verdict {
        let verdict = (claim.tries)(self).map_or_else(Verdict::from, |()| Verdict::Held);
        let mut leftover = None;
        for range in core::mem::take(&mut self.held) {
            match self.fixture.space().unmap(range) {
                Ok(len) if len == range.len() => {}
                Ok(len) => leftover = Some(format!("{range} unmapped afterwards gave {len}, not {}", range.len())),
                Err(error) => leftover = Some(format!("{range} could not be unmapped afterwards: {error}")),
            }
        }
        match (verdict, leftover) {
            (Verdict::Held, Some(why)) => Verdict::Broken { why },
            (verdict, _) => verdict,
        }
    }

    /// What the space says it takes.
    pub(super) fn abilities(&mut self) -> &Abilities {
        (*self.fixture.space()).abilities()
    }

    /// Whether the space makes all of these changes.
    pub(super) fn changes(&mut self, changes: Changes) -> bool {
        self.abilities().changes.contains(changes)
    }

    /// Size of the pieces that are mapped.
    pub(super) fn unit(&self) -> Bytes {
        self.unit
    }

    /// What the source is.
    pub(super) fn attrs(&self) -> MemAttrs {
        self.lent.attrs
    }

    /// How long the source is.
    pub(super) fn lent_len(&self) -> Bytes {
        self.lent.len
    }

    /// `units` units of the area, from its unit `at`.
    pub(super) fn range(&self, at: u64, units: u64) -> Result<AddrRange<Iova>, Stop> {
        let bytes = |count: u64| Bytes::new(count * self.unit.as_u64());
        let range = self.area.slice(bytes(at), bytes(units));
        range.ok_or_else(|| Stop::Broken(format!("the suite left its area at unit {at}, which is its own fault")))
    }

    /// The source, from its unit `at`.
    pub(super) fn source(&self, at: u64) -> Result<Source<FileOf<X>>, Stop> {
        self.source_at(Bytes::new(at * self.unit.as_u64()))
    }

    /// `units` units of IOVA, and a source for them that is as long.
    ///
    /// Unit `at` of the area and unit `from` of what is lent; where the space dictates placement
    /// unit `at` of what is lent, as the area is where that appears.
    pub(super) fn place(
        &mut self,
        at: u64,
        units: u64,
        from: u64,
    ) -> Result<(AddrRange<Iova>, Source<FileOf<X>>), Stop> {
        let from = if self.chooses_freely().is_ok() { from } else { at };
        Ok((self.range(at, units)?, self.source(from)?))
    }

    /// Ends a claim that maps a source at an IOVA of its own choice, in a space that takes none.
    pub(super) fn chooses_freely(&mut self) -> Result<(), Stop> {
        match self.abilities().placement {
            Placement::Chosen => Ok(()),
            Placement::Dictated(_) => Err(Stop::DoesNotApply("the space says where a source appears")),
        }
    }

    /// Ends a claim about what devices do not reach, in a space that translates nothing.
    pub(super) fn keeps_devices_out(&mut self) -> Result<(), Stop> {
        match self.abilities().placement {
            Placement::Chosen => Ok(()),
            Placement::Dictated(_) => Err(Stop::DoesNotApply("without an IOMMU devices reach all memory")),
        }
    }

    /// The source, from `offset` bytes after its start.
    pub(super) fn source_at(&self, offset: Bytes) -> Result<Source<FileOf<X>>, Stop> {
        let moved = advanced(&self.lent.source, offset);
        moved.ok_or(Stop::DoesNotApply("the source lies at the end of its address space"))
    }

    /// Maps, and expects it to work.
    pub(super) fn map(&mut self, iova: AddrRange<Iova>, source: &Source<FileOf<X>>, prot: Prot) -> Result<(), Stop> {
        self.map_as(iova, source, prot, self.lent.attrs)
    }

    /// Maps as something, and expects it to work.
    pub(super) fn map_as(
        &mut self,
        iova: AddrRange<Iova>,
        source: &Source<FileOf<X>>,
        prot: Prot,
        attrs: MemAttrs,
    ) -> Result<(), Stop> {
        match self.ask(iova, source, prot, attrs) {
            Ok(()) => {
                self.held.push(iova);
                Ok(())
            }
            Err(error) => Err(Stop::Broken(format!("mapping {iova} {prot} {attrs} should have worked: {error}"))),
        }
    }

    /// Maps; of device memory whoever lends it has said that the device reaches it.
    fn ask(
        &mut self,
        iova: AddrRange<Iova>,
        source: &Source<FileOf<X>>,
        prot: Prot,
        attrs: MemAttrs,
    ) -> Result<(), MapError> {
        let space = self.fixture.space();
        match attrs.contains(MemAttrs::MMIO) {
            true => space.map_peer(iova, source, prot, attrs, &Permit::vouched(prot)),
            false => space.map(iova, source, prot, attrs),
        }
    }

    /// Links, and expects it to work.
    pub(super) fn link(&mut self, iova: AddrRange<Iova>, source: &Source<FileOf<X>>, prot: Prot) -> Result<(), Stop> {
        let attrs = self.lent.attrs;
        let space = self.fixture.space();
        let linked = match attrs.contains(MemAttrs::MMIO) {
            true => space.link_peer(iova, source, prot, attrs, &Permit::vouched(prot)),
            false => space.link(iova, source, prot, attrs),
        };
        match linked {
            Ok(()) => {
                self.held.push(iova);
                Ok(())
            }
            Err(error) => Err(Stop::Broken(format!("linking {iova} {prot} should have worked: {error}"))),
        }
    }

    /// Makes links visible.
    pub(super) fn sync(&mut self, iova: AddrRange<Iova>) {
        self.fixture.space().sync(iova);
    }

    /// Points a mapped range elsewhere, and expects it to work.
    pub(super) fn relink(&mut self, iova: AddrRange<Iova>, source: &Source<FileOf<X>>, prot: Prot) -> Result<(), Stop> {
        let attrs = self.lent.attrs;
        let answer = self.fixture.space().relink(iova, source, prot, attrs);
        answer.map_err(|error| Stop::Broken(format!("relinking {iova} {prot} should have worked: {error}")))
    }

    /// Points a range elsewhere, and expects a refusal by name.
    pub(super) fn stays_linked(
        &mut self,
        iova: AddrRange<Iova>,
        source: &Source<FileOf<X>>,
        expected: &Expected<MapError>,
    ) -> Result<(), Stop> {
        let attrs = self.lent.attrs;
        match self.fixture.space().relink(iova, source, Prot::ReadWrite, attrs) {
            Err(error) if (expected.is)(&error) => Ok(()),
            Err(error) => {
                Err(Stop::Broken(format!("relinking {iova} was refused, but not as {}: {error}", expected.name)))
            }
            Ok(()) => Err(Stop::Broken(format!("relinking {iova} was taken, not refused as {}", expected.name))),
        }
    }

    /// Maps, and expects a refusal by name after which nothing more is mapped.
    pub(super) fn refuses(
        &mut self,
        iova: AddrRange<Iova>,
        source: &Source<FileOf<X>>,
        prot: Prot,
        attrs: MemAttrs,
        expected: &Expected<MapError>,
    ) -> Result<(), Stop> {
        match self.ask(iova, source, prot, attrs) {
            Ok(()) => {
                // Not pushed to `held`: a space that took it may not take it back in one piece,
                // and the report is about the mapping.
                let _ = self.fixture.space().unmap(iova);
                Err(Stop::Broken(format!("mapping {iova} {prot} {attrs} was taken, not refused as {}", expected.name)))
            }
            Err(error) if (expected.is)(&error) => Ok(()),
            Err(error) => {
                Err(Stop::Broken(format!("mapping {iova} was refused, but not as {}: {error}", expected.name)))
            }
        }
    }

    /// Unmaps, and expects exactly `len` to come out.
    pub(super) fn unmap(&mut self, iova: AddrRange<Iova>, len: Bytes) -> Result<(), Stop> {
        let answer = self.fixture.space().unmap(iova);
        self.forget(iova);
        match answer {
            Ok(unmapped) if unmapped == len => Ok(()),
            Ok(unmapped) => Err(Stop::Broken(format!("unmapping {iova} gave {unmapped}, not {len}"))),
            Err(error) => Err(Stop::Broken(format!("unmapping {iova} should have given {len}: {error}"))),
        }
    }

    /// Unmaps, and expects a refusal by name.
    pub(super) fn keeps(&mut self, iova: AddrRange<Iova>, expected: &Expected<UnmapError>) -> Result<(), Stop> {
        match self.fixture.space().unmap(iova) {
            Err(error) if (expected.is)(&error) => Ok(()),
            Err(error) => {
                Err(Stop::Broken(format!("unmapping {iova} was refused, but not as {}: {error}", expected.name)))
            }
            Ok(len) => {
                Err(Stop::Broken(format!("unmapping {iova} gave {len}, it was not refused as {}", expected.name)))
            }
        }
    }

    /// Expects that nothing is mapped in `iova`, by asking to unmap it.
    pub(super) fn nothing_in(&mut self, iova: AddrRange<Iova>) -> Result<(), Stop> {
        if self.changes(Changes::UNMAP_NOTHING) {
            return self.unmap(iova, Bytes::ZERO);
        }
        let nothing = Expected { name: "NothingMapped", is: |error| matches!(error, UnmapError::NothingMapped { .. }) };
        self.keeps(iova, &nothing)
    }

    /// Expects that a device reaches both ends of a mapped source, as far as the fixture can tell.
    pub(super) fn seen(
        &mut self,
        iova: AddrRange<Iova>,
        source: &Source<FileOf<X>>,
        access: Access,
    ) -> Result<(), Stop> {
        self.look(iova, source, access, true)
    }

    /// Expects that a device reaches neither end, as far as the fixture can tell and the space translates.
    pub(super) fn unseen(
        &mut self,
        iova: AddrRange<Iova>,
        source: &Source<FileOf<X>>,
        access: Access,
    ) -> Result<(), Stop> {
        match self.keeps_devices_out() {
            Ok(()) => self.look(iova, source, access, false),
            Err(_) => Ok(()),
        }
    }

    fn look(
        &mut self,
        iova: AddrRange<Iova>,
        source: &Source<FileOf<X>>,
        access: Access,
        expected: bool,
    ) -> Result<(), Stop> {
        let last_unit = Bytes::new(iova.len().as_u64().saturating_sub(self.unit.as_u64()));
        // A probe may run a DMA engine for a tenth of a second, so one unit is looked at once.
        let offsets = [Bytes::ZERO, last_unit];
        for offset in offsets.into_iter().take(if last_unit == Bytes::ZERO { 1 } else { 2 }) {
            let (Some(at), Some(part)) = (iova.start().checked_add(offset), advanced(source, offset)) else {
                continue;
            };
            if self.fixture.reaches(at, &part, access).is_some_and(|reached| reached != expected) {
                let verb =
                    if expected { "should reach its source and does not" } else { "should reach nothing and does" };
                return Err(Stop::Broken(format!("a device's {access} at IOVA {at} {verb}")));
            }
        }
        Ok(())
    }

    /// Strikes what lies in `iova` off the list of what is mapped.
    fn forget(&mut self, iova: AddrRange<Iova>) {
        self.held.retain(|range| !iova.contains_range(range));
    }

    /// Notes that a mapping was replaced by a part of itself.
    pub(super) fn shrunk(&mut self, from: AddrRange<Iova>, to: AddrRange<Iova>) {
        self.held.retain(|range| *range != from);
        self.held.push(to);
    }
}
