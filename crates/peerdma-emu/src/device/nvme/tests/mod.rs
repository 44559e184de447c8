//! The drive on a flat bus, brought up and asked by its driver.

mod bring_up;
mod buffer;
mod hostile;
mod lists;
mod transfers;

use super::*;
use crate::device::{FlatDevice, Mmio, Shared};
use crate::memory::Striped;
use peerdma::addr::AddrRange;

/// Memory on the bus.
const RAM: u64 = 16 << 20;
/// Where tests put data.
const DATA: u64 = 1 << 20;
/// Bytes of the medium.
const MEDIUM: u64 = 9 << 20;

struct Machine {
    device: FlatDevice<Nvme>,
    ram: Arc<Striped>,
    medium: Arc<Striped>,
}

impl Machine {
    fn new(block: BlockSize) -> Self {
        Self::with(block, |drive| drive)
    }

    fn with(block: BlockSize, change: impl FnOnce(Nvme) -> Nvme) -> Self {
        let (ram, medium) = (Arc::new(Striped::new(Bytes::new(RAM))), Arc::new(Striped::new(Bytes::new(MEDIUM))));
        let drive = change(Nvme::new(Media::new(medium.clone(), block)));
        Self { device: FlatDevice::new(drive, ram.clone()), ram, medium }
    }

    fn shared(&self, at: u64, len: u64) -> Shared {
        Shared::new(self.ram.clone(), Bytes::new(at), Bytes::new(len), BusAddr::new(at)).unwrap()
    }

    /// Memory for queues of so many entries.
    fn queues(&self, at: u64, entries: u64) -> QueueMemory {
        let (submission, completion) = (self.shared(at, entries * 64), self.shared(at + 0x8000, entries * 16));
        QueueMemory { submission, completion }
    }

    /// A driver with one I/O queue, number 1.
    fn driver(&self) -> Driver<'_> {
        let admin = self.queues(0x1_0000, 32);
        let mut driver = Driver::bring_up(&self.device, admin, self.shared(0x4_0000, 0x4_0000)).unwrap();
        assert_eq!(driver.create_io_queue(self.queues(0x2_0000, 16), Some(1)), Ok(1));
        driver
    }

    fn fill(&self, at: u64, len: u64, seed: u64) -> Vec<u8> {
        let bytes = noise(len, seed);
        self.ram.write(Bytes::new(at), &bytes).unwrap();
        bytes
    }

    fn ram(&self, at: u64, len: u64) -> Vec<u8> {
        let mut bytes = vec![0; len as usize];
        self.ram.read(Bytes::new(at), &mut bytes).unwrap();
        bytes
    }

    fn medium(&self, at: u64, len: u64) -> Vec<u8> {
        let mut bytes = vec![0; len as usize];
        self.medium.read(Bytes::new(at), &mut bytes).unwrap();
        bytes
    }

    fn register(&self, at: Bytes) -> u64 {
        self.device.load(0, at, 4)
    }

    fn settle(&self) {
        assert!((0..10_000).any(|_| !self.device.pause()), "the drive never comes to rest");
    }
}

/// Bytes that repeat nowhere near (SplitMix64).
fn noise(len: u64, seed: u64) -> Vec<u8> {
    let word = |index: u64| {
        let mut word = (seed + index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ word >> 31).to_le_bytes()
    };
    (0..len.div_ceil(8)).flat_map(word).take(len as usize).collect()
}

fn range(at: u64, len: u64) -> AddrRange<BusAddr> {
    AddrRange::new(BusAddr::new(at), Bytes::new(len)).unwrap()
}

/// What a command that did not succeed ended with.
fn status<T: std::fmt::Debug>(result: Result<T, DriverError>) -> Status {
    match result {
        Err(DriverError::Status { status, .. }) => status,
        other => panic!("no status: {other:?}"),
    }
}
