//! The device, open and shared: what the owner does with it.

use super::LONG;
use super::child::Other;
use crate::checks::{MEMORY_BAR, PAGE, Stop, USED, Via, equal, pattern};
use peerdma::access::{MemAttrs, Prot};
use peerdma::addr::{AddrRange, Bytes, Iova};
use peerdma::buffer::terms::Declaration;
use peerdma::dma::{self, OwnerId, Permit, Source};
use peerdma::pcie::PciAddr;
use peerdma_linux::edu::Edu;
use peerdma_linux::engine::{Engine, EngineError};
use peerdma_linux::memory::Pages;
use peerdma_linux::share::{Bar, Exporter, Listener, Shared};
use peerdma_linux::vfio::shared::{CpuWindow, DmaImport, ImportRoute, Need};
use peerdma_linux::vfio::{BarIndex, BarMapping, BarRange, Command, SharedDevice, VfioDevice};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// Where the engine finds what it sends, and the target's memory.
const STAGING: u64 = 0x1_0000_0000;
const TARGET: u64 = 0x2_0000_0000;

/// In the shared memory: the guest's counter, what a process that holds on writes, where the engine writes, and what is the
/// owner's alone.
const COUNTER: Bytes = Bytes::ZERO;
pub(super) const HOGS: Bytes = Bytes::new(2048);
const ENGINES: Bytes = PAGE;
const OWN: usize = 4096;

/// What the engine sends, again and again.
const SENT: u64 = 1;

/// Whose memory it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub(super) function: PciAddr,
    pub(super) bar: u8,
    /// Whether it is the persistent memory region of a drive, which answers when it was enabled (NVMe 2.0 §3.1.4.22).
    pub(super) is_persistent: bool,
}

impl Target {
    /// The BAR 2 of an `ivshmem-plain`.
    pub(super) fn memory(function: PciAddr) -> Self {
        Self { function, bar: MEMORY_BAR, is_persistent: false }
    }

    /// The BAR 4 of a drive of QEMU's with a `pmrdev`.
    pub(super) fn drive(function: PciAddr) -> Self {
        Self { function, bar: 4, is_persistent: true }
    }

    /// The part of its memory that is shared.
    pub(super) fn used(&self) -> Result<BarRange, Stop> {
        range(self.bar, USED)
    }
}

/// A drive's PMRCTL with its enable bit, and PMRSTS with the bit that says that it is not ready.
const PMRCTL: Bytes = Bytes::new(0xe04);
const ENABLE: u32 = 1;
const PMRSTS: Bytes = Bytes::new(0xe08);
const NOT_READY: u32 = 1 << 8;

/// Everything of the owner's. Fields are dropped in this order: what uses the device before what shares it.
pub(super) struct Owner<S: Via> {
    pub(super) vmm: Other,
    /// `None` while the device is closed.
    open: Option<Open<S>>,
    engine: Edu,
    _staging: Pages,
    space: Arc<Mutex<S>>,
    pub(super) edu: PciAddr,
    pub(super) target: Target,
    socket: PathBuf,
    /// How often the memory was marked, so that no two marks are the same.
    marks: u64,
}

/// The device while it is open.
pub(super) struct Open<S: Via> {
    pub(super) window: CpuWindow<VfioDevice>,
    pub(super) import: DmaImport<S, VfioDevice>,
    pub(super) exporter: Exporter<Bar>,
    pub(super) device: SharedDevice,
}

impl<S: Via> Owner<S> {
    pub(super) fn open(edu: PciAddr, target: Target) -> Result<Self, Stop> {
        let mut space = S::open(&[edu, target.function])?;
        let initiator = space.take(edu, true)?;
        let staging = Pages::zeroed(PAGE)?;
        staging.write(Bytes::ZERO, &pattern(SENT, OWN))?;
        let iova = AddrRange::new(Iova::new(STAGING), PAGE).ok_or_else(|| Stop::broken("the staging IOVA wraps"))?;
        space.map(iova, &Source::Process(staging.address()), Prot::ReadWrite, MemAttrs::empty())?;
        let mut engine = Edu::new(initiator)?;
        // It keeps this in its buffer from now on.
        engine.fetch(Iova::new(STAGING), PAGE)?;
        let socket = std::env::temp_dir().join(format!("trio-{}", std::process::id()));
        let vmm = Other::start("vmm", &socket)?;
        let space = Arc::new(Mutex::new(space));
        let mut owner = Self { vmm, open: None, engine, _staging: staging, space, edu, target, socket, marks: 0 };
        owner.export()?;
        Ok(owner)
    }

    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(super) fn now(&mut self) -> Result<&mut Open<S>, Stop> {
        self.open.as_mut().ok_or_else(|| Stop::broken("the device is closed"))
    }

