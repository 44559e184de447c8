//! A device whose memory others use, through everything that is done to it.
//!
//! The kernel takes a BAR away when its function is reset, put to sleep, switched off or closed, and tells nobody in user
//! space (Linux 7.2 `vfio_pci_dma_buf_move`); type1 does not even take it away. So whoever does something to a device
//! does it here, in one order:
//!
//! ```text
//! announce ─ importers are told ─ wait ─ importers have let go, CPU windows are shut ─ act ─ registers are read ─ done
//!            └ buffers of the BARs          └ DMA unmapped, then the address                └ importers map anew, windows open
//! ```
//!
//! - [`SharedDevice`]: the device, its BARs as [`Bar`]s of buffers. [`Deed`]: what is done to it.
//! - [`DmaImport`]: a buffer in an address space, which lets go and comes back by itself.
//! - [`CpuWindow`]: a buffer in the CPU's reach; an access while the memory does not answer is an error and no SIGBUS.
//! - [`GuestBars`]: where a guest sees the BARs, and all that moves with their registers.
//!
//! What another holder of the same device does behind this one's back is not seen: a descriptor is for one driver.
//!
//! Lock order: a deed's turn, then what belongs to one import or window, then a buffer's, under which nobody is called: under an import's
//! lock its buffer is asked how it stands, and told nothing.
//!
//! Not here: KVM slots, which are importers of their own; other processes ([`crate::share`]).

mod deed;
mod deed_error;
mod door;
mod exported;
mod function;
mod import;
mod import_error;
mod import_state;
mod placing;
#[cfg(test)]
mod tests;
mod window;

pub use deed::{Announced, Deed, Outcome, Quiet};
pub use deed_error::DeedError;
pub use exported::{Exported, ShareError};
pub use function::Function;
pub use import::DmaImport;
pub use import_error::ImportError;
pub use import_state::{ImportReport, ImportRoute, ImportState, Need, Quiesce};
pub use placing::{GuestBars, Placed, PlacingError};
pub use window::{CpuWindow, WindowError};

use super::device::VfioDevice;
use deed::Turn;
use door::Door;
use import_state::Reports;
use peerdma::buffer::config_write::Target;
use peerdma::buffer::life::Answers;
use peerdma::buffer::shared::{Bar, Buffer};
use peerdma::pcie::PciAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

/// A device whose BARs are buffers. Handles are cheap to clone and all the same device.
///
/// # What holding this tells you
/// As long as everything is done to the device through [`perform`](Self::perform), nobody who imported one of its buffers
/// reaches memory that does not answer.
///
/// # Examples
/// ```no_run
/// use peerdma::addr::Bytes;
/// use peerdma::dma::{Owner, OwnerId};
/// use peerdma_linux::type1::Type1Space;
/// use peerdma_linux::vfio::{BarIndex, BarRange, Deed, Nodes, SharedDevice};
/// use std::time::Duration;
///
/// let address = "0000:06:00.0".parse()?;
/// let space = Type1Space::open(&Nodes::live(), &[address])?;
/// let device = SharedDevice::new(space.device(address)?)?;
/// let bar = BarIndex::new(2).ok_or("no such BAR")?;
/// let range = BarRange::new(bar, Bytes::ZERO, Bytes::new(1 << 20)).ok_or("no range")?;
/// let frames = device.export("frames", range, Owner::Device(OwnerId::new(1)))?;
/// let mut window = device.window("painter", range)?;
/// window.write(Bytes::ZERO, &[1, 2, 3])?;
///
/// let outcome = device.perform(Deed::Reset, Duration::from_secs(1))?;
/// println!("{} is {}, {} imports are not back", frames.buffer().name(), frames.buffer().phase(), outcome.unrestored.len());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SharedDevice<F: Function = VfioDevice>(Arc<Inner<F>>);

struct Inner<F> {
    address: PciAddr,
    is_virtual: bool,
    /// `None` once it is closed or gone.
    function: RwLock<Option<F>>,
    bars: [Bar; 6],
    turn: Turn,
    door: Door,
    /// Whether the kernel was told to let it sleep.
    asleep: Mutex<bool>,
    windows: Mutex<Vec<window::WeakMapping>>,
    imports: Mutex<Vec<Weak<dyn Reports>>>,
}

impl<F: Function> SharedDevice<F> {
    /// Takes an open device; its config space is read once.
    ///
    /// # Errors
    /// [`ConfigError`](super::ConfigError) where it does not answer.
    pub fn new(function: F) -> Result<Self, super::ConfigError> {
        Self::of(function, false)
    }

    /// The same of a virtual function, whose memory answers whatever its Command register says.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn of_virtual_function(function: F) -> Result<Self, super::ConfigError> {
        Self::of(function, true)
    }

    fn of(function: F, is_virtual: bool) -> Result<Self, super::ConfigError> {
        let answers = answers(&function, is_virtual)?;
        Ok(Self(Arc::new(Inner {
            address: function.address(),
            is_virtual,
            function: RwLock::new(Some(function)),
            bars: std::array::from_fn(|_| Bar::new(answers)),
            turn: Turn::default(),
            door: Door::new(answers == Answers::YES),
            asleep: Mutex::new(false),
            windows: Mutex::default(),
            imports: Mutex::default(),
        })))
    }

    /// Its address.
    pub fn address(&self) -> PciAddr {
        self.0.address
    }

    /// Lends the device, for what disturbs nobody: interrupts, reading registers. `None` once it is closed.
    pub fn with<R>(&self, use_it: impl FnOnce(&F) -> R) -> Option<R> {
        self.0.function.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(use_it)
    }

    /// Every buffer of the device that somebody still has.
    pub fn buffers(&self) -> Vec<Buffer> {
        self.0.bars.iter().flat_map(Bar::buffers).collect()
    }

    /// How each import of its memory stands.
    pub fn imports(&self) -> Vec<ImportReport> {
        let imports = lock(&self.0.imports);
        imports.iter().filter_map(Weak::upgrade).map(|import| import.report()).collect()
    }

    fn remember(&self, import: Weak<dyn Reports>) {
        let mut imports = lock(&self.0.imports);
        imports.retain(|import| import.strong_count() > 0);
        imports.push(import);
    }
}

/// Whether the memory answers, as the registers say; one that is gone reads as all ones and does not.
fn answers<F: Function>(function: &F, is_virtual: bool) -> Result<Answers, super::ConfigError> {
    const NO: Answers = Answers { decoding: false, powered: false };
    let config = function.config_space()?;
    let is_gone = config.bytes().starts_with(&[0xff; 4]);
    let target = Target { config: &config, is_virtual, bars: [None; 6], rom: None };
    // Power is unknown only where a capability lies past the bytes at hand, which hold all of them.
    Ok(target.answers().filter(|_| !is_gone).unwrap_or(NO))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<F: Function> Clone for SharedDevice<F> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<F: Function> std::fmt::Debug for SharedDevice<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, shared as {:?}", self.0.address, self.buffers())
    }
}
