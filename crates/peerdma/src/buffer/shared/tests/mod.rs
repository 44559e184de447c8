mod bar;
mod charged;
mod moves;
mod panics;
mod taken;

use super::*;
use crate::access::MemAttrs;
use crate::access::Prot;
use crate::addr::Bytes;
use crate::buffer::Lifetime;
use crate::buffer::fence::{Failure, Timeline, Usage};
use crate::buffer::life::{Generation, Still};
use crate::buffer::pins::RegionId;
use crate::buffer::terms::{Evidence, Place, Rule, Stays};
use crate::chunk::{Chunk, Chunks};
use crate::dma::{Initiator, Owner};
use crate::topology::IommuMode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::Duration;

pub(super) const LONG: Duration = Duration::from_secs(60);
pub(super) const SHORT: Duration = Duration::from_millis(5);

fn ram(at: u64, len: u64) -> Chunks<Owner> {
    let chunk = Chunk::new(Owner::Ram, Bytes::new(at), Bytes::new(len), MemAttrs::empty());
    Chunks::collect_from(chunk).unwrap_or_default()
}

/// Memory that moves, is revoked, and stays where it is pinned.
fn buffer_in(chunks: Chunks<Owner>, stays: Stays, answers: Answers) -> Buffer {
    let offer = Offer::new(chunks, stays, Place::Ram).expect("there are ranges");
    Buffer::new("ring", offer, answers)
}

fn buffer() -> Buffer {
    buffer_in(ram(0x10_0000, 0x2000), Stays::UNTIL_REVOKED, Answers::YES)
}

fn that_moves() -> Buffer {
    buffer_in(ram(0x10_0000, 0x2000), Stays::UNLESS_PINNED, Answers::YES)
}

/// Writes down what it is told, and lets go at once, later or never.
#[derive(Default)]
pub(super) struct Nic {
    mapped: Mutex<Option<Mapped>>,
    receipts: Mutex<Vec<Receipt>>,
    pub(super) told: Mutex<Vec<String>>,
    keeps_receipts: bool,
    keeps_mapping: bool,
}

impl Nic {
    /// One that holds on whatever it is told.
    pub(super) fn that_keeps() -> Self {
        Self { keeps_mapping: true, ..Self::default() }
    }

    fn tell(&self, what: String, receipt: Receipt) {
        self.told.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(what);
        if self.keeps_receipts {
            self.receipts.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(receipt);
        }
    }

    pub(super) fn hold(&self, mapped: Option<Mapped>) {
        *self.mapped.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = mapped;
    }
}

impl Importer for Nic {
    fn let_go(&self, cause: Disturbance, receipt: Receipt) {
        if !self.keeps_mapping {
            self.hold(None);
        }
        self.tell(format!("let go: {cause}"), receipt);
    }

    fn may_map(&self, _: Generation, receipt: Receipt) {
        self.tell("may map".into(), receipt);
    }

    fn gone(&self) {
        self.told.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push("gone".into());
    }
}

fn attach(buffer: &Buffer, nic: &Arc<Nic>, lifetime: Lifetime) -> Result<Attachment, AttachError> {
    let device = Initiator::new("nic0", IommuMode::Translated);
    let declaration = Declaration::of_device(device, Prot::ReadWrite).taking(lifetime);
    attach_as(buffer, nic, &declaration)
}

pub(super) fn attach_as(buffer: &Buffer, nic: &Arc<Nic>, declaration: &Declaration) -> Result<Attachment, AttachError> {
    buffer.attach(declaration, &Peers::none(), Holder::here("nic0"), nic.clone())
}

#[test]
fn an_importer_is_told_lets_go_and_maps_again() {
    let (buffer, nic) = (buffer(), Arc::new(Nic::default()));
    let seat = attach(&buffer, &nic, Lifetime::Revocable).unwrap();
    nic.hold(Some(seat.map().unwrap()));
    let reset = buffer.begin(Disturbance::FunctionReset).unwrap().wait(LONG).unwrap();
    assert!(matches!(seat.map(), Err(MapRefused::Life(Refused::OutOfReach { phase: Phase::Revoked, .. }))));
    reset.done();
    let again = seat.map().unwrap();
    assert!(again.is_current());
    assert_eq!(*nic.told.lock().unwrap(), ["let go: function-reset", "may map"]);
}

