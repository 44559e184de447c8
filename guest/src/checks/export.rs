//! What `VFIO_DEVICE_FEATURE_DMA_BUF` exports and refuses, and how the descriptor behaves.
//!
//! Nothing imports here: an importer is another kernel's or another group's business
//! (group `iommufd`). So a stock kernel without iommufd keeps these claims too.

mod descriptor;
mod inputs;
mod library;

use super::asked::Asked;
use super::bench::{self, PAGE};
use super::claim::Stop;
use super::type1::Container;
use super::worker::Worker;
use peerdma::addr::Bytes;
use peerdma::pcie::PciAddr;
use peerdma_linux::raw::{Ask, ExportRequest};
use peerdma_linux::vfio::{BarIndex, Command, VfioDevice};

/// Exporters, open in one container.
struct Exporters {
    container: super::type1::Container,
    target: PciAddr,
    /// `None` while a claim has closed it.
    device: Option<VfioDevice>,
    /// Holds an MSI-X table in its BAR 0.
    nvme: Option<VfioDevice>,
    /// Length of the target's memory.
    size: Bytes,
}

pub(super) fn run(asked: &Asked, worker: &mut Worker<'_>) {
    let (target, nvme) = (asked.target, asked.nvme);
    let mut claims = inputs::claims();
    claims.extend(descriptor::claims());
    claims.extend(library::claims());
    worker.claims(move || set_up(target, nvme), Exporters::clear, claims);
}

fn set_up(target: Option<PciAddr>, nvme: Option<PciAddr>) -> Result<Exporters, Stop> {
    use super::bench::Space;
    let target = target.ok_or_else(|| Stop::broken("name an ivshmem-plain with --target"))?;
    let both: Vec<PciAddr> = [Some(target), nvme].into_iter().flatten().collect();
    let container = Container::open(&both)?;
    let device = container.device(target)?;
    let bar = BarIndex::new(bench::MEMORY_BAR).and_then(|bar| device.bar(bar));
    let size = bar.ok_or_else(|| Stop::Broken(format!("{target} has no BAR {}", bench::MEMORY_BAR)))?.size;
    if size < bench::USED {
        return Err(Stop::Broken(format!("BAR {} of {target} has only {size}", bench::MEMORY_BAR)));
    }
    let nvme = nvme.map(|nvme| container.device(nvme)).transpose()?;
    Ok(Exporters { container, target, device: Some(device), nvme, size })
}

impl Exporters {
    fn clear(&mut self) -> Result<(), Stop> {
        use super::bench::Space;
        if self.device.is_none() {
            self.device = Some(self.container.device(self.target)?);
        }
        Ok(self.device()?.set_command(Command::MEMORY)?)
    }

    fn device(&self) -> Result<&VfioDevice, Stop> {
        self.device.as_ref().ok_or_else(|| Stop::broken("the claim uses the target after closing it"))
    }
}

/// A request for ranges of the target's memory as the library makes it.
pub(super) fn request(ranges: &[(u64, u64)]) -> ExportRequest {
    ExportRequest {
        ask: Ask::Export,
        claimed_len: None,
        region: u32::from(bench::MEMORY_BAR),
        open_flags: O_RDWR | O_CLOEXEC,
        flags: 0,
        ranges: ranges.iter().map(|(offset, len)| (Bytes::new(*offset), Bytes::new(*len))).collect(),
    }
}

/// One page of it.
fn one_page() -> ExportRequest {
    request(&[(0, PAGE.as_u64())])
}

// Numbers of x86 Linux, as the request carries them.
pub(super) const O_RDONLY: u32 = 0;
const O_WRONLY: u32 = 1;
const O_RDWR: u32 = 2;
const O_NONBLOCK: u32 = 0o4000;
const O_CLOEXEC: u32 = 0o2_000_000;
