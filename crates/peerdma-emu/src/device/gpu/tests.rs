use super::*;
use crate::device::channel::{CallError, Queue, doorbell};
use crate::device::{Device, FlatDevice, Mmio, Shared};
use crate::memory::{Memory, Striped};
use crate::wire::Failure;
use peerdma::addr::{BusAddr, Bytes};
use proptest::prelude::*;
use std::sync::Arc;

const VRAM: Bytes = Bytes::new(4 << 20);
const RAM: Bytes = Bytes::new(4 << 20);

struct Bench {
    vram: Arc<dyn Memory>,
    ram: Arc<dyn Memory>,
    residency: Arc<Residency>,
    gpu: FlatDevice<Gpu>,
}

impl Bench {
    fn new() -> Self {
        let vram: Arc<dyn Memory> = Arc::new(Striped::new(VRAM));
        let ram: Arc<dyn Memory> = Arc::new(Striped::new(RAM));
        let gpu = Gpu::new(vram.clone(), 4);
        let residency = gpu.residency();
        Self { vram, residency, gpu: FlatDevice::new(gpu, ram.clone()), ram }
    }

    /// A queue in the first page of RAM.
    fn queue(&self) -> Queue {
        Queue::new(Shared::new(self.ram.clone(), Bytes::ZERO, Bytes::new(0x1000), BusAddr::new(0)).unwrap())
    }

    fn driver(&self) -> Driver<'_> {
        Driver::open(&self.gpu, 0, self.queue()).unwrap()
    }
}

fn bytes(memory: &Arc<dyn Memory>, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    memory.read(Bytes::new(at), &mut bytes).unwrap();
    bytes
}

fn pattern(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| seed.wrapping_add((at * 7 + at / 251) as u8)).collect()
}

fn bus(at: u64) -> Place {
    Place::Bus(BusAddr::new(at))
}

fn vram(at: u64) -> Place {
    Place::Vram(Bytes::new(at))
}

#[test]
fn bytes_go_to_vram_and_back() {
    let bench = Bench::new();
    let data = pattern(3, 3 << 20);
    bench.ram.write(Bytes::new(0x2003), &data[..1 << 20]).unwrap();
    let mut driver = bench.driver();
    driver.copy(bus(0x2003), vram(0x101), Bytes::new(1 << 20)).unwrap();
    driver.copy(vram(0x101), vram(0x20_0000), Bytes::new(1 << 20)).unwrap();
    driver.copy(vram(0x20_0000), bus(0x20_0005), Bytes::new(1 << 20)).unwrap();
    driver.copy(bus(0x20_0005), bus(0x30_0007), Bytes::new(0x8_0000)).unwrap();
    assert!(bytes(&bench.vram, 0x101, 1 << 20) == data[..1 << 20]);
    assert!(bytes(&bench.ram, 0x30_0007, 0x8_0000) == data[..0x8_0000]);
}

#[test]
fn a_fill_keeps_its_pattern_over_pieces_and_cuts_it_at_the_end() {
    let bench = Bench::new();
    let pattern = 0x8877_6655_4433_2211;
    bench.driver().fill(bus(0x10_0001), Bytes::new(0x2_0003), pattern).unwrap();
    let found = bytes(&bench.ram, 0x10_0000, 0x2_0006);
    assert_eq!((found[0], found[0x2_0004]), (0, 0));
    let filled = &found[1..0x2_0004];
    assert!(filled.iter().enumerate().all(|(at, byte)| *byte == pattern.to_le_bytes()[at % 8]));
}

#[test]
fn a_release_writes_its_width_and_nothing_more() {
    let bench = Bench::new();
    bench.ram.write(Bytes::new(0x8000), &[0xff; 16]).unwrap();
    let mut driver = bench.driver();
    let narrow = Operation::Release { to: bus(0x8000), value: 0x1_2345_6789, wide: false, read_back: None };
    driver.run(narrow, Options::default()).unwrap();
    assert_eq!(bytes(&bench.ram, 0x8000, 8), [0x89, 0x67, 0x45, 0x23, 0xff, 0xff, 0xff, 0xff]);
    let back = Some(BusAddr::new(0x9000));
    let wide = Operation::Release { to: bus(0x8008), value: 7, wide: true, read_back: back };
    driver.run(wide, Options::default()).unwrap();
    assert_eq!(bytes(&bench.ram, 0x8008, 8), 7_u64.to_le_bytes());
}

