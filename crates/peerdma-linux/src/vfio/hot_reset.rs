//! Hot reset: of a device and of everything below the same bridge.
//!
//! A device without a reset of its own is reset together with its neighbours, and all of them have to be this
//! process's. The kernel wants to be shown that: the descriptors of all their groups, or, where devices are bound to
//! an iommufd, that all are bound to the same one. It says whom it is about, in either case
//! (Linux 7.2 `vfio_pci_ioctl_get_pci_hot_reset_info`), and so a refusal here names who is missing.
//!
//! Not here: telling whoever uses memory of those devices; that is for whoever shares it.

use super::chain::u32_at;
use super::device::VfioDevice;
use super::error::errno;
use crate::sys::vfio::whole::{self, HOT_RESET_DEVICE, HOT_RESET_HEADER};
use peerdma::dma::Errno;
use peerdma::pcie::PciAddr;
use std::fmt;
use std::os::fd::BorrowedFd;
use vfio_bindings::bindings::vfio as uapi;

/// How a function that a hot reset affects is known to be ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Membership {
    /// Its group's descriptor is to be shown.
    Group(u32),
    /// It is bound to the same iommufd, under this number, or needs not be, as its group's other members are.
    Ours,
    /// It is neither.
    NotOurs,
}

/// A function that a hot reset affects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Affected {
    /// The function.
    pub device: PciAddr,
    /// How it is known to be ours.
    pub membership: Membership,
}

/// Whom a hot reset affects.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HotResetInfo {
    /// Every function, the device itself among them.
    pub affected: Vec<Affected>,
    /// Whether groups are to be shown; otherwise the iommufd says whose they are.
    pub by_groups: bool,
}

impl HotResetInfo {
    /// Numbers of the groups that are to be shown, each once; none where an iommufd says whose they are.
    pub fn groups(&self) -> Vec<u32> {
        let mut groups: Vec<u32> = self.affected.iter().filter_map(Affected::group).collect();
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    /// Those that are not ours, if these groups are shown; of a group without a number nobody knows.
    fn missing(&self, shown: &[ShownGroup<'_>]) -> Vec<PciAddr> {
        let is_shown = |group: u32| shown.iter().any(|shown| shown.number.is_none_or(|number| number == group));
        let not_ours = self.affected.iter().filter(|one| match one.membership {
            Membership::Group(group) => !is_shown(group),
            Membership::Ours => false,
            Membership::NotOurs => true,
        });
        not_ours.map(|one| one.device).collect()
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (flags, count) = (u32_at(bytes, 4)?, u32_at(bytes, 8)? as usize);
        let by_groups = flags & uapi::VFIO_PCI_HOT_RESET_FLAG_DEV_ID == 0;
        let devices = bytes.get(HOT_RESET_HEADER..)?;
        let devices = devices.get(..count.checked_mul(HOT_RESET_DEVICE)?)?;
        let affected = devices.chunks_exact(HOT_RESET_DEVICE).map(|one| {
            let (number, segment) = (u32_at(one, 0)?, u16::from_ne_bytes([one[4], one[5]]));
            let (bus, devfn) = (one[6], one[7]);
            let membership = match number {
                group if by_groups => Membership::Group(group),
                number if number == uapi::VFIO_PCI_DEVID_NOT_OWNED.cast_unsigned() => Membership::NotOurs,
                _ => Membership::Ours,
            };
            let device = format!("{segment:04x}:{bus:02x}:{:02x}.{}", devfn >> 3, devfn & 7).parse().ok()?;
            Some(Affected { device, membership })
        });
        Some(Self { affected: affected.collect::<Option<_>>()?, by_groups })
    }
}

impl Affected {
    const fn group(&self) -> Option<u32> {
        match self.membership {
            Membership::Group(group) => Some(group),
            _ => None,
        }
    }
}

/// The descriptor of a group, shown to the kernel as ours.
#[derive(Clone, Copy, Debug)]
pub struct ShownGroup<'a> {
    /// Its number; `None` where nobody said, as of a descriptor that was sent. The kernel knows then, and errors are poorer.
    pub number: Option<u32>,
    /// The open group.
    pub group: BorrowedFd<'a>,
}

/// Why devices were not reset together.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HotResetError {
    /// Neither its bus nor its slot can be reset.
    #[error("nothing above {device} resets it: its bus is the root complex's, or a bridge on the way forbids it")]
    NoReset {
        /// The function.
        device: PciAddr,
    },
    /// Others would be reset too; open them first, in the same container or iommufd.
    #[error(
        "a hot reset of {device} also resets {}, which this process does not have; bind and open those first",
        List(others)
    )]
    NotOurs {
        /// The function.
        device: PciAddr,
        /// Those that are missing.
        others: Vec<PciAddr>,
    },
    /// The kernel described them in a way that makes no sense.
    #[error("the kernel's list of functions that are reset with {device} is damaged")]
    Damaged {
        /// The function.
        device: PciAddr,
    },
    /// The kernel refused.
    #[error("{call} of {device} refused with {errno}")]
    Kernel {
        /// The function.
        device: PciAddr,
        /// Which request.
        call: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
}

