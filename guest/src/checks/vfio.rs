//! A device of VFIO whole, through the library's own checks: interrupts, and memory that others use while the device is
//! reset, switched off, put to sleep and closed.
//!
//! - [`interrupts`]: what arrives at eventfds. [`life`]: an engine that writes into memory which comes and goes.
//! - [`refused`]: what is refused by name before a kernel is asked.

mod interrupts;
mod life;
mod refused;

use super::asked::Asked;
use super::bench::{MEMORY_BAR, PAGE, USED, pattern};
use super::claim::{Claim, Stop, equal};
use super::worker::Worker;
use peerdma::access::{MemAttrs, Prot};
use peerdma::addr::{AddrRange, Bytes, Iova};
use peerdma::buffer::terms::Declaration;
use peerdma::dma::{IoSpace, Owner, OwnerId, Permit, Source};
use peerdma::pcie::PciAddr;
use peerdma_linux::edu::Edu;
use peerdma_linux::engine::Engine;
use peerdma_linux::iommufd::IommufdSpace;
use peerdma_linux::memory::Pages;
use peerdma_linux::type1::Type1Space;
use peerdma_linux::vfio::shared::{CpuWindow, DmaImport, Exported, ImportRoute, Need, Quiesce};
use peerdma_linux::vfio::{BarIndex, BarRange, Command, DeviceNode, Nodes, SharedDevice, ShownGroup, VfioDevice};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Longer than anything here takes under emulation.
const LONG: Duration = Duration::from_secs(30);
/// Where the engine's staging memory and the target's are mapped.
const STAGING: u64 = 0x1_0000_0000;
const TARGET: u64 = 0x2_0000_0000;

/// An address space, and how devices are opened for it.
pub(crate) trait Via: IoSpace<File = Arc<OwnedFd>> + Send + Sized + 'static {
    fn open(devices: &[PciAddr]) -> Result<Self, Stop>;
    fn take(&mut self, device: PciAddr, initiates: bool) -> Result<VfioDevice, Stop>;
    /// What a hot reset is shown.
    fn shown(&self) -> Vec<ShownGroup<'_>>;
}

impl Via for Type1Space {
    fn open(devices: &[PciAddr]) -> Result<Self, Stop> {
        Ok(Self::open(&Nodes::live(), devices)?)
    }

    fn take(&mut self, device: PciAddr, _: bool) -> Result<VfioDevice, Stop> {
        Ok(self.device(device)?)
    }

    fn shown(&self) -> Vec<ShownGroup<'_>> {
        self.groups().collect()
    }
}

impl Via for IommufdSpace {
    fn open(_: &[PciAddr]) -> Result<Self, Stop> {
        Ok(Self::open(&Nodes::live())?)
    }

    fn take(&mut self, device: PciAddr, initiates: bool) -> Result<VfioDevice, Stop> {
        let opened = self.bind(DeviceNode::open(&Nodes::live(), device)?)?;
        if initiates {
            self.attach(&opened)?;
        }
        Ok(opened)
    }

    fn shown(&self) -> Vec<ShownGroup<'_>> {
        Vec::new()
    }
}

/// An engine, a target whose memory is shared, a drive, and the space between them.
struct Tried<S> {
    space: Arc<Mutex<S>>,
    engine: Edu,
    staging: Pages,
    target: PciAddr,
    device: SharedDevice,
    nvme: VfioDevice,
    /// Another function below the same bridge as a third.
    pair: Option<(PciAddr, PciAddr)>,
    seed: u64,
}

pub(super) fn type1(asked: &Asked, worker: &mut Worker<'_>) {
    run::<Type1Space>(asked, worker);
}

pub(super) fn iommufd(asked: &Asked, worker: &mut Worker<'_>) {
    run::<IommufdSpace>(asked, worker);
}

fn run<S: Via>(asked: &Asked, worker: &mut Worker<'_>) {
    let (edu, target, nvme, pair) = (asked.edu, asked.target, asked.nvme, asked.bell.zip(asked.far));
    let mut claims = interrupts::claims();
    claims.extend(life::claims());
    claims.extend(refused::claims());
    let set_up = move || Tried::<S>::set_up(edu, target, nvme, pair);
    worker.claims(set_up, Tried::clear, claims);
}