#[test]
fn a_read_back_that_fails_holds_the_doorbell_back() {
    let bench = Bench::new();
    let back = Some(BusAddr::new(1 << 40));
    let release = Operation::Release { to: bus(0x8000), value: 7, wide: true, read_back: back };
    let error = bench.driver().run(release, Options::default()).unwrap_err();
    assert_eq!(error, CallError::Failed { status: Status::Request, failure: Some(Failure::UnsupportedRequest) });
    assert_eq!(bytes(&bench.ram, 0x8000, 8), [0; 8]);
}

#[test]
fn an_acquire_waits_for_the_value_that_another_channel_releases() {
    let bench = Bench::new();
    let mut first = bench.driver();
    let memory = Shared::new(bench.ram.clone(), Bytes::new(0x1000), Bytes::new(0x1000), BusAddr::new(0x1000));
    let mut second = Driver::open(&bench.gpu, 1, Queue::new(memory.unwrap())).unwrap();
    let acquire = Operation::Acquire { at: vram(0x40), value: 5, looks: 10_000 };
    let awaited = first.submit(acquire, Options::default()).unwrap();
    for _ in 0..8 {
        bench.gpu.pause();
    }
    assert_eq!(first.poll(awaited), None);
    let release = Operation::Release { to: vram(0x40), value: 6, wide: true, read_back: None };
    second.run(release, Options::default()).unwrap();
    assert_eq!(first.wait(awaited), Ok(6));
}

#[test]
fn an_acquire_of_what_never_comes_ends() {
    let bench = Bench::new();
    let acquire = Operation::Acquire { at: bus(0x8000), value: 5, looks: 10 };
    let error = bench.driver().run(acquire, Options::default()).unwrap_err();
    assert_eq!(error, CallError::Failed { status: Status::NotSeen, failure: None });
}

#[test]
fn translated_requests_bring_the_same_bytes() {
    let bench = Bench::new();
    let data = pattern(3, 1 << 20);
    bench.ram.write(Bytes::new(0x2003), &data).unwrap();
    let mut driver = bench.driver();
    let options = Options { translate: true, ..Options::default() };
    let len = Bytes::new(1 << 20);
    driver.run(Operation::Copy { from: bus(0x2003), to: vram(1), len }, options).unwrap();
    driver.run(Operation::Copy { from: bus(0x2003), to: bus(0x20_0000), len }, options).unwrap();
    assert!(bytes(&bench.vram, 1, 1 << 20) == data && bytes(&bench.ram, 0x20_0000, 1 << 20) == data);
    let nowhere = driver.run(Operation::Copy { from: bus(1 << 40), to: vram(1), len }, options);
    assert_eq!(nowhere, Err(CallError::Failed { status: Status::NotMapped, failure: None }));
}

#[test]
fn an_atomic_gives_what_stood_there() {
    let bench = Bench::new();
    let mut driver = bench.driver();
    let add = Operation::Add { to: BusAddr::new(0x8000), value: 5 };
    assert_eq!(driver.run(add, Options::default()), Ok(0));
    assert_eq!(driver.run(add, Options::default()), Ok(5));
    let crooked = Operation::Add { to: BusAddr::new(0x8004), value: 5 };
    assert!(driver.run(crooked, Options::default()).is_err());
}

#[test]
fn pieces_that_moved_away_are_stale_behind_the_bar_until_they_come_back() {
    let bench = Bench::new();
    let piece = PIECE.as_u64();
    let data = pattern(9, 2 * piece as usize);
    bench.vram.write(Bytes::new(piece), &data).unwrap();
    let mut driver = bench.driver();
    driver.evict(Bytes::new(piece), BusAddr::new(0x10_0000), Bytes::new(2 * piece)).unwrap();
    assert!(bytes(&bench.ram, 0x10_0000, data.len()) == data);
    assert_eq!(bench.residency.at(Bytes::new(2 * piece + 8)), Whereabouts::Moved(BusAddr::new(0x10_0008 + piece)));
    assert_eq!(bench.residency.at(Bytes::ZERO), Whereabouts::Here);
    // Through the BAR one writes to what was left behind, and the engine refuses to.
    bench.gpu.store(VRAM_BAR, Bytes::new(piece), 0x55, 1);
    let error = driver.copy(vram(piece - 4), bus(0x8000), Bytes::new(8)).unwrap_err();
    assert_eq!(error, CallError::Failed { status: Status::Moved, failure: None });
    driver.restore(Bytes::new(piece), Bytes::new(2 * piece)).unwrap();
    assert!(bytes(&bench.vram, piece, data.len()) == data);
    assert!(bench.residency.is_here(Bytes::ZERO, VRAM));
}

