//! What may follow what in one mapping (Linux 7.2 `dma_iova_link`, granule 4 KiB).

use super::{Soft, chunk, depot, frames, ram, soft};
use core::cell::RefCell;
use peerdma::access::Prot;
use peerdma::addr::{Bytes, Iova};
use peerdma::chunk::Chunks;
use peerdma::dma::bounce::{BouncePool, ByteArrays};
use peerdma::dma::{
    Bouncing, Context, ContextError, DeviceAddress, DirectSpace, Initiator, LinkError, Owner, OwnerId, Owners, Peers,
    ReserveError, Span, SyncError, Windows,
};
use peerdma::iova::Allocator;
use peerdma::topology::IommuMode;

/// Links ranges in order and returns what the device is handed.
fn spans(
    initiator: Initiator,
    head: u64,
    ranges: &[(u64, u64)],
    check: impl FnOnce(&Soft<'_>, &[Span]),
) -> Result<(), LinkError> {
    let (arena, owners, peers) = (frames(), Owners::new(), Peers::none());
    let domain = soft(&arena);
    let depot = depot(&domain.abilities().usable);
    let memory = ByteArrays::new();
    memory.add((Owner::Ram, Bytes::ZERO), vec![0; 0x10000]).unwrap();
    let pool =
        BouncePool::new(&memory, (Owner::Ram, Bytes::new(0x8000)), Bytes::new(0x8000), peerdma::addr::Granule::PAGE_4K)
            .unwrap();
    let context = Context::new(initiator, domain.attach(), &owners, &peers, &depot).unwrap().with_bouncer(&pool);
    {
        let total: u64 = ranges.iter().map(|(_, len)| len).sum();
        let mut staged = context.reserve_from(Bytes::new(head), Bytes::new(total.max(0x4000))).unwrap().stage();
        for (at, len) in ranges {
            staged.link(ram(*at, *len), Prot::ReadWrite)?;
        }
        let mapping = staged.sync().unwrap();
        check(&domain, &mapping.spans().collect::<Vec<_>>());
    }
    assert_eq!(pool.left(), pool.size(), "every copy went back");
    Ok(())
}

fn leads(domain: &Soft<'_>, address: DeviceAddress, by: u64) -> Option<u64> {
    let iova = Iova::new(address.as_u64() + by);
    domain.table().walk(iova).ok().map(|to| to.pa.as_u64())
}

fn nic() -> Initiator {
    Initiator::new("nic", IommuMode::Translated)
}

#[test]
fn a_trusted_initiator_sees_the_rest_of_the_first_and_last_granule() {
    spans(nic(), 0x200, &[(0x1200, 0x100)], |domain, spans| {
        let [span] = spans else { panic!("{spans:?}") };
        assert_eq!(span.address.as_u64() & 0xfff, 0x200);
        assert_eq!((span.len, span.bounced), (Bytes::new(0x100), false));
        assert_eq!(leads(domain, span.address, 0), Some(0x1200));
        let first = DeviceAddress::Iova(Iova::new(span.address.as_u64() & !0xfff));
        assert_eq!((leads(domain, first, 0), leads(domain, first, 0xfff)), (Some(0x1000), Some(0x1fff)));
        assert_eq!(leads(domain, first, 0x1000), None);
    })
    .unwrap();
}

#[test]
fn a_later_range_that_starts_inside_a_granule_is_refused() {
    let refused = spans(nic(), 0, &[(0x3000, 0x1000), (0x1200, 0x100)], |_, _| {});
    assert!(matches!(refused, Err(LinkError::Unaligned { .. })), "{refused:?}");
    let after_an_end = spans(nic(), 0, &[(0x3000, 0x800), (0x5000, 0x1000)], |_, _| {});
    assert!(matches!(after_an_end, Err(LinkError::Unaligned { .. })), "{after_an_end:?}");
}

/// Head, middle and tail as Linux cuts them; only whole granules of the original are the device's.
#[test]
fn an_untrusted_initiator_sees_copies_of_shared_granules_and_the_rest_as_it_is() {
    let lens = |head: u64, at: u64, len: u64| {
        let mut cut = Vec::new();
        spans(nic().untrusted(), head, &[(at, len)], |domain, spans| {
            for span in spans {
                cut.push((span.len.as_u64(), span.bounced));
                let to = leads(domain, span.address, 0).unwrap();
                assert_eq!(to >= 0x8000, span.bounced, "a copy lies in the pool, the rest where it was");
            }
            let adjacent =
                spans.windows(2).all(|two| two[0].address.as_u64() + two[0].len.as_u64() == two[1].address.as_u64());
            assert!(adjacent, "the device sees one range");
        })
        .unwrap();
        cut
    };
    assert_eq!(lens(0x200, 0x1200, 0x2000), [(0xe00, true), (0x1000, false), (0x200, true)]);
    // Head and tail side by side are one stretch of copies to the device.
    assert_eq!(lens(0xf00, 0x1f00, 0x180), [(0x180, true)]);
    assert_eq!(lens(0x200, 0x1200, 0x80), [(0x80, true)]);
    assert_eq!(lens(0, 0x1000, 0x2000), [(0x2000, false)]);
}

#[test]
fn what_needs_a_copy_is_refused_by_name_without_a_pool_and_for_long_lived_consumers() {
    let (arena, owners, peers) = (frames(), Owners::new(), Peers::none());
    let domain = soft(&arena);
    let depot = depot(&domain.abilities().usable);
    let link = |initiator: Initiator| {
        let context = Context::new(initiator, domain.attach(), &owners, &peers, &depot).unwrap();
        let mut staged = context.reserve_from(Bytes::new(0x200), Bytes::new(0x2000)).unwrap().stage();
        staged.link(ram(0x1200, 0x2000), Prot::Read)
    };
    assert!(matches!(link(nic().untrusted()), Err(LinkError::NoPool { .. })));
    let never = link(nic().untrusted().with_bouncing(Bouncing::Never));
    assert!(matches!(never, Err(LinkError::NoBounce { .. })), "{never:?}");
    assert_eq!(link(nic().with_bouncing(Bouncing::Never)), Ok(()));
}

#[test]
fn a_non_coherent_initiator_gets_no_memory_that_nobody_synchronises() {
    let (arena, owners, peers) = (frames(), Owners::new(), Peers::none());
    let frames: &peerdma::iopt::FrameArena = &arena;
    let domain = peerdma::dma::SoftIommu::new(
        peerdma::iopt::ArmStage1::<peerdma::iopt::Pages4K>::new(peerdma::iopt::ArmOptions::default()).unwrap(),
        frames,
    )
    .unwrap();
    let depot = depot(&domain.abilities().usable);
    let initiator = nic().not_coherent().with_bouncing(Bouncing::Never);
    let context = Context::new(initiator, domain.attach(), &owners, &peers, &depot).unwrap();
    let refused = context.reserve(Bytes::new(0x1000)).unwrap().stage().link(ram(0x1000, 0x1000), Prot::Read);
    assert!(matches!(refused, Err(LinkError::NotCoherent { .. })), "{refused:?}");
}

#[test]
fn a_format_that_cannot_map_unsnooped_memory_refuses_the_context_by_name() {
    let (arena, owners, peers) = (frames(), Owners::new(), Peers::none());
    let options = peerdma::iopt::VtdOptions { force_snoop: true, ..peerdma::iopt::VtdOptions::default() };
    let format = peerdma::iopt::VtdSecondStage::new(options).unwrap();
    let domain = peerdma::dma::SoftIommu::new(format, &arena).unwrap();
    let depot = depot(&domain.abilities().usable);
    let refused = Context::new(nic().not_coherent(), domain.attach(), &owners, &peers, &depot);
    assert!(matches!(refused, Err(ContextError::AttrsNotTaken { .. })));
}

#[test]
fn an_untranslated_initiator_holds_no_iovas_and_does_not_fit_a_translated_space() {
    let (arena, owners, peers) = (frames(), Owners::new(), Peers::none());
    let domain = soft(&arena);
    let depot = depot(&domain.abilities().usable);
    let direct = || DirectSpace::new(Windows::one_to_one(), Iova::new(u64::MAX));
    let named = owners_of();
    let context = Context::new(Initiator::new("nic", IommuMode::Identity), direct(), &named, &peers, &depot).unwrap();
    assert!(!context.reserve(Bytes::new(0x1000)).unwrap().holds_iovas());
    let wrong = Context::new(Initiator::new("nic", IommuMode::Identity), domain.attach(), &owners, &peers, &depot);
    assert!(matches!(wrong, Err(ContextError::ModeMismatch { .. })));
}

fn owners_of() -> Owners<core::convert::Infallible> {
    Owners::new()
}

#[test]
fn nothing_and_too_much_cannot_be_reserved() {
    let (arena, owners, peers) = (frames(), Owners::new(), Peers::none());
    let domain = soft(&arena);
    let depot = depot(&domain.abilities().usable);
    let context = Context::new(nic().with_mask_bits(32), domain.attach(), &owners, &peers, &depot).unwrap();
    assert_eq!(context.reserve(Bytes::ZERO).err(), Some(ReserveError::Empty));
    assert!(matches!(context.reserve(Bytes::new(1 << 63)), Err(ReserveError::Exhausted { .. })));
    assert!(matches!(context.reserve(Bytes::new(u64::MAX)), Err(ReserveError::TooLong { .. })));
    let Err(ReserveError::Exhausted { exhausted, .. }) = context.reserve(Bytes::new(1 << 33)) else {
        panic!("reserved")
    };
    assert!(exhausted.largest_gap.is_some_and(|gap| gap.last().as_u64() <= 0xffff_ffff));
}

/// Linux maps past the end of a reservation without a word.
#[test]
fn a_range_past_the_end_of_the_reservation_is_refused_with_what_is_left() {
    let (arena, owners, peers) = (frames(), Owners::new(), Peers::none());
    let domain = soft(&arena);
    let depot = depot(&domain.abilities().usable);
    let context = Context::new(nic(), domain.attach(), &owners, &peers, &depot).unwrap();
    let mut staged = context.reserve(Bytes::new(0x3000)).unwrap().stage();
    staged.link(ram(0x1000, 0x2000), Prot::Read).unwrap();
    let refused = staged.link(ram(0x8000, 0x2000), Prot::Read);
    assert_eq!(
        refused,
        Err(LinkError::OutOfRoom { owner: Owner::Ram, len: Bytes::new(0x2000), left: Bytes::new(0x1000) })
    );
    staged.link(ram(0x8000, 0x1000), Prot::Read).unwrap();
    assert_eq!(staged.sync().unwrap().len(), Bytes::new(0x3000));
}

#[test]
fn nothing_linked_cannot_be_made_visible() {
    let (arena, owners, peers) = (frames(), Owners::new(), Peers::none());
    let domain = soft(&arena);
    let depot = depot(&domain.abilities().usable);
    let context = Context::new(nic(), domain.attach(), &owners, &peers, &depot).unwrap();
    let staged = context.reserve(Bytes::new(0x1000)).unwrap().stage();
    assert_eq!(staged.sync().err(), Some(SyncError::Empty));
    let lists = context.stage_uniform(Chunks::new().view(), Prot::Read);
    assert!(lists.is_err());
}

#[test]
fn an_owner_whose_bytes_the_space_cannot_name_is_refused_with_the_form_it_wants() {
    let (arena, owners, peers) = (frames(), Owners::new(), Peers::none());
    let domain = soft(&arena);
    let depot: RefCell<Allocator> = depot(&domain.abilities().usable);
    let context = Context::new(nic(), domain.attach(), &owners, &peers, &depot).unwrap();
    let mut staged = context.reserve(Bytes::new(0x1000)).unwrap().stage();
    let refused = staged.link(chunk(Owner::Memfd(OwnerId::new(3)), 0, 0x1000), Prot::Read).unwrap_err();
    assert!(refused.to_string().contains("memfd 3 is not known as physical ranges"), "{refused}");
}
