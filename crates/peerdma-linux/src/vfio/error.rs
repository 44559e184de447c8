//! Why a device, a group, a container or an iommufd could not be opened.
//!
//! One enum for all roads to an open device, since whoever opens one wants one list of
//! things to put right. Each text names what was found and the line to type.

use super::region::DamagedRegion;
use super::type1_info::DamagedInfo;
use peerdma::dma::Errno;
use peerdma::pcie::PciAddr;
use std::fmt;
use std::path::PathBuf;

/// Another function of an IOMMU group, and what is bound to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Neighbour {
    /// Its address.
    pub device: PciAddr,
    /// Its driver; `None` if it has none.
    pub driver: Option<String>,
}

impl fmt::Display for Neighbour {
    /// Writes `0000:03:00.0 (nvme)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.device, self.driver.as_deref().unwrap_or("no driver"))
    }
}

/// The line that hands a function to `vfio-pci`, to be typed as root.
///
/// A driver's name comes from whoever wrote the driver, or the capture; one that a shell would
/// not take as a plain word is quoted.
#[derive(Clone, Copy, Debug)]
pub struct BindLine<'a> {
    /// The function.
    pub device: PciAddr,
    /// The driver that has it now.
    pub driver: Option<&'a str>,
}

impl fmt::Display for BindLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let device = self.device;
        write!(f, "echo vfio-pci > /sys/bus/pci/devices/{device}/driver_override")?;
        if let Some(driver) = self.driver {
            write!(f, " && echo {device} > /sys/bus/pci/drivers/{}/unbind", Word(driver))?;
        }
        write!(f, " && echo {device} > /sys/bus/pci/drivers_probe")
    }
}

/// A word of a shell's command line: as it is if all of it is plain, else in single quotes.
struct Word<'a>(&'a str);

impl fmt::Display for Word<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-.+".contains(c);
        if self.0.chars().all(plain) {
            return f.write_str(self.0);
        }
        // Nothing is special between single quotes but the next one, which goes outside.
        write!(f, "'{}'", self.0.replace('\'', "'\\''"))
    }
}

struct List<'a>(&'a [Neighbour]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("one of its members");
        }
        for (index, neighbour) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{neighbour}")?;
        }
        Ok(())
    }
}

