//! Pools whose area is in pieces, owners that fail to copy, and what a copy is not copied for.

use super::{depot, frames, ram, soft};
use core::convert::Infallible;
use peerdma::access::{MemAttrs, Prot};
use peerdma::addr::{AddrRange, BusAddr, Bytes, Granule, Iova, PhysAddr};
use peerdma::chunk::Chunk;
use peerdma::dma::bounce::{BouncePool, ByteArrays, Memory, MemoryError, Place, Towards};
use peerdma::dma::confidential::{AliasBit, Guest};
use peerdma::dma::publish::{Sender, Step};
use peerdma::dma::{
    Bouncing, Context, DeviceAddress, DirectSpace, Initiator, Interface, LinkError, MapRangesError, Owner, OwnerId,
    Owners, Peers, ResolveError, Source, Span, UnlinkError, Windows,
};
use peerdma::iova::IovaRanges;
use peerdma::topology::{HostWindow, IommuMode};

const AREA: Owner = Owner::Memfd(OwnerId::new(1));

fn nothing() -> IovaRanges {
    IovaRanges::from_inclusive([(Iova::new(0x1000), Iova::new(0x1fff))]).unwrap()
}

fn memory() -> ByteArrays {
    let memory = ByteArrays::new();
    memory.add((Owner::Ram, Bytes::ZERO), vec![3; 0x10000]).unwrap();
    memory.add((AREA, Bytes::ZERO), vec![0; 0x4000]).unwrap();
    memory
}

/// The pool's 16 KiB, physically in these pieces.
fn pieces<F: Clone>(pieces: &[(u64, u64, u64)]) -> Owners<F> {
    let mut owners = Owners::new();
    for (offset, len, at) in pieces {
        owners.add(AREA, Bytes::new(*offset), Bytes::new(*len), Source::Physical(PhysAddr::new(*at)));
    }
    owners
}

/// What an initiator that nothing translates for is handed for 12 KiB, in a window if there is one.
fn copied(initiator: Initiator, area: &[(u64, u64, u64)], windows: Windows) -> Result<Vec<Span>, MapRangesError> {
    let (memory, owners, peers, depot) = (memory(), pieces::<Infallible>(area), Peers::none(), depot(&nothing()));
    let pool = BouncePool::new(&memory, (AREA, Bytes::ZERO), Bytes::new(0x4000), Granule::PAGE_4K).unwrap();
    let space = DirectSpace::new(windows, Iova::new(u64::MAX));
    let context = Context::new(initiator, space, &owners, &peers, &depot).unwrap().with_bouncer(&pool);
    let answer = context.map_one(ram(0x1000, 0x3000), Prot::ReadWrite).map(|mapping| mapping.spans().collect());
    assert_eq!(pool.left(), pool.size(), "{answer:?}");
    answer
}

fn nic() -> Initiator {
    Initiator::new("nic", IommuMode::None)
}

fn forced() -> Initiator {
    nic().with_bouncing(Bouncing::Forced)
}

/// Past the end of a piece lies memory that is none of the device's.
#[test]
fn a_copy_in_a_pool_of_pieces_is_handed_out_piece_by_piece() {
    let area = [(0, 0x1800, 0x10_0000), (0x1800, 0x2800, 0x20_0000)];
    let spans = copied(forced(), &area, Windows::one_to_one()).unwrap();
    let told: Vec<_> =
        spans.iter().map(|span| (span.at.as_u64(), span.address.as_u64(), span.len.as_u64(), span.bounced)).collect();
    assert_eq!(told, [(0, 0x10_0000, 0x1800, true), (0x1800, 0x20_0000, 0x1800, true)]);
    // The second piece is above what 21 bits reach, and the first is not handed out then either.
    let refused = copied(forced().with_mask_bits(21), &area, Windows::one_to_one());
    assert!(matches!(refused, Err(MapRangesError::Link(LinkError::AboveMask { .. }))), "{refused:?}");
}

