//! Devices of VFIO whole: interrupts, and memory that others use while the device is reset, switched off and closed.
//!
//! In the topology `default` 05:00.0 (an engine), 06:00.0 (a memory) and 04:00.0 (a drive) are below one switch, and
//! 0b:00.0 and 0b:00.1 are two functions of one device.

use super::Test;
use super::checks::{Group, tests_of};
use super::setup::Which;

const FUNCTIONS: &[&str] = &["0000:05:00.0", "0000:06:00.0", "0000:04:00.0", "0000:0b:00.0"];

const GROUPS: [Group; 2] = [
    Group {
        name: "a device whole, through type1",
        kernel: Which::Stock,
        zen: false,
        vfio: FUNCTIONS,
        words: &["vfio-type1 --edu 05:00.0 --target 06:00.0 --nvme 04:00.0"],
        fewest: 22,
    },
    Group {
        name: "a device whole, through iommufd",
        kernel: Which::Small,
        zen: false,
        vfio: FUNCTIONS,
        words: &["vfio-iommufd --edu 05:00.0 --target 06:00.0 --nvme 04:00.0"],
        fewest: 22,
    },
];

pub(super) fn tests() -> Vec<Test> {
    tests_of("vfio", &GROUPS)
}
