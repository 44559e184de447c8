//! Mirrors, over a space that records what it is asked.

use crate::spans::{bus, iova};
use peerdma::access::{MemAttrs, Prot};
use peerdma::addr::{AddrRange, BusAddr, Bytes, Granule, Iova, PhysAddr, ProcVa};
use peerdma::chunk::Chunk;
use peerdma::dma::consumer::Mirror;
use peerdma::dma::consumer::mirror::{FaultError, InvalidateError, MirrorError, Page};
use peerdma::dma::reach::{Reach, Refusal, Why};
use peerdma::dma::recording::{Call, FileId, ProcessKind, Profile, RecordingSpace};
use peerdma::dma::{
    Abilities, Changes, Initiator, IoSpace, MapError, Mmio, Owner, OwnerId, Owners, ResolveError, Source, UnmapError,
};
use peerdma::topology::IommuMode;
use proptest::prelude::*;

const PAGE: u64 = 0x1000;
const WINDOW: u64 = 0x1000_0000;
const PAGES: usize = 8;

fn window() -> AddrRange<Iova> {
    AddrRange::new(Iova::new(WINDOW), Bytes::new(PAGE * PAGES as u64)).unwrap()
}

fn nic() -> Initiator {
    Initiator::new("nic", IommuMode::Translated).with_mask_bits(40)
}

fn mirror() -> Mirror {
    Mirror::new(&nic(), window(), Granule::PAGE_4K).unwrap()
}

fn space() -> RecordingSpace {
    let mut space = RecordingSpace::new(Profile::Type1);
    space.add_process(AddrRange::new(ProcVa::new(0x10_0000), Bytes::new(0x10_0000)).unwrap(), ProcessKind::Memory);
    space
}

/// A page of the process, by number from its first.
fn page(number: u64) -> Chunk<Owner> {
    let offset = Bytes::new(0x10_0000 + number * PAGE);
    Chunk::new(Owner::Process, offset, Bytes::new(PAGE), MemAttrs::empty()).unwrap()
}

fn translated(_: &Chunk<Owner>) -> Result<Reach, Refusal> {
    Ok(Reach::Iova)
}

/// A space with other abilities than it has, which relinks by mapping anew.
struct Able {
    inner: RecordingSpace,
    abilities: Abilities,
    relinks: usize,
}

impl Able {
    fn new(changes: Changes) -> Self {
        let inner = space();
        Self { abilities: Abilities { changes, ..inner.abilities().clone() }, inner, relinks: 0 }
    }
}

impl IoSpace for Able {
    type File = FileId;

    fn abilities(&self) -> &Abilities {
        &self.abilities
    }

    fn map(
        &mut self,
        iova: AddrRange<Iova>,
        source: &Source<FileId>,
        prot: Prot,
        attrs: MemAttrs,
    ) -> Result<(), MapError> {
        self.inner.map(iova, source, prot, attrs)
    }

    fn relink(
        &mut self,
        iova: AddrRange<Iova>,
        source: &Source<FileId>,
        prot: Prot,
        attrs: MemAttrs,
    ) -> Result<(), MapError> {
        self.relinks += 1;
        self.inner.unmap(iova).unwrap();
        self.inner.map(iova, source, prot, attrs)
    }

