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
    // A BAR that another process maps, through all that is done to its device.
    (
        "peerdma share 06:00.0/bar2 --socket /tmp/bar",
        1,
        &["bound to no driver", "peerdma vfio bind 0000:06:00.0 --yes"],
    ),
    ("peerdma share 03:00.0/bar0 --socket /tmp/bar", 1, &["bound to nvme", "peerdma vfio bind 0000:03:00.0 says"]),
    ("peerdma vfio bind 06:00.0 --yes", 0, &["done:"]),
    ("peerdma share 06:00.0/bar2+0x800,4KiB --socket /tmp/bar", 1, &["pages around it: 0000:06:00.0/bar2+0x0,0x2000"]),
    ("peerdma share 06:00.0/bar0 --socket /tmp/bar", 1, &["256 bytes", "share another BAR"]),
    (SHARED_BAR, 0, &["for devices this kernel exports one too", "revoked", "with pattern 1", "the device is closed"]),
    (
        "cat /tmp/heard",
        0,
        &[
            "in device memory",
            "holds pattern 0, every byte",
            "let-go",
            "holds pattern 1, every byte",
            "gone",
            "detached",
        ],
    ),
    ("test -e /tmp/bar", 1, &[]),
    ("peerdma vfio unbind 06:00.0 --yes", 0, &["done:"]),
];

/// An importer follows while the memory is switched off and on and the device reset; each word waits for what the one
/// before brought about.
const SHARED_BAR: &str = "sh -c 'mkfifo /tmp/words; \
     peerdma share 06:00.0/bar2+0x1000,64KiB --fill --patience 60 --socket /tmp/bar < /tmp/words > /tmp/told 2>&1 & \
     exec 3> /tmp/words; await() { until grep -q \"$1\" $2; do sleep 1; done; }; await filled /tmp/told; \
     peerdma attach /tmp/bar --look --patience 60 > /tmp/heard 2>&1 & await \"pattern 0\" /tmp/heard; \
     echo revoke >&3; await revoked /tmp/told; echo restore >&3; await \"pattern 1\" /tmp/heard; \
     echo reset >&3; await \"after power-on\" /tmp/told; await \"generation 2; it holds\" /tmp/heard; \
     echo quit >&3; wait; cat /tmp/told'";

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