#[test]
fn a_wait_ends_at_its_deadline_and_names_who_holds_on() {
    let (buffer, nic) = (buffer(), Arc::new(Nic { keeps_mapping: true, keeps_receipts: true, ..Nic::default() }));
    let seat = attach(&buffer, &nic, Lifetime::Revocable).unwrap();
    nic.hold(Some(seat.map().unwrap()));
    let late = buffer.begin(Disturbance::Reset).unwrap().wait(SHORT).unwrap_err();
    assert!(matches!(late.held[0].what, Still::ToNote(_)));
    nic.receipts.lock().unwrap().clear();
    let late = late.disturbing.wait(SHORT).unwrap_err();
    assert_eq!(late.held.len(), 1);
    assert_eq!(late.held[0].who, Some(seat.id()));
    assert_eq!(
        late.to_string(),
        "reset must not happen yet: ring: attachment 1 of nic0 has 1 mapping; wait on, end whoever holds on, or give up"
    );
    drop(late);
    nic.receipts.lock().unwrap().clear();
    assert_eq!(buffer.phase(), Phase::Live);
    assert!(!nic.mapped.lock().unwrap().as_ref().unwrap().is_current(), "it was told to let go all the same");
    nic.hold(None);
}

/// Its receipts go with it, and each of them comes back to the buffer.
#[test]
fn an_importer_may_go_without_having_answered() {
    let (buffer, nic) = (buffer(), Arc::new(Nic { keeps_receipts: true, ..Nic::default() }));
    let seat = attach(&buffer, &nic, Lifetime::Revocable).unwrap();
    drop(nic);
    let reset = buffer.begin(Disturbance::Reset).unwrap();
    let (gone, is_gone) = mpsc::channel();
    // In a thread, so that a buffer which waits for itself is a failure and not silence.
    thread::spawn(move || {
        drop(seat);
        gone.send(())
    });
    is_gone.recv_timeout(LONG).unwrap();
    assert!(reset.is_quiet() && buffer.attached().is_empty());
}

#[test]
fn what_was_promised_to_stay_refuses_what_can_be_refused() {
    let (buffer, nic) = (that_moves(), Arc::new(Nic::default()));
    let seat = attach(&buffer, &nic, Lifetime::Pinned).unwrap();
    assert!(matches!(buffer.begin(Disturbance::Move), Err(Refused::Promised { .. })), "pinned, if not mapped yet");
    nic.hold(Some(seat.map().unwrap()));
    assert!(matches!(buffer.begin(Disturbance::Move), Err(Refused::Promised { .. })));
    assert!(nic.told.lock().unwrap().is_empty(), "nobody was told of what did not happen");
    let removal = buffer.begin(Disturbance::Removal).unwrap().wait(LONG).unwrap();
    assert_eq!(*nic.told.lock().unwrap(), ["let go: removal", "gone"]);
    removal.done();
    assert_eq!(buffer.phase(), Phase::Dead);
    assert!(matches!(seat.map(), Err(MapRefused::Life(Refused::Dead { .. }))));
    assert!(attach(&buffer, &nic, Lifetime::Movable).is_err());
}

#[test]
fn a_deed_that_one_buffer_refuses_happens_to_none() {
    let (one, two, nic) = (that_moves(), that_moves(), Arc::new(Nic { keeps_mapping: true, ..Nic::default() }));
    let (first, second) =
        (attach(&one, &nic, Lifetime::Movable).unwrap(), attach(&two, &nic, Lifetime::Pinned).unwrap());
    nic.hold(Some(second.map().unwrap()));
    assert!(Buffer::begin_all(&[one.clone(), two.clone()], Disturbance::HotReset).is_err());
    assert_eq!((one.phase(), two.phase()), (Phase::Live, Phase::Live));
    assert!(first.may_map());
    nic.hold(None);
}

