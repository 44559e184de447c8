//! Buffers that threads share: whoever takes memory away against those who map, attach, have devices at work and wait.
//!
//! The witness is memory that knows whether it is there. The buffer is never asked whether it was right.

#![cfg(peerdma_shuttle)]
#![expect(clippy::unwrap_used, reason = "helpers of models")]

use peerdma::access::{MemAttrs, Prot};
use peerdma::addr::Bytes;
use peerdma::buffer::Lifetime;
use peerdma::buffer::fence::{Timeline, Usage};
use peerdma::buffer::life::{Answers, Disturbance, Generation, Phase};
use peerdma::buffer::shared::{Attachment, Bar, Buffer, Holder, Importer, Receipt, Wake};
use peerdma::buffer::terms::{Declaration, Offer, Place, Stays};
use peerdma::chunk::{Chunk, Chunks};
use peerdma::dma::{Initiator, Owner, Peers};
use peerdma::topology::IommuMode;
use peerdma_models::orders;
use shuttle::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use shuttle::sync::{Condvar, Mutex};
use shuttle::thread;
use std::sync::Arc;
use std::time::Duration;

/// A model has no clock; its waits end with what is waited for.
const ANY: Duration = Duration::from_secs(1);

const OLD: u64 = 0x10_0000;
const NEW: u64 = 0x20_0000;

fn ranges(at: u64) -> Chunks<Owner> {
    let chunk = Chunk::new(Owner::Ram, Bytes::new(at), Bytes::new(0x1000), MemAttrs::empty()).unwrap();
    Chunks::collect_from([chunk]).unwrap()
}

fn offer(stays: Stays) -> Offer {
    Offer::new(ranges(OLD), stays, Place::Ram).unwrap()
}

fn buffer(name: &str, stays: Stays) -> Buffer {
    Buffer::new(name, offer(stays), Answers::YES)
}

fn declaration(lifetime: Lifetime) -> Declaration {
    Declaration::of_device(Initiator::new("nic", IommuMode::Translated), Prot::ReadWrite).taking(lifetime)
}

fn attach(buffer: &Buffer, importer: Arc<dyn Importer>, lifetime: Lifetime) -> Attachment {
    buffer.attach(&declaration(lifetime), &Peers::none(), Holder::here("nic"), importer).unwrap()
}

/// Lets go of nothing by itself: its thread maps for one access at a time. Hears what becomes of the memory.
#[derive(Default)]
struct Brief {
    gone: AtomicU32,
}

impl Importer for Brief {
    fn let_go(&self, _: Disturbance, _: Receipt) {}
    fn may_map(&self, _: Generation, _: Receipt) {}
    fn gone(&self) {
        self.gone.fetch_add(1, Ordering::Relaxed);
    }
}

/// Memory that is there, or is not.
#[derive(Default)]
struct Memory {
    away: AtomicBool,
}

impl Memory {
    fn is_used(&self) {
        for _ in 0..2 {
            assert!(!self.away.load(Ordering::Relaxed), "memory is used that is not there");
        }
    }

    /// Two places for others to go on: between the stores, and before the first.
    fn is_away_for_a_moment(&self) {
        self.away.store(true, Ordering::Relaxed);
        thread::yield_now();
        self.away.store(false, Ordering::Relaxed);
    }
}

/// Two importers that map again and again, and a reset that comes between.
#[test]
fn what_is_revoked_is_mapped_by_nobody() {
    orders::some(2000, || {
        let (buffer, memory) = (buffer("bar", Stays::UNTIL_REVOKED), Arc::new(Memory::default()));
        let seats = [0, 1].map(|_| attach(&buffer, Arc::new(Brief::default()), Lifetime::Revocable));
        let users = seats.map(|seat| {
            let memory = Arc::clone(&memory);
            thread::spawn(move || {
                for _ in 0..2 {
                    if let Ok(_mapped) = seat.map() {
                        memory.is_used();
                    }
                }
                seat
            })
        });
        let reset = buffer.begin(Disturbance::Reset).unwrap().wait(ANY).unwrap();
        memory.is_away_for_a_moment();
        reset.done();
        let seats = users.map(|user| user.join().unwrap());
        assert_eq!(buffer.phase(), Phase::Live);
        assert!(seats.iter().all(|seat| seat.map().is_ok()), "given back, and somebody may not map");
    });
}

