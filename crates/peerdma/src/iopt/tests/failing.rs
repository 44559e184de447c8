//! Nothing is left of what could not be done.

use super::*;
use core::cell::Cell;

/// Memory that fails at one allocation.
struct Failing<'a> {
    arena: &'a FrameArena,
    left: Cell<usize>,
}

impl TableMemory for Failing<'_> {
    fn allocate(&self, count: usize) -> Option<PhysAddr> {
        self.left.set(self.left.get().checked_sub(1)?);
        self.arena.allocate(count)
    }

    fn frame(&self, at: PhysAddr) -> Option<&Frame> {
        self.arena.frame(at)
    }

    fn free(&self, at: PhysAddr, count: usize) {
        self.arena.free(at, count);
    }
}

/// Maps a run that needs tables of every height; answers how many allocations it took.
fn fails_everywhere<F: Format>(format: F) -> usize {
    let arena = arena(64);
    let run = range(512 * HUGE - LARGE - PAGE, PAGE + LARGE + HUGE + PAGE);
    for allocations in 1.. {
        let memory = Failing { arena: &arena, left: Cell::new(allocations) };
        let mut table = PageTable::new(format.clone(), &memory).unwrap();
        let leaf = table.leaf(Prot::ReadWrite, MemAttrs::empty());
        let mut cursor = Cursor::new();
        let result = table.map(&mut cursor, run, PhysAddr::new(1024 * HUGE - LARGE - PAGE), leaf);
        let mapped = (0..run.len().as_u64()).step_by(PAGE as usize).map(|at| run.start().as_u64() + at);
        if let Err(fault) = result {
            assert_eq!(fault.kind, MapFaultKind::NoMemory);
            for at in mapped {
                assert!(table.walk(Iova::new(at)).is_err(), "{at:#x} stayed mapped");
            }
            let undone = cursor.take_replaced();
            assert_eq!(undone.removed(), fault.mapped_before);
            table.prune();
            assert_eq!(arena.in_use(), (table.table_bytes().as_u64() / PAGE) as usize);
            assert!(table.tables() <= 3, "only roots that grew stay");
            drop(table);
            assert_eq!(arena.in_use(), 0);
        } else {
            return allocations;
        }
    }
    0
}

#[test]
fn an_allocation_that_fails_anywhere_leaves_nothing_mapped_and_no_frame_lost() {
    assert_eq!(fails_everywhere(vtd()), 1 + 6);
    assert_eq!(fails_everywhere(arm1(ArmOptions::default())), 1 + 6);
    // AMD also grows; its 8 KiB and larger pages share the tables of the small ones.
    assert!(fails_everywhere(amd()) > 6);
}

#[test]
fn no_root_is_no_table() {
    let arena = arena(1);
    let first = PageTable::new(vtd(), &arena).unwrap();
    assert_eq!(PageTable::new(vtd(), &arena).err(), Some(CreateError::NoMemory { frames: 1 }));
    drop(first);
    assert!(PageTable::new(vtd(), &arena).is_ok());
}

/// Frames at 48 bits and more: no Arm entry holds their address.
#[test]
fn frames_that_no_entry_can_point_to_are_no_memory() {
    let high = FrameArena::new(PhysAddr::new(1 << 50), 16);
    let table = PageTable::new(arm1(ArmOptions::default()), &high).unwrap();
    let leaf = table.leaf(Prot::ReadWrite, MemAttrs::empty());
    let fault = table.map(&mut Cursor::new(), range(0, PAGE), PhysAddr::new(0), leaf).unwrap_err();
    assert_eq!((fault.kind, high.in_use()), (MapFaultKind::NoMemory, 1));
    // The encryption bit in an address would be taken for encryption, also when a root grows over it.
    let encrypted = AmdOptions { encrypted: Some(PhysAddr::new(1 << 50)), ..AmdOptions::default() };
    let table = PageTable::new(AmdV1::new(encrypted).unwrap(), &high).unwrap();
    let leaf = table.leaf(Prot::ReadWrite, MemAttrs::empty());
    for at in [0, 1 << 40] {
        let fault = table.map(&mut Cursor::new(), range(at, PAGE), PhysAddr::new(0), leaf).unwrap_err();
        assert_eq!((fault.kind, high.in_use()), (MapFaultKind::NoMemory, 2), "{at:#x}");
    }
}

/// Memory that knows nothing of alignment.
struct Misaligning<'a>(&'a FrameArena);

impl TableMemory for Misaligning<'_> {
    fn allocate(&self, count: usize) -> Option<PhysAddr> {
        let at = self.0.allocate(2 * count)?;
        at.checked_add(Bytes::new(PAGE))
    }

    fn frame(&self, at: PhysAddr) -> Option<&Frame> {
        self.0.frame(at)
    }

    fn free(&self, at: PhysAddr, count: usize) {
        self.0.free(PhysAddr::new(at.as_u64() - PAGE), 2 * count);
    }
}

