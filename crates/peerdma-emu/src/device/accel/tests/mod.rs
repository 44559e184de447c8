mod spaces;

use super::*;
use crate::device::channel::{CallError, Queue, doorbell};
use crate::device::{Bus, Device, Flat, FlatDevice, Mmio, PageResponse, Progress, Shared};
use crate::memory::{Memory, Striped};
use crate::wire::Pasid;
use peerdma::addr::{BusAddr, Bytes};
use proptest::prelude::*;
use spaces::Spaces;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

const RAM: Bytes = Bytes::new(16 << 20);
/// Where an address space has what memory has at zero.
const BASE: u64 = 0x7000_0000_0000;

struct Bench {
    ram: Arc<dyn Memory>,
    registers: FlatDevice<Face>,
    inner: RefCell<(Accel, Spaces)>,
}

/// The accelerator's registers, without its engine.
struct Face(crate::device::Layout);

impl Device for Face {
    fn layout(&self) -> crate::device::Layout {
        self.0.clone()
    }

    fn step(&mut self, _bus: &mut dyn Bus) -> Progress {
        Progress::Idle
    }

    fn reset(&mut self) {}
}

impl Mmio for Bench {
    fn load(&self, bar: u8, offset: Bytes, len: u8) -> u64 {
        self.registers.load(bar, offset, len)
    }

    fn store(&self, bar: u8, offset: Bytes, value: u64, len: u8) {
        self.registers.store(bar, offset, value, len);
    }

    fn pause(&self) -> bool {
        let (accel, spaces) = &mut *self.inner.borrow_mut();
        accel.step(spaces) == Progress::Working || spaces.answer()
    }
}

impl Bench {
    fn new() -> Self {
        let ram: Arc<dyn Memory> = Arc::new(Striped::new(RAM));
        let accel = Accel::new(4);
        let layout = accel.layout();
        let spaces = Spaces {
            flat: Flat::new(ram.clone(), layout.clone()),
            pages: BTreeMap::new(),
            absent: BTreeMap::new(),
            asked: VecDeque::new(),
            answers: VecDeque::new(),
            most: 1,
            untranslated: 0,
        };
        Self { registers: FlatDevice::new(Face(layout), ram.clone()), inner: RefCell::new((accel, spaces)), ram }
    }

    fn spaces<T>(&self, ask: impl FnOnce(&mut Spaces) -> T) -> T {
        ask(&mut self.inner.borrow_mut().1)
    }

    /// Gives a process a page: at once, or when it is asked for.
    fn page(&self, pasid: u32, page: u64, write: bool, there: bool) {
        self.spaces(|spaces| {
            let pages = if there { &mut spaces.pages } else { &mut spaces.absent };
            pages.insert((pasid, BASE >> 12 | page), (page, write));
        });
    }

    /// A context in the address space of a process, with its queue in the page of that number.
    fn open(&self, context: u16, pasid: u32, there: bool) -> Driver<'_> {
        let page = u64::from(context);
        self.page(pasid, page, true, there);
        let at = Bytes::new(page << 12);
        let memory = Shared::new(self.ram.clone(), at, Bytes::new(0x1000), BusAddr::new(BASE + at.as_u64())).unwrap();
        Driver::open(self, context, Queue { pasid: Pasid::new(pasid), ..Queue::new(memory) }).unwrap()
    }

    fn put(&self, at: u64, numbers: &[u64]) {
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        self.ram.write(Bytes::new(at), &bytes).unwrap();
    }

    fn number(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        self.ram.read(Bytes::new(at), &mut bytes).unwrap();
        u64::from_le_bytes(bytes)
    }
}

fn address(at: u64) -> BusAddr {
    BusAddr::new(BASE + at)
}

#[test]
fn a_list_is_summed_by_the_pointers_of_its_process() {
    let bench = Bench::new();
    let mut context = bench.open(0, 5, true);
    bench.page(5, 0x10, false, true);
    bench.page(5, 0x20, false, true);
    // The second element lies across two pages.
    bench.page(5, 0x21, false, true);
    bench.put(0x1_0008, &[BASE + 0x2_0ff8, 3]);
    bench.put(0x2_0ff8, &[BASE + 0x1_0100, 4]);
    bench.put(0x1_0100, &[0, u64::MAX]);
    assert_eq!(context.sum(address(0x1_0008), 3), Ok(6));
    assert_eq!(bench.spaces(|spaces| spaces.untranslated), 0);
}

