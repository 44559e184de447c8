//! Devices of VFIO whole: interrupts, and memory that others use while the device is reset, switched off and closed.
//!
//! In the topology `default` 05:00.0 (an engine), 06:00.0 (a memory) and 04:00.0 (a drive) are below one switch, and
//! 0b:00.0 and 0b:00.1 are two functions of one device.

use super::Test;
use super::checks::{Group, tests_of};
use super::copies::{Step, all};
use super::setup::{Setup, Which};
use crate::vm::guest::User;
use crate::vm::machine::Iommu;

const FUNCTIONS: &[&str] = &["0000:05:00.0", "0000:06:00.0", "0000:04:00.0", "0000:0b:00.0", "0000:0b:00.1"];

const GROUPS: [Group; 2] = [
    Group {
        name: "a device whole, through type1",
        kernel: Which::Stock,
        zen: false,
        vfio: FUNCTIONS,
        words: &["vfio-type1 --edu 05:00.0 --target 06:00.0 --nvme 04:00.0 --bell 0b:00.0 --far 0b:00.1"],
        fewest: 25,
    },
    Group {
        name: "a device whole, through iommufd",
        kernel: Which::Small,
        zen: false,
        vfio: FUNCTIONS,
        words: &["vfio-iommufd --edu 05:00.0 --target 06:00.0 --nvme 04:00.0 --bell 0b:00.0 --far 0b:00.1"],
        fewest: 25,
    },
];

/// `peerdma vfio` by root: an engine without a driver, and a drive that has one.
const BY_COMMAND: &[Step] = &[
    ("peerdma vfio list", 0, &["0000:05:00.0", "1234:11e8", "free; bind it", "bind it with --force"]),
    ("peerdma vfio bind 05:00.0", 0, &["would be done:", "nothing was changed; --yes does it"]),
    ("test -e /sys/bus/pci/devices/0000:05:00.0/driver", 1, &[]),
    ("peerdma vfio bind 05:00.0 --yes", 0, &["done:", "driver_override"]),
    ("readlink /sys/bus/pci/devices/0000:05:00.0/driver", 0, &["vfio-pci"]),
    ("peerdma vfio bind 05:00.0 --yes", 0, &["bound to vfio-pci already"]),
    ("peerdma vfio list", 0, &["ready"]),
    ("peerdma vfio reset 05:00.0 --yes", 0, &["done:", "VFIO_DEVICE_RESET (bus)"]),
    // Whoever has the group open would keep the kernel waiting.
    (
        "sh -c 'exec 3<>/dev/vfio/$(basename $(readlink /sys/bus/pci/devices/0000:05:00.0/iommu_group)); \
         peerdma vfio unbind 05:00.0 --yes --force'",
        1,
        &["has it open", "nothing was changed"],
    ),
    ("peerdma vfio unbind 05:00.0 --yes", 0, &["done:", "drivers/vfio-pci/unbind"]),
    ("cat /sys/bus/pci/devices/0000:05:00.0/driver_override", 0, &["(null)"]),
    ("peerdma vfio bind 03:00.0 --yes", 1, &["bound to nvme", "nothing was changed"]),
    ("peerdma vfio bind 03:00.0 --yes --force", 0, &["forced: ", "drivers/nvme/unbind"]),
    ("readlink /sys/bus/pci/devices/0000:03:00.0/driver", 0, &["vfio-pci"]),
    ("peerdma vfio unbind 03:00.0 --yes", 0, &["done:"]),
    ("readlink /sys/bus/pci/devices/0000:03:00.0/driver", 0, &["nvme"]),
    ("peerdma vfio bind 02:00.0 --yes --force", 1, &["is a bridge"]),
];

const BY_A_USER: &[Step] = &[
    ("peerdma vfio bind 05:00.0", 0, &["this user may not write", "root's to do"]),
    ("peerdma vfio bind 05:00.0 --yes", 4, &["EACCES", "root's to do"]),
];

/// Without an IOMMU the driver refuses the function, and what was written has to be put back.
const WITHOUT_IOMMU: &[Step] = &[
    ("peerdma vfio bind 05:00.0 --yes", 1, &["has no IOMMU group"]),
    ("cat /sys/bus/pci/devices/0000:05:00.0/driver_override", 0, &["(null)"]),
];

pub(super) fn tests() -> Vec<Test> {
    let stock = || Setup::named(Which::Stock, "default");
    let commands = [
        ("bound, reset and given back by the command", stock(), BY_COMMAND),
        ("a user is told what is root's to do", stock().user(User::Nobody), BY_A_USER),
        ("without an IOMMU nothing is bound", stock().iommu(Iommu::None), WITHOUT_IOMMU),
    ];
    let command = |(name, setup, steps): (&'static str, Setup, &'static [Step])| {
        Test::new("vfio", name, move |laboratory| all(laboratory, &setup, steps))
    };
    tests_of("vfio", &GROUPS).into_iter().chain(commands.map(command)).collect()
}
