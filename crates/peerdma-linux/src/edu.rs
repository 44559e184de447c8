//! QEMU's `edu` device as a DMA engine.
//!
//! A teaching device (`hw/misc/edu.c` and `docs/specs/edu.rst` of QEMU), which every QEMU for
//! x86 has: 1234:11e8, registers in BAR 0, a buffer of 4 KiB. It is the cheapest engine that
//! exists without hardware, with three habits to know:
//!
//! - A transfer starts 100 ms after it was told to, whatever its length.
//! - It reports completion also where the IOMMU stopped it. Compare the bytes.
//! - It cuts addresses to its `dma_mask`, a property that QEMU is told and nobody can read: 28
//!   bits by default. So IOVAs below 256 MiB are safe unless somebody narrowed it, and nothing
//!   higher is taken for safe.
//!
//! Not here: interrupts (completion is polled) and the factorial that it also computes.

use crate::engine::{Engine, EngineError};
use crate::vfio::{BarIndex, BarMapping, BarRange, Command, ConfigError, MapBarError, VfioDevice};
use peerdma::addr::{Bytes, Iova};
use peerdma::pcie::{PciAddr, PciId};
use std::sync::atomic::{Ordering, fence};
use std::thread;
use std::time::{Duration, Instant};

/// Identification register: `0xRRrr00ed`, version above.
const IDENTIFICATION: Bytes = Bytes::new(0x00);
/// Reads back the complement of what was written.
const LIVENESS: Bytes = Bytes::new(0x04);
const SOURCE: Bytes = Bytes::new(0x80);
const DESTINATION: Bytes = Bytes::new(0x88);
const COUNT: Bytes = Bytes::new(0x90);
const COMMAND: Bytes = Bytes::new(0x98);

const START: u64 = 0x1;
const TO_MEMORY: u64 = 0x2;

/// Where its buffer lies in its own addresses, which are not the BAR's.
const BUFFER: u64 = 0x4_0000;
const CAPACITY: Bytes = Bytes::new(4096);

/// A hundred times what it takes: machines without KVM stall for seconds under load.
const PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(2);
/// And so many looks. While all of an emulated machine stands still its clock goes on, and the first look afterwards comes
/// before the device was let go on.
const LOOKS: u32 = 500;

/// An open edu device.
///
/// Bus mastering is on while this lives and off afterwards.
#[derive(Debug)]
pub struct Edu {
    device: VfioDevice,
    registers: BarMapping,
    stopped: bool,
}

