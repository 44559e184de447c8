//! A driver of the kernel that imports dma-bufs, asked whether it does.
//!
//! The driver is virtio-gpu's: it attaches as an importer that reaches peers and lets go when it is told to, pins, and maps
//! with the kernel's own P2PDMA rules (Linux 7.3 `virtgpu_gem_prime_import`). So its answer for an exported BAR is the
//! kernel's word on the pair, through a way that no part of this project has taken before.
//!
//! Not here: what the device does with the memory; QEMU's shows it on a display, of which there is none.

use super::answer::{Answer, Refused, Taken, refused, taken};
use super::asked::Asked;
use super::bench::{MEMORY_BAR, PAGE, used};
use super::claim::{Claim, Stop, equal};
use super::export::request;
use super::type1::open;
use super::worker::Worker;
use peerdma::addr::Bytes;
use peerdma::dma::Errno;
use peerdma::pcie::PciAddr;
use peerdma::route::kernel_view::{KernelView, MapType};
use peerdma::topology::{FunctionId, Origin, Topology};
use peerdma_linux::dma_buf::machine::list;
use peerdma_linux::dma_buf::{DmaBuf, Heap, MemfdRange, Udmabuf};
use peerdma_linux::memory::{Backing, Pages};
use peerdma_linux::pci_names::PciNames;
use peerdma_linux::raw;
use peerdma_linux::tree::Tree;
use peerdma_linux::type1::Type1Space;
use peerdma_linux::vfio::{Command, Nodes, VfioDevice};
use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

/// The importer, and memory below its own switch and across root ports.
struct Tried {
    topology: Topology,
    importer: PciAddr,
    near: VfioDevice,
    far: VfioDevice,
    _space: Type1Space,
}

pub(super) fn run(asked: &Asked, worker: &mut Worker<'_>) {
    let (importer, near, far) = (asked.importer, asked.target, asked.far);
    worker.claims(move || set_up(importer, near, far), Tried::clear, claims());
}

fn set_up(importer: Option<PciAddr>, near: Option<PciAddr>, far: Option<PciAddr>) -> Result<Tried, Stop> {
    let (Some(importer), Some(near), Some(far)) = (importer, near, far) else {
        return Err(Stop::broken("name an importer and two memories with --importer, --target and --far"));
    };
    let snapshot = peerdma_linux::sysfs::read(&Tree::live());
    let topology = peerdma_linux::assemble::builder(&snapshot, Origin::Sysfs, &PciNames::built_in())?.build();
    let space = Type1Space::open(&Nodes::live(), &[near, far])?;
    let (near, far) = (space.device(near)?, space.device(far)?);
    Ok(Tried { topology, importer, near, far, _space: space })
}

/// The node through which a graphics device of this address is asked to import; a new one each time, since a node answers
/// from memory what it has imported before (`drm_prime_lookup_buf_handle`).
pub(super) fn node(importer: PciAddr) -> Result<OwnedFd, Stop> {
    let device = Path::new("/sys/bus/pci/devices").join(importer.to_string()).join("drm");
    let names = fs::read_dir(&device).map_err(|error| {
        Stop::Broken(format!("{}: {error}; the driver of {importer} has no node", device.display()))
    })?;
    let names = names.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let card = names.into_iter().find(|name| name.starts_with("card"));
    open(&format!("/dev/dri/{}", card.ok_or_else(|| Stop::broken("the importer has no card"))?))
}

fn claims() -> Vec<Claim<Tried>> {
    vec![
        Claim::new("virtio-gpu imports udmabufs and memory of heaps, and is listed as their importer", memory),
        Claim::new(
            "virtio-gpu imports a BAR below its own switch, which the library says the kernel maps by bus address",
            |tried: &mut Tried| {
                equal("what the library says", &MapType::BusAddr, &tried.decided(&tried.near)?)?;
                tried.import(&tried.near, Taken)
            },
        ),
        Claim::new(
            "virtio-gpu imports a BAR across root ports where the library says that the kernel permits it, and is refused with \
             EINVAL where not",
            |tried: &mut Tried| match tried.decided(&tried.far)? {
                MapType::ThruHostBridge => tried.import(&tried.far, Taken),
                MapType::NotSupported => tried.import(&tried.far, Refused(Errno::EINVAL)),
                other => Err(Stop::Broken(format!("the library says {other}, which no topology of ours is"))),
            },
        ),
        Claim::new("a reset takes a BAR from virtio-gpu without an error, and it imports the same dma-buf anew", reset),
        Claim::new("with memory space off virtio-gpu is refused a BAR with ENODEV, and not when it is on", off),
        Claim::new("two ranges of a BAR in one dma-buf are imported by bus address", |tried: &mut Tried| {
            taken("importing both", tried.import_ranges(&tried.near, &BOTH)?)
        }),
        Claim::new(
            "two ranges of a BAR in one dma-buf fail with EADDRINUSE through a host bridge that translates, where each of them \
             alone is imported",
            translated,
        ),
    ]
}