#[test]
fn pages_that_are_not_there_are_brought_and_the_work_goes_on() {
    let bench = Bench::new();
    // Neither its queue nor its list is there yet, and the list is in more pages than it asks
    // for one page again.
    let mut context = bench.open(0, 5, false);
    for n in 0..64 {
        bench.page(5, 0x100 + n, false, false);
        let next = if n == 63 { 0 } else { BASE + ((0x101 + n) << 12) };
        bench.put((0x100 + n) << 12, &[next, n]);
    }
    assert_eq!(context.sum(address(0x10_0000), 100), Ok(2016));
    assert!(bench.spaces(|spaces| spaces.absent.is_empty()));
}

#[test]
fn what_the_process_does_not_have_is_a_fault_and_the_next_command_is_done() {
    let bench = Bench::new();
    let mut context = bench.open(0, 5, true);
    bench.page(5, 0x10, false, true);
    bench.put(0x1_0000, &[BASE + 0x5_0000, 3]);
    let fault = CallError::Failed { status: Status::Fault, failure: None };
    assert_eq!(context.sum(address(0x1_0000), 3), Err(fault));
    // A page that may only be read takes no store.
    assert_eq!(context.run(Operation::Store { to: address(0x1_0000), value: 1 }), Err(fault));
    assert_eq!(context.sum(BusAddr::new(0), 3), Ok(0));
}

#[test]
fn contexts_do_not_reach_what_is_another_process_s() {
    let bench = Bench::new();
    let (mut first, mut second) = (bench.open(0, 5, true), bench.open(1, 6, true));
    bench.page(5, 0x10, true, true);
    bench.put(0x1_0000, &[0, 3]);
    assert_eq!(first.sum(address(0x1_0000), 3), Ok(3));
    let fault = CallError::Failed { status: Status::Fault, failure: None };
    assert_eq!(second.sum(address(0x1_0000), 3), Err(fault));
    assert_eq!(second.run(Operation::Store { to: address(0x1_0000), value: 9 }), Err(fault));
    assert_eq!(bench.number(0x1_0000), 0);
}

#[test]
fn a_context_that_waits_for_a_page_does_not_hold_up_another() {
    let bench = Bench::new();
    let (mut first, mut second) = (bench.open(0, 5, true), bench.open(1, 6, true));
    bench.page(5, 0x10, true, false);
    bench.page(6, 0x11, true, true);
    let waits = first.submit(Operation::Store { to: address(0x1_0000), value: 1 }).unwrap();
    // The kernel takes its time: the device alone is stepped.
    let step = || {
        let (accel, spaces) = &mut *bench.inner.borrow_mut();
        while accel.step(spaces) == Progress::Working {}
    };
    step();
    let goes = second.submit(Operation::Store { to: address(0x1_1000), value: 2 }).unwrap();
    step();
    assert_eq!((first.poll(waits), second.poll(goes)), (None, Some(Ok(0))));
    assert_eq!(first.wait(waits), Ok(0));
    assert_eq!((bench.number(0x1_0000), bench.number(0x1_1000)), (1, 2));
}

#[test]
fn a_list_that_bites_its_tail_ends() {
    let bench = Bench::new();
    let mut context = bench.open(0, 5, true);
    bench.page(5, 0x10, false, true);
    bench.put(0x1_0000, &[BASE + 0x1_0000, 1]);
    let error = CallError::Failed { status: Status::TooLong, failure: None };
    assert_eq!(context.sum(address(0x1_0000), 10_000), Err(error));
}

#[test]
fn a_page_that_goes_again_each_time_is_not_asked_for_without_end() {
    let bench = Bench::new();
    let mut context = bench.open(0, 5, true);
    let ticket = context.submit(Operation::Store { to: address(0x1_0000), value: 1 }).unwrap();
    let mut asked = 0;
    let outcome = loop {
        let (accel, spaces) = &mut *bench.inner.borrow_mut();
        accel.step(spaces);
        if let Some((_, _, group)) = spaces.asked.pop_front() {
            asked += 1;
            spaces.answers.push_back((group, PageResponse::Success));
        }
        if let Some(outcome) = context.poll(ticket) {
            break outcome;
        }
    };
    assert_eq!(outcome, Err(CallError::Failed { status: Status::NoPage, failure: None }));
    assert_eq!(asked, 16);
}

#[test]
fn a_context_whose_queue_is_nowhere_is_broken() {
    let bench = Bench::new();
    let mut context = bench.open(0, 5, true);
    bench.spaces(|spaces| spaces.pages.clear());
    assert_eq!(context.sum(BusAddr::new(0), 1), Err(CallError::Stalled));
    // Broken, and to be started again.
    assert_eq!(bench.open(0, 5, true).sum(BusAddr::new(0), 1), Ok(0));
}

