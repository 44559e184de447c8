//! Memory of a process outside of the machine, from which a device is to be kept.

use peerdma::access::Prot;
use peerdma::addr::{AddrRange, BusAddr, Bytes, ProcVa};
use peerdma::mirror::DeviceTable;
use peerdma_emu::device::accel::{Driver, Operation};
use peerdma_emu::device::channel::Queue;
use peerdma_emu::device::{Mmio, Shared};
use peerdma_emu::host::{Kernel, ProcessTable};
use peerdma_emu::machine::{Builder, Delivery};
use peerdma_emu::memory::{Gone, LentRam, ProcessMemory, ProcessRange};
use peerdma_emu::platform::Platform;
use peerdma_emu::wire::Pasid;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

const MACHINE: &str = include_str!("../../src/scenario/accelerator.toml");

const RINGS: u64 = 0x6000_0000;
const HEAP: u64 = 0x6000_1000;
const PAGE: u64 = 0x1000;

/// Two pages, and how often the device wrote to the second: before it was given away and after.
#[derive(Debug)]
struct Process {
    bytes: Mutex<Vec<u8>>,
    given_away: AtomicBool,
    before: AtomicU64,
    after: AtomicU64,
}

impl ProcessMemory for Process {
    fn read(&self, at: ProcVa, into: &mut [u8]) -> Result<(), Gone> {
        let from = (at.as_u64() - RINGS) as usize;
        into.copy_from_slice(&self.bytes.lock().unwrap()[from..from + into.len()]);
        Ok(())
    }

    fn write(&self, at: ProcVa, from: &[u8]) -> Result<(), Gone> {
        if at.as_u64() >= HEAP {
            let when = if self.given_away.load(Ordering::SeqCst) { &self.after } else { &self.before };
            when.fetch_add(1, Ordering::SeqCst);
        }
        let to = (at.as_u64() - RINGS) as usize;
        self.bytes.lock().unwrap()[to..to + from.len()].copy_from_slice(from);
        Ok(())
    }
}

/// How often the device wrote to the page before it was given away, and after, if that happens after so many steps.
fn given_away_after(steps: usize) -> (u64, u64) {
    let platform = Platform::parse(MACHINE, "accelerator.toml").unwrap();
    let ram = LentRam::default();
    let builder = Builder::new(&platform).seed(1).delivery(Delivery::Queued);
    let machine = builder.ram_behind(|range, memory| ram.behind(range, memory)).build().unwrap();
    let node = machine.named("accel0").unwrap();
    let kernel = Kernel::boot(Arc::new(machine), &platform);
    let seat = kernel.seat(node).unwrap();
    let process = Arc::new(Process {
        bytes: Mutex::new(vec![0; 2 * PAGE as usize]),
        given_away: AtomicBool::new(false),
        before: AtomicU64::new(0),
        after: AtomicU64::new(0),
    });
    let pasid = Pasid::new(3).unwrap();
    let mut table = ProcessTable::new(&kernel, node, pasid, ram, process.clone(), 16).unwrap();
    let range = |start| AddrRange::new(ProcVa::new(start), Bytes::new(PAGE)).unwrap();
    assert!(table.map(range(RINGS), Prot::ReadWrite) && table.map(range(HEAP), Prot::ReadWrite));

    let rings = Arc::new(ProcessRange::new(process.clone(), range(RINGS)));
    let shared = Shared::new(rings, Bytes::ZERO, Bytes::new(PAGE), BusAddr::new(RINGS)).unwrap();
    let queue = Queue { pasid: Some(pasid), ..Queue::new(shared) };
    let mut driver = Driver::open(&seat, 0, queue).unwrap();
    driver.submit(Operation::Store { to: BusAddr::new(HEAP + 8), value: 7 }).unwrap();
    (0..steps).for_each(|_| _ = kernel.machine().step());

    table.quiesce();
    process.given_away.store(true, Ordering::SeqCst);
    // A processor that reads from the device pushes what is on its way; taking the page out does as well.
    seat.load(0, Bytes::ZERO, 4);
    table.unmap(range(HEAP));
    (process.before.load(Ordering::SeqCst), process.after.load(Ordering::SeqCst))
}

/// A write that had left the device and waited on its way up arrived in what the process had there by then.
#[test]
fn a_device_that_is_quiet_has_nothing_on_its_way() {
    let seen: Vec<(u64, u64)> = (0..60).map(given_away_after).collect();
    assert!(seen.iter().all(|(_, after)| *after == 0), "{seen:?}");
    assert!(seen.iter().any(|(before, _)| *before > 0), "the device gets to write at all: {seen:?}");
}