/// Memory is given up while somebody attaches: it comes too late, or it is waited for and hears the end.
#[test]
fn who_attaches_to_memory_that_is_given_up_hears_of_it_or_is_refused() {
    orders::some(2000, || {
        let (buffer, memory) = (buffer("vram", Stays::UNTIL_REVOKED), Arc::new(Memory::default()));
        let importer = {
            let (buffer, memory) = (buffer.clone(), Arc::clone(&memory));
            thread::spawn(move || {
                let (nic, taking) = (Arc::new(Brief::default()), declaration(Lifetime::Revocable));
                let attached = buffer.attach(&taking, &Peers::none(), Holder::here("nic"), nic.clone());
                if let Ok(seat) = &attached
                    && let Ok(_mapped) = seat.map()
                {
                    memory.is_used();
                }
                (attached.ok(), nic)
            })
        };
        let close = buffer.begin(Disturbance::Close).unwrap().wait(ANY).unwrap();
        memory.away.store(true, Ordering::Relaxed);
        close.done();
        let (seat, nic) = importer.join().unwrap();
        assert_eq!(buffer.phase(), Phase::Dead);
        assert_eq!(nic.gone.load(Ordering::Relaxed), u32::from(seat.is_some()), "whoever is attached hears it once");
        assert!(seat.is_none_or(|seat| seat.map().is_err()), "mapped, and there is no memory");
    });
}

/// A driver that answers a notice when what it has begun is in the reservation, and not before.
#[derive(Default)]
struct Queue(Mutex<Submitting>);

#[derive(Default)]
struct Submitting {
    busy: bool,
    receipt: Option<Receipt>,
}

impl Queue {
    fn begin(&self) {
        self.0.lock().unwrap().busy = true;
    }

    fn end(&self) {
        let receipt = {
            let mut submitting = self.0.lock().unwrap();
            submitting.busy = false;
            submitting.receipt.take()
        };
        drop(receipt);
    }
}

impl Importer for Queue {
    fn let_go(&self, _: Disturbance, receipt: Receipt) {
        let mut submitting = self.0.lock().unwrap();
        let noted = if submitting.busy { submitting.receipt.replace(receipt) } else { Some(receipt) };
        drop(submitting);
        drop(noted);
    }

    fn may_map(&self, _: Generation, _: Receipt) {}
    fn gone(&self) {}
}

/// A device that writes long after its driver has unmapped: the fence alone keeps the memory in its place.
#[test]
fn memory_moves_only_when_devices_are_done_with_it() {
    orders::some(2000, || {
        let (buffer, place) = (buffer("vram", Stays::UNLESS_PINNED), Arc::new(AtomicU64::new(OLD)));
        let queue = Arc::new(Queue::default());
        let seat = attach(&buffer, queue.clone(), Lifetime::Movable);
        let driver = {
            let place = Arc::clone(&place);
            thread::spawn(move || {
                let timeline = Timeline::new("nic queue 0");
                queue.begin();
                let Ok(mapped) = seat.map() else { return queue.end() };
                let at = mapped.ranges().iter().next().unwrap().offset().as_u64();
                let fence = {
                    let mut reservation = seat.reservation().lock();
                    reservation.reserve(1).unwrap();
                    let fence = timeline.issue();
                    reservation.add(fence.clone(), Usage::Write).unwrap();
                    fence
                };
                let device = thread::spawn(move || {
                    assert_eq!(place.load(Ordering::Relaxed), at, "the device writes to where the memory was");
                    timeline.retire_to(fence.sequence()).unwrap();
                });
                drop(mapped);
                queue.end();
                device.join().unwrap();
            })
        };
        let moving = buffer.begin(Disturbance::Move).unwrap().wait(ANY).unwrap();
        place.store(NEW, Ordering::Relaxed);
        moving.moved(ranges(NEW), Place::Ram, &Peers::none()).unwrap();
        driver.join().unwrap();
        assert_eq!(buffer.phase(), Phase::Live);
    });
}

