//! Failures at every step: nothing is leaked, and what is still mapped is said.

use super::{chunk, depot, frames, ram, soft};
use core::cell::RefCell;
use peerdma::access::{MemAttrs, Prot};
use peerdma::addr::{AddrRange, Bytes, Granule, Iova, PhysAddr, ProcVa};
use peerdma::chunk::Chunks;
use peerdma::dma::recording::{Call, Profile, RecordingSpace};
use peerdma::dma::{
    Abilities, Context, Errno, Initiator, IoSpace, LinkError, MapError, Owner, OwnerId, Owners, Peers, Source,
    UnlinkError, UnmapError,
};
use peerdma::iova::Allocator;
use peerdma::topology::IommuMode;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn nic() -> Initiator {
    Initiator::new("nic", IommuMode::Translated)
}

/// A space of process addresses that fails at the n-th map or unmap, and remembers what is mapped.
#[derive(Debug)]
pub(crate) struct Failing {
    pub(crate) abilities: Abilities,
    pub(crate) maps_left: usize,
    pub(crate) unmaps_left: usize,
    pub(crate) mapped: BTreeMap<u64, u64>,
}

impl Failing {
    pub(crate) fn new(maps_left: usize, unmaps_left: usize) -> Self {
        let abilities = Profile::Type1.abilities();
        Self { abilities, maps_left, unmaps_left, mapped: BTreeMap::new() }
    }
}

const DENIED: Errno = Errno::ENOMEM;

impl IoSpace for Failing {
    type File = u8;

    fn abilities(&self) -> &Abilities {
        &self.abilities
    }

    fn map(&mut self, iova: AddrRange<Iova>, source: &Source<u8>, prot: Prot, attrs: MemAttrs) -> Result<(), MapError> {
        self.abilities.check_map(iova, source, prot, attrs)?;
        let Some(left) = self.maps_left.checked_sub(1) else {
            return Err(MapError::Kernel { call: "map", errno: DENIED });
        };
        self.maps_left = left;
        assert!(self.mapped.insert(iova.start().as_u64(), iova.len().as_u64()).is_none(), "mapped twice");
        Ok(())
    }

    fn unmap(&mut self, iova: AddrRange<Iova>) -> Result<Bytes, UnmapError> {
        let Some(left) = self.unmaps_left.checked_sub(1) else {
            return Err(UnmapError::Kernel { call: "unmap", errno: DENIED });
        };
        self.unmaps_left = left;
        let (first, last) = (iova.start().as_u64(), iova.last().as_u64());
        let inside: Vec<u64> = self.mapped.range(first..=last).map(|(start, _)| *start).collect();
        Ok(Bytes::new(inside.into_iter().map(|start| self.mapped.remove(&start).unwrap_or_default()).sum()))
    }
}

fn page(n: u64) -> peerdma::chunk::Chunk<Owner> {
    chunk(Owner::Process, 0x7000_0000 + n * 0x3000, 0x1000)
}

fn pages(count: u64) -> Chunks<Owner> {
    let mut list = Chunks::new();
    (0..count).for_each(|n| list.push(page(n)).unwrap());
    list
}

#[test]
fn a_list_that_fails_at_any_range_leaves_what_was_linked_before_and_nothing_of_itself() {
    for fails_at in 0..6 {
        let space = Failing::new(2 + fails_at, usize::MAX);
        let (owners, peers) = (Owners::new(), Peers::none());
        let depot = depot(&space.abilities.usable);
        let context = Context::new(nic(), space, &owners, &peers, &depot).unwrap();
        let before = depot.borrow().free_bytes();
        {
            let mut staged = context.reserve(Bytes::new(0x10000)).unwrap().stage();
            staged.link(page(100), Prot::Read).unwrap();
            staged.link(page(101), Prot::Read).unwrap();
            let error = staged.link_many(pages(6).view(), Prot::Read).unwrap_err();
            assert_eq!((error.index, error.len), (fails_at, Bytes::new(0x1000)));
            assert!(matches!(error.cause, LinkError::Space(MapError::Kernel { errno: DENIED, .. })));
            assert_eq!(staged.linked(), Bytes::new(0x2000));
            assert_eq!(context.space().mapped.len(), 2);
            context.space().maps_left = usize::MAX;
            staged.link_many(pages(6).view(), Prot::Read).unwrap();
            let mapping = staged.sync().unwrap();
            assert_eq!((mapping.len(), mapping.spans().count()), (Bytes::new(0x8000), 1));
        }
        assert!(context.space().mapped.is_empty());
        drop(context);
        assert_eq!(depot.borrow().free_bytes(), before);
    }
}

