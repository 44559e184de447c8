//! The claims that `peerdma-guest checks` makes inside a guest, group by group.

use super::claims::claims;
use super::setup::{Laboratory, Setup, Which};
use super::{Done, Test};
use crate::failure::Failure;
use crate::vm::guest::Job;

/// One group in one guest. Functions are those of the topology `default`, see `copies`.
pub(super) struct Group {
    pub(super) name: &'static str,
    pub(super) kernel: Which,
    /// Whether the host bridge forwards, so that routes between root ports are permitted.
    pub(super) zen: bool,
    /// Functions for vfio-pci.
    pub(super) vfio: &'static [&'static str],
    /// What follows `peerdma-guest checks`, in turn until one ends badly.
    pub(super) words: &'static [&'static str],
    /// How many claims hold at least: one that no longer applies is a change to look at.
    pub(super) fewest: usize,
}

const GROUPS: [Group; 8] = [
    Group {
        name: "dma-buf export",
        kernel: Which::Stock,
        zen: false,
        vfio: &["0000:06:00.0", "0000:04:00.0"],
        words: &["export --target 06:00.0 --nvme 04:00.0"],
        fewest: 72,
    },
    Group {
        name: "type1 below one switch",
        kernel: Which::Stock,
        zen: false,
        vfio: &["0000:05:00.0", "0000:06:00.0"],
        words: &["type1 --edu 05:00.0 --target 06:00.0 --shared 03:00.0"],
        fewest: 48,
    },
    Group {
        name: "type1 across root ports",
        kernel: Which::Stock,
        zen: true,
        vfio: &["0000:08:00.0", "0000:09:00.0"],
        words: &["type1 --edu 08:00.0 --target 09:00.0"],
        fewest: 47,
    },
    Group {
        name: "iommufd below one switch",
        kernel: Which::Small,
        zen: false,
        vfio: &["0000:05:00.0", "0000:06:00.0"],
        words: &["iommufd --edu 05:00.0 --target 06:00.0"],
        fewest: 77,
    },
    Group {
        name: "iommufd across root ports",
        kernel: Which::Small,
        zen: true,
        vfio: &["0000:08:00.0", "0000:09:00.0"],
        words: &["iommufd --edu 08:00.0 --target 09:00.0"],
        fewest: 77,
    },
    Group {
        name: "the contract on type1, stock kernel",
        kernel: Which::Stock,
        zen: false,
        vfio: &["0000:05:00.0"],
        words: &["contract-type1 --edu 05:00.0"],
        fewest: 20,
    },
    // One guest for three, since each closes what it opened.
    Group {
        name: "the contract on type1 and iommufd, memory and BARs",
        kernel: Which::Small,
        zen: false,
        vfio: &["0000:05:00.0", "0000:06:00.0"],
        words: &[
            "contract-type1-bar --edu 05:00.0 --target 06:00.0",
            "contract-iommufd --edu 05:00.0",
            "contract-iommufd-bar --edu 05:00.0 --target 06:00.0",
        ],
        fewest: 76,
    },
    // Memory, a BAR below the same switch, one across root ports and a doorbell in one mapping.
    Group {
        name: "one mapping of everything, on type1 and iommufd",
        kernel: Which::Small,
        zen: true,
        vfio: &["0000:05:00.0", "0000:06:00.0", "0000:08:00.0", "0000:09:00.0"],
        words: &[
            "mixed-type1 --edu 05:00.0 --target 06:00.0 --far 09:00.0 --bell 08:00.0",
            "mixed-iommufd --edu 05:00.0 --target 06:00.0 --far 09:00.0 --bell 08:00.0",
        ],
        fewest: 6,
    },
];

pub(super) fn tests() -> Vec<Test> {
    tests_of("checks", &GROUPS)
}

/// Tests of groups of claims, under a word of the suite's.
pub(super) fn tests_of(word: &'static str, groups: &'static [Group]) -> Vec<Test> {
    let test = |group: &'static Group| {
        Test::new(word, group.name, move |laboratory| {
            let setup = Setup::named(group.kernel, "default").vfio(group.vfio);
            let setup = if group.zen { setup.zen() } else { setup };
            perform(laboratory, &setup, group)
        })
    };
    groups.iter().map(test).collect()
}

/// Boots a guest for one group and counts the claims that held.
fn perform(laboratory: &Laboratory, setup: &Setup, group: &Group) -> Result<Done, Failure> {
    let commands: Vec<String> = group.words.iter().map(|words| format!("peerdma-guest checks {words}")).collect();
    let job = Job::new(vec!["sh".into(), "-c".into(), commands.join(" && ")]);
    claims(laboratory, setup, &job, group.fewest).map(|(done, _)| done)
}