impl<S: Via> Tried<S> {
    fn set_up(
        edu: Option<PciAddr>,
        target: Option<PciAddr>,
        nvme: Option<PciAddr>,
        pair: Option<(PciAddr, PciAddr)>,
    ) -> Result<Self, Stop> {
        let (Some(edu), Some(target), Some(nvme)) = (edu, target, nvme) else {
            return Err(Stop::broken("name an engine, a target and a drive with --edu, --target and --nvme"));
        };
        let mut space = S::open(&[edu, target, nvme])?;
        let initiator = space.take(edu, true)?;
        let (opened, nvme) = (space.take(target, false)?, space.take(nvme, false)?);
        let staging = Pages::zeroed(PAGE)?;
        let iova = AddrRange::new(Iova::new(STAGING), PAGE).ok_or_else(|| Stop::broken("the staging IOVA wraps"))?;
        space.map(iova, &Source::Process(staging.address()), Prot::ReadWrite, MemAttrs::empty())?;
        let device = shared(opened)?;
        let engine = Edu::new(initiator)?;
        Ok(Self { space: Arc::new(Mutex::new(space)), engine, staging, target, device, nvme, pair, seed: 0 })
    }

    /// Opens the target anew where a claim has closed it.
    fn clear(&mut self) -> Result<(), Stop> {
        if self.device.with(|_| ()).is_none() {
            let opened = self.space().take(self.target, false)?;
            self.device = shared(opened)?;
        }
        Ok(())
    }

    fn space(&self) -> MutexGuard<'_, S> {
        self.space.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn export(&self) -> Result<Exported, Stop> {
        Ok(self.device.export("memory", used()?, Owner::Device(OwnerId::new(1)))?)
    }

    /// Maps the target's memory for the engine, while it is there.
    fn import(&self, of: &Exported, quiesce: impl Quiesce + 'static) -> Result<DmaImport<S, VfioDevice>, Stop> {
        let iova =
            AddrRange::new(Iova::new(TARGET), of.size()).ok_or_else(|| Stop::broken("the target's IOVA wraps"))?;
        let tables = (Declaration::of_tables("the engine's tables", Prot::ReadWrite), Prot::ReadWrite);
        // What a guest claims of routes is the group `pairs`'s; here both are below one switch.
        let (space, route) = (self.space.clone(), ImportRoute::Permitted(Permit::vouched(Prot::ReadWrite)));
        Ok(DmaImport::attach("engine", of, space, iova, tables, route, Need::Required, quiesce)?)
    }

    fn window(&self) -> Result<CpuWindow<VfioDevice>, Stop> {
        Ok(self.device.window("look", used()?)?)
    }

    /// The engine writes a page that was never sent before to the target; what it was.
    fn send(&mut self) -> Result<Vec<u8>, Stop> {
        self.send_to(Iova::new(TARGET))
    }

    fn send_to(&mut self, iova: Iova) -> Result<Vec<u8>, Stop> {
        self.seed += 1;
        let sent = pattern(self.seed, 4096);
        self.staging.write(Bytes::ZERO, &sent)?;
        self.engine.fetch(Iova::new(STAGING), PAGE)?;
        self.engine.store(iova, PAGE)?;
        Ok(sent)
    }

    /// Breaks the claim unless a write of the engine arrives in the target.
    fn arrives(&mut self, window: &mut CpuWindow<VfioDevice>, when: &str) -> Result<(), Stop> {
        let sent = self.send()?;
        equal(&format!("whether a write arrives {when}"), &true, &(look(window)? == sent))
    }
}

fn shared(device: VfioDevice) -> Result<SharedDevice, Stop> {
    device.set_command(Command::MEMORY)?;
    Ok(SharedDevice::new(device)?)
}

fn look(window: &mut CpuWindow<VfioDevice>) -> Result<Vec<u8>, Stop> {
    let mut seen = vec![0; 4096];
    window.read(Bytes::ZERO, &mut seen)?;
    Ok(seen)
}

/// The part of the target's memory that claims use.
fn used() -> Result<BarRange, Stop> {
    range(MEMORY_BAR, 0, USED.as_u64())
}

fn range(bar: u8, at: u64, len: u64) -> Result<BarRange, Stop> {
    let range = BarIndex::new(bar).and_then(|bar| BarRange::new(bar, Bytes::new(at), Bytes::new(len)));
    range.ok_or_else(|| Stop::broken("the claim names a range that does not exist"))
}

fn claim<S: Via>(
    sentence: &'static str,
    tries: impl Fn(&mut Tried<S>) -> Result<(), Stop> + 'static,
) -> Claim<Tried<S>> {
    Claim::new(sentence, tries)
}