#[test]
fn tables_of_several_frames_that_are_not_aligned_are_not_used() {
    let arena = arena(64);
    let root = PageTable::new(
        arm2(ArmOptions { input_bits: 40, output_bits: 40, ..ArmOptions::default() }),
        Misaligning(&arena),
    );
    assert!(matches!(root.err(), Some(CreateError::BadFrame { .. })));
    assert_eq!(arena.in_use(), 0);
    let options = ArmOptions { input_bits: 36, ..ArmOptions::default() };
    let table = PageTable::new(ArmStage1::<Pages64K>::new(options).unwrap(), Misaligning(&arena)).unwrap();
    let leaf = table.leaf(Prot::ReadWrite, MemAttrs::empty());
    let fault = table.map(&mut Cursor::new(), range(0, 0x1_0000), PhysAddr::new(0), leaf).unwrap_err();
    assert_eq!((fault.kind, arena.in_use()), (MapFaultKind::NoMemory, 2));
}

#[test]
fn a_run_that_meets_a_mapping_is_undone_and_says_how_far_it_came() {
    let arena = arena(64);
    let mut table = Bench::new(vtd(), &arena);
    table.map(0x9000, 0, PAGE).unwrap();
    let fault = table.map(0x5000, 0x10_0000, 8 * PAGE).unwrap_err();
    assert_eq!((fault.kind, fault.at), (MapFaultKind::AlreadyMapped, Iova::new(0x9000)));
    assert_eq!(fault.mapped_before, Bytes::new(4 * PAGE));
    assert_eq!((table.walk(0x5000), table.walk(0x8000), table.walk(0x9000)), (None, None, Some((0, PAGE))));
    assert_eq!(table.cursor.take_replaced().range(), Some(range(0x5000, 4 * PAGE)));
    // io-pgtable-arm looks at the whole batch first.
    let mut table = Bench::new(arm1(ArmOptions::default()), &arena);
    table.map(0x9000, 0, PAGE).unwrap();
    let fault = table.map(0x5000, 0x10_1000, 8 * PAGE).unwrap_err();
    assert_eq!(fault.mapped_before, Bytes::ZERO);
    assert!(table.cursor.take_replaced().is_empty());
}

#[test]
fn nothing_mapped_is_ever_replaced_unless_told() {
    let arena = arena(64);
    fn claim<F: Format>(mut table: Bench<'_, F>) {
        table.map(LARGE, LARGE, LARGE).unwrap();
        table.map(4 * LARGE + PAGE, 0, PAGE).unwrap();
        for (at, len) in [(LARGE, LARGE), (LARGE + PAGE, PAGE), (4 * LARGE, LARGE), (4 * LARGE + PAGE, PAGE)] {
            assert_eq!(table.map(at, at, len).unwrap_err().kind, MapFaultKind::AlreadyMapped, "{at:#x}");
        }
        assert_eq!(table.walk(4 * LARGE + PAGE), Some((0, PAGE)));
    }
    claim(Bench::new(vtd(), &arena));
    claim(Bench::new(amd(), &arena));
    claim(Bench::new(arm1(ArmOptions::default()), &arena));
    let mut table = Bench::new(arm2(ArmOptions { replace_tables: true, ..ArmOptions::default() }), &arena);
    table.map(PAGE, 0, PAGE).unwrap();
    table.map(0, LARGE, LARGE).unwrap();
    assert_eq!(table.walk(PAGE), Some((LARGE + PAGE, LARGE)));
}

#[test]
fn a_large_page_takes_the_place_of_an_empty_table() {
    let arena = arena(64);
    let mut table = Bench::new(vtd(), &arena);
    table.map(PAGE, 0, PAGE).unwrap();
    table.unmap(PAGE, PAGE);
    table.map(0, LARGE, LARGE).unwrap();
    assert_eq!(table.walk(PAGE), Some((LARGE + PAGE, LARGE)));
    let replaced = table.cursor.take_replaced();
    assert!(replaced.tables_freed() && table.cursor.take_replaced().is_empty());
    assert_eq!(replaced.range(), Some(range(0, LARGE)));
    assert_eq!(table.table.reclaim(), 1);
}

#[test]
fn what_does_not_fit_is_refused_by_name_and_errno() {
    let arena = arena(64);
    let narrow = VtdOptions { output_bits: 39, force_writeable: true, ..VtdOptions::default() };
    let mut table = Bench::new(VtdSecondStage::new(narrow).unwrap(), &arena);
    let mut refused = |iova, to, len, kind: MapFaultKind, errno| {
        assert_eq!(table.map(iova, to, len).unwrap_err().kind, kind);
        assert_eq!(kind.linux_errno(VtdSecondStage::FAMILY), errno);
    };
    refused(0x800, 0, PAGE, MapFaultKind::Misaligned, "ENXIO");
    refused(0, 0x800, PAGE, MapFaultKind::Misaligned, "ENXIO");
    refused(0, 0, 0x800, MapFaultKind::Misaligned, "ENXIO");
    refused(1 << 48, 0, PAGE, MapFaultKind::IovaOutOfRange, "ERANGE");
    refused((1 << 48) - PAGE, 0, 2 * PAGE, MapFaultKind::IovaOutOfRange, "ERANGE");
    refused(0, 1 << 39, PAGE, MapFaultKind::PhysOutOfRange, "ERANGE");
    // Linux looks at the start only.
    refused(0, (1 << 39) - PAGE, 2 * PAGE, MapFaultKind::PhysOutOfRange, "ERANGE");
    refused(0, u64::MAX - 0xfff, 2 * PAGE, MapFaultKind::PhysOutOfRange, "ERANGE");
    let leaf = table.table.leaf(Prot::Read, MemAttrs::empty());
    let answer = table.table.map(&mut table.cursor, range(0, PAGE), PhysAddr::new(0), leaf);
    assert_eq!(answer.unwrap_err().kind, MapFaultKind::ReadOnlyRefused);
    assert_eq!(table.table.tables(), 1);
}

