//! Handing a function to `vfio-pci` and back, as a list of files to write before any is written.
//!
//! ```text
//! bind    driver_override ← vfio-pci   drivers/DRIVER/unbind ← address   drivers_probe ← address
//! unbind  driver_override ← (nothing)  drivers/vfio-pci/unbind ← address drivers_probe ← address
//! ```
//!
//! What would take something from somebody is an [`Obstacle`], found before the first write; those that
//! may be overridden say so. If the function is not bound at the end, what was written is put back.

use super::error::errno;
use super::place::{DEVICES, driver};
use super::standing::{Standing, Use};
use crate::tree::Tree;
use peerdma::dma::Errno;
use peerdma::pcie::PciAddr;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

const DRIVERS: &str = "sys/bus/pci/drivers";
const PROBE: &str = "sys/bus/pci/drivers_probe";
const VFIO_PCI: &str = "vfio-pci";

/// Which way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// To `vfio-pci`.
    Bind,
    /// From it, to whichever driver takes the function.
    Unbind,
}

/// A file of sysfs and what is written to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Write {
    /// The file, from the root on, without a leading slash.
    pub path: String,
    /// What; ends without a newline where a value is set.
    pub text: String,
}

impl fmt::Display for Write {
    /// Writes the line of a shell that does it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text.trim_end() {
            "" => write!(f, "echo > /{}", self.path),
            text => write!(f, "echo {text} > /{}", self.path),
        }
    }
}

/// What stands in the way of a change.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Obstacle {
    /// It is a bridge; take what is below it.
    #[error("{device} is a bridge, and everything below it would go with it; take a function below")]
    Bridge {
        /// The function.
        device: PciAddr,
    },
    /// No IOMMU is in front of it; switch one on.
    #[error(
        "{device} has no IOMMU group; start the kernel with intel_iommu=on, or switch the IOMMU on in the firmware"
    )]
    NoIommuGroup {
        /// The function.
        device: PciAddr,
    },
    /// The driver is not there; load its module.
    #[error("there is no driver vfio-pci; as root: modprobe vfio-pci")]
    NoVfioPci,
    /// Another driver has it, which would lose it.
    #[error("{device} is bound to {driver}; --force takes it from there")]
    OtherDriver {
        /// The function.
        device: PciAddr,
        /// The driver.
        driver: String,
    },
    /// It is not bound to `vfio-pci`.
    #[error("{device} is not bound to vfio-pci but to {}", driver.as_deref().unwrap_or("no driver"))]
    NotBound {
        /// The function.
        device: PciAddr,
        /// Its driver.
        driver: Option<String>,
    },
    /// Somebody uses it.
    #[error("{user}; end that first, or --force takes it away all the same")]
    InUse {
        /// Who.
        user: Use,
    },
    /// A program has it open, and the kernel waits for that without end.
    #[error("{user}, and the kernel would wait for it to close it; end it first")]
    Open {
        /// Who.
        user: Use,
    },
}

impl Obstacle {
    /// Whether it may be overridden.
    pub const fn yields(&self) -> bool {
        matches!(self, Self::OtherDriver { .. } | Self::InUse { .. })
    }
}

/// A change of a function's driver, looked at and not begun.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// The function.
    pub device: PciAddr,
    /// Which way.
    pub direction: Direction,
    /// What stands in the way.
    pub obstacles: Vec<Obstacle>,
    /// What is written, in order; nothing if it is as wanted already.
    pub writes: Vec<Write>,
    /// What is written if it does not end as wanted.
    pub back: Vec<Write>,
}

/// Why a change was not carried out to its end.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// A file of sysfs was not written; EACCES: run as root.
    #[error("cannot write {text:?} to {}: {errno}{}", path.display(), privilege(*errno))]
    Write {
        /// The file.
        path: PathBuf,
        /// What was to be written.
        text: String,
        /// The kernel's answer.
        errno: Errno,
    },
    /// Everything was written, and the function is not where it was to go; the kernel log says why.
    #[error("{device} is bound to {} after that, and not to vfio-pci; dmesg says why, and what was written is put back", found.as_deref().unwrap_or("no driver"))]
    NotTaken {
        /// The function.
        device: PciAddr,
        /// Its driver now.
        found: Option<String>,
    },
}

fn privilege(errno: Errno) -> &'static str {
    if errno == Errno::EACCES || errno == Errno::EPERM { "; that is root's to do" } else { "" }
}

