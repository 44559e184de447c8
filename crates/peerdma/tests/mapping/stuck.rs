//! What an address space failed to unmap is still the device's: its copies, its place in the watch.

use super::{ram, rollback::Failing};
use core::cell::RefCell;
use peerdma::access::Prot;
use peerdma::addr::{Bytes, Granule, ProcVa};
use peerdma::chunk::Chunks;
use peerdma::dma::bounce::{BouncePool, ByteArrays};
use peerdma::dma::misuse::{Misuse, Watch};
use peerdma::dma::{
    Context, Initiator, LinkError, MapRangesError, Owner, Owners, Peers, Segments, Source, SyncError, UnlinkError,
};
use peerdma::iova::Allocator;
use peerdma::topology::IommuMode;

type Pool<'m> = BouncePool<&'m ByteArrays>;

/// An untrusted initiator over a space that fails on demand, with 64 KiB of memory and a pool of 16 KiB in it.
fn with_context(
    initiator: Initiator,
    maps: usize,
    unmaps: usize,
    f: impl FnOnce(&Context<'_, Failing, RefCell<Allocator>>, &ByteArrays, &Pool<'_>, &Watch),
) {
    let memory = ByteArrays::new();
    memory.add((Owner::Ram, Bytes::ZERO), vec![3; 0x10000]).unwrap();
    let pool =
        BouncePool::new(&memory, (Owner::Ram, Bytes::new(0xc000)), Bytes::new(0x4000), Granule::PAGE_4K).unwrap();
    let space = Failing::new(maps, unmaps);
    let mut owners = Owners::new();
    owners.add(Owner::Ram, Bytes::ZERO, Bytes::new(0x10000), Source::Process(ProcVa::new(0x7000_0000)));
    let (peers, watch) = (Peers::none(), Watch::new(8));
    let depot = super::depot(&space.abilities.usable);
    let context = Context::new(initiator, space, &owners, &peers, &depot).unwrap();
    let context = context.with_bouncer(&pool).with_watch(&watch);
    f(&context, &memory, &pool, &watch);
}

fn untrusted() -> Initiator {
    Initiator::new("nic", IommuMode::Translated).untrusted()
}

/// A slot that the device still reaches must not become somebody else's copy.
#[test]
fn copies_that_the_device_still_reaches_are_written_back_and_not_used_again() {
    with_context(untrusted(), usize::MAX, 0, |context, memory, pool, watch| {
        let mapping = context.map_one(ram(0x2100, 0x800), Prot::Write).unwrap();
        let taken = pool.left();
        memory.write((Owner::Ram, Bytes::new(0xc100)), &[9; 0x800]).unwrap();
        assert!(matches!(mapping.unlink(), Err(UnlinkError::Space { .. })));
        assert_eq!((pool.left(), context.lost().len()), (taken, 1));
        let mut bytes = [0; 2];
        memory.read((Owner::Ram, Bytes::new(0x20ff)), &mut bytes).unwrap();
        assert_eq!(bytes, [3, 9]);
        assert!(matches!(&watch.leaks()[..], [Misuse::Leaked { .. }]), "it is still mapped, and the watch says so");
        assert!(watch.found().is_empty());
    });
}

#[test]
fn copies_of_a_stage_that_cannot_be_unmapped_are_not_used_again_either() {
    with_context(untrusted(), usize::MAX, 0, |context, _, pool, _| {
        let mut staged = context.reserve(Bytes::new(0x4000)).unwrap().stage();
        staged.link(ram(0x2000, 0x800), Prot::Write).unwrap();
        drop(staged);
        assert_eq!((pool.left().as_u64(), context.lost().len()), (0x3000, 1));
    });
}