/// Two authors announce to the same two buffers, each from its end; an importer uses both at once.
#[test]
fn two_deeds_over_two_buffers_wait_for_importers_and_not_for_each_other() {
    orders::some(1500, || {
        let both = ["one", "other"].map(|name| buffer(name, Stays::UNTIL_REVOKED));
        let memory = Arc::new(Memory::default());
        let seats = both.each_ref().map(|buffer| attach(buffer, Arc::new(Brief::default()), Lifetime::Revocable));
        let user = {
            let memory = Arc::clone(&memory);
            thread::spawn(move || {
                let [one, other] = &seats;
                if let (Ok(_one), Ok(_other)) = (one.map(), other.map()) {
                    memory.is_used();
                }
                seats
            })
        };
        let reset = {
            let [one, other] = both.clone();
            let memory = Arc::clone(&memory);
            thread::spawn(move || {
                let deed = Buffer::begin_all(&[other, one], Disturbance::HotReset).unwrap().wait(ANY).unwrap();
                memory.is_away_for_a_moment();
                deed.done();
            })
        };
        let lock = Buffer::begin_all(&both, Disturbance::Lock).unwrap().wait(ANY).unwrap();
        lock.done();
        reset.join().unwrap();
        let seats = user.join().unwrap();
        assert!(both.iter().all(|buffer| buffer.phase() == Phase::Live));
        assert!(seats.iter().all(|seat| seat.map().is_ok()));
    });
}

/// A buffer of a device's memory is exported while the device is reset, and mapped at once.
#[test]
fn what_is_exported_during_a_reset_is_mapped_by_nobody_until_it_is_over() {
    orders::some(2000, || {
        let (bar, memory) = (Bar::new(Answers::YES), Arc::new(Memory::default()));
        let old = bar.export("old", offer(Stays::UNTIL_REVOKED)).unwrap();
        let exporter = {
            let (bar, memory) = (bar.clone(), Arc::clone(&memory));
            thread::spawn(move || {
                let born = bar.export("born", offer(Stays::UNTIL_REVOKED)).unwrap();
                let seats = [&old, &born].map(|buffer| attach(buffer, Arc::new(Brief::default()), Lifetime::Revocable));
                for seat in &seats {
                    if let Ok(_mapped) = seat.map() {
                        memory.is_used();
                    }
                }
                (seats, [old, born])
            })
        };
        for _ in 0..3 {
            let reset = bar.disturb(Disturbance::FunctionReset).unwrap().wait(ANY).unwrap();
            memory.is_away_for_a_moment();
            reset.done();
        }
        let (seats, buffers) = exporter.join().unwrap();
        assert!(buffers.iter().all(|buffer| buffer.phase() == Phase::Live), "over, and not given back");
        assert!(seats.iter().all(|seat| seat.map().is_ok()));
    });
}

/// Registers change while a buffer is exported, and somebody takes it from the list of all as soon as it is there.
///
/// Decoding goes off for good or comes on for good; the witness is what the registers say.
fn exports_while_registers_change(before: Answers, after: Answers) {
    let (bar, memory) = (Bar::new(before), Arc::new(Memory::default()));
    memory.away.store(!before.decoding, Ordering::Relaxed);
    let exporter = {
        let bar = bar.clone();
        thread::spawn(move || bar.export("born", offer(Stays::UNTIL_REVOKED)).unwrap())
    };
    let finder = {
        let (bar, memory) = (bar.clone(), Arc::clone(&memory));
        thread::spawn(move || {
            for found in bar.buffers() {
                if let Ok(_mapped) = attach(&found, Arc::new(Brief::default()), Lifetime::Revocable).map() {
                    memory.is_used();
                }
            }
        })
    };
    let off = bar.disturb(Disturbance::Reset).unwrap().wait(ANY).unwrap();
    memory.away.store(true, Ordering::Relaxed);
    thread::yield_now();
    memory.away.store(!after.decoding, Ordering::Relaxed);
    off.done_answering(after);
    let born = exporter.join().unwrap();
    finder.join().unwrap();
    assert_eq!(born.phase(), if after.decoding { Phase::Live } else { Phase::Revoked });
    let mapped = attach(&born, Arc::new(Brief::default()), Lifetime::Revocable).map().is_ok();
    assert_eq!(mapped, after.decoding);
}

const OFF: Answers = Answers { decoding: false, powered: true };

#[test]
fn what_is_exported_while_decoding_goes_off_is_mapped_by_nobody() {
    orders::some(3000, || exports_while_registers_change(Answers::YES, OFF));
}

