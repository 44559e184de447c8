//! Two owners at once, one step of the one between any two steps of the other.
//!
//! Every step begins with a look-up of a frame, so memory that runs the rival at its n-th
//! look-up meets each place where another thread could have gone on, for each n once.

use super::*;
use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::rc::Rc;
use core::cell::{Cell, RefCell};

/// Memory that runs somebody else at one look-up.
struct Interrupting {
    arena: FrameArena,
    live: RefCell<BTreeSet<PhysAddr>>,
    left: Cell<usize>,
    rival: RefCell<Option<Box<dyn FnOnce()>>>,
}

impl Interrupting {
    fn new() -> Rc<Self> {
        Rc::new(Self { arena: arena(64), live: RefCell::default(), left: Cell::new(0), rival: RefCell::new(None) })
    }

    /// Runs `rival` once, at the n-th look-up from now; 0: at the next.
    fn interrupt(&self, n: usize, rival: impl FnOnce() + 'static) {
        self.left.set(n);
        self.rival.replace(Some(Box::new(rival)));
    }

    /// Whether the rival ran; it does not any more.
    fn ran(&self) -> bool {
        self.rival.take().is_none()
    }

    fn step(&self) {
        match self.left.get().checked_sub(1) {
            Some(left) => self.left.set(left),
            None => {
                let rival = self.rival.take();
                if let Some(rival) = rival {
                    rival();
                }
            }
        }
    }
}

#[derive(Clone)]
struct Shared(Rc<Interrupting>);

impl TableMemory for Shared {
    fn allocate(&self, count: usize) -> Option<PhysAddr> {
        self.0.step();
        let at = self.0.arena.allocate(count)?;
        assert!(self.0.live.borrow_mut().insert(at), "{at} is somebody's");
        Some(at)
    }

    fn frame(&self, at: PhysAddr) -> Option<&Frame> {
        self.0.step();
        self.0.arena.frame(at)
    }

    fn free(&self, at: PhysAddr, count: usize) {
        assert!(self.0.live.borrow_mut().remove(&at), "{at} is nobody's");
        self.0.arena.free(at, count);
    }
}

type Table<F> = Rc<PageTable<F, Shared>>;

fn with_page<F: Format>(format: &F, len: u64) -> (Rc<Interrupting>, Table<F>) {
    let memory = Interrupting::new();
    let table = Rc::new(PageTable::new(format.clone(), Shared(Rc::clone(&memory))).unwrap());
    map(&table, 0, len, len);
    (memory, table)
}

fn map<F: Format>(table: &Table<F>, iova: u64, to: u64, len: u64) {
    let leaf = table.leaf(Prot::ReadWrite, MemAttrs::empty());
    table.map(&mut Cursor::new(), range(iova, len), PhysAddr::new(to), leaf).unwrap();
}

fn unmap_exactly<F: Format>(table: &Table<F>, iova: u64, len: u64) -> Result<Bytes, SplitError> {
    table.unmap_exactly(&mut Cursor::new(), range(iova, len), &mut Gather::new())
}

/// The frames that a table has are those that are in use.
fn holds_its_tables_only<F: Format>(memory: &Interrupting, table: &Table<F>) {
    table.reclaim_quiesced(Quiesced::promise());
    assert_eq!(memory.arena.in_use(), table.tables());
}

/// One unmaps the upper half of a page while the other unmaps the lower half and maps something else there.
fn halves<F: Format + 'static>(format: &F, page: u64) -> usize {
    let half = page / 2;
    for n in 0.. {
        let (memory, table) = with_page(format, page);
        let other = Rc::clone(&table);
        memory.interrupt(n, move || {
            assert_eq!(unmap_exactly(&other, 0, half), Ok(Bytes::new(half)));
            map(&other, 0, 4 * page, half / 2);
        });
        let answer = unmap_exactly(&table, half, half);
        if !memory.ran() {
            return n;
        }
        assert_eq!(answer, Ok(Bytes::new(half)), "rival at look-up {n}");
        for at in (0..page).step_by(PAGE as usize) {
            let expected = (at < half / 2).then_some(PhysAddr::new(4 * page + at));
            assert_eq!(table.walk(Iova::new(at)).ok().map(|found| found.pa), expected, "{at:#x}, rival at {n}");
        }
        // No entry is left that says nothing and is in the way.
        map(&table, half / 2, 0, page - half / 2);
        holds_its_tables_only(&memory, &table);
    }
    0
}

#[test]
fn owners_of_two_halves_of_one_page_do_not_disturb_each_other() {
    assert!(halves(&vtd(), LARGE) > 500);
    assert!(halves(&arm1(ArmOptions::default()), LARGE) > 500);
    // In one entry, and in sixteen.
    assert!(halves(&amd(), LARGE) > 500);
    assert!(halves(&amd(), 16 * PAGE) > 16);
}

/// A mark that one of them finds is not left on what the other one took away.
#[test]
fn a_mark_does_not_stay_where_a_page_was_taken_away() {
    for n in 0.. {
        let (memory, table) = with_page(&amd(), 16 * PAGE);
        let slot = |index: usize| {
            let leaf_table = (0..64).map(|frame| PhysAddr::new(0x40_0000_0000 + frame * PAGE)).find(|at| {
                let first = memory.arena.frame(*at).unwrap()[0].load(Ordering::Relaxed);
                matches!(table.format().decode(first, 0), Entry::Leaf { size_shift: 16, .. })
            });
            &memory.arena.frame(leaf_table.unwrap()).unwrap()[index]
        };
        slot(0).fetch_or(1 << 6, Ordering::Relaxed);
        let other = Rc::clone(&table);
        memory.interrupt(n, move || assert!(unmap_exactly(&other, 0, 8 * PAGE).is_ok()));
        table.split(Iova::new(9 * PAGE)).unwrap();
        if !memory.ran() {
            return;
        }
        map(&table, 0, 0x80_0000, 8 * PAGE);
        assert_eq!(table.walk(Iova::new(7 * PAGE)).map(|found| found.pa), Ok(PhysAddr::new(0x80_0000 + 7 * PAGE)));
    }
}

/// Overlapping calls are a fault, which may lose a frame and gives none to two.
fn overlapping<F: Format + 'static>(format: &F, unmap: fn(&Table<F>)) {
    for n in 0.. {
        let (memory, table) = with_page(format, HUGE);
        table.split(Iova::new(PAGE)).unwrap();
        table.split(Iova::new(LARGE + PAGE)).unwrap();
        let other = Rc::clone(&table);
        memory.interrupt(n, move || unmap(&other));
        unmap(&table);
        if !memory.ran() {
            return;
        }
        table.reclaim_quiesced(Quiesced::promise());
        assert!(memory.arena.in_use() >= table.tables());
        map(&table, 0, 0, LARGE + PAGE);
    }
}

#[test]
fn no_table_is_freed_twice_even_where_two_unmap_the_same() {
    overlapping(&vtd(), |table| {
        let _answer = unmap_exactly(table, 0, HUGE);
    });
    overlapping(&vtd(), |table| {
        table.unmap(&mut Cursor::new(), range(0, HUGE), &mut Gather::new());
    });
    overlapping(&arm1(ArmOptions::default()), |table| {
        table.unmap(&mut Cursor::new(), range(0, HUGE), &mut Gather::new());
    });
}
