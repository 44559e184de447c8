//! Buffers that their exporter counts in a ledger.

use super::*;
use crate::buffer::pins::{ChargeError, Ledger, Limits, TenantId};
use crate::dma::{OwnerId, Reach};

const VRAM: RegionId = RegionId::new(0);
const TRAINER: TenantId = TenantId::new(1);
const NIC: TenantId = TenantId::new(2);
const DEVICE: Owner = Owner::Device(OwnerId::new(1));
const PAGE: u64 = 0x1000;

/// A ledger of four pages of VRAM, of which the NIC may hold two.
fn ledger() -> SharedLedger {
    let mut ledger = Ledger::new();
    ledger.describe_region(VRAM, "vram0", Bytes::new(4 * PAGE));
    ledger.describe_tenant(TRAINER, "trainer");
    ledger.describe_tenant(NIC, "nic");
    ledger.limit(VRAM, NIC, Limits { max: Some(Bytes::new(2 * PAGE)), ..Limits::NONE }).unwrap();
    SharedLedger::new(ledger)
}

fn vram(page: u64, pages: u64) -> Chunks<Owner> {
    let chunk = Chunk::new(DEVICE, Bytes::new(page * PAGE), Bytes::new(pages * PAGE), MemAttrs::MMIO).unwrap();
    Chunks::collect_from([chunk]).unwrap()
}

fn counted(ledger: &SharedLedger, pages: u64) -> Result<Buffer, ChargeError> {
    let offer = Offer::new(vram(0, pages), Stays::UNLESS_PINNED, Place::Device(VRAM)).unwrap();
    let buffer = Buffer::new("ring", offer.to_peers().or_at(Place::Ram, Owner::Ram), Answers::YES);
    buffer.charge(ledger, TRAINER)?;
    Ok(buffer)
}

fn peers() -> Peers<'static> {
    let mut peers = Peers::none();
    peers.state(DEVICE, Reach::Iova);
    peers
}

fn pins(buffer: &Buffer, place: Option<Place>) -> Result<Attachment, AttachError> {
    let device = Initiator::new("nic0", IommuMode::Translated);
    let wants = Declaration::of_device(device, Prot::Read).taking_peer_memory();
    let wants = place.into_iter().fold(wants, Declaration::wanting);
    buffer.attach(&wants, &peers(), Holder::here("nic0").of(NIC), Arc::new(Nic::default()))
}

/// Pages that count as the trainer's, and those that the NIC's pins hold.
fn pages(ledger: &SharedLedger) -> (u64, u64) {
    ledger.with(|ledger| (ledger.used(VRAM, TRAINER).as_u64() / PAGE, ledger.pinned(VRAM, NIC).as_u64() / PAGE))
}

#[test]
fn a_pin_counts_against_whoever_attaches_and_a_limit_refuses_it_by_name() {
    let ledger = ledger();
    let (small, large) = (counted(&ledger, 1).unwrap(), counted(&ledger, 2).unwrap());
    let seat = pins(&small, None).unwrap();
    assert_eq!(pages(&ledger), (3, 1));
    let Err(AttachError::Pin(refused)) = pins(&large, None) else { panic!("attached") };
    assert!(
        refused.to_string().starts_with("nic cannot keep 8 KiB more in vram0: it uses 4 KiB of its limit of 8 KiB")
    );
    assert!(large.attached().is_empty(), "nobody came of it");
    assert!(large.begin(Disturbance::Move).is_ok(), "and nothing holds it");
    let again = pins(&small, None).unwrap();
    assert_eq!(pages(&ledger), (3, 1), "the same memory twice is no more memory");
    drop(seat);
    assert_eq!(pages(&ledger), (3, 1));
    drop(again);
    assert_eq!(pages(&ledger), (3, 0));
    let seat = pins(&large, None).unwrap();
    assert_eq!(pages(&ledger), (3, 2));
    drop((seat, small, large));
    assert_eq!(pages(&ledger), (0, 0), "all handles are gone");
}

