//! Importers, devices and a mover meet at one buffer.

#![cfg(peerdma_shuttle)]
#![expect(clippy::unwrap_used, reason = "helpers of models")]

use peerdma::buffer::fence::{
    FenceSet, FenceState, Reservation, ReservationLock, Retired, SecondStage, Served, Timeline, Usage, lock_all,
};
use peerdma::buffer::guard::{Gate, Portable};
use peerdma_models::orders;
use shuttle::sync::atomic::{AtomicU64, Ordering};
use shuttle::thread;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

/// A model has no clock; its waits end with what is waited for.
const ANY: Duration = Duration::from_secs(1);

/// Where the memory of a buffer lies, and what is under way there.
struct Buffer {
    place: u64,
    reservation: Reservation,
}

/// What a virtual machine's second stage leads to, and whether its slot was taken away.
#[derive(Default)]
struct Table {
    place: Option<u64>,
    removed: bool,
}

type Importer = Arc<SecondStage<Table>>;

fn buffer(place: u64) -> Arc<ReservationLock<Buffer>> {
    Arc::new(ReservationLock::new(Buffer { place, reservation: Reservation::new() }))
}

/// Faults until it is served or the slot is gone, as a guest does.
fn fault(buffer: &ReservationLock<Buffer>, importer: &Importer) {
    loop {
        let (fault, removed) = importer.fault(|table| table.removed);
        if removed {
            return;
        }
        let install = |table: &mut Table, place| {
            assert!(!table.removed, "memory is put into a slot that is no more");
            table.place = Some(place);
        };
        if fault.serve(buffer, |buffer| Ok::<_, Infallible>(buffer.place), install) == Ok(Served::Installed) {
            return;
        }
    }
}

/// Whoever removes the slot holds no buffer's lock, and the fault is between its two looks.
#[test]
fn a_fault_installs_nothing_in_a_slot_that_was_removed() {
    orders::some(5000, || {
        let (buffer, importer) = (buffer(1), Importer::new(SecondStage::new(Table::default())));
        let monitor = {
            let importer = Arc::clone(&importer);
            thread::spawn(move || importer.invalidate(|table| *table = Table { place: None, removed: true }))
        };
        fault(&buffer, &importer);
        monitor.join().unwrap();
        assert_eq!(importer.invalidate(|table| table.place), None, "the slot is gone, and leads to memory");
    });
}

#[test]
fn two_importers_lock_two_buffers_from_either_end() {
    orders::some(5000, || {
        let both = Arc::new([buffer(1), buffer(2)]);
        let importers = [[0, 1], [1, 0]].map(|order| {
            let both = Arc::clone(&both);
            thread::spawn(move || {
                let mut held = lock_all(&order.map(|nth| &*both[nth])).unwrap();
                // A copy from one to the other, of which nobody sees the half.
                let sum = held[0].place + held[1].place;
                held.iter_mut().for_each(|buffer| buffer.place = sum);
            })
        });
        // A third, who wants one of them alone.
        let single = both[1].lock().place;
        assert!([2, 3, 6].contains(&single), "{single} is half of a copy");
        importers.into_iter().for_each(|importer| importer.join().unwrap());
        assert!(both.iter().all(|buffer| buffer.lock().place == 6));
    });
}

/// A device that retires between the waiter's look and its sleep.
#[test]
fn whoever_waits_for_a_fence_is_woken() {
    orders::some(5000, || {
        let nic = Timeline::new("nic");
        let buffer = buffer(1);
        {
            let mut held = buffer.lock();
            held.reservation.reserve(2).unwrap();
            held.reservation.add(nic.issue(), Usage::Read).unwrap();
        }
        let mover = {
            let buffer = Arc::clone(&buffer);
            thread::spawn(move || {
                let mut held = buffer.lock();
                let before: FenceSet = held.reservation.waits_for(Usage::Bookkeeping).collect();
                assert_eq!(before.wait_at_most(ANY), Ok(Retired::Well));
                held.place = 2;
            })
        };
        nic.retire_to(nic.issued()).unwrap();
        mover.join().unwrap();
        assert_eq!(buffer.lock().place, 2);
    });
}

/// A driver that dies instead.
#[test]
fn whoever_waits_for_a_fence_hears_that_it_is_abandoned() {
    orders::some(5000, || {
        let nic = Timeline::new("nic");
        let fence = nic.issue();
        let waiter = {
            let fence = fence.clone();
            thread::spawn(move || fence.wait_at_most(ANY))
        };
        drop(nic);
        assert!(waiter.join().unwrap().is_err());
        assert_eq!(fence.state(), FenceState::Abandoned);
    });
}

/// The whole way: users under guards, a revoker that waits, and the next generation.
#[test]
fn memory_moves_only_when_all_users_are_out_and_they_find_the_new_place() {
    orders::some(3000, || {
        let (gate, place) = (Gate::new(Portable), Arc::new(AtomicU64::new(1)));
        let users = [0, 1].map(|nth| {
            let (gate, place) = (gate.clone(), Arc::clone(&place));
            let opening = gate.opening().unwrap();
            let mut slot = opening.slot(&format!("user {nth}"));
            thread::spawn(move || {
                for _ in 0..2 {
                    if let Ok(_guard) = slot.enter() {
                        let before = place.load(Ordering::Relaxed);
                        assert_eq!(before, place.load(Ordering::Relaxed), "it moved under a guard");
                    } else if let Ok(next) = gate.opening() {
                        assert_eq!(place.load(Ordering::Relaxed), 2, "open again, and not there yet");
                        slot.renew(&next).unwrap();
                    }
                }
            })
        });
        let drained = gate.close().wait_at_most(ANY).unwrap();
        place.store(2, Ordering::Relaxed);
        drained.open().unwrap();
        users.into_iter().for_each(|user| user.join().unwrap());
    });
}