#[test]
fn who_maps_after_a_move_gets_the_new_place() {
    let (buffer, nic) = (that_moves(), Arc::new(Nic::default()));
    let seat = attach(&buffer, &nic, Lifetime::Movable).unwrap();
    nic.hold(Some(seat.map().unwrap()));
    let moving = buffer.begin(Disturbance::Move).unwrap().wait(LONG).unwrap();
    assert_eq!(buffer.phase(), Phase::Moving);
    let short = moving.moved(ram(0x90_0000, 0x1000), Place::Ram, &Peers::none()).unwrap_err();
    assert!(matches!(short.why, WhyNot::Length { .. }));
    let vram = Place::Device(RegionId::new(0));
    let far = short.disturbed.moved(ram(0x90_0000, 0x2000), vram, &Peers::none()).unwrap_err();
    assert_eq!(far.to_string(), "the buffer's place is as it was: device memory (region 0) is out of reach for nic0");
    far.disturbed.moved(ram(0x90_0000, 0x2000), Place::Ram, &Peers::none()).unwrap();
    let mapped = seat.map().unwrap();
    assert_eq!(mapped.ranges().iter().next().unwrap().offset(), Bytes::new(0x90_0000));
}

#[test]
fn permission_taken_back_is_gone_from_the_next_mapping() {
    let (buffer, nic) = (buffer(), Arc::new(Nic::default()));
    let seat = attach(&buffer, &nic, Lifetime::Revocable).unwrap();
    buffer.begin(Disturbance::Permission).unwrap().wait(LONG).unwrap().permit(Prot::Read);
    assert_eq!(seat.map().unwrap().prot(), Prot::Read);
    buffer.begin(Disturbance::Permission).unwrap().wait(LONG).unwrap().permit(Prot::Write);
    assert_eq!(seat.map().unwrap().prot(), Prot::Write);
}

/// The offer was as it had been made: who attached to memory that was for reading by then got terms for writing, and a
/// mapping for less without a word.
#[test]
fn who_attaches_after_a_permission_was_taken_back_is_offered_what_is_left() {
    let (buffer, nic) = (buffer(), Arc::new(Nic::default()));
    let early = attach(&buffer, &nic, Lifetime::Revocable).unwrap();
    let permit = |prot| buffer.begin(Disturbance::Permission).unwrap().wait(LONG).unwrap().permit(prot);
    permit(Prot::Read);
    let Err(AttachError::Terms(refusal)) = attach(&buffer, &nic, Lifetime::Revocable) else { panic!("attached") };
    assert_eq!(refusal.rule, Rule::ProtNotOffered);
    assert_eq!(refusal.evidence, Evidence::Prot { asked: Prot::ReadWrite, offered: Prot::Read });
    let device = Initiator::new("nic0", IommuMode::Translated);
    let reads = Declaration::of_device(device, Prot::Read).taking(Lifetime::Revocable);
    let reader = buffer.attach(&reads, &Peers::none(), Holder::here("reader"), nic.clone()).unwrap();
    assert_eq!((reader.terms().prot(), reader.map().unwrap().prot()), (Prot::Read, Prot::Read));
    assert_eq!((buffer.offer().prot(), buffer.offer().permitted()), (Prot::ReadWrite, Prot::Read));
    permit(Prot::ReadWrite);
    assert_eq!(early.map().unwrap().prot(), Prot::ReadWrite, "what was settled stays settled");
    assert_eq!(reader.map().unwrap().prot(), Prot::Read, "and no more than that");
    assert!(attach(&buffer, &nic, Lifetime::Revocable).is_ok());
}

#[test]
fn memory_that_does_not_answer_makes_a_buffer_that_is_born_revoked() {
    let off = Answers { decoding: false, powered: true };
    let (buffer, nic) = (buffer_in(ram(0, 0x1000), Stays::UNTIL_REVOKED, off), Arc::new(Nic::default()));
    let seat = attach(&buffer, &nic, Lifetime::Revocable).unwrap();
    assert!(seat.map().is_err());
    let reset = buffer.begin(Disturbance::Reset).unwrap().wait(LONG).unwrap();
    reset.done_answering(Answers::YES);
    assert!(seat.map().is_ok());
}

#[test]
fn a_state_that_is_on_ends_when_it_is_off() {
    let (buffer, nic) = (buffer(), Arc::new(Nic::default()));
    let seat = attach(&buffer, &nic, Lifetime::Revocable).unwrap();
    let off = buffer.begin(Disturbance::DecodeOff).unwrap().wait(LONG).unwrap();
    assert!(!seat.may_map());
    off.done();
    assert!(seat.may_map());
}