/// Whether this user may write the file; of one that is not there nobody says that he may not.
pub fn may_write(path: &Path) -> bool {
    use rustix::io::Errno;
    !matches!(rustix::fs::access(path, rustix::fs::Access::WRITE_OK), Err(Errno::ACCESS | Errno::PERM | Errno::ROFS))
}

impl Change {
    /// Looks at what a change would take.
    pub fn plan(tree: &Tree, standing: &Standing, direction: Direction) -> Self {
        let device = standing.place.device;
        let bound = standing.place.driver.as_deref();
        let mut change = Self { device, direction, obstacles: Vec::new(), writes: Vec::new(), back: Vec::new() };
        match direction {
            Direction::Bind if bound == Some(VFIO_PCI) => return change,
            Direction::Unbind if bound != Some(VFIO_PCI) => {
                change.obstacles.push(Obstacle::NotBound { device, driver: standing.place.driver.clone() });
                return change;
            }
            _ => {}
        }
        if standing.is_bridge() {
            change.obstacles.push(Obstacle::Bridge { device });
        }
        if direction == Direction::Bind {
            if standing.place.group.is_none() {
                change.obstacles.push(Obstacle::NoIommuGroup { device });
            }
            if !tree.has_folder(&format!("{DRIVERS}/{VFIO_PCI}")) {
                change.obstacles.push(Obstacle::NoVfioPci);
            }
            if let Some(driver) = bound {
                change.obstacles.push(Obstacle::OtherDriver { device, driver: driver.into() });
            }
        }
        change.obstacles.extend(standing.uses.iter().cloned().map(|user| match user {
            Use::Open { .. } => Obstacle::Open { user },
            user => Obstacle::InUse { user },
        }));
        let write = |path: String, text: &str| Write { path, text: text.into() };
        let kept_for = format!("{DEVICES}/{device}/driver_override");
        let address = device.to_string();
        // An empty line takes the word away (Linux 7.2 `driver_set_override`).
        let wanted = if direction == Direction::Bind { VFIO_PCI } else { "\n" };
        change.writes.push(write(kept_for.clone(), wanted));
        if let Some(driver) = bound {
            change.writes.push(write(format!("{DRIVERS}/{driver}/unbind"), &address));
        }
        change.writes.push(write(PROBE.into(), &address));
        change.back.push(write(kept_for, standing.kept_for.as_deref().unwrap_or("\n")));
        change.back.push(write(PROBE.into(), &address));
        change
    }

    /// Those obstacles that stand in the way, forced or not.
    pub fn in_the_way(&self, force: bool) -> impl Iterator<Item = &Obstacle> {
        self.obstacles.iter().filter(move |obstacle| !(force && obstacle.yields()))
    }

