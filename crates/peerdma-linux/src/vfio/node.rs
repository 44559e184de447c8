//! Opens device nodes, and says why one cannot be opened.
//!
//! Not here: what is done with an open one.

use super::error::{OpenError, errno};
use super::place::Place;
use crate::tree::Tree;
use peerdma::pcie::PciAddr;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Where sysfs and the device nodes are.
#[derive(Debug)]
pub struct Nodes {
    tree: Tree,
    dev: PathBuf,
}

impl Nodes {
    /// This machine's `/sys` and `/dev`.
    pub fn live() -> Self {
        Self::at(Tree::live(), "/dev")
    }

    /// Others, as in a container that has them elsewhere, or in a test.
    pub fn at(tree: Tree, dev: impl Into<PathBuf>) -> Self {
        Self { tree, dev: dev.into() }
    }

    /// The sysfs.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    pub(crate) fn container(&self) -> Result<OwnedFd, OpenError> {
        open(&self.dev.join("vfio/vfio"), "vfio")
    }

    pub(crate) fn group(&self, number: u32) -> Result<OwnedFd, OpenError> {
        open(&self.dev.join(format!("vfio/{number}")), "vfio-pci")
    }

    pub(crate) fn iommufd(&self) -> Result<OwnedFd, OpenError> {
        let path = self.dev.join("iommu");
        match open(&path, "iommufd") {
            Err(OpenError::NoNode { path, .. }) => Err(OpenError::NoIommufd { path }),
            result => result,
        }
    }

    /// Whether `/dev/iommu` and the function's own node are both there.
    pub fn offer_iommufd(&self, device: PciAddr) -> bool {
        let node = Place::read(&self.tree, device).ok().and_then(|place| place.node);
        node.is_some() && self.dev.join("iommu").exists()
    }
}

/// A device node below `/dev/vfio/devices`, open and not yet bound to an iommufd: the
/// kernel answers nothing about the device before that.
#[derive(Debug)]
pub struct DeviceNode {
    pub(crate) device: PciAddr,
    pub(crate) fd: OwnedFd,
}

impl DeviceNode {
    /// Opens the node of `device`, which sysfs names.
    ///
    /// # Errors
    /// Whatever stands in the way, by name; see [`Place::ready_node`] and [`OpenError`].
    pub fn open(nodes: &Nodes, device: PciAddr) -> Result<Self, OpenError> {
        let place = Place::read(&nodes.tree, device)?;
        let path = nodes.dev.join("vfio/devices").join(place.ready_node()?);
        Ok(Self { device, fd: open(&path, "vfio-pci")? })
    }

    /// Takes a node that the caller opened; `device` is what errors call it.
    pub fn from_fd(fd: OwnedFd, device: PciAddr) -> Self {
        Self { device, fd }
    }
}

/// Opens a node for reading and writing; a missing one is `module`'s.
pub(crate) fn open(path: &Path, module: &'static str) -> Result<OwnedFd, OpenError> {
    let path_buf = || path.to_path_buf();
    rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(|error| match error {
        Errno::ACCESS | Errno::PERM => OpenError::NoPrivilege { path: path_buf(), errno: errno(error) },
        // ENXIO and ENODEV: the node is there, but nobody has registered behind it.
        Errno::NOENT | Errno::NXIO | Errno::NODEV | Errno::NOTDIR => OpenError::NoNode { path: path_buf(), module },
        Errno::BUSY => OpenError::InUse { path: path_buf() },
        error => OpenError::kernel("open", path.display(), error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_named_with_its_module() {
        let empty = std::env::temp_dir().join(format!("peerdma-no-dev-{}", std::process::id()));
        let nodes = Nodes::at(Tree::live(), &empty);
        let error = nodes.container().unwrap_err();
        assert!(error.to_string().ends_with("vfio/vfio is not there; as root: modprobe vfio"), "{error}");
        assert!(matches!(nodes.iommufd(), Err(OpenError::NoIommufd { .. })));
        let error = nodes.group(7).unwrap_err();
        assert!(error.to_string().contains("vfio/7 is not there"), "{error}");
    }

    #[test]
    fn a_descriptor_of_something_else_is_refused_by_every_constructor() {
        let file = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let address = || "0000:05:00.0".parse().unwrap();
        assert!(matches!(super::super::VfioDevice::from_fd(file(), address()), Err(OpenError::NotPci { .. })));
        assert!(crate::type1::Type1Space::from_fds(file(), vec![file()]).is_err());
        assert!(crate::iommufd::IommufdSpace::from_fd(file()).is_err());
    }
}
