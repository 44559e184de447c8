//! Which kinds of engine there are, and what each needs of two functions before it moves a byte between them.
//!
//! | kind | the initiator | the target |
//! |---|---|---|
//! | [`Kind::Edu`] | QEMU's edu, with `vfio-pci` | memory behind a BAR, with `vfio-pci` |
//! | [`Kind::Drive`] | an NVMe drive with `nvme`, whose disk nothing shares | a driver that offers its device's memory (`p2pmem`) |
//! | [`Kind::Adapter`] | an RDMA adapter with its driver | memory behind a BAR, with `vfio-pci` |
//!
//! Said from sysfs alone, so that nothing is touched. What only opening tells (privileges, libraries, node files)
//! is an error there.

use crate::drive::{Disk, DriveError};
use crate::edu::Edu;
use crate::tree::Tree;
use crate::vfio::OpenError;
use crate::vfio::place::{Place, driver, folder};
use crate::vfio::standing::identity;
use peerdma::pcie::{ClassCode, PciAddr, PciId};

/// A kind of engine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Kind {
    /// QEMU's teaching device, through VFIO: [`crate::edu`].
    Edu,
    /// An NVMe drive in the kernel's hands, by direct I/O: [`crate::drive`].
    Drive,
    /// An RDMA adapter connected to itself, by a dma-buf that is registered: [`crate::verbs`].
    Adapter,
}

/// What keeps a kind of engine from serving two functions.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Lack {
    /// The initiator is none.
    #[error("{device} is {found}, not {wanted}")]
    OtherDevice {
        /// The initiator.
        device: PciAddr,
        /// What it is.
        found: PciId,
        /// What it would have to be.
        wanted: &'static str,
    },
    /// A function is not in VFIO's hands.
    #[error(
        "{device} is bound to {}, not to vfio-pci; peerdma vfio bind {device} says what would be done, and does it with --yes",
        driver.as_deref().unwrap_or("no driver")
    )]
    NotHandedOver {
        /// The function.
        device: PciAddr,
        /// What it is bound to.
        driver: Option<String>,
    },
    /// VFIO has a function and cannot give it away.
    #[error(transparent)]
    Vfio(OpenError),
    /// The initiator has no disk.
    #[error(transparent)]
    Disk(DriveError),
    /// The target offers no memory to others.
    #[error(
        "{device} offers no memory to other devices (it has no p2pmem/allocate, and {} has it); bind a driver that does, such as nvme to a drive with a controller memory buffer",
        driver.as_deref().unwrap_or("no driver")
    )]
    NoPool {
        /// The target.
        device: PciAddr,
        /// What it is bound to.
        driver: Option<String>,
    },
    /// The initiator has no RDMA device.
    #[error(
        "{device} has no RDMA device (no infiniband in its sysfs folder, and {} has it); load the RDMA part of its driver, such as mlx5_ib",
        driver.as_deref().unwrap_or("no driver")
    )]
    NoAdapter {
        /// The initiator.
        device: PciAddr,
        /// What it is bound to.
        driver: Option<String>,
    },
}

impl Kind {
    /// All of them.
    pub const ALL: &'static [Self] = &[Self::Edu, Self::Drive, Self::Adapter];

    /// The word used in text, JSON and on command lines.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Edu => "edu",
            Self::Drive => "nvme",
            Self::Adapter => "verbs",
        }
    }

    /// Which device it takes.
    pub const fn wanted(self) -> &'static str {
        match self {
            Self::Edu => "QEMU's edu device (1234:11e8)",
            Self::Drive => "an NVMe drive (class 0108)",
            Self::Adapter => "a network adapter (class 02 or 0c06)",
        }
    }

    /// Refuses an initiator that is known to be another device. One whose IDs or class were not read may be one.
    ///
    /// # Errors
    /// [`Lack::OtherDevice`]: name another initiator.
    pub fn check(self, device: PciAddr, id: Option<PciId>, class: Option<ClassCode>) -> Result<(), Lack> {
        let may_be = match self {
            Self::Edu => id.is_none_or(|id| id == Edu::ID),
            Self::Drive => class.is_none_or(|class| class.base_and_sub() == 0x0108),
            Self::Adapter => class.is_none_or(|class| class.base() == 0x02 || class.base_and_sub() == 0x0c06),
        };
        match id {
            Some(found) if !may_be => Err(Lack::OtherDevice { device, found, wanted: self.wanted() }),
            _ => Ok(()),
        }
    }

    /// What keeps it from moving bytes between `initiator` and memory of `target`, as far as sysfs tells; nothing
    /// where it can be tried. Reads files, and touches no device.
    ///
    /// # Examples
    /// ```no_run
    /// use peerdma_linux::{engine::Kind, tree::Tree};
    ///
    /// let (from, to) = ("0000:05:00.0".parse()?, "0000:06:00.0".parse()?);
    /// for kind in Kind::ALL {
    ///     kind.lacks(&Tree::live(), from, to).iter().for_each(|lack| println!("{}: {lack}", kind.word()));
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn lacks(self, tree: &Tree, initiator: PciAddr, target: PciAddr) -> Vec<Lack> {
        let (id, class) = identity(tree, initiator);
        // Of another device nothing else is worth saying.
        if let Err(lack) = self.check(initiator, id, class.map(ClassCode::new)) {
            return vec![lack];
        }
        let lacks = match self {
            Self::Edu => [in_vfio(tree, initiator).err(), in_vfio(tree, target).err()],
            Self::Drive => [Disk::find(tree, initiator).err().map(Lack::Disk), pool(tree, target).err()],
            Self::Adapter => [adapter(tree, initiator).err(), in_vfio(tree, target).err()],
        };
        lacks.into_iter().flatten().collect()
    }
}

fn in_vfio(tree: &Tree, device: PciAddr) -> Result<(), Lack> {
    let ready = Place::read(tree, device).and_then(|place| place.ready_group());
    ready.map(drop).map_err(|error| match error {
        OpenError::OtherDriver { device, driver } => Lack::NotHandedOver { device, driver: Some(driver) },
        OpenError::NoDriver { device } => Lack::NotHandedOver { device, driver: None },
        error => Lack::Vfio(error),
    })
}

fn pool(tree: &Tree, device: PciAddr) -> Result<(), Lack> {
    let offers = tree.list(&format!("{}/p2pmem", folder(tree, device))).iter().any(|name| name == "allocate");
    if offers { Ok(()) } else { Err(Lack::NoPool { device, driver: driver(tree, device) }) }
}

fn adapter(tree: &Tree, device: PciAddr) -> Result<(), Lack> {
    let has = !tree.list(&format!("{}/infiniband", folder(tree, device))).is_empty();
    if has { Ok(()) } else { Err(Lack::NoAdapter { device, driver: driver(tree, device) }) }
}

#[cfg(test)]
mod tests;