impl Tried {
    fn clear(&mut self) -> Result<(), Stop> {
        for device in [&self.near, &self.far] {
            device.set_command(Command::MEMORY)?;
        }
        Ok(())
    }

    fn at(&self, address: PciAddr) -> Result<FunctionId, Stop> {
        self.topology.at(address).ok_or_else(|| Stop::Broken(format!("{address} is not in sysfs")))
    }

    /// What the library says that the kernel does with a device's memory and the importer.
    fn decided(&self, device: &VfioDevice) -> Result<MapType, Stop> {
        let (provider, client) = (self.at(device.address())?, self.at(self.importer)?);
        Ok(KernelView::new(&self.topology).decide(provider, client).map_type)
    }

    /// Imports ranges that were exported as one dma-buf, as the library never does; the kernel's answer.
    fn import_ranges(&self, device: &VfioDevice, ranges: &[(u64, u64)]) -> Result<Result<(), Errno>, Stop> {
        let file = taken("exporting", raw::export(device, &request(ranges)))?;
        let file = file.ok_or_else(|| Stop::broken("the export gave no descriptor"))?;
        Ok(raw::prime_import(node(self.importer)?, file).map(drop))
    }

    fn import(&self, device: &VfioDevice, expected: Answer) -> Result<(), Stop> {
        let dma_buf = DmaBuf::from_fd(device.export(used()?)?.try_clone()?)?;
        let (node, what) = (node(self.importer)?, format!("importing bar{MEMORY_BAR} of {}", device.address()));
        if expected.expect(&what, raw::prime_import(&node, &dma_buf))?.is_some() {
            is_listed(self.importer, &dma_buf)?;
        }
        Ok(())
    }
}

/// Two pages of a BAR that are not neighbours.
const BOTH: [(u64, u64); 2] = [(0, PAGE.as_u64()), (2 * PAGE.as_u64(), PAGE.as_u64())];

/// Breaks the claim unless the importer is listed as one.
pub(super) fn is_listed(importer: PciAddr, dma_buf: &DmaBuf) -> Result<(), Stop> {
    let listed = list().buffers.into_iter().find(|listed| listed.id == dma_buf.id());
    let importers = listed.and_then(|listed| listed.importers).unwrap_or_default();
    match importers.iter().any(|name| name.contains(&importer.to_string())) {
        true => Ok(()),
        false => Err(Stop::Broken(format!("{importer} is not among the importers of {}: {importers:?}", dma_buf.id()))),
    }
}

fn memory(tried: &mut Tried) -> Result<(), Stop> {
    let pages = Pages::backed(Backing::Memfd, Bytes::new(3 * PAGE.as_u64()))?;
    let file = pages.file().ok_or_else(|| Stop::broken("pages of a memfd have no file"))?;
    let udmabuf = Udmabuf::open()?.create(&[MemfdRange { file, offset: Bytes::ZERO, len: pages.len() }])?;
    let heap = Heap::open("system")?.allocate(PAGE, PAGE)?;
    for dma_buf in [udmabuf, heap] {
        let node = node(tried.importer)?;
        taken(dma_buf.exporter(), raw::prime_import(&node, &dma_buf))?;
        is_listed(tried.importer, &dma_buf)?;
    }
    Ok(())
}

fn reset(tried: &mut Tried) -> Result<(), Stop> {
    let file = tried.near.export(used()?)?;
    let before = node(tried.importer)?;
    taken("importing", raw::prime_import(&before, &file))?;
    // The kernel waits in it until the importer has let go.
    tried.near.reset()?;
    tried.near.set_command(Command::MEMORY)?;
    taken("importing anew", raw::prime_import(node(tried.importer)?, &file)).map(drop)
}

fn off(tried: &mut Tried) -> Result<(), Stop> {
    let file = tried.near.export(used()?)?;
    tried.near.clear_command(Command::MEMORY)?;
    refused("importing meanwhile", Errno::ENODEV, raw::prime_import(node(tried.importer)?, &file))?;
    tried.near.set_command(Command::MEMORY)?;
    taken("importing after that", raw::prime_import(node(tried.importer)?, &file)).map(drop)
}

fn translated(tried: &mut Tried) -> Result<(), Stop> {
    if tried.decided(&tried.far)? != MapType::ThruHostBridge {
        return Err(Stop::DoesNotApply("the host bridge of this processor forwards to nobody".into()));
    }
    for range in BOTH {
        taken("importing one", tried.import_ranges(&tried.far, &[range])?)?;
    }
    refused("importing both", Errno::EADDRINUSE, tried.import_ranges(&tried.far, &BOTH)?)
}