#[test]
fn a_granule_of_a_copy_that_is_in_two_pieces_is_refused_and_not_mapped_past_its_piece() {
    let (memory, arena, peers) = (memory(), frames(), Peers::none());
    let domain = soft(&arena);
    let depot = depot(&domain.abilities().usable);
    let owners = pieces(&[(0, 0x800, 0x10_0000), (0x800, 0x3800, 0x20_0000)]);
    let pool = BouncePool::new(&memory, (AREA, Bytes::ZERO), Bytes::new(0x1000), Granule::PAGE_4K).unwrap();
    let untrusted = Initiator::new("nic", IommuMode::Translated).untrusted();
    let context = Context::new(untrusted, domain.attach(), &owners, &peers, &depot).unwrap().with_bouncer(&pool);
    let refused = context.map_one(ram(0x2100, 0x100), Prot::Read).err();
    let cause = ResolveError::InPieces { owner: AREA, offset: Bytes::ZERO, len: Bytes::new(0x1000) };
    assert_eq!(refused, Some(MapRangesError::Link(LinkError::Unresolvable(cause))));
    assert_eq!(pool.left(), pool.size());
}

/// Linux 7.2 `swiotlb_sync_single_for_device` leaves alone what the device writes; drivers that poll a
/// buffer hand it back while the device may be writing.
#[test]
fn what_a_device_only_writes_is_not_overwritten_when_it_is_handed_back() {
    let (memory, owners, peers, depot) =
        (memory(), pieces::<Infallible>(&[(0, 0x4000, 0)]), Peers::none(), depot(&nothing()));
    let pool = BouncePool::new(&memory, (AREA, Bytes::ZERO), Bytes::new(0x4000), Granule::PAGE_4K).unwrap();
    let space = DirectSpace::new(Windows::one_to_one(), Iova::new(u64::MAX));
    let context = Context::new(forced(), space, &owners, &peers, &depot).unwrap().with_bouncer(&pool);
    for (prot, kept) in [(Prot::Write, 9), (Prot::ReadWrite, 3), (Prot::Read, 3)] {
        let mapping = context.map_one(ram(0x1000, 0x100), prot).unwrap();
        let copy = (AREA, Bytes::new(mapping.spans().next().unwrap().address.as_u64()));
        memory.write(copy, &[9; 0x100]).unwrap();
        mapping.sync_for_device().unwrap();
        let mut bytes = [0; 0x100];
        memory.read(copy, &mut bytes).unwrap();
        assert_eq!(bytes, [kept; 0x100], "{prot}");
        mapping.sync_part(Bytes::ZERO, Bytes::ZERO, Towards::Cpu).unwrap();
        memory.write(copy, &[3; 0x100]).unwrap();
    }
}

/// Memory whose owner fails to take what lies below 0x2000.
struct Torn(ByteArrays);

impl Memory for Torn {
    fn copy(&self, from: Place, to: Place, len: Bytes) -> Result<(), MemoryError> {
        match to {
            (Owner::Ram, offset) if offset < Bytes::new(0x2000) => {
                Err(MemoryError::Outside { owner: Owner::Ram, offset, len })
            }
            _ => self.0.copy(from, to, len),
        }
    }

    fn zero(&self, at: Place, len: Bytes) -> Result<(), MemoryError> {
        self.0.zero(at, len)
    }
}

#[test]
fn one_copy_that_is_not_written_back_does_not_keep_the_others_from_it() {
    let (memory, owners, peers) = (Torn(memory()), pieces::<Infallible>(&[(0, 0x4000, 0)]), Peers::none());
    let (memory, depot) = (&memory, depot(&nothing()));
    let pool = BouncePool::new(memory, (AREA, Bytes::ZERO), Bytes::new(0x4000), Granule::PAGE_4K).unwrap();
    let space = DirectSpace::new(Windows::one_to_one(), Iova::new(u64::MAX));
    let context = Context::new(forced(), space, &owners, &peers, &depot).unwrap().with_bouncer(&pool);
    let mut staged = context.reserve(Bytes::new(0x2000)).unwrap().stage();
    [ram(0x1000, 0x100), ram(0x5000, 0x100)].into_iter().for_each(|chunk| staged.link(chunk, Prot::Write).unwrap());
    let mapping = staged.sync().unwrap();
    for span in mapping.spans() {
        memory.0.write((AREA, Bytes::new(span.address.as_u64())), &[9; 0x100]).unwrap();
    }
    assert!(matches!(mapping.unlink(), Err(UnlinkError::Memory(_))));
    let mut bytes = [0; 0x100];
    memory.0.read((Owner::Ram, Bytes::new(0x5000)), &mut bytes).unwrap();
    assert_eq!(bytes, [9; 0x100]);
    assert_eq!(pool.left(), pool.size());
}

