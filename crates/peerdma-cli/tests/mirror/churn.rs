//! Memory that is mapped, thrown away, moved, closed, unmapped and inherited while an accelerator reads and writes it.
//!
//! Whatever has been given away is filled with a pattern of its next owner's at once, and looked at again after the
//! accelerator has got on: no byte of it may have changed. And every command comes to its end.
//!
//! Ten seconds, or as many as `PEERDMA_MIRROR_SECONDS` says; `PEERDMA_MIRROR_SEED` is where the choices begin.

use crate::device::{Bench, Own, Stop, open};
use peerdma::access::Prot;
use peerdma::addr::{AddrRange, BusAddr, Bytes, ProcVa};
use peerdma_emu::device::accel::Operation;
use peerdma_emu::device::channel::CallError;
use peerdma_emu::host::ProcessTable;
use peerdma_emu::machine::Delivery;
use peerdma_linux::mirror::{Mirror, Owned};
use peerdma_linux::raw::Foreign;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const PAGE: u64 = 4096;
/// Pages of a slot.
const PAGES: u64 = 8;
/// Slots of each thread; one more is where memory moves to.
const SLOTS: u64 = 3;
/// Far below where the kernel puts what nobody has named an address for: while foreign memory is away
/// and the mirror has not heard of it, nothing of anybody else's is there.
const ARENA: u64 = 0x1000_0000_0000;
/// Threads that change memory.
const THREADS: u64 = 2;
/// What the next owner of memory writes there.
const GUARD: u8 = 0xa5;

fn seconds() -> u64 {
    std::env::var("PEERDMA_MIRROR_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(10)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn slot(thread: u64, number: u64) -> ProcVa {
    ProcVa::new(ARENA + (thread * (SLOTS + 1) + number) * 2 * PAGES * PAGE)
}

/// What was done, and what the accelerator did meanwhile.
#[derive(Default)]
struct Tally {
    commands: AtomicU64,
    done: AtomicU64,
    refused: AtomicU64,
    given_away: AtomicU64,
    forks: AtomicU64,
}

/// Memory in a slot.
enum Held {
    Foreign(Foreign),
    Owned(Owned<ProcessTable>),
}

/// One thread that changes memory.
struct Changer<'a> {
    thread: u64,
    mirror: &'a Mirror<ProcessTable>,
    tally: &'a Tally,
    random: fastrand::Rng,
    slots: Vec<Option<Held>>,
    /// The slot that nothing is in.
    empty: u64,
    place: Vec<u64>,
}

impl<'a> Changer<'a> {
    fn new(thread: u64, mirror: &'a Mirror<ProcessTable>, tally: &'a Tally, seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed ^ thread);
        let slots = (0..SLOTS).map(|_| None).collect();
        Self { thread, mirror, tally, random, slots, empty: SLOTS, place: (0..SLOTS).collect() }
    }

    fn step(&mut self) {
        let number = self.random.usize(..self.slots.len());
        let at = slot(self.thread, self.place[number]);
        let Some(held) = self.slots[number].take() else {
            let size = Bytes::new(PAGES * PAGE);
            self.slots[number] = Some(if self.random.bool() {
                Held::Owned(self.mirror.create_at(at, size).unwrap())
            } else {
                let foreign = Foreign::map(Some(at), size).unwrap();
                self.mirror.watch(foreign.at(), Prot::ReadWrite).unwrap();
                Held::Foreign(foreign)
            });
            return;
        };
        self.slots[number] = match held {
            Held::Foreign(foreign) => self.change_foreign(number, foreign).map(Held::Foreign),
            Held::Owned(owned) => self.change_owned(number, owned).map(Held::Owned),
        };
    }

    fn some_pages(&mut self, of: AddrRange<ProcVa>) -> AddrRange<ProcVa> {
        let first = self.random.u64(..PAGES);
        let count = 1 + self.random.u64(..PAGES - first);
        of.slice(Bytes::new(first * PAGE), Bytes::new(count * PAGE)).unwrap()
    }

    fn change_foreign(&mut self, number: usize, mut foreign: Foreign) -> Option<Foreign> {
        let at = foreign.at();
        match self.random.u8(..10) {
            0..3 => {
                drop(foreign);
                self.guard(at);
                return None;
            }
            3..6 => foreign.discard(self.some_pages(at)).unwrap(),
            6..8 => {
                foreign.remap(slot(self.thread, self.empty)).unwrap();
                self.moved(number);
                self.guard(at);
            }
            _ => self.fork(),
        }
        Some(foreign)
    }

    fn change_owned(&mut self, number: usize, mut owned: Owned<ProcessTable>) -> Option<Owned<ProcessTable>> {
        let at = owned.range();
        match self.random.u8(..10) {
            0..3 => {
                owned.unmap(soon()).unwrap();
                self.guard(at);
                return None;
            }
            3..5 => owned.discard(self.some_pages(at), soon()).unwrap(),
            5..7 => {
                owned.remap(Some(slot(self.thread, self.empty)), at.len(), soon()).unwrap();
                self.moved(number);
                self.guard(at);
            }
            7 => self.fork(),
            _ => self.close(&owned),
        }
        Some(owned)
    }

    fn moved(&mut self, number: usize) {
        std::mem::swap(&mut self.place[number], &mut self.empty);
    }

    /// Closed memory keeps what stands there until it is opened again.
    fn close(&mut self, owned: &Owned<ProcessTable>) {
        let at = self.some_pages(owned.range());
        owned.protect(at, Some(Prot::Read), soon()).unwrap();
        let mut before = vec![0; at.len().as_u64() as usize];
        owned.read(at.start(), &mut before).unwrap();
        self.let_the_device_get_on();
        let mut after = vec![0; before.len()];
        owned.read(at.start(), &mut after).unwrap();
        assert!(before == after, "the device wrote to what its owner had closed");
        owned.protect(at, Some(Prot::ReadWrite), soon()).unwrap();
    }

    /// Somebody else has the addresses now.
    fn guard(&mut self, at: AddrRange<ProcVa>) {
        let next = Foreign::map(Some(at.start()), at.len()).unwrap();
        let pattern = vec![GUARD; at.len().as_u64() as usize];
        next.write(at.start(), &pattern).unwrap();
        self.let_the_device_get_on();
        let mut found = vec![0; pattern.len()];
        next.read(at.start(), &mut found).unwrap();
        let changed = found.iter().position(|byte| *byte != GUARD);
        assert_eq!(changed, None, "the device wrote to memory that the process had given away at {at}");
        self.tally.given_away.fetch_add(1, Ordering::Relaxed);
    }

    fn let_the_device_get_on(&self) {
        let before = self.tally.commands.load(Ordering::Acquire);
        let until = soon();
        while self.tally.commands.load(Ordering::Acquire) < before + 4 {
            assert!(Instant::now() < until, "the accelerator does not get on");
            thread::sleep(Duration::from_micros(100));
        }
    }

    /// A child with a copy of everything. A user that is named has the standard library fork, and not share memory.
    fn fork(&self) {
        let mut command = Command::new("true");
        command.uid(rustix::process::geteuid().as_raw());
        assert!(command.status().unwrap().success());
        self.tally.forks.fetch_add(1, Ordering::Relaxed);
    }
}