#[test]
fn a_gather_follows_every_pointer() {
    let bench = Bench::new();
    let mut context = bench.open(0, 5, true);
    (0x10..0x20).for_each(|page| bench.page(5, page, true, page % 2 == 0));
    let things: Vec<u64> = (0..400_u64).map(|n| BASE + 0x1_2000 + n * 40 % 0x3000).collect();
    (0..0x600_u64).for_each(|n| bench.put(0x1_2000 + n * 8, &[n]));
    bench.put(0x1_0000, &things);
    let (pointers, to) = (address(0x1_0000), address(0x1_8004));
    let gather = Operation::Gather { pointers, count: 400, each: Bytes::new(8), to };
    assert_eq!(context.run(gather), Ok(400));
    for n in 0..400 {
        assert_eq!(bench.number(0x1_8004 + n * 8), n * 5 % 0x600);
    }
}

#[test]
fn a_doorbell_rings_for_its_own_context_only() {
    let bench = Bench::new();
    let (mut first, mut second) = (bench.open(0, 5, true), bench.open(1, 6, true));
    let ticket = first.submit(Operation::Sum { head: BusAddr::new(0), most: 0 }).unwrap();
    assert_eq!(first.wait(ticket), Ok(0));
    // Everything in the page of the first context, written by whoever has it.
    for at in (0..0x1000).step_by(8) {
        bench.store(0, Bytes::new(doorbell(0).as_u64() + at), 77, 8);
    }
    while bench.pause() {}
    assert_eq!(second.sum(BusAddr::new(0), 1), Ok(0));
    assert_eq!(first.sum(BusAddr::new(0), 1), Err(CallError::Stalled));
}

#[test]
fn a_function_without_translations_sends_what_it_has() {
    let ram: Arc<dyn Memory> = Arc::new(Striped::new(RAM));
    let accel = FlatDevice::new(Accel::new(1), ram.clone());
    let memory = Shared::new(ram.clone(), Bytes::ZERO, Bytes::new(0x1000), BusAddr::new(0)).unwrap();
    let mut context = Driver::open(&accel, 0, Queue::new(memory)).unwrap();
    ram.write(Bytes::new(0x3000), &[7; 0x100]).unwrap();
    let (from, to) = (BusAddr::new(0x3000), BusAddr::new(0x4001));
    assert_eq!(context.run(Operation::Copy { from, to, len: Bytes::new(0x100) }), Ok(0x100));
    let mut bytes = [0; 0x100];
    ram.read(Bytes::new(0x4001), &mut bytes).unwrap();
    assert_eq!(bytes, [7; 0x100]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Any copy over pages that are there, or come, or may only be read, does all or says why.
    #[test]
    fn a_copy_is_whole_or_fails(
        from in 0_u64..0x3000,
        to in 0_u64..0x3000,
        len in 0_u64..0x3000,
        pages in proptest::collection::vec((any::<bool>(), any::<bool>(), 0_u8..8), 16),
    ) {
        let bench = Bench::new();
        let mut context = bench.open(0, 5, true);
        for (n, (write, there, exists)) in (0x10..).zip(&pages) {
            if *exists != 0 {
                bench.page(5, n, *write, *there);
            }
        }
        let (from, to) = (0x1_0000 + from, 0x1_8000 + to);
        let data: Vec<u8> = (0..len).map(|n| (n * 7 + n / 250 + 1) as u8).collect();
        bench.ram.write(Bytes::new(from), &data).unwrap();
        let touches = |at: u64, write: bool| len == 0 || (at >> 12..=(at + len - 1) >> 12).all(|page| {
            let (may, _, exists) = pages[(page - 0x10) as usize];
            exists != 0 && (may || !write)
        });
        let allowed = touches(from, false) && touches(to, true);
        let copy = Operation::Copy { from: address(from), to: address(to), len: Bytes::new(len) };
        let fault = CallError::Failed { status: Status::Fault, failure: None };
        // A page that may only be read is asked for once more, in vain.
        let outcome = context.run(copy);
        prop_assert_eq!(outcome, if allowed { Ok(len) } else { Err(fault) });
        if allowed {
            let mut found = vec![0; len as usize];
            bench.ram.read(Bytes::new(to), &mut found).unwrap();
            prop_assert!(found == data);
        }
        prop_assert_eq!(bench.spaces(|spaces| spaces.untranslated), 0);
    }
}