/// Linux 7.2 `phys_to_dma` and `phys_to_dma_unencrypted`: the bit comes after the windows.
#[test]
fn addresses_in_a_confidential_guest_say_private_or_shared() {
    let bit = AliasBit::new(47).unwrap();
    let area = [(0, 0x4000, 0x10_0000)];
    let first = |initiator: Initiator, windows| {
        copied(initiator, &area, windows).map(|spans| (spans[0].address, spans[0].bounced))
    };
    let number = |at| DeviceAddress::CpuPhysical(PhysAddr::new(at));
    let plain = Windows::one_to_one;
    assert_eq!(first(nic().in_guest(Guest::Sev(bit)), plain()), Ok((number(0x10_0000), true)));
    assert_eq!(first(nic().in_guest(Guest::Realm(bit)), plain()), Ok((number(1 << 47 | 0x10_0000), true)));
    let accepted = nic().with_interface(Interface::Run);
    assert_eq!(first(accepted.in_guest(Guest::Sev(bit)), plain()), Ok((number(1 << 47 | 0x1000), false)));
    // A host that encrypts copies for devices that cannot form the bit.
    let host = Guest::EncryptingHost(bit);
    assert_eq!(first(nic().in_guest(host), plain()), Ok((number(1 << 47 | 0x1000), false)));
    assert_eq!(first(nic().in_guest(host).with_mask_bits(32), plain()), Ok((number(0x10_0000), true)));
    let all = AddrRange::new(PhysAddr::new(0), Bytes::new(1 << 30)).unwrap();
    let windows = Windows::new(vec![HostWindow::new(all, BusAddr::new(1 << 32)).unwrap()]);
    let (address, _) = first(nic().in_guest(host), windows).unwrap();
    assert_eq!((address.word(), address.as_u64()), ("bus", 1 << 47 | 1 << 32 | 0x1000));
}

/// Linux 7.2 refuses with `DMA_ATTR_REQUIRE_COHERENT` where it would have to bounce.
#[test]
fn a_long_lived_consumer_in_a_confidential_guest_is_refused_and_not_given_private_memory() {
    for initiator in [
        nic().with_bouncing(Bouncing::Never).in_guest(Guest::Tdx),
        nic().in_guest(Guest::Tdx).with_bouncing(Bouncing::Never),
    ] {
        let refused = copied(initiator, &[(0, 0x4000, 0x10_0000)], Windows::one_to_one());
        let Err(MapRangesError::Link(error @ LinkError::NoBounce { .. })) = refused else { panic!("{refused:?}") };
        assert!(error.to_string().contains("has not accepted"), "{error}");
    }
}

/// A range that is mapped as not snooped is not snooped, whatever the initiator usually is.
#[test]
fn a_span_says_not_snooped_where_its_chunk_or_its_initiator_is() {
    let (arena, owners, peers) = (frames(), Owners::new(), Peers::none());
    let frames: &peerdma::iopt::FrameArena = &arena;
    let format = peerdma::iopt::ArmStage1::<peerdma::iopt::Pages4K>::new(peerdma::iopt::ArmOptions::default()).unwrap();
    let domain = peerdma::dma::SoftIommu::new(format, frames).unwrap();
    let depot = depot(&domain.abilities().usable);
    let coherent = Initiator::new("nic", IommuMode::Translated);
    for (initiator, attrs, snooped) in [
        (coherent.clone(), MemAttrs::empty(), true),
        (coherent.clone(), MemAttrs::NOT_SNOOPED, false),
        (coherent.not_coherent(), MemAttrs::empty(), false),
    ] {
        let context = Context::new(initiator, domain.attach(), &owners, &peers, &depot).unwrap();
        let chunk = Chunk::new(Owner::Ram, Bytes::new(0x1000), Bytes::new(0x1000), attrs).unwrap();
        let mapping = context.map_one(chunk, Prot::ReadWrite).unwrap();
        let span = mapping.spans().next().unwrap();
        let walked = domain.table().walk(Iova::new(span.address.as_u64())).unwrap();
        assert_eq!((span.snooped, walked.attrs.contains(MemAttrs::NOT_SNOOPED)), (snooped, !snooped));
        let steps = mapping.publish(&mapping, Sender::device());
        assert_eq!(steps.contains(Step::CacheInvalidate), !snooped, "{steps}");
    }
}