/// Some address in some slot.
fn anywhere(random: &mut fastrand::Rng) -> BusAddr {
    let at = slot(random.u64(..THREADS), random.u64(..=SLOTS)).as_u64();
    BusAddr::new(at + random.u64(..PAGES * PAGE) / 8 * 8)
}

fn command(random: &mut fastrand::Rng) -> Operation {
    match random.bool() {
        true => Operation::Store { to: anywhere(random), value: random.u64(..) },
        false => {
            let len = Bytes::new(1 + random.u64(..2 * PAGE));
            Operation::Copy { from: anywhere(random), to: anywhere(random), len }
        }
    }
}

/// Drives the accelerator until it is over; every command ends, one way or the other.
fn drive(bench: &Bench, rings: AddrRange<ProcVa>, tally: &Tally, seed: u64, over: &AtomicBool) {
    // A driver that fails ends it for those who change memory too.
    let _stop = Stop(over);
    let seat = bench.kernel.seat(bench.node).unwrap();
    let registers = bench.registers(&seat);
    let mut driver = open(&registers, 0, 1, Arc::new(Own), rings);
    let mut random = fastrand::Rng::with_seed(seed);
    while !over.load(Ordering::Acquire) {
        registers.renew();
        match driver.run(command(&mut random)) {
            Ok(_) => tally.done.fetch_add(1, Ordering::Relaxed),
            Err(CallError::Failed { .. }) => tally.refused.fetch_add(1, Ordering::Relaxed),
            Err(error) => unreachable!("a wake-up was lost: {error}"),
        };
        tally.commands.fetch_add(1, Ordering::Release);
    }
}

#[test]
fn no_byte_lands_in_memory_that_was_given_away_and_no_command_waits_for_good() {
    let end = Instant::now() + Duration::from_secs(seconds());
    let first: u64 = std::env::var("PEERDMA_MIRROR_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let tally = Tally::default();
    // Machines in turn, whose writes arrive at once or wait in queues.
    for (seed, delivery) in (first..).zip([Delivery::AtOnce, Delivery::Queued].into_iter().cycle()) {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        let half = (Instant::now() + left.min(Duration::from_secs(5))).min(end);
        churn(delivery, seed, half, &tally);
    }
    let [commands, done, refused, given_away, forks] =
        [&tally.commands, &tally.done, &tally.refused, &tally.given_away, &tally.forks]
            .map(|count| count.load(Ordering::Relaxed));
    let line = format!(
        "churn: {commands} commands, {done} done, {refused} refused; given away {given_away} times, {forks} forks"
    );
    let _ = writeln!(std::io::stdout(), "{line}");
    assert!(done > 0 && refused > 0 && given_away > 0 && forks > 0, "{line}");
}

fn churn(delivery: Delivery, seed: u64, end: Instant, tally: &Tally) {
    let bench = Bench::new(delivery, seed);
    let mirror = Mirror::new(bench.table(1, Arc::new(Own), 1024)).unwrap();
    let rings = mirror.create(Bytes::new(PAGE)).unwrap();
    let (over, stopped) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let stop = Stop(&over);
        let server = scope.spawn(|| bench.serve(&mirror, &over));
        let device = scope.spawn(|| bench.run(&mirror, &over));
        // Stops before those whom it waits for, also when it fails.
        let driver = {
            let (bench, range, stopped, tally) = (&bench, rings.range(), &stopped, &tally);
            scope.spawn(move || drive(bench, range, tally, seed, stopped))
        };
        let changers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (mirror, stopped) = (&mirror, &stopped);
                scope.spawn(move || {
                    let mut changer = Changer::new(thread, mirror, tally, seed);
                    while Instant::now() < end && !stopped.load(Ordering::Acquire) {
                        changer.step();
                    }
                })
            })
            .collect();
        let changed: Vec<_> = changers.into_iter().map(|changer| changer.join()).collect();
        stopped.store(true, Ordering::Release);
        let drove = driver.join();
        drop(stop);
        server.join().unwrap();
        device.join().unwrap();
        drove.unwrap();
        changed.into_iter().for_each(|changed| changed.unwrap());
    });
    assert_eq!(mirror.counts().requests_in_pinned, 0);
}
