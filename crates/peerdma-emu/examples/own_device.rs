//! A device of one's own: it sums the bytes of a buffer, and then rings a peer's doorbell.

use peerdma::addr::{BusAddr, Bytes};
use peerdma_emu::device::{Bus, Device, How, Layout, Mmio, Progress, Registers};
use peerdma_emu::{host::Kernel, machine::Builder, platform::Platform};
use std::sync::Arc;

const SOURCE: Bytes = Bytes::new(0x00);
const LENGTH: Bytes = Bytes::new(0x08);
const DOORBELL: Bytes = Bytes::new(0x10);
const START: Bytes = Bytes::new(0x18);

/// Its registers lie in BAR0; a write to `START` sums `LENGTH` bytes from `SOURCE` on, and the
/// sum is written to `DOORBELL`, wherever that leads.
struct Checksum(Arc<Registers>);

impl Device for Checksum {
    fn layout(&self) -> Layout {
        Layout::new().registers(0, Bytes::ZERO, &self.0)
    }

    fn step(&mut self, bus: &mut dyn Bus) -> Progress {
        let Some(write) = bus.next_write() else { return Progress::Idle };
        if write.offset == START {
            // A hostile driver asks for any length: the device has a buffer of 64 KiB and no more.
            let mut buffer = vec![0; self.0.get(LENGTH).min(0x1_0000) as usize];
            let sum = match bus.read(How::default(), BusAddr::new(self.0.get(SOURCE)), &mut buffer) {
                Ok(()) => buffer.iter().map(|byte| u64::from(*byte)).sum(),
                Err(_) => u64::MAX,
            };
            // Posted: whether it arrives nobody is told.
            let _ = bus.write(How::default(), BusAddr::new(self.0.get(DOORBELL)), &sum.to_le_bytes());
        }
        Progress::Working
    }

    fn reset(&mut self) {
        [SOURCE, LENGTH, DOORBELL, START].iter().for_each(|register| self.0.set(*register, 0));
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let text = Platform::built_in_text("client").unwrap_or_default().replace("\"translated\"", "\"identity\"");
    let platform = Platform::parse(&text, "client")?;
    let own = Checksum(Arc::new(Registers::new(Bytes::new(0x20))));
    let machine = Arc::new(Builder::new(&platform).device("nvme0", Box::new(own)).build()?);
    let kernel = Kernel::boot(machine.clone(), &platform);
    let at = kernel.allocate(Bytes::new(0x1000))?.range().start();
    machine.cpu().store(at, &[3; 100]);
    let device = kernel.seat(machine.named("nvme0").ok_or("no such function")?)?;
    for (register, value) in [(SOURCE, at.as_u64()), (LENGTH, 100), (DOORBELL, at.as_u64() + 0x800), (START, 1)] {
        device.store(0, register, value, 8);
    }
    machine.settle(1000);
    let mut sum = [0; 8];
    machine.cpu().load(at.checked_add(Bytes::new(0x800)).ok_or("past the end")?, &mut sum);
    println!("sum: {}", u64::from_le_bytes(sum));
    Ok(())
}