    /// Opens the device, and nothing else.
    pub(super) fn device(&mut self) -> Result<SharedDevice, Stop> {
        let opened = self.space.lock().unwrap_or_else(PoisonError::into_inner).take(self.target.function, false)?;
        opened.set_command(Command::MEMORY)?;
        if self.target.is_persistent {
            enable(&opened)?;
        }
        Ok(SharedDevice::new(opened)?)
    }

    /// Opens the device and shares its memory; the virtual machine's process has not attached.
    fn export(&mut self) -> Result<(), Stop> {
        let device = self.device()?;
        self.share(device)
    }

    pub(super) fn share(&mut self, device: SharedDevice) -> Result<(), Stop> {
        let owner = dma::Owner::Device(OwnerId::new(1));
        let exporter = Exporter::of_bar(
            Listener::bind(&self.socket)?,
            &device,
            self.target.used()?,
            owner,
            Shared::named("memory"),
        )?;
        let iova = AddrRange::new(Iova::new(TARGET), USED).ok_or_else(|| Stop::broken("the target's IOVA wraps"))?;
        let tables = (Declaration::of_tables("the engine's tables", Prot::ReadWrite), Prot::ReadWrite);
        let (of, space) = (exporter.exported(), self.space.clone());
        let route = ImportRoute::Permitted(Permit::vouched(Prot::ReadWrite));
        let import = DmaImport::attach("engine", of, space, iova, tables, route, Need::Required, ())?;
        let window = device.window("owner", self.target.used()?)?;
        self.open = Some(Open { window, import, exporter, device });
        Ok(())
    }

    /// Has the virtual machine's process attach, and its guest run.
    pub(super) fn joined(&mut self) -> Result<(), Stop> {
        self.vmm.tell("attach")?;
        self.serve_until("the virtual machine's process has mapped it", |open| open.mappings() == 1)?;
        self.vmm.says("runs")?;
        self.goes_on(0)?;
        self.mark()?;
        self.arrives()
    }

    /// Lets go of everything of the device.
    pub(super) fn close(&mut self) {
        self.open = None;
    }

    pub(super) fn serve_until(&mut self, what: &str, is_so: impl Fn(&Open<S>) -> bool) -> Result<(), Stop> {
        let until = Instant::now() + LONG;
        let Some(open) = self.open.as_mut() else { return Err(Stop::broken("the device is closed")) };
        while !is_so(open) {
            if Instant::now() > until {
                let (exporter, does) = (&open.exporter, self.vmm.does());
                return Err(Stop::broken(format!("it does not come to pass that {what}; {exporter:?}; {does}")));
            }
            open.exporter.serve(until)?;
        }
        Ok(())
    }

    /// Fills all but the guest's page with bytes that were never there before.
    pub(super) fn mark(&mut self) -> Result<(), Stop> {
        self.marks += 1;
        let mark = self.marked();
        Ok(self.now()?.window.write(ENGINES, &mark)?)
    }

    /// What [`mark`](Self::mark) wrote last.
    pub(super) fn marked(&self) -> Vec<u8> {
        pattern(SENT + self.marks, USED.as_u64() as usize - OWN)
    }

    /// The engine writes to the memory's second page, wherever that is for it, and says nothing of what came of it.
    pub(super) fn send(&mut self) -> Result<(), Stop> {
        Ok(self.engine.store(Iova::new(TARGET + ENGINES.as_u64()), PAGE)?)
    }

