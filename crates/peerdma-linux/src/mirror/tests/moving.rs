//! Owned memory that moves, or does not.

use super::*;
use std::sync::Mutex;

/// A part is closed, which cuts the mapping in two, and the kernel grows no mapping that is two.
fn cut_in_two<T: DeviceTable + Send>(owned: &Owned<T>) {
    owned.protect(page(owned.range(), 1), Some(Prot::Read), soon()).unwrap();
}

#[test]
fn a_move_that_the_kernel_refuses_leaves_the_device_what_it_had() {
    let mirror = Mirror::of_owned_memory(()).unwrap();
    let mut context = mirror.context("engine").unwrap();
    let mut owned = mirror.create(pages(3)).unwrap();
    let before = owned.range();
    owned.write(before.start(), &[7; 8]).unwrap();
    cut_in_two(&owned);
    served(&mirror, || {
        let refused = owned.remap(None, pages(5), soon()).unwrap_err();
        assert!(matches!(refused, ChangeError::Kernel { .. }), "{refused}");
        assert_eq!(owned.range(), before);
        let mut bytes = [0; 8];
        context.read(before.start(), &mut bytes, soon()).unwrap();
        assert_eq!(bytes, [7; 8]);
        assert!(context.write(page(before, 1).start(), &bytes, soon()).is_err(), "closed as it was");
        context.write(page(before, 2).start(), &bytes, soon()).unwrap();
    });
}

#[test]
fn pinned_memory_is_not_moved_and_stays_the_device_s() {
    let mirror = Mirror::of_owned_memory(()).unwrap();
    let mut context = mirror.context("engine").unwrap();
    let mut owned = mirror.create_pinned(pages(3), |at| Ok::<_, RangeError>(said(at).0)).unwrap();
    let at = owned.range();
    for size in [3, 5] {
        assert!(matches!(owned.remap(None, pages(size), soon()), Err(ChangeError::Pinned { .. })));
        context.write(at.start(), &[1; 8], soon()).unwrap();
        assert_eq!((owned.range(), mirror.present()), (at, vec![(at, Prot::ReadWrite)]));
    }
}

#[test]
fn memory_that_shrinks_keeps_its_beginning_and_gives_the_rest_away() {
    let mirror = Mirror::of_owned_memory(()).unwrap();
    let mut context = mirror.context("engine").unwrap();
    let mut owned = mirror.create_at(ProcVa::new(0x1100_0000_0000), pages(3)).unwrap();
    let before = owned.range();
    owned.write(before.start(), &[7; 8]).unwrap();
    served(&mirror, || {
        owned.remap(None, pages(1), soon()).unwrap();
        let mut bytes = [0; 8];
        context.read(owned.range().start(), &mut bytes, soon()).unwrap();
        assert_eq!((bytes, owned.range().len()), ([7; 8], pages(1)));
        // Free again, all of it.
        drop(Region::map(Some(before.start()), before.len()).unwrap());
    });
}

/// Says whether the gate was open at any moment at which the table changed.
struct Watcher {
    gate: Arc<Mutex<Option<Mirror<Watcher>>>>,
    open: Arc<AtomicBool>,
    changes: u32,
}

impl DeviceTable for Watcher {
    fn map(&mut self, _at: AddrRange<ProcVa>, _prot: Prot) -> bool {
        true
    }

    fn unmap(&mut self, _at: AddrRange<ProcVa>) {
        self.changes += 1;
    }

    fn quiesce(&mut self) {
        let mirror = self.gate.lock().unwrap();
        self.open.fetch_or(mirror.as_ref().is_none_or(Mirror::is_open), Ordering::AcqRel);
        self.changes += 100;
    }

    fn answer(&mut self, _asked: peerdma::mirror::Token, _answer: peerdma::mirror::Answer) {}
}

/// Its undoing was a second one, and in between the device used what was not there.
#[test]
fn a_move_is_one_quiet_period_whether_or_not_it_succeeds() {
    let (gate, open) = (Arc::new(Mutex::new(None)), Arc::new(AtomicBool::new(false)));
    let table = Watcher { gate: Arc::clone(&gate), open: Arc::clone(&open), changes: 0 };
    let mirror = Mirror::of_owned_memory(table).unwrap();
    *gate.lock().unwrap() = Some(mirror.clone());
    let mut owned = mirror.create(pages(3)).unwrap();
    let ask = || {
        let wanted = peerdma::mirror::Wanted { at: owned.range().start(), access: peerdma::access::Access::Read };
        mirror.request(peerdma::mirror::Token(1), wanted);
    };
    ask();
    owned.remap(None, pages(3), soon()).unwrap();
    assert_eq!(mirror.with_table(|table| std::mem::take(&mut table.changes)), 101);
    cut_in_two(&owned);
    mirror.with_table(|table| table.changes = 0);
    owned.remap(None, pages(5), soon()).unwrap_err();
    assert_eq!(mirror.with_table(|table| table.changes), 100);
    assert!(!open.load(Ordering::Acquire));
    *gate.lock().unwrap() = None;
}

/// Unmapped memory is free for others before the mirror hears of it, and its message would take theirs.
#[test]
fn memory_does_not_move_to_where_an_end_is_not_heard_of_yet() {
    use rustix::event::{PollFd, PollFlags, poll};
    let place = ProcVa::new(0x1200_0000_0000);
    let region = Region::map(Some(place), pages(1)).unwrap();
    let mirror = Mirror::new(()).unwrap();
    mirror.watch(region.at(), Prot::Read).unwrap();
    let mut owned = mirror.create(pages(1)).unwrap();
    thread::scope(|scope| {
        let unmapping = scope.spawn(|| drop(region));
        poll(&mut [PollFd::new(mirror.shared.uffd.as_ref().unwrap(), PollFlags::IN)], None).unwrap();
        let refused = owned.remap(Some(place), pages(1), soon()).unwrap_err();
        assert!(matches!(refused, ChangeError::Register(_)), "{refused}");
        mirror.serve(soon()).unwrap();
        unmapping.join().unwrap();
        owned.remap(Some(place), pages(1), soon()).unwrap();
    });
}