#[test]
fn an_aperture_that_is_something_else_takes_writes_that_the_engine_never_sees() {
    let (memory, aperture) = (Arc::new(Striped::new(VRAM)), Arc::new(Striped::new(VRAM)));
    let ram: Arc<dyn Memory> = Arc::new(Striped::new(RAM));
    let gpu = FlatDevice::new(Gpu::new(memory.clone(), 1).showing(aperture), ram);
    gpu.store(VRAM_BAR, Bytes::ZERO, 0x77, 1);
    assert_eq!(gpu.load(VRAM_BAR, Bytes::ZERO, 1), 0x77);
    let vram: Arc<dyn Memory> = memory;
    assert_eq!(bytes(&vram, 0, 1), [0]);
}

#[test]
fn somebody_elses_write_to_the_doorbell_starts_what_was_prepared() {
    let bench = Bench::new();
    let mut driver = bench.driver();
    let release = Operation::Release { to: bus(0x8000), value: 7, wide: true, read_back: None };
    let ticket = driver.prepare(release, Options::default()).unwrap();
    assert!(!bench.gpu.pause() && driver.poll(ticket).is_none());
    bench.gpu.store(REGISTERS_BAR, driver.doorbell(), driver.tail(), 4);
    assert_eq!(driver.wait(ticket), Ok(8));
}

#[test]
fn a_full_queue_takes_no_more_until_something_completes() {
    let bench = Bench::new();
    let mut driver = Driver::open(&bench.gpu, 0, Queue { slots_log2: 1, ..bench.queue() }).unwrap();
    let release = Operation::Release { to: bus(0x8000), value: 7, wide: true, read_back: None };
    let tickets = [(); 2].map(|()| driver.submit(release, Options::default()).unwrap());
    assert_eq!(driver.submit(release, Options::default()), Err(CallError::Full { slots: 2 }));
    // In the other order than they complete in.
    driver.wait(tickets[1]).unwrap();
    driver.wait(tickets[0]).unwrap();
    for _ in 0..10 {
        driver.run(release, Options::default()).unwrap();
    }
}

#[test]
fn a_doorbell_that_claims_more_than_fits_breaks_its_channel_alone() {
    let bench = Bench::new();
    let mut driver = bench.driver();
    bench.gpu.store(REGISTERS_BAR, doorbell(0), 1000, 4);
    let release = Operation::Release { to: bus(0x8000), value: 7, wide: true, read_back: None };
    while bench.gpu.pause() {}
    assert_eq!(driver.run(release, Options::default()), Err(CallError::Stalled));
    let mut again = bench.driver();
    assert_eq!(again.run(release, Options::default()), Ok(8));
}

#[test]
fn a_channel_that_does_not_exist_does_not_start() {
    let bench = Bench::new();
    assert_eq!(Driver::open(&bench.gpu, 4, bench.queue()).err(), Some(CallError::NotStarted { channel: 4 }));
}

#[test]
fn a_reset_stops_every_channel_and_keeps_the_memory() {
    let bench = Bench::new();
    let mut driver = bench.driver();
    driver.fill(vram(0), Bytes::new(8), 5).unwrap();
    bench.gpu.with(|gpu, _| gpu.reset());
    let release = Operation::Release { to: bus(0x8000), value: 7, wide: true, read_back: None };
    assert_eq!(driver.run(release, Options::default()), Err(CallError::Stalled));
    assert_eq!(bytes(&bench.vram, 0, 1), [5]);
    assert_eq!(bench.gpu.load(REGISTERS_BAR, Bytes::ZERO, 8), 4);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever stands in the ring: each command completes, or the channel is broken.
    #[test]
    fn commands_of_any_bytes_end(
        commands in proptest::collection::vec((0_u32..9, any::<u32>(), any::<[u64; 6]>()), 1..8),
        small in any::<bool>(),
    ) {
        let bench = Bench::new();
        let _driver = bench.driver();
        for (n, (operation, flags, numbers)) in commands.iter().enumerate() {
            let mut command = Vec::new();
            command.extend(operation.to_le_bytes());
            command.extend(flags.to_le_bytes());
            for (at, number) in numbers.iter().enumerate() {
                // Lengths that are possible are short ones, and looks are few.
                let number = if small || at == 3 { number % 0x2_0000 } else { *number };
                command.extend(number.to_le_bytes());
            }
            command.resize(64, 0);
            bench.ram.write(Bytes::new(64 * n as u64), &command).unwrap();
        }
        bench.gpu.store(REGISTERS_BAR, doorbell(0), commands.len() as u64, 4);
        let mut steps = 0_u32;
        while bench.gpu.pause() {
            steps += 1;
            prop_assert!(steps < 2_000_000);
        }
    }
}
