//! BARs that a guest moves.

use super::*;
use crate::vfio::shared::{GuestBars, Placed, PlacingError};
use peerdma::addr::GuestPhys;
use std::error::Error;

const BAR_2: u16 = 0x18;
const BASE: u64 = 0xc000_0000;

/// Shows a part of a BAR in a guest, where nothing else of the guest's is.
struct Slot {
    name: &'static str,
    at: Mutex<GuestPhys>,
    len: u64,
    guest: Arc<Mutex<Vec<(u64, u64)>>>,
    stays: AtomicBool,
    log: Log,
}

impl Placed for Slot {
    fn name(&self) -> String {
        self.name.into()
    }

    fn at(&self) -> GuestPhys {
        *lock(&self.at)
    }

    fn place(&self, at: GuestPhys) -> Result<(), Box<dyn Error + Send + Sync>> {
        let (from, to) = (self.at().as_u64(), at.as_u64());
        let mut guest = lock(&self.guest);
        let taken = guest.iter().any(|(start, len)| *start != from && to < start + len && *start < to + self.len);
        if taken || self.stays.load(Ordering::Relaxed) {
            return Err("something else is there".into());
        }
        guest.retain(|(start, _)| *start != from);
        guest.push((to, self.len));
        *lock(&self.at) = at;
        say(&self.log, format!("{} to {to:#x}", self.name));
        Ok(())
    }
}

/// A guest that sees the BAR's first page and the two last ones, and whose other device has all of it mapped.
struct Guest {
    bench: Bench,
    head: Arc<Slot>,
    tail: Arc<Slot>,
    import: Arc<DmaImport<Space, Fake>>,
    memory: Arc<Mutex<Vec<(u64, u64)>>>,
    bars: GuestBars,
}

fn pages(first: u64, count: u64) -> BarRange {
    BarRange::new(BarIndex::new(2).unwrap(), Bytes::new(first * PAGE), Bytes::new(count * PAGE)).unwrap()
}

impl Guest {
    fn new(mut bars: GuestBars) -> Self {
        let bench = Bench::new(true);
        let tables = (Declaration::of_tables("edu's", Prot::ReadWrite), Prot::ReadWrite);
        let iova = AddrRange::new(Iova::new(BASE), range().len()).unwrap();
        let (of, space) = (&bench.exported, bench.space.clone());
        let import = DmaImport::attach("edu", of, space, iova, tables, vouched(), Need::Required, ()).unwrap();
        let memory = Arc::new(Mutex::new(vec![(0, 0x8000_0000), (BASE, PAGE), (BASE + 2 * PAGE, 2 * PAGE)]));
        let slot = |name, part: BarRange| {
            let at = Mutex::new(GuestPhys::new(BASE + part.offset().as_u64()));
            let (guest, log) = (memory.clone(), bench.log.clone());
            Arc::new(Slot { name, at, len: part.len().as_u64(), guest, stays: AtomicBool::new(false), log })
        };
        let (head, tail, import) = (slot("head", pages(0, 1)), slot("tail", pages(2, 2)), Arc::new(import));
        bars.show(pages(0, 1), head.clone()).show(pages(2, 2), tail.clone()).show(pages(0, 4), import.clone());
        said(&bench.log);
        Self { bench, head, tail, import, memory, bars }
    }

    fn write(&self, offset: u16, value: u32) -> Result<Outcome, PlacingError> {
        let bytes = value.to_le_bytes();
        let len = if offset == 0x04 { 2 } else { 4 };
        let deed = Deed::config(offset, &bytes[..len]).unwrap();
        self.bench.device.perform_placing(deed, &self.bars, LONG)
    }

    fn places(&self) -> (u64, u64, u64) {
        (self.head.at().as_u64(), self.tail.at().as_u64(), self.import.at().as_u64())
    }

    fn register(&self) -> u64 {
        let config = self.bench.device.with(|fake| fake.config_space().unwrap()).unwrap();
        u64::from_le_bytes(*config.bytes()[usize::from(BAR_2)..].first_chunk().unwrap()) & !0xf
    }

    fn is_mapped_at(&self, at: u64) -> bool {
        let mapped: Vec<_> = lock(&self.bench.space).mapped.iter().map(|range| range.start().as_u64()).collect();
        matches!(self.import.state(), ImportState::Mapped(_)) && mapped == [at]
    }
}