#[test]
fn what_is_exported_while_decoding_comes_on_comes_within_reach() {
    orders::some(3000, || exports_while_registers_change(OFF, Answers::YES));
}

/// A driver has the reservation while memory is taken away, and nobody but itself tells when it has given it up.
#[test]
fn a_reservation_that_is_taken_is_asked_when_it_is_given_up() {
    orders::some(2000, || {
        let (buffer, memory) = (buffer("bar", Stays::UNTIL_REVOKED), Arc::new(Memory::default()));
        let queue = Arc::new(Queue::default());
        let seat = attach(&buffer, queue.clone(), Lifetime::Revocable);
        let driver = {
            let memory = Arc::clone(&memory);
            thread::spawn(move || {
                let timeline = Timeline::new("nic queue 0");
                queue.begin();
                let Ok(mapped) = seat.map() else { return queue.end() };
                let fence = {
                    let mut reservation = seat.reservation().lock();
                    reservation.reserve(1).unwrap();
                    let fence = timeline.issue();
                    reservation.add(fence.clone(), Usage::Write).unwrap();
                    fence
                };
                drop(mapped);
                queue.end();
                // It looks at its own work while the wait for it begins.
                drop(seat.reservation().lock());
                memory.is_used();
                timeline.retire_to(fence.sequence()).unwrap();
            })
        };
        let reset = buffer.begin(Disturbance::Reset).unwrap().wait(ANY).unwrap();
        memory.is_away_for_a_moment();
        reset.done();
        driver.join().unwrap();
        assert_eq!(buffer.phase(), Phase::Live);
    });
}

/// Writes down what it hears.
#[derive(Default)]
struct Listener {
    may_map: Mutex<Vec<bool>>,
}

impl Importer for Listener {
    fn let_go(&self, _: Disturbance, _: Receipt) {
        self.may_map.lock().unwrap().push(false);
    }

    fn may_map(&self, _: Generation, _: Receipt) {
        self.may_map.lock().unwrap().push(true);
    }

    fn gone(&self) {}
}

/// Whoever heard "may map" before an older "let go" would never map again.
#[test]
fn notices_are_heard_in_the_order_in_which_things_happened() {
    orders::some(2000, || {
        let (buffer, nic) = (buffer("bar", Stays::UNTIL_REVOKED), Arc::new(Listener::default()));
        let _seat = attach(&buffer, nic.clone(), Lifetime::Revocable);
        let authors = [Disturbance::Reset, Disturbance::Lock].map(|what| {
            let buffer = buffer.clone();
            thread::spawn(move || {
                for _ in 0..2 {
                    buffer.begin(what).unwrap().wait(ANY).unwrap().done();
                }
            })
        });
        authors.into_iter().for_each(|author| author.join().unwrap());
        let heard = nic.may_map.lock().unwrap();
        assert!(heard.chunks(2).all(|pair| pair == [false, true]), "{heard:?}");
    });
}

/// Rung by whoever lets go last.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Wake for Bell {
    fn wake(&self) {
        *self.rung.lock().unwrap() = true;
        self.changed.notify_all();
    }
}

/// An event loop in place of a wait: it registers, looks, sleeps, and looks again when it is woken.
#[test]
fn an_event_loop_is_woken_by_the_last_one_who_lets_go() {
    orders::some(2000, || {
        let buffer = buffer("bar", Stays::UNTIL_REVOKED);
        let seats = [0, 1].map(|_| attach(&buffer, Arc::new(Brief::default()), Lifetime::Revocable));
        let users = seats.map(|seat| thread::spawn(move || drop(seat.map().ok())));
        let bell = Arc::new(Bell::default());
        let wake: Arc<dyn Wake> = bell.clone();
        let mut disturbing = buffer.begin(Disturbance::Reset).unwrap();
        disturbing.wake(&wake);
        let quiet = loop {
            let mut rung = bell.rung.lock().unwrap();
            while !*rung {
                rung = bell.changed.wait(rung).unwrap();
            }
            *rung = false;
            drop(rung);
            match disturbing.try_proceed() {
                Ok(quiet) => break quiet,
                Err(still) => disturbing = still,
            }
        };
        assert_eq!(buffer.phase(), Phase::Revoked);
        quiet.done();
        users.into_iter().for_each(|user| user.join().unwrap());
    });
}