    fn unmap(&mut self, iova: AddrRange<Iova>) -> Result<Bytes, UnmapError> {
        self.inner.unmap(iova)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Fault { index: usize, number: u64, prot: Prot },
    Invalidate { first: usize, len: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let prot = prop_oneof![Just(Prot::Read), Just(Prot::Write), Just(Prot::ReadWrite)];
    prop_oneof![
        3 => (0..PAGES, 0..3_u64, prot).prop_map(|(index, number, prot)| Step::Fault { index, number, prot }),
        1 => (0..PAGES, 0..PAGES).prop_map(|(first, len)| Step::Invalidate { first, len }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_device_reaches_what_the_table_says_and_nothing_else(
        steps in prop::collection::vec(step(), 1..40),
        changes in prop_oneof![
            Just(Changes::empty()),
            Just(Changes::UNMAP_SEVERAL),
            Just(Changes::RELINK),
            Just(Changes::RELINK | Changes::UNMAP_SEVERAL),
        ],
    ) {
        let (mut space, owners, mut mirror) = (Able::new(changes), Owners::new(), mirror());
        let mut expected: [Option<(u64, Prot)>; PAGES] = [None; PAGES];
        for step in steps {
            match step {
                Step::Fault { index, number, prot } => {
                    let faulted = mirror.fault(&mut space, &owners, index, page(number), prot, translated);
                    let before = expected[index];
                    match before {
                        Some((shown, _)) if shown != number => {
                            let refused = matches!(faulted, Err(FaultError::Shown { .. }));
                            prop_assert!(refused);
                            continue;
                        }
                        Some((_, had)) if had != prot => expected[index] = Some((number, Prot::ReadWrite)),
                        Some(_) => {}
                        None => expected[index] = Some((number, prot)),
                    }
                    let at = iova(WINDOW + index as u64 * PAGE);
                    prop_assert_eq!(faulted.map(|page| (page.address, page.prot)), Ok((at, expected[index].unwrap().1)));
                }
                Step::Invalidate { first, len } => {
                    let pages = first..(first + len).min(PAGES);
                    let were_in = expected[pages.clone()].iter_mut().filter_map(Option::take).count();
                    prop_assert_eq!(mirror.invalidate(&mut space, pages.clone()), Ok(were_in));
                    prop_assert_eq!(mirror.invalidate(&mut space, pages), Ok(0), "again, and nothing is in");
                }
            }
            for (index, expected) in expected.iter().enumerate() {
                let at = Iova::new(WINDOW + index as u64 * PAGE);
                let seen = space.inner.translate(at).map(|seen| (seen.source, seen.prot));
                let process = |number| Source::Process(ProcVa::new(0x10_0000 + number * PAGE));
                prop_assert_eq!(seen, expected.map(|(number, prot)| (process(number), prot)));
                prop_assert_eq!(mirror.page(index).is_some(), expected.is_some());
            }
        }
        mirror.invalidate_all(&mut space).unwrap();
        prop_assert_eq!(space.inner.mapped().count(), 0);
    }
}

#[test]
fn neighbours_go_out_in_one_call_where_the_space_can() {
    for (changes, unmappings) in [(Changes::UNMAP_SEVERAL, 2), (Changes::empty(), 4)] {
        let (mut space, owners, mut mirror) = (Able::new(changes), Owners::new(), mirror());
        for index in [0, 1, 2, 5] {
            mirror.fault(&mut space, &owners, index, page(0), Prot::Read, translated).unwrap();
        }
        space.inner.take_calls();
        assert_eq!(mirror.invalidate_all(&mut space), Ok(4));
        assert_eq!(space.inner.calls().len(), unmappings);
    }
}

#[test]
fn a_page_is_widened_in_place_where_the_space_can() {
    let (mut space, owners, mut mirror) = (Able::new(Changes::RELINK), Owners::new(), mirror());
    mirror.fault(&mut space, &owners, 0, page(0), Prot::Read, translated).unwrap();
    let widened = mirror.fault(&mut space, &owners, 0, page(0), Prot::Write, translated).unwrap();
    assert_eq!((widened.prot, space.relinks), (Prot::ReadWrite, 1));
    mirror.fault(&mut space, &owners, 0, page(0), Prot::Read, translated).unwrap();
    assert_eq!(space.relinks, 1, "what is there suffices");
}

#[test]
fn a_widening_that_fails_half_way_leaves_the_page_out() {
    let (mut space, owners, mut mirror) = (space(), Owners::new(), mirror());
    let range = AddrRange::new(ProcVa::new(0x10_0000), Bytes::new(PAGE)).unwrap();
    space.add_process(range, ProcessKind::ReadOnlyMemory);
    mirror.fault(&mut space, &owners, 3, page(0), Prot::Read, translated).unwrap();
    let widened = mirror.fault(&mut space, &owners, 3, page(0), Prot::Write, translated);
    assert!(matches!(widened, Err(FaultError::Widen(MapError::SourceRefused { .. }))), "{widened:?}");
    assert_eq!((mirror.page(3), space.mapped().count()), (None, 0));
}

#[test]
fn a_page_behind_a_bus_address_maps_nothing() {
    let (mut space, owners, mut mirror) = (space(), Owners::new(), mirror());
    let owner = Owner::Device(OwnerId::new(1));
    let chunk = Chunk::new(owner, Bytes::new(0x3000), Bytes::new(PAGE), MemAttrs::MMIO).unwrap();
    let reach = |start| move |_: &Chunk<Owner>| Ok(Reach::Bus { start: BusAddr::new(start), bridge: None });
    let faulted = mirror.fault(&mut space, &owners, 1, chunk, Prot::ReadWrite, reach(0xf000_0000));
    let shown = Page { owner, offset: chunk.offset(), address: bus(0xf000_3000), prot: Prot::ReadWrite };
    assert_eq!(faulted, Ok(shown));
    assert_eq!(mirror.invalidate(&mut space, 0..2), Ok(1));
    assert!(space.calls().is_empty());
    let above = mirror.fault(&mut space, &owners, 1, chunk, Prot::Read, reach(1 << 40));
    assert_eq!(above, Err(FaultError::AboveMask { address: bus((1 << 40) + 0x3000) }));
    let wraps = mirror.fault(&mut space, &owners, 1, chunk, Prot::Read, reach(u64::MAX));
    assert_eq!(wraps, Err(FaultError::Wraps { owner, offset: chunk.offset() }));
}

#[test]
fn an_untranslated_page_is_at_its_physical_address() {
    let (mut space, mut owners, mut mirror) = (space(), Owners::new(), mirror());
    let owner = Owner::Memfd(OwnerId::new(1));
    owners.add(owner, Bytes::ZERO, Bytes::new(PAGE), Source::Physical(PhysAddr::new(0x7000)));
    let chunk = Chunk::new(owner, Bytes::ZERO, Bytes::new(PAGE), MemAttrs::empty()).unwrap();
    let shown = mirror.fault(&mut space, &owners, 0, chunk, Prot::Read, |_| Ok(Reach::Physical)).unwrap();
    assert_eq!((shown.address.word(), shown.address.as_u64()), ("cpu_physical", 0x7000));
    assert!(space.calls().is_empty());
}

#[test]
fn what_cannot_be_in_is_refused_and_changes_nothing() {
    let (mut space, mut owners, mut mirror) = (space(), Owners::new(), mirror());
    let mut fault = |index, chunk| mirror.fault(&mut space, &owners, index, chunk, Prot::Read, translated).unwrap_err();
    assert_eq!(fault(PAGES, page(0)), FaultError::NoSuchPage { index: PAGES, count: PAGES });
    let half = page(0).slice(Bytes::ZERO, Bytes::new(PAGE / 2)).unwrap();
    assert!(matches!(fault(0, half), FaultError::NotOnePage { .. }));
    let between = Chunk::new(Owner::Process, Bytes::new(0x10_0800), Bytes::new(PAGE), MemAttrs::empty()).unwrap();
    assert!(matches!(fault(0, between), FaultError::NotOnePage { .. }));
    let unknown =
        Chunk::new(Owner::Private(OwnerId::new(9)), Bytes::ZERO, Bytes::new(PAGE), MemAttrs::empty()).unwrap();
    assert!(matches!(fault(0, unknown), FaultError::NoSource(ResolveError::NoSuchForm { .. })));
    assert!(matches!(fault(0, page(0x200)), FaultError::Map(MapError::SourceRefused { .. })));

    let refusal = Refusal { initiator: "nic".into(), owner: Owner::Process, why: Why::Unknown, reasons: Vec::new() };
    let refused = |_: &Chunk<Owner>| Err(refusal.clone());
    let answer = mirror.fault(&mut space, &owners, 0, page(0), Prot::Read, refused);
    assert_eq!(answer, Err(FaultError::Refused(refusal.clone())));

    let owner = Owner::Memfd(OwnerId::new(1));
    let first = Bytes::new(PAGE / 2);
    owners.add(owner, Bytes::ZERO, first, Source::Process(ProcVa::new(0x10_0000)));
    owners.add(owner, first, first, Source::Process(ProcVa::new(0x10_9000)));
    let chunk = Chunk::new(owner, Bytes::ZERO, Bytes::new(PAGE), MemAttrs::empty()).unwrap();
    let answer = mirror.fault(&mut space, &owners, 0, chunk, Prot::Read, translated);
    assert_eq!(answer, Err(FaultError::InPieces { owner, offset: Bytes::ZERO, first }));

    assert!((0..PAGES).all(|index| mirror.page(index).is_none()));
    assert!(space.calls().iter().all(|call| matches!(call, Call::Map { answer: Err(_), .. })));
    let outside = InvalidateError::NoSuchPages { first: 0, end: PAGES + 1, count: PAGES };
    assert_eq!(mirror.invalidate(&mut space, 0..PAGES + 1), Err(outside));
    // The abilities of this one say nothing about device memory through process addresses.
    assert_eq!(space.abilities().sources.process, Some(Mmio::AsMemory));
}

#[test]
fn an_unmapping_that_fails_leaves_its_pages_in() {
    let (mut space, owners, mut mirror) = (Able::new(Changes::empty()), Owners::new(), mirror());
    for index in [1, 2] {
        mirror.fault(&mut space, &owners, index, page(0), Prot::Read, translated).unwrap();
    }
    // Somebody unmaps the second behind the mirror's back; iommufd's answer to that is an error.
    space.inner = RecordingSpace::new(Profile::Iommufd);
    let answer = mirror.invalidate(&mut space, 0..4);
    assert!(matches!(answer, Err(InvalidateError::Unmap { first: 1, end: 4, .. })), "{answer:?}");
    assert!(mirror.page(1).is_some() && mirror.page(2).is_some());
}

#[test]
fn an_initiator_that_is_not_snooped_or_cannot_reach_the_window_has_no_mirror() {
    let page = Granule::PAGE_4K;
    let not_coherent = MirrorError::NotCoherent { initiator: "nic".into() };
    assert_eq!(Mirror::new(&nic().not_coherent(), window(), page).map(drop), Err(not_coherent));
    let above = MirrorError::AboveMask { initiator: "nic".into(), window: window() };
    assert_eq!(Mirror::new(&nic().with_mask_bits(28), window(), page).map(drop), Err(above));
    let large = Granule::new(Bytes::new(0x1_0000)).unwrap();
    let part = MirrorError::NotWholePages { window: window(), page: large };
    assert_eq!(Mirror::new(&nic(), window(), large).map(drop), Err(part));
}
