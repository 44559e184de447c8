//! Places that a buffer may go to, and those that are refused with nothing changed.

use super::*;
use crate::addr::Granule;
use crate::buffer::terms::Contiguity;

/// Two pages in these pieces, each with its length.
fn pieces(parts: &[(u64, u64)]) -> Chunks<Owner> {
    let chunk = |&(at, len)| Chunk::new(Owner::Ram, Bytes::new(at), Bytes::new(len), MemAttrs::empty()).unwrap();
    Chunks::collect_from(parts.iter().map(chunk)).unwrap()
}

fn particular(buffer: &Buffer, nic: &Arc<Nic>) -> Attachment {
    let device = Initiator::new("nic0", IommuMode::Translated);
    let declaration = Declaration::of_device(device, Prot::ReadWrite)
        .taking(Lifetime::Movable)
        .in_pieces(Contiguity::OneRange)
        .aligned_to(Granule::PAGE_4K);
    buffer.attach(&declaration, &Peers::none(), Holder::here("nic0"), nic.clone()).unwrap()
}

fn first(seat: &Attachment) -> Bytes {
    seat.map().unwrap().ranges().iter().next().unwrap().offset()
}

/// Only length and place were looked at: an importer of one aligned range mapped two unaligned ones after a move.
#[test]
fn ranges_that_nobody_would_have_been_settled_with_are_refused_by_rule_and_attachment() {
    let (buffer, nic) = (that_moves(), Arc::new(Nic::default()));
    let (seat, easy) = (particular(&buffer, &nic), attach(&buffer, &nic, Lifetime::Movable).unwrap());
    let (scattered, shifted) = (pieces(&[(0x8000, 0x800), (0x9100, 0x1800)]), pieces(&[(0x8800, 0x2000)]));
    let mut disturbed = buffer.begin(Disturbance::Move).unwrap().wait(LONG).unwrap();
    for (to, rule) in [(scattered.clone(), Rule::Pieces), (shifted, Rule::Alignment)] {
        let not = disturbed.moved(to, Place::Ram, &Peers::none()).unwrap_err();
        let WhyNot::Refused { objections } = &not.why else { panic!("{not}") };
        assert_eq!((objections.len(), objections[0].who, objections[0].refusal.rule), (1, seat.id(), rule));
        assert!(not.to_string().contains("attachment 1 of nic0 stands against it"), "{not}");
        disturbed = not.disturbed;
    }
    assert_eq!((buffer.phase(), buffer.offer()), (Phase::Moving, that_moves().offer()), "nothing has changed");
    disturbed.moved(pieces(&[(0x20_0000, 0x2000)]), Place::Ram, &Peers::none()).unwrap();
    assert_eq!((first(&seat), first(&easy)), (Bytes::new(0x20_0000), Bytes::new(0x20_0000)));
    // Who takes pieces keeps nobody else from them.
    drop(seat);
    let disturbed = buffer.begin(Disturbance::Move).unwrap().wait(LONG).unwrap();
    disturbed.moved(scattered, Place::Ram, &Peers::none()).unwrap();
    assert_eq!(easy.map().unwrap().ranges().iter().count(), 2);
}

#[test]
fn an_exporter_asks_before_it_copies_whether_a_place_will_do() {
    let (buffer, nic) = (that_moves(), Arc::new(Nic::default()));
    let seat = particular(&buffer, &nic);
    let (scattered, whole) = (pieces(&[(0x8000, 0x1000), (0xa000, 0x1000)]), pieces(&[(0x20_0000, 0x2000)]));
    let before = buffer.report();
    assert!(matches!(buffer.could_move(&scattered, Place::Ram, &Peers::none()), Err(WhyNot::Refused { .. })));
    assert_eq!(buffer.could_move(&whole, Place::Ram, &Peers::none()), Ok(()));
    assert_eq!(buffer.report(), before, "it was a question");
    drop(seat);
    assert_eq!(buffer.could_move(&scattered, Place::Ram, &Peers::none()), Ok(()));
    let short = pieces(&[(0, 0x1000)]);
    assert!(matches!(buffer.could_move(&short, Place::Ram, &Peers::none()), Err(WhyNot::Length { .. })));
}

/// A reset was announced in place of a move, which a pin refuses, and the bytes were moved under it.
#[test]
fn nothing_moves_from_under_a_pin_whatever_was_announced() {
    let (buffer, nic) = (that_moves(), Arc::new(Nic::default()));
    let seat = attach(&buffer, &nic, Lifetime::Pinned).unwrap();
    assert!(matches!(buffer.begin(Disturbance::Move), Err(Refused::Promised { .. })));
    for what in [Disturbance::Reset, Disturbance::BarMove, Disturbance::Permission] {
        let disturbed = buffer.begin(what).unwrap().wait(LONG).unwrap();
        let not = disturbed.moved(ram(0x90_0000, 0x2000), Place::Ram, &Peers::none()).unwrap_err();
        assert!(matches!(&not.why, WhyNot::Pinned { holders, .. } if *holders == [Holder::here("nic0")]), "{not}");
        not.disturbed.done();
    }
    assert_eq!(first(&seat), Bytes::new(0x10_0000));
    drop(seat);
    let disturbed = buffer.begin(Disturbance::Reset).unwrap().wait(LONG).unwrap();
    disturbed.moved(ram(0x90_0000, 0x2000), Place::Ram, &Peers::none()).unwrap();
}

/// Who asks for another place pins the buffer there, and must not thereby keep it from going there.
#[test]
fn a_pin_at_the_place_that_was_asked_for_does_not_hold_the_buffer_where_it_is() {
    let vram = Place::Device(RegionId::new(0));
    let offer = Offer::new(ram(0, 0x2000), Stays::UNLESS_PINNED, vram).unwrap().or_at(Place::Ram, Owner::Ram);
    let (buffer, nic) = (Buffer::new("ring", offer, Answers::YES), Arc::new(Nic::default()));
    let device = Initiator::new("nic0", IommuMode::Translated);
    let wants = Declaration::of_device(device, Prot::ReadWrite).wanting(Place::Ram);
    let seat = buffer.attach(&wants, &Peers::none(), Holder::here("nic0"), nic).unwrap();
    assert!(matches!(seat.map(), Err(MapRefused::Elsewhere { .. })));
    let disturbed = buffer.begin(Disturbance::Move).unwrap().wait(LONG).unwrap();
    disturbed.moved(ram(0x90_0000, 0x2000), Place::Ram, &Peers::none()).unwrap();
    assert_eq!(first(&seat), Bytes::new(0x90_0000));
    assert!(buffer.begin(Disturbance::Move).is_err(), "and there it stays");
}

#[test]
fn a_disturbance_says_what_it_is_and_which_buffer_it_is_about() {
    let (one, other) = (that_moves(), that_moves());
    let disturbed = one.begin(Disturbance::Move).unwrap().wait(LONG).unwrap();
    assert!(disturbed.what() == Disturbance::Move && disturbed.is_of(&one) && !disturbed.is_of(&other));
    let both = Buffer::begin_all(&[one.clone(), other], Disturbance::Move).unwrap().wait(LONG).unwrap();
    assert!(!both.is_of(&one));
}