/// The tail fails, and the middle and the range before it stay mapped since unmapping fails too.
#[test]
fn a_stuck_part_is_no_part_of_what_is_linked() {
    with_context(untrusted(), 3, 0, |context, memory, pool, watch| {
        let mut staged = context.reserve(Bytes::new(0x8000)).unwrap().stage();
        staged.link(ram(0x1000, 0x1000), Prot::Write).unwrap();
        let mut list = Chunks::new();
        [ram(0x4000, 0x1000), ram(0x2000, 0x1800)].into_iter().for_each(|chunk| list.push(chunk).unwrap());
        let error = staged.link_many(list.view(), Prot::Write).unwrap_err();
        assert!(
            matches!(error.cause, LinkError::Stuck { still_mapped, .. } if still_mapped.len() == Bytes::new(0x2000))
        );
        assert_eq!((error.index, staged.linked()), (1, Bytes::new(0x1000)));
        context.space().unmaps_left = usize::MAX;
        let mapping = staged.sync().unwrap();
        assert_eq!((mapping.len(), mapping.spans().count()), (Bytes::new(0x1000), 1));
        memory.write((Owner::Ram, Bytes::new(0xc000)), &[9; 0x1000]).unwrap();
        drop(mapping);
        assert!(context.space().mapped.is_empty());
        let mut bytes = [0; 0x4000];
        memory.read((Owner::Ram, Bytes::new(0x1000)), &mut bytes).unwrap();
        assert_eq!(bytes, [3; 0x4000]);
        assert_eq!(pool.left(), pool.size());
        assert!(watch.found().is_empty() && watch.leaks().is_empty());
    });
}

/// The copy of a head is stuck, and what is linked after it counts from the same byte.
#[test]
fn a_stuck_copy_is_not_written_back_with_what_is_linked_after_it() {
    with_context(untrusted(), 1, 0, |context, memory, pool, _| {
        let mut staged = context.reserve_from(Bytes::new(0x800), Bytes::new(0x4000)).unwrap().stage();
        let error = staged.link(ram(0x2800, 0x1800), Prot::Write).unwrap_err();
        assert!(matches!(error, LinkError::Stuck { still_mapped, .. } if still_mapped.len() == Bytes::new(0x1000)));
        assert_eq!(pool.left().as_u64(), 0x3000);
        (context.space().maps_left, context.space().unmaps_left) = (usize::MAX, usize::MAX);
        staged.link(ram(0x8000, 0x1000), Prot::Write).unwrap();
        let mapping = staged.sync().unwrap();
        assert_eq!((mapping.len(), mapping.spans().count()), (Bytes::new(0x1000), 1));
        memory.write((Owner::Ram, Bytes::new(0xc000)), &[9; 0x1000]).unwrap();
        mapping.unlink().unwrap().release();
        let mut bytes = [0; 0x1800];
        memory.read((Owner::Ram, Bytes::new(0x2800)), &mut bytes).unwrap();
        assert_eq!((bytes, pool.left()), ([3; 0x1800], pool.size()));
    });
}

/// The device was told of nothing, so nothing is written back and the watch has seen nothing.
#[test]
fn a_mapping_of_too_many_segments_is_taken_back_before_anybody_sees_it() {
    let limits = Segments { most: Some(1), longest: Some(Bytes::new(0x1000)), boundary: None };
    with_context(untrusted().with_segments(limits), usize::MAX, usize::MAX, |context, memory, pool, watch| {
        let mut staged = context.reserve(Bytes::new(0x4000)).unwrap().stage();
        staged.link(ram(0x2000, 0x1800), Prot::Write).unwrap();
        memory.write((Owner::Ram, Bytes::new(0x3000)), &[5; 0x10]).unwrap();
        assert!(matches!(staged.sync(), Err(SyncError::TooManySegments { segments: 2, .. })));
        let mut bytes = [0; 0x10];
        memory.read((Owner::Ram, Bytes::new(0x3000)), &mut bytes).unwrap();
        assert_eq!(bytes, [5; 0x10], "the copy is older than the memory");
        assert!(watch.found().is_empty(), "{:?}", watch.found());
        assert_eq!(pool.left(), pool.size());
        assert!(matches!(context.map_one(ram(0, 0x1001), Prot::Read), Err(MapRangesError::Sync(_))));
        assert!(context.space().mapped.is_empty());
    });
}

/// Somebody else unmapped it: nothing is mapped there, so nothing has to be kept back.
#[test]
fn iovas_of_which_less_came_out_are_free_again_whether_unlinked_or_dropped() {
    with_context(Initiator::new("nic", IommuMode::Translated), usize::MAX, usize::MAX, |context, _, _, watch| {
        for dropped in [false, true] {
            let mapping = context.map_one(ram(0x1000, 0x2000), Prot::Read).unwrap();
            context.space().mapped.clear();
            if dropped {
                drop(mapping);
            } else {
                assert!(matches!(mapping.unlink(), Err(UnlinkError::Short { unmapped: Bytes::ZERO, .. })));
            }
            assert!(context.lost().is_empty() && watch.leaks().is_empty());
        }
    });
}
