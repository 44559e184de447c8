//! Spaces of our own with one fault each, in what only they do: relinking, and dictated placement.

use crate::contract::outcomes;
use crate::plain::Direct;
use crate::soft::{Soft, vtd};
use core::convert::Infallible;
use peerdma::access::Access;
use peerdma::addr::{AddrRange, Bytes, Iova, PhysAddr};
use peerdma::dma::contract::{Fixture, Lent, Verdict};
use peerdma::dma::spaces::SoftIommu;
use peerdma::dma::{Abilities, IoSpace, MapError, MemAttrs, Prot, Source, SourceKind, UnmapError};
use peerdma::iopt::FrameArena;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    /// Says that it pointed a page elsewhere, and does not.
    RelinksNothing,
    /// Points the page behind it elsewhere too.
    RelinksTooMuch,
    /// Keeps the protection that was there.
    KeepsProt,
    /// Maps what is not mapped instead of refusing it.
    FillsHoles,
    /// Does what comes before the first hole, then refuses.
    RefusesTooLate,
    /// Says that it linked, and does not.
    LinksNothing,
    /// Maps a source where it does not appear.
    MisplacesSources,
    /// Refuses attributes that it says it takes.
    RefusesAttrs,
}

/// A fixture around another one, whose space has a fault.
struct Broken<X> {
    inner: X,
    abilities: Abilities,
    fault: Fault,
}

impl<X: Fixture<Space: IoSpace<File = Infallible>>> Broken<X> {
    fn new(mut inner: X, fault: Fault) -> Self {
        let abilities = inner.space().abilities().clone();
        Self { inner, abilities, fault }
    }
}

impl<X: Fixture<Space: IoSpace<File = Infallible>>> Fixture for Broken<X> {
    type Space = Self;

    fn space(&mut self) -> &mut Self {
        self
    }

    fn lend(&mut self, kind: SourceKind) -> Option<Lent<Infallible>> {
        self.inner.lend(kind)
    }

    fn reaches(&mut self, iova: Iova, source: &Source<Infallible>, access: Access) -> Option<bool> {
        self.inner.reaches(iova, source, access)
    }
}

impl<X: Fixture<Space: IoSpace<File = Infallible>>> IoSpace for Broken<X> {
    type File = Infallible;

    fn abilities(&self) -> &Abilities {
        &self.abilities
    }

    fn map(
        &mut self,
        iova: AddrRange<Iova>,
        source: &Source<Infallible>,
        prot: Prot,
        attrs: MemAttrs,
    ) -> Result<(), MapError> {
        let space = self.inner.space();
        match (self.fault, space.map(iova, source, prot, attrs)) {
            (Fault::MisplacesSources, Err(MapError::PlacementDictated { .. })) => Ok(()),
            (Fault::RefusesAttrs, Ok(())) if attrs.intersects(MemAttrs::NOT_SNOOPED) => {
                space.unmap(iova).expect("it was mapped just now");
                Err(MapError::AttrsNotTaken { attrs, kind: SourceKind::Physical })
            }
            (_, answer) => answer,
        }
    }

    fn link(
        &mut self,
        iova: AddrRange<Iova>,
        source: &Source<Infallible>,
        prot: Prot,
        attrs: MemAttrs,
    ) -> Result<(), MapError> {
        match self.fault {
            Fault::LinksNothing => Ok(()),
            _ => self.inner.space().link(iova, source, prot, attrs),
        }
    }

    fn relink(
        &mut self,
        iova: AddrRange<Iova>,
        source: &Source<Infallible>,
        prot: Prot,
        attrs: MemAttrs,
    ) -> Result<(), MapError> {
        let space = self.inner.space();
        match self.fault {
            Fault::RelinksNothing => Ok(()),
            Fault::RelinksTooMuch => {
                let longer = Bytes::new(iova.len().as_u64() + 4096);
                let more = AddrRange::new(iova.start(), longer).expect("far from the end");
                space.relink(more, source, prot, attrs).or_else(|_| space.relink(iova, source, prot, attrs))
            }
            Fault::KeepsProt => space.relink(iova, source, Prot::ReadWrite, attrs),
            Fault::FillsHoles => match space.relink(iova, source, prot, attrs) {
                Err(MapError::NotMapped { .. }) => {
                    space.unmap(iova).expect("holes and all");
                    space.map(iova, source, prot, attrs)
                }
                answer => answer,
            },
            Fault::RefusesTooLate => match space.relink(iova, source, prot, attrs) {
                Err(MapError::NotMapped { at, .. }) if iova.start() < at => {
                    let before = Bytes::new(at.as_u64() - iova.start().as_u64());
                    let done = AddrRange::new(iova.start(), before).expect("not empty");
                    space.relink(done, source, prot, attrs).expect("it is mapped up to the hole");
                    Err(MapError::NotMapped { iova, at })
                }
                answer => answer,
            },
            _ => space.relink(iova, source, prot, attrs),
        }
    }

    fn unmap(&mut self, iova: AddrRange<Iova>) -> Result<Bytes, UnmapError> {
        self.inner.space().unmap(iova)
    }
}

fn assert_noticed<X: Fixture>(fixture: &mut X, fault: Fault, claim: &str) {
    let (tally, outcomes) = outcomes(fixture);
    let broken: Vec<_> = outcomes.iter().filter(|outcome| matches!(outcome.verdict, Verdict::Broken { .. })).collect();
    assert!(!tally.passed(), "{fault:?} passes");
    assert!(broken.iter().any(|outcome| outcome.claim.contains(claim)), "{fault:?}: {broken:#?}");
}

#[test]
fn faults_of_relinking_and_linking_are_noticed_by_the_claim_that_names_them() {
    for (fault, claim) in [
        (Fault::RelinksNothing, "pointed elsewhere"),
        (Fault::RelinksTooMuch, "pointed elsewhere"),
        (Fault::KeepsProt, "gives the protection"),
        (Fault::FillsHoles, "not mapped throughout"),
        (Fault::RefusesTooLate, "not mapped throughout"),
        (Fault::LinksNothing, "was linked"),
    ] {
        let arena = FrameArena::new(PhysAddr::new(0x4000_0000), 256);
        let iommu = SoftIommu::new(vtd(), &arena).unwrap();
        assert_noticed(&mut Broken::new(Soft::new(&iommu, MemAttrs::empty()), fault), fault, claim);
    }
}

#[test]
fn faults_of_a_space_that_dictates_placement_are_noticed_by_the_claim_that_names_them() {
    for (fault, claim) in [(Fault::MisplacesSources, "does not show it"), (Fault::RefusesAttrs, "others are taken")] {
        assert_noticed(&mut Broken::new(Direct::new(0x1000_0000, MemAttrs::empty()), fault), fault, claim);
    }
}