/// Memory that takes nothing back, and leaves in a frame what it held.
struct Keeping<'a>(&'a FrameArena);

impl TableMemory for Keeping<'_> {
    fn allocate(&self, count: usize) -> Option<PhysAddr> {
        self.0.allocate(count)
    }

    fn frame(&self, at: PhysAddr) -> Option<&Frame> {
        self.0.frame(at)
    }

    fn free(&self, _at: PhysAddr, _count: usize) {}
}

/// Two entries that lead to one table, as only somebody else writes them: it is queued twice.
#[test]
fn a_table_that_is_reached_twice_makes_nothing_endless() {
    fn claim<M: TableMemory>(memory: M, arena: &FrameArena) {
        let mut table = PageTable::new(vtd(), memory).unwrap();
        let (mut cursor, leaf) = (Cursor::new(), table.leaf(Prot::ReadWrite, MemAttrs::empty()));
        table.map(&mut cursor, range(0, PAGE), PhysAddr::new(0), leaf).unwrap();
        let slots = arena.frame(table.root().at).unwrap();
        let entry = slots[0].load(Ordering::Relaxed);
        for slot in &slots[1..6] {
            slot.store(entry, Ordering::Relaxed);
        }
        table.unmap_exactly(&mut cursor, range(0, 6 << 39), &mut Gather::new()).unwrap();
        assert!(table.table_bytes() >= Bytes::new(PAGE));
        assert!(table.reclaim() >= 1);
        assert!(table.walk(Iova::new(0)).is_err());
    }
    let (taking, keeping) = (arena(64), arena(64));
    claim(&taking, &taking);
    claim(Keeping(&keeping), &keeping);
}

/// The entry would say "encrypted" and lead elsewhere.
#[test]
fn an_address_with_the_encryption_bit_is_refused() {
    let arena = arena(64);
    fn claim<F: Format>(mut table: Bench<'_, F>) {
        for to in [1 << 47, (1 << 47) - PAGE] {
            let answer = table.map(0x5000, to, 2 * PAGE).map_err(|fault| fault.kind);
            assert_eq!(answer, Err(MapFaultKind::PhysOutOfRange), "{to:#x}");
        }
        table.map(0x5000, (1 << 47) - PAGE, PAGE).unwrap();
        assert_eq!(table.walk(0x5000), Some(((1 << 47) - PAGE, PAGE)));
    }
    let encrypted = Some(PhysAddr::new(1 << 47));
    claim(Bench::new(AmdV1::new(AmdOptions { encrypted, ..AmdOptions::default() }).unwrap(), &arena));
    claim(Bench::new(X86FirstStage::new(X86Options { encrypted, ..X86Options::default() }).unwrap(), &arena));
}

#[test]
fn damaged_entries_end_a_walk_and_a_mapping() {
    let arena = arena(64);
    let mut table = Bench::new(vtd(), &arena);
    table.map(0, 0, PAGE).unwrap();
    let root = table.table.root();
    let slots = arena.frame(root.at).unwrap();
    // A table where there is no memory, a table that is the root itself, a page larger than any.
    for (index, entry) in [(1, 0xdead_f000_0003), (2, root.at.as_u64() | 3), (3, 0x83)] {
        slots[index].store(entry, Ordering::Relaxed);
    }
    let why = |at: u64| table.table.walk(Iova::new(at << 39)).unwrap_err();
    assert_eq!((why(1).why, why(1).level), (NotTranslated::NoFrame, Some(2)));
    assert_eq!(why(3).why, NotTranslated::BadEntry);
    assert!(table.table.walk(Iova::new(2 << 39)).is_ok() || why(2).why != NotTranslated::OutOfRange);
    assert_eq!(table.map(1 << 39, 0, PAGE).unwrap_err().kind, MapFaultKind::BadEntry);
    assert_eq!(table.map(3 << 39, 0, PAGE).unwrap_err().kind, MapFaultKind::BadEntry);
    slots[2].store(0, Ordering::Relaxed);
    // A root of an impossible height.
    let high = Root::at_height(table.table.format(), root.at, 200);
    assert!(walk_tables(table.table.format(), &&arena, high, Iova::new(0)).is_err());
}