#[test]
fn a_pin_is_let_go_when_what_its_devices_were_doing_has_ended() {
    let (ledger, queue) = (ledger(), Timeline::new("nic queue 0"));
    let buffer = counted(&ledger, 1).unwrap();
    let seat = pins(&buffer, None).unwrap();
    let mut reservation = seat.reservation().lock();
    reservation.reserve(1).unwrap();
    let fence = queue.issue();
    reservation.add(fence.clone(), Usage::Read).unwrap();
    // Its importer goes while somebody has the reservation, and waits for nobody.
    drop(seat.clone());
    let gone = thread::scope(|scope| scope.spawn(|| drop(seat_of(&buffer))).join());
    assert!(gone.is_ok());
    drop(reservation);
    drop(seat);
    assert_eq!(pages(&ledger), (1, 1), "its device reads yet");
    drop(buffer);
    assert_eq!(pages(&ledger), (1, 1), "and the memory is there as long");
    queue.retire_to(fence.sequence()).unwrap();
    assert_eq!(pages(&ledger), (0, 0));
}

fn seat_of(buffer: &Buffer) -> Attachment {
    pins(buffer, None).unwrap()
}

/// A pin of one who has gone while the reservation was taken is let go by whoever gives that up.
#[test]
fn who_goes_while_the_reservation_is_taken_leaves_no_pin_behind() {
    let ledger = ledger();
    let buffer = counted(&ledger, 1).unwrap();
    let seat = pins(&buffer, None).unwrap();
    let held = buffer.reservation().lock();
    drop(seat);
    assert_eq!(pages(&ledger), (1, 1), "nobody knows yet what its devices are doing");
    drop(held);
    assert_eq!(pages(&ledger), (1, 0));
}

#[test]
fn a_buffer_that_moves_is_counted_where_it_lies() {
    let ledger = ledger();
    let (buffer, other) = (counted(&ledger, 2).unwrap(), counted(&ledger, 2).unwrap());
    assert!(matches!(counted(&ledger, 1), Err(ChargeError::Full { .. })));
    let moving = buffer.begin(Disturbance::Move).unwrap().wait(LONG).unwrap();
    moving.moved(ram(0x90_0000, 2 * PAGE), Place::Ram, &peers()).unwrap();
    assert_eq!(pages(&ledger), (2, 0));
    let third = counted(&ledger, 1).unwrap();
    // Somebody pins it where it is to be, and no room is there.
    let seat = pins(&buffer, Some(Place::Device(VRAM))).unwrap();
    let moving = buffer.begin(Disturbance::Move).unwrap().wait(LONG).unwrap();
    let full = moving.moved(vram(0, 2), Place::Device(VRAM), &peers()).unwrap_err();
    assert!(matches!(full.why, WhyNot::Charge(ChargeError::Full { .. })), "{full}");
    assert_eq!((pages(&ledger), buffer.place()), ((3, 0), Place::Ram), "nothing has changed");
    drop((other, third));
    let held = counted(&ledger, 1).unwrap();
    let holds = pins(&held, None).unwrap();
    let refused = full.disturbed.moved(vram(0, 2), Place::Device(VRAM), &peers()).unwrap_err();
    assert!(matches!(refused.why, WhyNot::Charge(ChargeError::OverMax { .. })), "{refused}");
    assert_eq!(pages(&ledger), (1, 1), "what was charged before the pin was refused is given back");
    drop((holds, held));
    refused.disturbed.moved(vram(0, 2), Place::Device(VRAM), &peers()).unwrap();
    assert_eq!(pages(&ledger), (2, 2), "with the pin that waited for it");
    assert!(seat.map().is_ok());
    drop((seat, buffer));
    assert_eq!(pages(&ledger), (0, 0));
}

#[test]
fn a_buffer_that_is_counted_late_counts_the_pins_that_it_has() {
    let ledger = ledger();
    let offer = Offer::new(vram(0, 3), Stays::UNLESS_PINNED, Place::Device(VRAM)).unwrap();
    let buffer = Buffer::new("ring", offer.to_peers(), Answers::YES);
    let seat = pins(&buffer, None).unwrap();
    assert!(matches!(buffer.charge(&ledger, TRAINER), Err(ChargeError::OverMax { .. })));
    assert_eq!(pages(&ledger), (0, 0));
    ledger.with(|ledger| ledger.limit(VRAM, NIC, Limits::NONE)).unwrap();
    buffer.charge(&ledger, TRAINER).unwrap();
    assert_eq!(pages(&ledger), (3, 3));
    drop(seat);
    assert_eq!(pages(&ledger), (3, 0));
}