const fn at(base: u64) -> (u64, u64, u64) {
    (base, base + 2 * PAGE, base)
}

#[test]
fn a_bar_that_a_guest_moves_takes_slots_and_mappings_along_while_nobody_is_there() {
    let guest = Guest::new(GuestBars::by_registers());
    assert_eq!(guest.places(), at(BASE));
    guest.write(BAR_2, 0xd000_0004).unwrap();
    assert_eq!(guest.places(), at(0xd000_0000));
    assert!(guest.is_mapped_at(0xd000_0000), "{:?}", guest.import);
    let order = ["dma off", "write 0x18", "tail to 0xd0002000", "head to 0xd0000000", "export", "dma files"];
    assert_eq!(said(&guest.bench.log), order);
    assert_eq!(guest.write(0x3c, 0).unwrap().changes, [], "what moves nothing moves nothing");
    assert_eq!(said(&guest.bench.log), ["write 0x3c"]);
}

#[test]
fn where_one_cannot_go_all_stay_and_the_register_says_what_it_said() {
    // Over the guest's memory.
    let guest = Guest::new(GuestBars::by_registers());
    let refused = guest.write(BAR_2, 0x4000_0004).unwrap_err();
    let PlacingError::NoPlace { ref part, ref astray, .. } = refused else { panic!("{refused}") };
    assert_eq!((part.as_str(), astray.len()), ("head", 0));
    assert!(refused.to_string().ends_with("since something else is there; all is where it was"), "{refused}");
    assert_eq!((guest.places(), guest.register()), (at(BASE), BASE));
    assert!(guest.is_mapped_at(BASE), "{:?}", guest.import);

    // Free for the slots and taken for the devices.
    let taken = AddrRange::new(Iova::new(0xd000_3000), Bytes::new(PAGE)).unwrap();
    lock(&guest.bench.space).mapped.push(taken);
    let refused = guest.write(BAR_2, 0xd000_0004).unwrap_err();
    assert!(refused.to_string().contains("the import edu stays at 0xc0000000"), "{refused}");
    assert_eq!((guest.places(), guest.register()), (at(BASE), BASE));
    assert_eq!(lock(&guest.memory).len(), 3, "the slots that had gone are back");
    lock(&guest.bench.space).mapped.retain(|mapped| *mapped != taken);

    guest.tail.stays.store(true, Ordering::Relaxed);
    guest.write(BAR_2, 0xd000_0004).unwrap_err();
    assert!(guest.is_mapped_at(BASE));
}

#[test]
fn what_cannot_be_put_back_is_named() {
    struct Leaves(AtomicBool);
    impl Placed for Leaves {
        fn name(&self) -> String {
            "a guest that leaves".into()
        }
        fn at(&self) -> GuestPhys {
            GuestPhys::new(0)
        }
        fn place(&self, _: GuestPhys) -> Result<(), Box<dyn Error + Send + Sync>> {
            if self.0.swap(true, Ordering::Relaxed) { Err("it has left".into()) } else { Ok(()) }
        }
    }
    let mut bars = GuestBars::by_registers();
    bars.show(pages(3, 1), Arc::new(Leaves(AtomicBool::new(false))));
    let guest = Guest::new(bars);
    guest.head.stays.store(true, Ordering::Relaxed);
    let refused = guest.write(BAR_2, 0xd000_0004).unwrap_err();
    assert!(refused.to_string().ends_with("not back where it was: a guest that leaves; close the device"), "{refused}");
}

#[test]
fn registers_that_are_written_while_decoding_is_off_move_nothing_before_it_is_on() {
    let guest = Guest::new(GuestBars::by_registers());
    guest.write(0x04, 0x04).unwrap();
    for (offset, value) in [(BAR_2, u32::MAX), (BAR_2 + 4, u32::MAX), (BAR_2, 4), (BAR_2 + 4, 0x10)] {
        guest.write(offset, value).unwrap();
        assert_eq!(guest.places(), at(BASE), "{offset:#x}");
    }
    guest.write(0x04, 0x06).unwrap();
    assert_eq!(guest.places(), at(0x10_0000_0000));
    assert!(guest.is_mapped_at(0x10_0000_0000));
}

