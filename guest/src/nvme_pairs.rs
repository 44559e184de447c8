//! `nvme-pairs`: real I/O between memory of one NVMe controller and the disk of another.
//!
//! Memory comes from the controller's own buffer (CMB), which its driver offers as
//! `p2pmem/allocate`; the I/O is direct (`O_DIRECT`), since any other is copied by the
//! CPU and needs no route. Works on a kernel that nobody prepared. Two witnesses per
//! pair: the errno, which does not tell the two ways of permitting apart, and the
//! answer that a probe saw the kernel give.
//!
//! One line of JSON per ordered pair. Whether bytes arrived is not checked: QEMU sends
//! every request through its IOMMU, also those that a switch would have turned.

use crate::drives;
use crate::failure::Failure;
use crate::probes::Probes;
use peerdma::addr::Bytes;
use peerdma::pcie::PciAddr;
use peerdma_linux::p2pmem::P2pMemory;
use serde::Serialize;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

pub(crate) const USAGE: &str = "peerdma-guest nvme-pairs";

/// Linux `include/uapi/asm-generic/fcntl.h`, as x86 has it.
const O_DIRECT: i32 = 0o40000;
/// One page: whole blocks for every disk.
const LEN: Bytes = Bytes::new(4096);

/// A controller with memory to offer.
#[derive(Debug, PartialEq, Eq)]
struct Controller {
    address: PciAddr,
    /// Folder of the function in sysfs.
    device: PathBuf,
    disk: PathBuf,
}

/// What the kernel said about one ordered pair.
#[derive(Serialize, Debug)]
struct Line {
    /// Whose memory.
    provider: String,
    /// Whose disk.
    client: String,
    /// Memory to disk: 0, or the errno.
    write_errno: i32,
    /// Disk to memory: 0, or the errno.
    read_errno: i32,
    /// What `pci_p2pdma_map_type` returned for this pair, in order.
    map_types: Vec<i32>,
}

pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    if !arguments.is_empty() {
        return Err(Failure::Usage(USAGE.into()));
    }
    let controllers = controllers()?;
    if controllers.is_empty() {
        return Err(Failure::Nothing {
            what: "no NVMe controller with p2pmem",
            next: "give one cmb_size_mb and load the nvme driver",
        });
    }
    let probes = Probes::set()?;
    let mut out = io::stdout().lock();
    for provider in &controllers {
        for client in &controllers {
            let line = ask(&probes, provider, client)?;
            serde_json::to_writer(&mut out, &line).map_err(io::Error::from)?;
            out.write_all(b"\n")?;
        }
    }
    out.flush()?;
    Ok(())
}

fn ask(probes: &Probes, provider: &Controller, client: &Controller) -> Result<Line, Failure> {
    let allocate = provider.device.join("p2pmem/allocate");
    let mut memory = P2pMemory::allocate(&allocate, LEN)?;
    let disk = open_direct(&client.disk)?;
    probes.forget()?;
    let write = memory.write_to(&disk, Bytes::ZERO);
    let read = memory.read_from(&disk, Bytes::ZERO);
    let (provider, client) = (provider.address.to_string(), client.address.to_string());
    let answers = probes.answers()?;
    let of_pair = answers.iter().filter(|answer| answer.provider == provider && answer.client == client);
    let map_types = of_pair.map(|answer| answer.map_type).collect();
    Ok(Line { write_errno: errno(write), read_errno: errno(read), map_types, provider, client })
}

fn errno(outcome: io::Result<Bytes>) -> i32 {
    match outcome {
        Ok(_) => 0,
        // Every error of a system call has its number.
        Err(error) => error.raw_os_error().unwrap_or(-1),
    }
}

/// Opens a disk for transfers between it and memory, with no copy in between.
pub(crate) fn open_direct(disk: &Path) -> Result<File, Failure> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(O_DIRECT).open(disk).map_err(Failure::file("open", disk))
}

/// All controllers with memory to offer and a disk, in order of addresses; blocks until the
/// driver has set up every drive.
fn controllers() -> Result<Vec<Controller>, Failure> {
    let mut found = Vec::new();
    for device in drives::functions()? {
        drives::wait(&device, "live controller", |device| drives::live_controller(device).is_some())?;
        // Memory is offered before the controller is live.
        if !device.join("p2pmem").is_dir() {
            continue;
        }
        // Disks are found after that.
        drives::wait(&device, "disk", |device| disk(device).is_some())?;
        let address = device.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
        if let (Some(address), Some(disk)) = (address, disk(&device)) {
            found.push(Controller { address, device, disk });
        }
    }
    Ok(found)
}

/// The first namespace of a function's controller as a block device; none while there is
/// none, and none where multipath has renamed it (`nvme_core.multipath=N` avoids that).
pub(crate) fn disk(device: &Path) -> Option<PathBuf> {
    let controller = drives::live_controller(device)?;
    let name = controller.file_name()?.to_string_lossy().into_owned();
    let is_namespace = |entry: &str| -> bool {
        let number = entry.strip_prefix(&name).and_then(|rest| rest.strip_prefix('n'));
        number.is_some_and(|number| number.parse::<u32>().is_ok())
    };
    let entries = fs::read_dir(&controller).ok()?.flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| is_namespace(name));
    names.sort();
    names.into_iter().map(|name| Path::new("/dev").join(name)).find(|disk| disk.exists())
}