/// Why a device is not usable as an edu.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EduError {
    /// It has other IDs; name an edu device.
    #[error("{device} is {found}, not QEMU's edu device ({})", Edu::ID)]
    OtherDevice {
        /// The function.
        device: PciAddr,
        /// Its IDs.
        found: PciId,
    },
    /// It has the IDs, but its registers do not answer as edu's do.
    #[error("{device} has the IDs of edu but answers {found:#010x} where edu identifies itself")]
    NotAnEdu {
        /// The function.
        device: PciAddr,
        /// What was read.
        found: u32,
    },
    /// Its BAR cannot be mapped.
    #[error(transparent)]
    Map(#[from] MapBarError),
    /// Its config space does not answer.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Its registers do not answer.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl Edu {
    /// Its vendor and device ID.
    pub const ID: PciId = PciId { vendor: 0x1234, device: 0x11e8 };

    /// The highest IOVA of its default `dma_mask`.
    pub const HIGHEST: Iova = Iova::new((1 << 28) - 1);

    /// Takes an open device, checks that it is an edu, and lets it do DMA.
    ///
    /// # Errors
    /// [`EduError::OtherDevice`] and [`EduError::NotAnEdu`]: name another; the others say what
    /// does not answer.
    ///
    /// # Examples
    /// ```no_run
    /// use peerdma_linux::{edu::Edu, engine::Engine, type1::Type1Space, vfio::Nodes};
    ///
    /// let address = "0000:05:00.0".parse()?;
    /// let space = Type1Space::open(&Nodes::live(), &[address])?;
    /// let edu = Edu::new(space.device(address)?)?;
    /// println!("moves {} at a time", edu.capacity());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(device: VfioDevice) -> Result<Self, EduError> {
        let found = device.read_id()?;
        if found != Self::ID {
            return Err(EduError::OtherDevice { device: device.address(), found });
        }
        device.set_command(Command::MEMORY)?;
        let page = BarIndex::new(0).and_then(|bar| BarRange::new(bar, Bytes::ZERO, Bytes::new(4096)));
        let page = page.ok_or(EduError::NotAnEdu { device: device.address(), found: 0 })?;
        let registers = device.map(page)?;
        let identification = registers.load_u32(IDENTIFICATION).map_err(EngineError::from)?;
        if identification & 0xffff != 0x00ed {
            return Err(EduError::NotAnEdu { device: device.address(), found: identification });
        }
        let probe = 0x5eed_0000 | u32::from(device.address().routing_id());
        registers.store_u32(LIVENESS, probe).map_err(EngineError::from)?;
        let answer = registers.load_u32(LIVENESS).map_err(EngineError::from)?;
        if answer != !probe {
            return Err(EduError::NotAnEdu { device: device.address(), found: answer });
        }
        device.set_command(Command::BUS_MASTER)?;
        Ok(Self { device, registers, stopped: false })
    }

    /// The device, to look at it; it stays the engine's.
    pub fn device(&self) -> &VfioDevice {
        &self.device
    }

    fn transfer(&mut self, source: u64, destination: u64, len: Bytes, command: u64) -> Result<(), EngineError> {
        let device = self.device.address();
        if self.stopped {
            return Err(EngineError::Stopped { device });
        }
        if len == Bytes::ZERO || len > CAPACITY {
            return Err(EngineError::Length { device, len, capacity: CAPACITY });
        }
        let result = self.run(source, destination, len, command);
        if result.is_err() {
            // What it was told may still happen; without bus mastering it happens to nobody.
            self.stop();
        }
        result
    }

    fn run(&self, source: u64, destination: u64, len: Bytes, command: u64) -> Result<(), EngineError> {
        let registers = &self.registers;
        registers.store_u64(SOURCE, source)?;
        registers.store_u64(DESTINATION, destination)?;
        registers.store_u64(COUNT, len.as_u64())?;
        // What the CPU wrote to memory is there before the device looks, and what the device
        // wrote is not read before it said so.
        fence(Ordering::SeqCst);
        registers.store_u64(COMMAND, command | START)?;
        let (begun, mut looks) = (Instant::now(), 0);
        loop {
            let status = registers.load_u64(COMMAND)?;
            if status == u64::MAX {
                return Err(EngineError::Gone { device: self.device.address() });
            }
            if status & START == 0 {
                fence(Ordering::SeqCst);
                return Ok(());
            }
            let waited = begun.elapsed();
            looks += 1;
            if waited > PATIENCE && looks > LOOKS {
                return Err(EngineError::NotFinished { device: self.device.address(), waited });
            }
            thread::sleep(POLL);
        }
    }

    fn stop(&mut self) {
        self.stopped = true;
        // A device that does not answer does no DMA either.
        let _ = self.device.clear_command(Command::BUS_MASTER);
    }
}

impl Engine for Edu {
    fn capacity(&self) -> Bytes {
        CAPACITY
    }

    fn highest(&self) -> Iova {
        Self::HIGHEST
    }

    fn fetch(&mut self, from: Iova, len: Bytes) -> Result<(), EngineError> {
        self.transfer(from.as_u64(), BUFFER, len, 0)
    }

    fn store(&mut self, to: Iova, len: Bytes) -> Result<(), EngineError> {
        self.transfer(BUFFER, to.as_u64(), len, TO_MEMORY)
    }
}

impl Drop for Edu {
    fn drop(&mut self) {
        self.stop();
    }
}