#[test]
fn decoding_that_would_show_a_bar_over_something_else_stays_off() {
    let guest = Guest::new(GuestBars::by_registers());
    guest.write(0x04, 0x04).unwrap();
    guest.write(BAR_2, 0x4000_0004).unwrap();
    let refused = guest.write(0x04, 0x06).unwrap_err();
    assert!(matches!(refused, PlacingError::NoPlace { .. }), "{refused}");
    assert_eq!((guest.places(), guest.import.state()), (at(BASE), ImportState::Away(Disturbance::DecodeOff)));
    // Status goes with it, where ones clear what stands there, and is not written back.
    said(&guest.bench.log);
    lock(&guest.bench.config)[0x07] = 0x20;
    let deed = Deed::config(0x04, &[0x06, 0, 0x10, 0]).unwrap();
    guest.bench.device.perform_placing(deed, &guest.bars, LONG).unwrap_err();
    assert_eq!(lock(&guest.bench.config)[0x04..0x08], [0x04, 0, 0x10, 0]);
    assert_eq!(said(&guest.bench.log), ["write 0x4", "write 0x4"]);
    guest.write(BAR_2, 0xd000_0004).unwrap();
    guest.write(0x04, 0x06).unwrap();
    assert!(guest.is_mapped_at(0xd000_0000));
}

#[test]
fn parts_that_come_where_another_one_was_go_after_it() {
    let guest = Guest::new(GuestBars::by_registers());
    // Sixteen KiB BARs begin at multiples of that; a monitor by hand may move one by less.
    let move_to = |to| Deed::BarMove { bar: BarIndex::new(2).unwrap(), to: GuestPhys::new(to) };
    for base in [BASE + PAGE, BASE + 3 * PAGE, BASE + 2 * PAGE, BASE] {
        guest.bench.device.perform_placing(move_to(base), &guest.bars, LONG).unwrap();
        assert_eq!(guest.places(), at(base));
        assert!(guest.is_mapped_at(base), "{:?}", guest.import);
    }
}

#[test]
fn a_bar_that_an_initiator_reaches_at_one_address_alone_stays_there() {
    let mut bars = GuestBars::by_registers();
    bars.only_at(BarIndex::new(2).unwrap(), GuestPhys::new(BASE), "0000:05:00.0");
    let guest = Guest::new(bars);
    let refused = guest.write(BAR_2, 0xd000_0004).unwrap_err();
    assert!(matches!(refused, PlacingError::Identity { .. }), "{refused}");
    assert!(
        refused.to_string().contains("0000:05:00.0 pass no IOMMU on their way and reach it at 0xc0000000"),
        "{refused}"
    );
    assert_eq!((guest.places(), guest.register()), (at(BASE), BASE));
    guest.write(0x04, 0x04).unwrap();
    guest.write(0x04, 0x06).unwrap();
    assert!(guest.is_mapped_at(BASE));
}

#[test]
fn a_monitor_that_keeps_the_registers_itself_is_asked_for_none() {
    let guest = Guest::new(GuestBars::by_hand());
    guest.write(BAR_2, 0xd000_0004).unwrap();
    assert_eq!(guest.places(), at(BASE));
    assert!(guest.is_mapped_at(BASE));
    let deed = Deed::BarMove { bar: BarIndex::new(2).unwrap(), to: GuestPhys::new(0xe000_0000) };
    guest.bench.device.perform_placing(deed, &guest.bars, LONG).unwrap();
    assert!(guest.is_mapped_at(0xe000_0000));
}

#[test]
fn resets_and_sleep_leave_all_where_it_is() {
    let guest = Guest::new(GuestBars::by_registers());
    guest.write(BAR_2, 0xd000_0004).unwrap();
    for deed in [Deed::Reset, Deed::LowPower(None), Deed::Wake] {
        guest.bench.device.perform_placing(deed, &guest.bars, LONG).unwrap();
        assert_eq!(guest.places(), at(0xd000_0000));
    }
    assert!(guest.is_mapped_at(0xd000_0000));
    guest.bench.device.perform_placing(Deed::Close, &guest.bars, LONG).unwrap();
    assert_eq!(guest.import.state(), ImportState::Gone);
}