    /// Files that this user may not write, of those that the change writes.
    pub fn not_permitted<'a>(&'a self, root: &Path) -> Vec<&'a str> {
        self.writes.iter().map(|write| write.path.as_str()).filter(|path| !may_write(&root.join(path))).collect()
    }

    /// Writes what is to be written, whatever stands in the way; ask that before.
    ///
    /// `tree` and `root` are of the same machine. Blocks for as long as drivers take; the kernel waits without end for
    /// whoever has the function open.
    ///
    /// # Errors
    /// [`ChangeError`]; what was written before is put back.
    pub fn carry_out(&self, tree: &Tree, root: &Path) -> Result<(), ChangeError> {
        self.carry_out_by(|path, text| std::fs::write(root.join(path), text), || driver(tree, self.device), root)
    }

    fn carry_out_by(
        &self,
        mut put: impl FnMut(&str, &str) -> io::Result<()>,
        bound: impl Fn() -> Option<String>,
        root: &Path,
    ) -> Result<(), ChangeError> {
        let mut put_back = false;
        let done = self.writes.iter().try_for_each(|write| {
            put(&write.path, &write.text).map_err(|error| ChangeError::Write {
                path: root.join(&write.path),
                text: write.text.trim_end().into(),
                errno: rustix::io::Errno::from_io_error(&error).map_or(Errno::EIO, errno),
            })?;
            put_back = true;
            Ok(())
        });
        let done = done.and_then(|()| match (self.direction, bound()) {
            (Direction::Bind, found) if found.as_deref() != Some(VFIO_PCI) && !self.writes.is_empty() => {
                Err(ChangeError::NotTaken { device: self.device, found })
            }
            _ => Ok(()),
        });
        if done.is_err() && put_back {
            // The first error is the one to tell; what cannot be put back was refused for the same reason.
            self.back.iter().for_each(|write| drop(put(&write.path, &write.text)));
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::super::standing::tests::machine;
    use super::*;
    use crate::tree::Node;

    fn plan(device: &str, direction: Direction, add: &[(&str, &str)]) -> Change {
        let mut nodes = machine();
        nodes.push((format!("{DRIVERS}/{VFIO_PCI}/bind"), Node::File(Vec::new())));
        for (path, to) in add {
            nodes.retain(|(known, _)| known != path);
            nodes.push(((*path).into(), Node::Link((*to).into())));
        }
        let tree = Tree::from_nodes(nodes.into_iter().collect());
        let standing = Standing::read(&tree, device.parse().unwrap()).unwrap();
        Change::plan(&tree, &standing, direction)
    }

    fn lines(writes: &[Write]) -> Vec<String> {
        writes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_free_function_is_kept_for_vfio_pci_and_probed() {
        let change = plan("0000:05:00.0", Direction::Bind, &[]);
        assert!(change.obstacles.is_empty());
        assert_eq!(
            lines(&change.writes),
            [
                "echo vfio-pci > /sys/bus/pci/devices/0000:05:00.0/driver_override",
                "echo 0000:05:00.0 > /sys/bus/pci/drivers_probe"
            ]
        );
    }

    #[test]
    fn a_mounted_drive_is_taken_from_nobody_unless_forced() {
        let change = plan("0000:03:00.0", Direction::Bind, &[]);
        let said: Vec<String> = change.in_the_way(false).map(ToString::to_string).collect();
        assert!(said[0].contains("bound to nvme") && said[1].contains("mounted at /srv/data"), "{said:?}");
        assert_eq!(change.in_the_way(true).count(), 0);
        assert_eq!(lines(&change.writes)[1], "echo 0000:03:00.0 > /sys/bus/pci/drivers/nvme/unbind");
    }

    #[test]
    fn what_is_bound_already_takes_nothing_and_goes_back_by_an_empty_line() {
        let bound = [("sys/bus/pci/devices/0000:05:00.0/driver", "../../bus/pci/drivers/vfio-pci")];
        assert_eq!(plan("0000:05:00.0", Direction::Bind, &bound).writes, []);
        let change = plan("0000:05:00.0", Direction::Unbind, &bound);
        assert_eq!(lines(&change.writes)[0], "echo > /sys/bus/pci/devices/0000:05:00.0/driver_override");
        assert_eq!(lines(&change.writes)[1], "echo 0000:05:00.0 > /sys/bus/pci/drivers/vfio-pci/unbind");
        let not = plan("0000:04:00.0", Direction::Unbind, &[]);
        assert!(matches!(not.obstacles[..], [Obstacle::NotBound { .. }]) && not.writes.is_empty());
    }

    /// A probe that fails leaves a function without a driver, kept for one that does not take it.
    #[test]
    fn a_binding_that_fails_is_put_back() {
        let change = plan("0000:03:00.0", Direction::Bind, &[]);
        let mut written = Vec::new();
        let put = |path: &str, text: &str| {
            written.push(format!("{} {}", text.trim_end(), path.rsplit('/').next().unwrap_or_default()));
            Ok(())
        };
        let error = change.carry_out_by(put, || None, Path::new("/")).unwrap_err();
        assert!(matches!(error, ChangeError::NotTaken { found: None, .. }), "{error}");
        let address = "0000:03:00.0";
        assert_eq!(
            written,
            [
                "vfio-pci driver_override".to_string(),
                format!("{address} unbind"),
                format!("{address} drivers_probe"),
                " driver_override".to_string(),
                format!("{address} drivers_probe"),
            ]
        );
    }

    #[test]
    fn the_first_refusal_ends_it_with_the_file_and_nothing_is_put_back_that_was_not_changed() {
        let change = plan("0000:05:00.0", Direction::Bind, &[]);
        let mut calls = 0;
        let put = |_: &str, _: &str| {
            calls += 1;
            Err(io::Error::from_raw_os_error(13))
        };
        let error = change.carry_out_by(put, || None, Path::new("/")).unwrap_err().to_string();
        assert!(
            error.contains("/sys/bus/pci/devices/0000:05:00.0/driver_override") && error.contains("root's"),
            "{error}"
        );
        assert_eq!(calls, 1);
    }
}
