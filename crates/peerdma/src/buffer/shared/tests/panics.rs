//! Importers that panic when they are told: their panic is theirs, and nobody else waits for it.

use super::*;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Panics at what it hears first; lets go then all the same.
#[derive(Default)]
struct Clumsy {
    mapped: Mutex<Option<Mapped>>,
    calls: AtomicUsize,
    at: usize,
}

impl Clumsy {
    fn heard(&self) {
        drop(self.mapped.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take());
        if self.calls.fetch_add(1, Ordering::Relaxed) == self.at {
            // Past the hook, which would print.
            std::panic::resume_unwind(Box::new("an importer panicked"));
        }
    }
}

impl Importer for Clumsy {
    fn let_go(&self, _: Disturbance, _: Receipt) {
        self.heard();
    }

    fn may_map(&self, _: Generation, _: Receipt) {
        self.heard();
    }

    fn gone(&self) {}
}

fn clumsy(buffer: &Buffer, at: usize) -> Attachment {
    let importer = Arc::new(Clumsy { at, ..Clumsy::default() });
    let device = Initiator::new("nic1", IommuMode::Translated);
    let declaration = Declaration::of_device(device, Prot::ReadWrite).taking(Lifetime::Revocable);
    let seat = buffer.attach(&declaration, &Peers::none(), Holder::here("nic1"), importer.clone()).unwrap();
    *importer.mapped.lock().unwrap() = Some(seat.map().unwrap());
    seat
}

fn panics<R>(f: impl FnOnce() -> R) -> bool {
    catch_unwind(AssertUnwindSafe(f)).is_err()
}

/// Whoever delivered was at it for ever: nobody was told anything any more.
#[test]
fn an_importer_that_panics_when_told_to_let_go_keeps_nobody_from_being_told() {
    let (buffer, nic) = (buffer(), Arc::new(Nic::default()));
    let first = clumsy(&buffer, 0);
    let seat = attach(&buffer, &nic, Lifetime::Revocable).unwrap();
    nic.hold(Some(seat.map().unwrap()));
    assert!(panics(|| buffer.begin(Disturbance::Reset)), "it is the importer's, and goes on");
    // What was begun has ended with the panic.
    assert_eq!(*nic.told.lock().unwrap(), ["let go: reset", "may map"]);
    assert_eq!(buffer.phase(), Phase::Live);
    buffer.begin(Disturbance::Reset).unwrap().wait(LONG).unwrap().done();
    assert!(first.map().is_ok() && seat.map().is_ok());
}

#[test]
fn an_importer_that_panics_when_it_may_map_again_keeps_no_other_buffer_from_coming_back() {
    let (bar, nic) = (Bar::new(Answers::YES), Arc::new(Nic::default()));
    let page = |at| Offer::new(ram(at, 0x1000), Stays::UNTIL_REVOKED, Place::Ram).unwrap();
    let (one, other) = (bar.export("one", page(0)).unwrap(), bar.export("other", page(0x1000)).unwrap());
    let (_first, seat) = (clumsy(&one, 1), attach(&other, &nic, Lifetime::Revocable).unwrap());
    let disturbed = bar.disturb(Disturbance::FunctionReset).unwrap().wait(LONG).unwrap();
    assert!(panics(|| disturbed.done()));
    assert_eq!((one.phase(), other.phase()), (Phase::Live, Phase::Live));
    assert!(seat.map().is_ok());
    assert_eq!(bar.export("late", page(0x2000)).unwrap().phase(), Phase::Live, "nothing is under way");
}

#[test]
fn what_began_for_others_before_an_importer_panicked_has_ended() {
    let (one, other, nic) = (buffer(), buffer(), Arc::new(Nic::default()));
    let _seat = attach(&one, &nic, Lifetime::Revocable).unwrap();
    let _clumsy = clumsy(&other, 0);
    assert!(panics(|| Buffer::begin_all(&[one.clone(), other.clone()], Disturbance::HotReset)));
    assert_eq!((one.phase(), other.phase()), (Phase::Live, Phase::Live));
}

/// A fence's retirement may be what ends a wait, and the device that retires it has others to retire.
#[test]
fn fences_retire_all_whatever_those_do_who_are_told() {
    struct Panics;
    impl crate::buffer::fence::Signal for Panics {
        fn settled(&self) {
            std::panic::resume_unwind(Box::new("a signal panicked"));
        }
    }
    let (queue, signal) = (Timeline::new("nic queue 0"), Arc::new(Panics) as Arc<dyn crate::buffer::fence::Signal>);
    let fences = [queue.issue(), queue.issue(), queue.issue()];
    fences[0].notify(&signal);
    assert!(panics(|| queue.retire_to(queue.issued())));
    assert!(fences.iter().all(|fence| fence.is_retired()));
}