    /// Has the engine write to the memory without a pause while `what` goes on, from before it until after it.
    pub(super) fn sending_meanwhile<R>(&mut self, what: impl FnOnce() -> R) -> Result<R, Stop> {
        let (engine, is_over) = (&mut self.engine, AtomicBool::new(false));
        let (sender, has_begun) = mpsc::channel();
        thread::scope(|scope| {
            let sends = || -> Result<(), EngineError> {
                while !is_over.load(Ordering::Relaxed) {
                    // Nobody waits for the second.
                    let _ = sender.send(());
                    engine.store(Iova::new(TARGET + ENGINES.as_u64()), PAGE)?;
                }
                Ok(())
            };
            let sending = scope.spawn(sends);
            let begun = has_begun.recv_timeout(LONG);
            let outcome = begun.map(|()| what());
            is_over.store(true, Ordering::Relaxed);
            match sending.join() {
                Ok(sent) => sent?,
                Err(_) => return Err(Stop::broken("the thread that sends panicked")),
            }
            outcome.map_err(|_| Stop::broken("the engine does not begin to write"))
        })
    }

    /// Breaks the claim unless a write of the engine arrives, and changes nothing beside.
    pub(super) fn arrives(&mut self) -> Result<(), Stop> {
        self.send()?;
        let mut expected = self.marked();
        expected[..OWN].copy_from_slice(&pattern(SENT, OWN));
        let mut seen = vec![0; expected.len()];
        self.now()?.window.read(ENGINES, &mut seen)?;
        equal("whether what the engine wrote is there, and nothing beside it", &true, &(seen == expected))
    }

    /// Waits until the guest has stored twice since it stored `held`.
    pub(super) fn goes_on(&mut self, held: u32) -> Result<(), Stop> {
        let until = Instant::now() + LONG;
        let window = &mut self.now()?.window;
        while window.load_u32(COUNTER)?.wrapping_sub(held) < 2 {
            if Instant::now() > until {
                return Err(Stop::broken(format!("the guest does not go on from {held}")));
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

impl<S: Via> Open<S> {
    /// Mappings of other processes.
    pub(super) fn mappings(&self) -> u32 {
        self.exporter.importers().map(|importer| importer.mappings).sum()
    }

    /// Mappings of the process that calls itself so.
    pub(super) fn mappings_of(&self, name: &str) -> u32 {
        self.exporter.importers().filter(|importer| importer.name == name).map(|importer| importer.mappings).sum()
    }
}

/// The memory through a mapping that nobody is told of, for who knows that it answers.
pub(super) fn back_door(device: &SharedDevice, target: Target) -> Result<BarMapping, Stop> {
    let mapped = device.with(|function| function.map(target.used()?).map_err(Stop::from));
    mapped.ok_or_else(|| Stop::broken("the device is closed"))?
}

/// All bytes behind it.
pub(super) fn bytes(door: &BarMapping) -> Result<Vec<u8>, Stop> {
    let mut seen = vec![0; USED.as_u64() as usize];
    door.read(Bytes::ZERO, &mut seen)?;
    Ok(seen)
}

/// The guest's counter in these bytes, and the rest that is marked.
pub(super) fn counter_and_mark(bytes: &[u8]) -> Result<(u32, &[u8]), Stop> {
    let counter = bytes.first_chunk::<4>().map(|word| u32::from_le_bytes(*word));
    counter.zip(bytes.get(OWN..)).ok_or_else(|| Stop::broken("fewer bytes than a page"))
}

/// Has a drive's persistent memory answer.
fn enable(drive: &VfioDevice) -> Result<(), Stop> {
    let registers = drive.map(range(0, PAGE)?)?;
    registers.store_u32(PMRCTL, ENABLE)?;
    let until = Instant::now() + LONG;
    while registers.load_u32(PMRSTS)? & NOT_READY != 0 {
        if Instant::now() > until {
            return Err(Stop::broken("the drive's persistent memory does not become ready"));
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn range(bar: u8, len: Bytes) -> Result<BarRange, Stop> {
    let range = BarIndex::new(bar).and_then(|bar| BarRange::new(bar, Bytes::ZERO, len));
    range.ok_or_else(|| Stop::broken("the range does not exist"))
}
