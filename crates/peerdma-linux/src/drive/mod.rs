//! A drive that the kernel drives, as an engine: its controller moves blocks to and from memory of other devices.
//!
//! The kernel's `nvme` is the one driver that takes a device's memory in direct I/O (`BLK_FEAT_PCI_P2PDMA`, Linux 7.3
//! `nvme_alloc_ns`). What its controller does: reading blocks *writes* the memory, writing blocks *reads* it.
//!
//! ```text
//! find     which disk a function's controller has, from sysfs
//! open     its file: for reading, or also for writing, and then for nobody else
//! witness  whether blocks come and go between it and another device's memory
//! ```
//!
//! Not here: taking a device's memory ([`crate::p2pmem`]).

pub mod witness;

use crate::memory::Pages;
use crate::tree::Tree;
use crate::vfio::place::{driver, folder};
use peerdma::access::Prot;
use peerdma::addr::Bytes;
use peerdma::pcie::PciAddr;
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The driver whose disks take such memory.
const DRIVER: &str = "nvme";
/// What sysfs counts a disk's size in, whatever its blocks (Linux `SECTOR_SIZE`).
const SECTOR: u64 = 512;

/// A disk of a function's controller, not opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Disk {
    device: PciAddr,
    name: String,
    room: Bytes,
}

/// An open disk.
#[derive(Debug)]
pub struct Drive {
    path: PathBuf,
    file: File,
    room: Bytes,
}

/// Why there is no disk to use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DriveError {
    /// Another driver has the function, or none.
    #[error(
        "{device} is bound to {}, not to nvme, so it has no disk; bind it to nvme",
        driver.as_deref().unwrap_or("no driver")
    )]
    OtherDriver {
        /// The function.
        device: PciAddr,
        /// What it is bound to.
        driver: Option<String>,
    },
    /// Its controller does not run, or not yet.
    #[error("the controller of {device} is not live; wait for its driver, or read the kernel log")]
    NotLive {
        /// The function.
        device: PciAddr,
    },
    /// The controller has no namespace.
    #[error("the controller of {device} has no disk; attach a namespace to it")]
    NoDisk {
        /// The function.
        device: PciAddr,
    },
    /// Its disk may be reached by other controllers too, so that nothing tells which moves the bytes.
    #[error(
        "{way} is one way of several to the disk of {device}, and nothing tells which controller moves its bytes; load nvme_core with multipath=N"
    )]
    Multipath {
        /// The function.
        device: PciAddr,
        /// The way, as sysfs calls it.
        way: String,
    },
    /// The file may not be opened, or cannot be.
    #[error("cannot open {} directly; run as root, or have root give this user the file", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Somebody uses the disk, so its blocks are not written.
    #[error(
        "{} is in use: a file system, a volume or another program has it, and its blocks are written for nobody else; unmount it, or name another drive",
        path.display()
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
}

impl Disk {
    /// Finds the first disk of `device`'s controller.
    ///
    /// # Errors
    /// In this order: [`DriveError::OtherDriver`], [`DriveError::NotLive`], [`DriveError::Multipath`],
    /// [`DriveError::NoDisk`]. Each says what to do.
    ///
    /// # Examples
    /// ```no_run
    /// use peerdma_linux::{drive::Disk, tree::Tree};
    ///
    /// let disk = Disk::find(&Tree::live(), "0000:03:00.0".parse()?)?;
    /// println!("{} has {}", disk.path().display(), disk.room());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn find(tree: &Tree, device: PciAddr) -> Result<Self, DriveError> {
        let driver = driver(tree, device);
        if driver.as_deref() != Some(DRIVER) {
            return Err(DriveError::OtherDriver { device, driver });
        }
        let below = format!("{}/nvme", folder(tree, device));
        let is_live = |name: &String| tree.text(&format!("{below}/{name}/state")).as_deref() == Some("live");
        let controller = tree.list(&below).into_iter().find(is_live).ok_or(DriveError::NotLive { device })?;
        let entries = tree.list(&format!("{below}/{controller}"));
        // `nvme0n1` is a disk of controller nvme0; `nvme0c0n1` a way to one that has several, hidden (Linux 7.3
        // `nvme_mpath_set_disk_name`).
        let number = |name: &str| name.strip_prefix(&controller)?.strip_prefix('n')?.parse::<u32>().ok();
        let is_way = |name: &str| name.strip_prefix(&controller).is_some_and(|rest| rest.starts_with('c'));
        let mut disks: Vec<(u32, &String)> = entries.iter().filter_map(|name| Some((number(name)?, name))).collect();
        disks.sort_unstable();
        let Some((_, name)) = disks.first() else {
            return Err(match entries.iter().find(|name| is_way(name)) {
                Some(way) => DriveError::Multipath { device, way: way.clone() },
                None => DriveError::NoDisk { device },
            });
        };
        let name = (*name).clone();
        let sectors = tree.text(&format!("{below}/{controller}/{name}/size")).and_then(|size| size.parse::<u64>().ok());
        let room = Bytes::new(sectors.and_then(|sectors| sectors.checked_mul(SECTOR)).unwrap_or(0));
        Ok(Self { device, name, room })
    }

    /// The function whose controller it is.
    pub fn device(&self) -> PciAddr {
        self.device
    }

    /// Its file.
    pub fn path(&self) -> PathBuf {
        Path::new("/dev").join(&self.name)
    }

    /// How much it holds; nothing where sysfs does not say.
    pub fn room(&self) -> Bytes {
        self.room
    }

    /// Opens it for direct I/O. With leave to write it is opened for nobody else: the kernel refuses that of a disk
    /// that is mounted or part of something (`bd_may_claim`), and refuses others as long as this lives.
    ///
    /// # Errors
    /// [`DriveError::InUse`] and [`DriveError::Open`].
    pub fn open(&self, prot: Prot) -> Result<Drive, DriveError> {
        let path = self.path();
        let writes = prot.writes();
        let flags = if writes { OFlags::DIRECT | OFlags::EXCL } else { OFlags::DIRECT };
        let mut options = OpenOptions::new();
        // The bits are those of the C library's `int`.
        options.read(true).write(writes).custom_flags(flags.bits().cast_signed());
        match options.open(&path) {
            Ok(file) => Ok(Drive { path, file, room: self.room }),
            Err(error) if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => Err(DriveError::InUse { path }),
            Err(source) => Err(DriveError::Open { path, source }),
        }
    }
}

impl Drive {
    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How much it holds.
    pub fn room(&self) -> Bytes {
        self.room
    }

    /// Its blocks from `offset` on, by way of memory of this process.
    fn blocks(&self, offset: Bytes, through: &Pages, len: usize) -> io::Result<Vec<u8>> {
        let count = Bytes::new(len as u64);
        whole(through.read_from(Bytes::ZERO, count, &self.file, offset)?, count)?;
        let mut bytes = vec![0; len];
        through.read(Bytes::ZERO, &mut bytes).map_err(io::Error::other)?;
        Ok(bytes)
    }

    /// Puts blocks there, by way of memory of this process.
    fn put(&self, offset: Bytes, through: &Pages, bytes: &[u8]) -> io::Result<()> {
        through.write(Bytes::ZERO, bytes).map_err(io::Error::other)?;
        let count = Bytes::new(bytes.len() as u64);
        whole(through.write_to(Bytes::ZERO, count, &self.file, offset)?, count)
    }
}

impl AsFd for Drive {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A disk moves all that it is asked for, or there is no more of it.
fn whole(moved: Bytes, asked: Bytes) -> io::Result<()> {
    if moved == asked { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

#[cfg(test)]
mod tests;