/// Linux leaks the whole block when the first of several ranges fails (`dma_buf_phys_vec_to_sgt`).
#[test]
fn a_mapping_whose_first_range_fails_gives_its_iovas_back() {
    let space = Failing::new(0, usize::MAX);
    let (owners, peers) = (Owners::new(), Peers::none());
    let depot = depot(&space.abilities.usable);
    let context = Context::new(nic(), space, &owners, &peers, &depot).unwrap();
    let before = depot.borrow().free_bytes();
    assert!(context.map(pages(3).view(), Prot::Read).is_err());
    assert!(context.map_one(page(0), Prot::Read).is_err());
    drop(context);
    assert_eq!(depot.borrow().free_bytes(), before);
}

#[test]
fn iovas_that_could_not_be_unmapped_are_named_and_not_handed_out_again() {
    let space = Failing::new(usize::MAX, 0);
    let (owners, peers) = (Owners::new(), Peers::none());
    let depot = depot(&space.abilities.usable);
    let context = Context::new(nic(), space, &owners, &peers, &depot).unwrap();
    let mapping = context.map(pages(2).view(), Prot::Read).unwrap();
    let start = mapping.spans().next().unwrap().address.as_u64();
    let error = mapping.unlink().err().unwrap();
    let UnlinkError::Space { still_mapped, error: UnmapError::Kernel { errno: DENIED, .. } } = error else {
        panic!("{error}")
    };
    assert_eq!((still_mapped.start().as_u64(), still_mapped.len()), (start, Bytes::new(0x2000)));
    assert_eq!(context.lost().len(), 1);
    context.space().unmaps_left = usize::MAX;
    for _ in 0..40 {
        let mapping = context.map(pages(2).view(), Prot::Read).unwrap();
        assert_ne!(mapping.spans().next().unwrap().address.as_u64(), start);
    }
}

/// The failing call's own part cannot be taken back either: the error names it, and unlinking takes it along.
#[test]
fn a_part_that_cannot_be_taken_back_is_named_and_goes_with_the_mapping() {
    let space = Failing::new(3, 0);
    let (owners, peers) = (Owners::new(), Peers::none());
    let depot = depot(&space.abilities.usable);
    let context = Context::new(nic(), space, &owners, &peers, &depot).unwrap();
    let mut staged = context.reserve(Bytes::new(0x10000)).unwrap().stage();
    staged.link(page(50), Prot::Read).unwrap();
    let error = staged.link_many(pages(4).view(), Prot::Read).unwrap_err();
    let LinkError::Stuck { still_mapped, .. } = error.cause else { panic!("{error}") };
    assert_eq!(still_mapped.len(), Bytes::new(0x2000));
    context.space().unmaps_left = usize::MAX;
    drop(staged);
    assert!(context.space().mapped.is_empty() && context.lost().is_empty());
}

#[test]
fn page_tables_without_memory_refuse_and_every_frame_comes_back() {
    let (owners, peers) = (Owners::new(), Peers::none());
    for count in 1..8 {
        let arena = peerdma::iopt::FrameArena::new(PhysAddr::new(1 << 40), count);
        let Ok(mut domain) = peerdma::dma::SoftIommu::new(
            peerdma::iopt::VtdSecondStage::new(peerdma::iopt::VtdOptions::default()).unwrap(),
            &arena,
        ) else {
            continue;
        };
        {
            let depot = depot(&domain.abilities().usable);
            let context = Context::new(nic(), domain.attach(), &owners, &peers, &depot).unwrap();
            // Three ranges 1 GiB long need tables of their own.
            let mut list = Chunks::new();
            (0..3_u64).for_each(|n| list.push(ram(n * 0x8000_0000 + 0x1000, 0x4020_0000)).unwrap());
            if let Err(error) = context.map(list.view(), Prot::Read) {
                assert!(error.to_string().contains("no frame is left"), "{error}");
            }
        }
        domain.reclaim();
        assert!(arena.in_use() <= 1 + domain.table().tables(), "{count}");
        drop(domain);
        assert_eq!(arena.in_use(), 0, "{count}");
    }
}

