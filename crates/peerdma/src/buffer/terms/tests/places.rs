//! Where memory lies while somebody is attached.

use super::*;

fn movable(prot: Prot) -> Declaration {
    Declaration::of_device(nic(), prot).taking(Lifetime::Movable).enforced(Enforcement::Cooperative)
}

#[test]
fn an_importer_that_follows_moves_is_told_every_place_that_it_can_reach() {
    let (offer, takes) = (vram(Stays::UNLESS_PINNED), movable(Prot::Read).taking_peer_memory());
    let terms = negotiate(&offer, &takes, &peers()).unwrap();
    assert_eq!(terms.places(), [VRAM, Place::Ram]);

    let other = Place::Device(RegionId::new(1));
    let unreached = offer.or_at(other, Owner::Device(OwnerId::new(8)));
    assert_eq!(negotiate(&unreached, &takes, &peers()).unwrap().places(), [VRAM, Place::Ram]);
}

#[test]
fn an_importer_without_peer_memory_keeps_a_movable_buffer_in_ram() {
    let terms = negotiate(&vram(Stays::UNLESS_PINNED), &movable(Prot::Read).wanting(Place::Ram), &peers()).unwrap();
    assert_eq!((terms.place(), terms.moved_from(), terms.places()), (Place::Ram, Some(VRAM), &[Place::Ram][..]));
}

#[test]
fn who_does_not_follow_has_one_place() {
    let takes = movable(Prot::Read).taking_peer_memory().taking(Lifetime::Revocable);
    assert_eq!(negotiate(&vram(Stays::UNLESS_PINNED), &takes, &peers()).unwrap().places(), [VRAM]);
}

#[test]
fn a_place_that_is_not_offered_is_refused_with_those_that_are() {
    let asks = movable(Prot::Read).wanting(Place::Device(RegionId::new(9)));
    let refusal = negotiate(&vram(Stays::UNLESS_PINNED), &asks, &peers()).unwrap_err();
    assert_eq!(refusal.rule, Rule::PlaceNotOffered);
    assert!(refusal.to_string().contains("device memory (region 0), ram"), "{refusal}");
}

#[test]
fn the_place_that_a_buffer_left_is_one_where_it_may_be_again() {
    let mut offer = vram(Stays::UNLESS_PINNED);
    offer.moved_to(ranges(Owner::Ram, &[(0x10_0000, PAGE)]), Place::Ram).unwrap();
    assert_eq!(offer.place(), Place::Ram);
    assert_eq!(offer.elsewhere(), [Elsewhere { place: VRAM, owner: DEVICE }]);
    let takes = movable(Prot::Read).taking_peer_memory();
    assert_eq!(negotiate(&offer, &takes, &peers()).unwrap().places(), [Place::Ram, VRAM]);

    let before = offer.clone();
    assert_eq!(offer.moved_to(Chunks::new(), VRAM), Err(OfferError::Empty));
    assert_eq!(offer, before);
}
