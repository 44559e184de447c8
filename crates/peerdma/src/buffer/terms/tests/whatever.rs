//! Whatever is offered and declared: no panic, and terms that keep what both said.

use super::*;
use crate::addr::BusAddr;
use crate::dma::confidential::{Interface, MemoryKind};
use crate::dma::{Bouncing, Segments};
use proptest::prelude::*;
use proptest::sample::select;

fn chunks() -> impl Strategy<Value = Chunks<Owner>> {
    let edge = prop_oneof![0_u64..0x1_0000, any::<u64>(), (u64::MAX - 0x1_0000)..=u64::MAX];
    let part = (select(vec![DEVICE, MEMFD, Owner::Ram]), edge.clone(), edge);
    proptest::collection::vec(part, 1..6).prop_map(|parts| {
        let mut chunks = Chunks::new();
        for (owner, offset, len) in parts {
            // A list that is too long, or a chunk that is none, is refused where it is made.
            let chunk = Chunk::new(owner, Bytes::new(offset), Bytes::new(len), MemAttrs::empty());
            _ = chunk.map(|chunk| chunks.push(chunk));
        }
        chunks
    })
}

prop_compose! {
    fn devices()(
        mode in select(vec![IommuMode::Translated, IommuMode::Identity, IommuMode::None]), bits in any::<u8>(),
        limit in proptest::option::of(any::<u64>()), longest in proptest::option::of(any::<u64>()),
        boundary in proptest::option::of(any::<u64>()), most in proptest::option::of(0_usize..10),
        bouncing in select(vec![Bouncing::Never, Bouncing::AsNeeded, Bouncing::Forced]), coherent in any::<bool>(),
        interface in select(Interface::ALL.to_vec()),
    ) -> Initiator {
        let segments = Segments { longest: longest.map(Bytes::new), boundary: boundary.map(Bytes::new), most };
        let device = Initiator::new("nic", mode).with_mask_bits(bits).with_segments(segments);
        let device = device.with_bouncing(bouncing).with_interface(interface);
        let device = limit.map_or(device.clone(), |limit| device.with_bus_limit(limit));
        if coherent { device } else { device.not_coherent() }
    }
}

proptest! {
    #[test]
    fn whatever_is_asked_the_terms_keep_what_both_sides_said(
        ranges in chunks(), device in devices(), start in any::<u64>(), stays in select(Stays::ALL.to_vec()),
        takes in select(Lifetime::ALL.to_vec()), floor in select(Enforcement::ALL.to_vec()),
        has in select(Enforcement::ALL.to_vec()), said in proptest::option::of(select(MemoryKind::ALL.to_vec())),
        pieces in select(vec![Contiguity::Scattered, Contiguity::AsSeen, Contiguity::OneRange]),
        elsewhere in any::<bool>(), aligned in any::<bool>(),
    ) {
        let mut peers = Peers::none();
        peers.state(DEVICE, Reach::Bus { start: BusAddr::new(start), bridge: None });
        let Ok(offer) = Offer::new(ranges, stays, VRAM) else { return Ok(()) };
        let offer = offer.to_peers().or_at(Place::Ram, Owner::Ram).with_floor(floor);
        let offer = said.map_or(offer.clone(), |said| offer.with_memory(said));
        let declaration = Declaration::of_device(device.clone(), Prot::Read).taking(takes).taking_peer_memory();
        let declaration = declaration.enforced(has).in_pieces(pieces);
        let declaration = if elsewhere { declaration.wanting(Place::Ram) } else { declaration };
        let declaration = if aligned { declaration.aligned_to(Granule::PAGE_4K) } else { declaration };
        let settled = negotiate(&offer, &declaration, &peers);
        prop_assert_eq!(&settled, &negotiate(&offer, &declaration, &peers), "asked again");
        let terms = match settled {
            Ok(terms) => terms,
            Err(refusal) => {
                prop_assert!(refusal.to_string().starts_with("nic cannot attach ("));
                return Ok(());
            }
        };
        prop_assert!(terms.lifetime() <= takes && terms.enforcement() >= floor);
        prop_assert_eq!(terms.places()[0], terms.place());
        prop_assert_eq!(terms.moved_from().is_some(), elsewhere);
        prop_assert!(terms.lifetime() == Lifetime::Movable || terms.places().len() == 1);
        prop_assert!(terms.pin().is_none_or(|pin| pin == terms.place() && stays.moves == Moves::UnlessPinned));
        if !elsewhere {
            // Every byte of device memory has an address that the device forms, and every range whole units.
            for chunk in offer.ranges().iter() {
                let last = u128::from(chunk.offset().as_u64()) + u128::from(chunk.len().as_u64()) - 1;
                prop_assert!(chunk.owner() != DEVICE || u128::from(start) + last <= u128::from(device.highest()));
                prop_assert!(!aligned || Granule::PAGE_4K.divides(chunk.offset()));
            }
        }
    }
}
