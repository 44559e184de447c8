//! `peerdma copy` in a guest: real bytes from one device into another's memory.
//!
//! No guest here has QEMU's AMD IOMMU: it passes every address through untranslated, so
//! IOVAs lead nowhere.
//!
//! In the topology `default` 05:00.0 (an engine) and 06:00.0 (a memory) are below one
//! switch, 08:00.0 and 09:00.0 the same on root ports of their own, 03:00.0 a drive.

use super::setup::{Laboratory, Setup, Which};
use super::{Done, Test};
use crate::failure::Failure;
use crate::vm::guest::{Job, Outcome, User};
use crate::vm::machine::Iommu;

/// Engines and memories that may be bound to vfio-pci.
const BOUND: [&str; 4] = ["0000:05:00.0", "0000:06:00.0", "0000:08:00.0", "0000:09:00.0"];

/// One command line, how it must end, and what it must say.
pub(super) type Step = (&'static str, u8, &'static [&'static str]);

const ARRIVED: &[&str] = &["verified   yes", "every byte arrived"];

/// Below Zen on the stock kernel: what is permitted, refused, forced, and wrong.
const BELOW_ZEN: &[Step] = &[
    ("peerdma copy 05:00.0 06:00.0/bar2 --engine edu --verify", 0, &["permitted  direct", "type1", "verified   yes"]),
    ("peerdma copy 05:00.0 06:00.0/bar2+0x10000,20KiB --verify --seed 7", 0, ARRIVED),
    ("peerdma copy 05:00.0 09:00.0/bar2 --verify", 1, &["permitted  refused", "nothing was touched", "verified   no"]),
    (
        "peerdma copy 05:00.0 09:00.0/bar2 --verify --force",
        0,
        &["permitted  refused", "although the rules refuse the pair", "verified   yes"],
    ),
    ("peerdma copy 05:00.0 06:00.0/bar2 --verify --json", 0, &["\"verified\""]),
    ("peerdma copy 05:00.0 03:00.0/bar2 --verify", 4, &["0000:03:00.0 is bound to nvme, not to vfio-pci"]),
    ("peerdma copy 06:00.0 05:00.0/bar0", 4, &["0000:06:00.0", "edu"]),
    ("peerdma copy 05:00.0 06:00.0/bar5", 2, &["no memory BAR 5"]),
    ("peerdma copy 05:00.0 06:00.0/bar2+0xffe000,64KiB --verify", 2, &["bar2"]),
];

/// From Zen on the host bridge forwards, and both ways between root ports are permitted.
const ACROSS: &[Step] = &[
    ("peerdma copy 05:00.0 09:00.0/bar2 --verify", 0, &["permitted  host_bridge", "verified   yes"]),
    ("peerdma copy 08:00.0 06:00.0/bar2 --verify", 0, ARRIVED),
];

const BOTH_INTERFACES: &[Step] = &[
    ("peerdma copy 05:00.0 06:00.0/bar2 --verify", 0, &["iommufd", "verified   yes"]),
    ("peerdma copy 05:00.0 06:00.0/bar2 --verify --via type1", 0, &["type1", "verified   yes"]),
    ("peerdma copy 05:00.0 09:00.0/bar2 --verify --via iommufd", 0, &["iommufd", "verified   yes"]),
    ("peerdma copy 08:00.0 06:00.0/bar2 --verify --via type1", 0, &["type1", "verified   yes"]),
];

/// A user reads too little of config space to be told, and may not open the group.
const AS_A_USER: &[Step] = &[
    ("peerdma copy 05:00.0 06:00.0/bar2 --verify", 3, &["permitted  unknown", "nothing was touched"]),
    ("peerdma copy 05:00.0 06:00.0/bar2 --verify --force", 4, &["not permitted to open /dev/vfio/"]),
];

const WITHOUT_IOMMU: &[Step] = &[
    // vfio-pci does not bind there, so the driver is what is wrong first.
    ("peerdma copy 05:00.0 06:00.0/bar2 --verify", 4, &["0000:05:00.0"]),
];

/// An engine that reaches its buffer in memory and not the target, and does not say so.
const CUT_SHORT: &[Step] = &[("peerdma copy 05:00.0 06:00.0/bar2 --verify", 4, &["verified   no", "did not arrive"])];

pub(super) fn tests() -> Vec<Test> {
    let stock = || Setup::named(Which::Stock, "default").vfio(&BOUND);
    let small = || Setup::named(Which::Small, "default").vfio(&BOUND);
    let mut narrow = stock();
    narrow.replace.push(("dma_mask=0xffffffffffffffff", "dma_mask=0x103fff".into()));
    [
        ("below one switch, and what is refused or wrong", stock(), BELOW_ZEN),
        ("across root ports, intel", stock().zen(), ACROSS),
        ("across root ports, virtio", stock().zen().iommu(Iommu::Virtio), ACROSS),
        ("through type1 and iommufd", small().zen(), BOTH_INTERFACES),
        ("as a user", stock().user(User::Nobody), AS_A_USER),
        ("without an IOMMU", Setup::named(Which::Stock, "default").iommu(Iommu::None), WITHOUT_IOMMU),
        ("bytes that do not arrive are seen", narrow, CUT_SHORT),
    ]
    .map(|(name, setup, steps)| Test::new("copies", name, move |laboratory| all(laboratory, &setup, steps)))
    .into()
}

/// Runs all steps in one guest and judges each.
pub(super) fn all(laboratory: &Laboratory, setup: &Setup, steps: &[Step]) -> Result<Done, Failure> {
    let script: String = steps
        .iter()
        .enumerate()
        .map(|(at, (command, _, _))| format!("{command} > /out/{at}.said 2>&1; echo $? > /out/{at}.exit\n"))
        .collect();
    let outcome = laboratory.boot_job(setup, &mut Job::new(vec!["sh".into(), "-c".into(), script]))?;
    let wrong: Vec<String> = steps.iter().enumerate().filter_map(|(at, step)| judge(&outcome, at, step)).collect();
    if wrong.is_empty() { Ok(Done { claims: steps.len(), pairs: 0 }) } else { Err(Failure::Found(wrong.join("\n"))) }
}

fn judge(outcome: &Outcome, at: usize, step: &Step) -> Option<String> {
    let &(command, exit, words) = step;
    let file = |name: &str| String::from_utf8_lossy(outcome.files.get(name).map_or(&[], Vec::as_slice)).into_owned();
    let said = file(&format!("{at}.said"));
    let ended = file(&format!("{at}.exit"));
    if ended.trim() != exit.to_string() {
        let stderr = String::from_utf8_lossy(&outcome.stderr);
        return Some(format!("`{command}` ended with {} and not {exit}; it said:\n{said}{stderr}", ended.trim()));
    }
    let missing = words.iter().find(|words| !said.contains(**words))?;
    Some(format!("`{command}` does not say `{missing}`; it said:\n{said}"))
}