struct List<'a>(&'a [PciAddr]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, device) in self.0.iter().enumerate() {
            write!(f, "{}{device}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl VfioDevice {
    /// Asks whom a hot reset affects.
    ///
    /// # Errors
    /// [`HotResetError::NoReset`] where there is none; [`HotResetError::Kernel`], EPERM where one of them is bound to no
    /// IOMMU group.
    pub fn hot_reset_info(&self) -> Result<HotResetInfo, HotResetError> {
        let device = self.address();
        let bytes = whole::hot_reset_info(self.descriptor()).map_err(|error| match error {
            rustix::io::Errno::NODEV => HotResetError::NoReset { device },
            error => HotResetError::Kernel { device, call: "VFIO_DEVICE_GET_PCI_HOT_RESET_INFO", errno: errno(error) },
        })?;
        HotResetInfo::parse(&bytes).ok_or(HotResetError::Damaged { device })
    }

    /// Resets everything below the bridge above the device. Blocks for a second or so.
    ///
    /// `groups` are those of all affected functions, such as [`Type1Space::groups`](crate::type1::Type1Space::groups);
    /// none for a device that is bound to an iommufd.
    ///
    /// # Errors
    /// [`HotResetError::NotOurs`] before anything is reset; [`HotResetError::Kernel`].
    pub fn hot_reset(&self, groups: &[ShownGroup<'_>]) -> Result<(), HotResetError> {
        let (device, info) = (self.address(), self.hot_reset_info()?);
        let others = info.missing(groups);
        if !others.is_empty() {
            return Err(HotResetError::NotOurs { device, others });
        }
        // The kernel takes no more groups than devices are affected, and of an iommufd's none at all.
        let needed = info.groups();
        let shown = groups.iter().filter(|shown| shown.number.is_none_or(|number| needed.contains(&number)));
        let shown: Vec<BorrowedFd<'_>> = shown.filter(|_| info.by_groups).map(|shown| shown.group).collect();
        whole::hot_reset(self.descriptor(), &shown).map_err(|error| HotResetError::Kernel {
            device,
            call: "VFIO_DEVICE_PCI_HOT_RESET",
            errno: errno(error),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    fn answer(flags: u32, devices: &[(u32, u16, u8, u8)]) -> Vec<u8> {
        let mut bytes: Vec<u8> =
            [0, flags, devices.len() as u32].iter().flat_map(|word: &u32| word.to_ne_bytes()).collect();
        for (number, segment, bus, devfn) in devices {
            bytes.extend(number.to_ne_bytes());
            bytes.extend(segment.to_ne_bytes());
            bytes.extend([*bus, *devfn]);
        }
        bytes
    }

    #[test]
    fn who_is_missing_is_named_by_groups_and_by_an_iommufd() {
        let info = HotResetInfo::parse(&answer(0, &[(7, 0, 5, 0), (8, 0, 5, 1), (7, 1, 5, 0xff)])).unwrap();
        assert_eq!((info.groups(), info.by_groups), (vec![7, 8], true));
        let null = std::fs::File::open("/dev/null").unwrap();
        let shown = |number| ShownGroup { number, group: null.as_fd() };
        let missing = info.missing(&[shown(Some(7))]);
        assert_eq!(missing.iter().map(ToString::to_string).collect::<Vec<_>>(), ["0000:05:00.1"]);
        assert_eq!(info.affected[2].device.to_string(), "0001:05:1f.7");
        assert!(info.missing(&[shown(None)]).is_empty(), "nobody knows which it is");
        let info = HotResetInfo::parse(&answer(1, &[(3, 0, 5, 0), (0, 0, 5, 1), (u32::MAX, 0, 5, 2)])).unwrap();
        let missing = info.missing(&[]);
        assert_eq!(missing.iter().map(ToString::to_string).collect::<Vec<_>>(), ["0000:05:00.2"]);
        assert!(info.groups().is_empty());
    }

    #[test]
    fn a_list_that_is_cut_is_no_list() {
        let whole = answer(0, &[(7, 0, 5, 0), (8, 0, 5, 1)]);
        for len in 0..whole.len() {
            assert_eq!(HotResetInfo::parse(&whole[..len]), None, "{len}");
        }
        let mut many = whole;
        many[8..12].fill(0xff);
        assert_eq!(HotResetInfo::parse(&many), None);
    }
}