/// Why something of VFIO or iommufd could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// sysfs knows no such function; check the address.
    #[error("there is no PCI function {device} on this machine; peerdma topo lists them all")]
    Absent {
        /// The address that was asked for.
        device: PciAddr,
    },
    /// Another driver has the function; bind it to `vfio-pci`.
    #[error(
        "{device} is bound to {driver}, not to vfio-pci; as root: modprobe vfio-pci && {}",
        BindLine { device: *device, driver: Some(driver.as_str()) }
    )]
    OtherDriver {
        /// The function.
        device: PciAddr,
        /// The driver that has it.
        driver: String,
    },
    /// No driver has the function; bind it to `vfio-pci`.
    #[error(
        "{device} is bound to no driver; as root: modprobe vfio-pci && {}",
        BindLine { device: *device, driver: None }
    )]
    NoDriver {
        /// The function.
        device: PciAddr,
    },
    /// There is no IOMMU in front of the function; switch it on.
    #[error(
        "{device} is in no IOMMU group: there is no IOMMU in front of it, or it is off; switch it on in firmware and boot with intel_iommu=on (Intel) or without amd_iommu=off (AMD)"
    )]
    NoIommuGroup {
        /// The function.
        device: PciAddr,
    },
    /// The group, container or device has no IOMMU behind it; peerdma does not use such.
    #[error(
        "{object} is a noiommu one: its device would reach all of memory, so peerdma refuses it; switch the IOMMU on and vfio's enable_unsafe_noiommu_mode off"
    )]
    Noiommu {
        /// What was to be opened.
        object: String,
    },
    /// Others in the group have drivers; the whole group goes to one owner.
    #[error(
        "IOMMU group {group} cannot be taken while kernel drivers have {}; bind them to vfio-pci too, or unbind them",
        List(others)
    )]
    NotViable {
        /// Which group, `of the descriptor given` for one without a number.
        group: String,
        /// Its members that are in the way, as far as sysfs tells.
        others: Vec<Neighbour>,
    },
    /// Not allowed to open a file; run as root or change its owner.
    #[error("not permitted to open {} ({errno}); run as root, or have root give this user the file", path.display())]
    NoPrivilege {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// A device node is not there; load the module that makes it.
    #[error("{} is not there; as root: modprobe {module}", path.display())]
    NoNode {
        /// The file.
        path: PathBuf,
        /// The module whose it is.
        module: &'static str,
    },
    /// The kernel has no `/dev/iommu`; use type1 or another kernel.
    #[error(
        "{} is not there: this kernel has no iommufd (CONFIG_IOMMUFD), or its module is not loaded (modprobe iommufd); VFIO type1 does without",
        path.display()
    )]
    NoIommufd {
        /// The file.
        path: PathBuf,
    },
    /// The kernel makes no device nodes; use type1 or another kernel.
    #[error(
        "{device} has no node below /dev/vfio/devices: this kernel has no VFIO device nodes (CONFIG_VFIO_DEVICE_CDEV); VFIO type1 does without"
    )]
    NoDeviceNode {
        /// The function.
        device: PciAddr,
    },
    /// Somebody has it open; end that program first.
    #[error("{} is in use by another program; lsof {} says which", path.display(), path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The device cannot be bound to an iommufd; end the program that has it.
    #[error(
        "the kernel does not bind {device} to an iommufd ({errno}): another program has it or its group open (lsof /dev/vfio/* /dev/vfio/devices/* says which), or its IOMMU cannot keep caches coherent"
    )]
    NotBound {
        /// The function.
        device: PciAddr,
        /// The kernel's answer.
        errno: Errno,
    },
    /// Interrupts could be forged; only root may accept that, by a module parameter.
    #[error(
        "the kernel refuses to give {object} away because this IOMMU does not isolate interrupts (EPERM); if that is acceptable, as root: echo 1 > /sys/module/{module}/parameters/allow_unsafe_interrupts"
    )]
    UnsafeInterrupts {
        /// The group or device.
        object: String,
        /// The module whose parameter it is.
        module: &'static str,
    },
    /// The container knows no type1 IOMMU; load its module.
    #[error("this container knows no type1v2 IOMMU; as root: modprobe vfio_iommu_type1")]
    NoType1,
    /// The interface has another version than 0, the only one there ever was.
    #[error("this container speaks version {found} of the VFIO interface; peerdma speaks 0")]
    Version {
        /// What it answered.
        found: i32,
    },
    /// The device belongs to none of the groups of the space; open it with its group.
    #[error("{device} is in none of the groups of this container; open the container with it")]
    NotInContainer {
        /// The function.
        device: PciAddr,
    },
    /// The descriptor is of a device that is no PCI function.
    #[error("the descriptor given for {device} is no PCI device of VFIO")]
    NotPci {
        /// What the caller calls it.
        device: PciAddr,
    },
    /// The device went away, by hot unplug or because its driver was unbound.
    #[error("{object} is gone: unplugged, or taken from its driver (ENODEV)")]
    Gone {
        /// The group or device.
        object: String,
    },
    /// The kernel described a region in a way that makes no sense.
    #[error("the kernel's description of region {region} of {device} is damaged: {damage}")]
    DamagedRegion {
        /// The function.
        device: PciAddr,
        /// Number of the region; 0 to 5 are the BARs, 7 is config space.
        region: u32,
        /// What is wrong with it.
        damage: Damage,
    },
    /// The kernel described an address space in a way that makes no sense.
    #[error("the kernel's description of this address space is damaged: {damage}")]
    DamagedSpace {
        /// What is wrong with it.
        damage: Damage,
    },
    /// The kernel refused for a reason of its own.
    #[error("{call} of {object} refused with {errno}")]
    Kernel {
        /// The system call or request.
        call: &'static str,
        /// What it was asked of.
        object: String,
        /// Its answer.
        errno: Errno,
    },
}

/// What is wrong with an answer of the kernel, for messages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage(String);

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<DamagedRegion> for Damage {
    fn from(damage: DamagedRegion) -> Self {
        Self(damage.to_string())
    }
}

impl From<DamagedInfo> for Damage {
    fn from(damage: DamagedInfo) -> Self {
        Self(damage.to_string())
    }
}

impl Damage {
    pub(crate) fn new(what: impl fmt::Display) -> Self {
        Self(what.to_string())
    }
}

/// An error number as the core writes it.
pub(crate) fn errno(error: rustix::io::Errno) -> Errno {
    Errno::new(error.raw_os_error())
}

impl OpenError {
    /// An answer that means nothing special where it came.
    pub(crate) fn kernel(call: &'static str, object: impl fmt::Display, error: rustix::io::Errno) -> Self {
        let object = object.to_string();
        match error {
            rustix::io::Errno::NODEV => Self::Gone { object },
            error => Self::Kernel { call, object, errno: errno(error) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drivers_name_that_a_shell_would_act_upon_is_quoted() {
        let line = |driver| BindLine { device: "0000:05:00.0".parse().unwrap(), driver: Some(driver) }.to_string();
        for (driver, word) in
            [("mlx5_core", "mlx5_core"), ("evil; rm -rf ~", "'evil; rm -rf ~'"), ("it's $(id)", r"'it'\''s $(id)'")]
        {
            let (line, expected) = (line(driver), format!("> /sys/bus/pci/drivers/{word}/unbind && "));
            assert!(line.contains(&expected), "{line}");
        }
    }
}