#[test]
fn a_waiter_is_woken_by_the_last_unmap_from_another_thread() {
    let (buffer, nic) = (buffer(), Arc::new(Nic { keeps_mapping: true, ..Nic::default() }));
    let seat = attach(&buffer, &nic, Lifetime::Revocable).unwrap();
    nic.hold(Some(seat.map().unwrap()));
    let disturbing = buffer.begin(Disturbance::Reset).unwrap();
    let waiter = thread::spawn(move || disturbing.wait(LONG).map(Disturbed::done).is_ok());
    thread::sleep(SHORT);
    nic.hold(None);
    assert!(waiter.join().unwrap());
}

struct Counter(AtomicUsize);

impl Wake for Counter {
    fn wake(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn who_does_not_block_is_woken_when_the_buffer_is_quiet() {
    let (buffer, nic) = (buffer(), Arc::new(Nic { keeps_mapping: true, ..Nic::default() }));
    let seat = attach(&buffer, &nic, Lifetime::Revocable).unwrap();
    nic.hold(Some(seat.map().unwrap()));
    let disturbing = buffer.begin(Disturbance::Reset).unwrap();
    let counter = Arc::new(Counter(AtomicUsize::new(0)));
    let wake: Arc<dyn Wake> = counter.clone();
    disturbing.wake(&wake);
    let disturbing = disturbing.try_proceed().unwrap_err();
    assert_eq!(counter.0.load(Ordering::Relaxed), 0);
    nic.hold(None);
    assert_eq!(counter.0.load(Ordering::Relaxed), 1);
    assert!(disturbing.try_proceed().is_ok());
}

#[test]
fn an_importer_hears_things_in_the_order_in_which_they_happened() {
    let (buffer, nic) = (buffer(), Arc::new(Nic::default()));
    let _seat = attach(&buffer, &nic, Lifetime::Revocable).unwrap();
    thread::scope(|scope| {
        for what in [Disturbance::Reset, Disturbance::DecodeOff, Disturbance::Move] {
            let buffer = &buffer;
            scope.spawn(move || {
                for _ in 0..200 {
                    if let Ok(disturbing) = buffer.begin(what) {
                        drop(disturbing.wait(LONG));
                    }
                }
            });
        }
    });
    let told = nic.told.lock().unwrap();
    for pair in told.chunks(2) {
        assert!(pair[0].starts_with("let go") && pair[1] == "may map", "{pair:?}");
    }
    assert_eq!(buffer.phase(), Phase::Live);
}

#[test]
fn the_exporter_waits_for_a_fence_that_outlives_its_mapping() {
    let (buffer, nic) = (buffer(), Arc::new(Nic::default()));
    let seat = attach(&buffer, &nic, Lifetime::Revocable).unwrap();
    let queue = Timeline::new("nic queue 0");
    nic.hold(Some(seat.map().unwrap()));
    let mut reservation = seat.reservation().lock();
    reservation.reserve(1).unwrap();
    let fence = queue.issue();
    reservation.add(fence.clone(), Usage::Bookkeeping).unwrap();
    drop(reservation);
    let late = buffer.begin(Disturbance::Reset).unwrap().wait(SHORT).unwrap_err();
    assert_eq!(late.held.len(), 1);
    assert_eq!(late.held[0].to_string(), "ring: fences have not retired: fence 1 of \"nic queue 0\"");
    queue.retire_to(fence.sequence()).unwrap();
    late.disturbing.wait(LONG).unwrap().done();
    assert_eq!(buffer.phase(), Phase::Live);
}

#[test]
fn a_fence_that_nobody_will_retire_is_waited_for_and_named() {
    let (buffer, nic) = (buffer(), Arc::new(Nic::default()));
    let seat = attach(&buffer, &nic, Lifetime::Revocable).unwrap();
    seat.reservation().lock().reserve(1).unwrap();
    let fence = Timeline::new("queue of a driver that is gone").issue();
    seat.reservation().lock().add(fence.clone(), Usage::Write).unwrap();
    let late = buffer.begin(Disturbance::Reset).unwrap().wait(SHORT).unwrap_err();
    assert_eq!(late.held[0].fences.len(), 1);
    assert!(fence.write_off(Failure::ALL[0]));
    assert!(late.disturbing.wait(LONG).is_ok(), "the device was reset, and its driver says so");
}