#[test]
fn every_call_of_a_mapping_reaches_the_space_range_by_range_and_is_undone_in_one() {
    let mut space = RecordingSpace::new(Profile::Type1);
    let range = AddrRange::new(ProcVa::new(0x7000_0000), Bytes::new(0x10_0000)).unwrap();
    space.add_process(range, peerdma::dma::recording::ProcessKind::Memory);
    let (owners, peers) = (Owners::new(), Peers::none());
    let depot = RefCell::new(Allocator::new(Granule::PAGE_4K, &space.abilities().usable).unwrap());
    let context = Context::new(nic(), space, &owners, &peers, &depot).unwrap();
    context.map(pages(3).view(), Prot::Read).unwrap().unlink().unwrap().release();
    let calls = context.space().take_calls();
    assert_eq!(calls.iter().filter(|call| matches!(call, Call::Map { answer: Ok(()), .. })).count(), 3);
    assert!(matches!(&calls[3..], [Call::Unmap { answer: Ok(len), .. }] if *len == Bytes::new(0x3000)));
}

#[derive(Clone, Debug)]
enum Step {
    Link(u64),
    Many(u64),
    Sync,
    Unlink,
    Drop,
    Bad,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever is done and wherever it fails: what the space has mapped is what the engine says is
    /// linked, and in the end nothing is.
    #[test]
    fn the_space_holds_exactly_what_the_engine_says(
        steps in prop::collection::vec(prop_oneof![
            (1_u64..4).prop_map(Step::Link), (1_u64..6).prop_map(Step::Many), Just(Step::Sync), Just(Step::Unlink),
            Just(Step::Drop), Just(Step::Bad),
        ], 1..30),
        fails in prop::collection::vec(0_usize..12, 1..6),
    ) {
        let space = Failing::new(usize::MAX, usize::MAX);
        let (owners, peers) = (Owners::new(), Peers::none());
        let depot = depot(&space.abilities.usable);
        let before = depot.borrow().free_bytes();
        let mut fails = fails.into_iter().cycle();
        {
            let context = Context::new(nic(), space, &owners, &peers, &depot).unwrap();
            let (mut staged, mut mapping) = (None, None);
            let held = |bytes: u64| {
                prop_assert_eq!(context.space().mapped.values().sum::<u64>(), bytes);
                Ok(())
            };
            for step in steps {
                if staged.is_none() && mapping.is_none() {
                    staged = Some(context.reserve(Bytes::new(0x20000)).unwrap().stage());
                }
                context.space().maps_left = fails.next().unwrap_or_default();
                match (step, staged.take(), mapping.take()) {
                    (Step::Link(n), Some(mut at), _) => {
                        let before = at.linked();
                        let done = at.link(page(n), Prot::Read).is_ok();
                        prop_assert_eq!(at.linked().as_u64(), before.as_u64() + if done { 0x1000 } else { 0 });
                        held(at.linked().as_u64())?;
                        staged = Some(at);
                    }
                    (Step::Many(n), Some(mut at), _) => {
                        let before = at.linked();
                        let done = at.link_many(pages(n).view(), Prot::Read).is_ok();
                        prop_assert_eq!(at.linked().as_u64(), before.as_u64() + if done { n << 12 } else { 0 });
                        held(at.linked().as_u64())?;
                        staged = Some(at);
                    }
                    (Step::Bad, Some(mut at), _) => {
                        let before = at.linked();
                        prop_assert!(at.link(chunk(Owner::Memfd(OwnerId::new(1)), 0, 0x1000), Prot::Read).is_err());
                        prop_assert_eq!(at.linked(), before);
                        staged = Some(at);
                    }
                    (Step::Sync, Some(at), _) => mapping = at.sync().ok(),
                    (Step::Unlink, _, Some(made)) => {
                        staged = Some(made.unlink().unwrap().stage());
                        held(0)?;
                    }
                    (Step::Drop, at, made) => {
                        drop((at, made));
                        held(0)?;
                    }
                    (_, at, made) => (staged, mapping) = (at, made),
                }
            }
            drop((staged, mapping));
            held(0)?;
        }
        prop_assert_eq!(depot.borrow().free_bytes(), before);
    }
}

/// `soft` is the space of the other tests; here it shows that a dropped stage leaves no translation.
#[test]
fn what_was_staged_and_dropped_leads_nowhere() {
    let (arena, owners, peers) = (frames(), Owners::new(), Peers::none());
    let domain = soft(&arena);
    let depot = depot(&domain.abilities().usable);
    let context = Context::new(nic(), domain.attach(), &owners, &peers, &depot).unwrap();
    let mut staged = context.reserve(Bytes::new(0x4000)).unwrap().stage();
    staged.link(ram(0x1000, 0x4000), Prot::ReadWrite).unwrap();
    drop(staged);
    let leads = (0..0x10000_u64).any(|page| domain.table().walk(Iova::new(page << 12)).is_ok());
    assert!(!leads);
}
