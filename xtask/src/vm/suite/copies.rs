//! `peerdma copy` in a guest: real bytes from one device into another's memory.
//!
//! QEMU's AMD IOMMU passes every address through untranslated, so that IOVAs lead nowhere: with it bytes are moved by the
//! kernel's drivers alone, with identity domains.
//!
//! In the topology `default` 05:00.0 (an engine) and 06:00.0 (a memory) are below one
//! switch, 08:00.0 and 09:00.0 the same on root ports of their own; 03:00.0 and 04:00.0 are drives
//! with memory (BAR 2) below that switch, 07:00.0 one on a root port of its own. Where blocks of 03:00.0 are written, its
//! disk is a file of this machine, and the guest looks whether it holds afterwards what it held before.

use super::setup::{Laboratory, Setup, Which};
use super::{Done, Test, driver};
use crate::failure::Failure;
use crate::vm::guest::{HostFile, Job, Outcome, User};
use crate::vm::machine::Iommu;
use peerdma::addr::Bytes;
use peerdma_linux::pattern::Pattern;
use std::fs;

/// Engines and memories that may be bound to vfio-pci, a drive's memory among them.
const BOUND: [&str; 5] = ["0000:05:00.0", "0000:06:00.0", "0000:08:00.0", "0000:09:00.0", "0000:04:00.0"];

/// One command line, how it must end, and what it must say.
pub(super) type Step = (&'static str, u8, &'static [&'static str]);

const ARRIVED: &[&str] = &["verified   yes", "every byte arrived"];

/// The kernel finds drives in its own time. Which two are asked for, since one may be in VFIO's hands.
macro_rules! drives_are_there {
    ($of:literal) => {
        (
            concat!(
                "for of in ",
                $of,
                "; do until [ -b \"/dev/$(basename /sys/bus/pci/devices/0000:$of:00.0/nvme/nvme*/nvme*n1)\" ]; ",
                "do sleep 0.2; done; done"
            ),
            0,
            &[],
        )
    };
}

/// The disk of 03:00.0, in a shell.
macro_rules! disk {
    () => {
        "/dev/$(basename /sys/bus/pci/devices/0000:03:00.0/nvme/nvme*/nvme*n1)"
    };
}

/// Has 03:00.0 probed with leave to write its disk, and looks at all of that before and afterwards.
macro_rules! writing {
    ($to:literal) => {
        concat!(
            "{ before=$(md5sum < ",
            disk!(),
            "); peerdma probe 03:00.0 ",
            $to,
            " --write; ended=$?; [ \"$before\" = \"$(md5sum < ",
            disk!(),
            ")\" ] && echo the disk is as it was; (exit $ended); }"
        )
    };
}

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
    ("peerdma copy 05:00.0 04:00.0/bar2+0x100000,8KiB --verify", 0, ARRIVED),
    ("peerdma copy 05:00.0 03:00.0/bar2 --verify", 4, &["0000:03:00.0 is bound to nvme, not to vfio-pci"]),
    ("peerdma copy 06:00.0 05:00.0/bar0", 4, &["0000:06:00.0", "edu"]),
    ("peerdma copy 05:00.0 06:00.0/bar5", 2, &["no memory BAR 5"]),
    // Arrived, and yet nobody knows what such a host bridge does to what VFIO sends there.
    ("peerdma probe 05:00.0 06:00.0/bar2", 3, &["edu     write      unknown    yes      yes", "read       unknown"]),
    ("peerdma probe 05:00.0 09:00.0/bar2", 1, &["edu     write      refused    unknown  unknown", "--force tries it"]),
    ("peerdma probe 05:00.0 06:00.0", 3, &["none    write", "name the memory to reach, such as 06:00.0/bar2"]),
    drives_are_there!("03 07"),
    // The kernel, asked by the drive's driver, refuses what the rules refuse.
    ("peerdma probe 03:00.0 07:00.0 --write", 1, &["nvme    write      refused    no       unknown", "EINVAL"]),
    (
        "peerdma probe 05:00.0 03:00.0/bar2",
        3,
        &["not to vfio-pci; peerdma vfio bind 0000:03:00.0", "not an NVMe drive"],
    ),
    ("peerdma copy 05:00.0 06:00.0/bar2+0xffe000,64KiB --verify", 2, &["bar2"]),
];

/// From Zen on the host bridge forwards, and both ways between root ports are permitted.
const ACROSS: &[Step] = &[
    ("peerdma copy 05:00.0 09:00.0/bar2 --verify", 0, &["permitted  host_bridge", "verified   yes"]),
    ("peerdma copy 08:00.0 06:00.0/bar2 --verify", 0, ARRIVED),
    ("peerdma copy 08:00.0 04:00.0/bar2 --verify", 0, ARRIVED),
    (
        "peerdma probe 05:00.0 09:00.0/bar2",
        0,
        &["edu     write      permitted  yes      yes", "edu     read       permitted"],
    ),
    drives_are_there!("03 07"),
    ("peerdma probe 03:00.0 07:00.0", 3, &["nvme    write      permitted  yes      yes", "--write lets it"]),
    ("peerdma probe 03:00.0 07:00.0 --need write", 0, &["nvme    write      permitted  yes      yes"]),
    (writing!("07:00.0"), 0, &["nvme    read       permitted  yes      yes", "the disk is as it was"]),
    // Swap claims the disk as a file system would.
    (
        concat!("{ mkswap ", disk!(), "; swapon ", disk!(), "; peerdma probe 03:00.0 07:00.0 --write; }"),
        3,
        &["nvme    write      permitted  yes      yes", "is in use"],
    ),
];

const BOTH_INTERFACES: &[Step] = &[
    ("peerdma copy 05:00.0 06:00.0/bar2 --verify", 0, &["iommufd", "verified   yes"]),
    ("peerdma copy 05:00.0 06:00.0/bar2 --verify --via type1", 0, &["type1", "verified   yes"]),
    ("peerdma copy 05:00.0 09:00.0/bar2 --verify --via iommufd", 0, &["iommufd", "verified   yes"]),
    ("peerdma copy 08:00.0 06:00.0/bar2 --verify --via type1", 0, &["type1", "verified   yes"]),
    ("peerdma copy 05:00.0 04:00.0/bar2 --verify --via iommufd", 0, &["iommufd", "verified   yes"]),
    ("peerdma copy 05:00.0 04:00.0/bar2 --verify --via type1", 0, &["type1", "verified   yes"]),
    ("peerdma copy 08:00.0 04:00.0/bar2 --verify --via iommufd", 0, &["iommufd", "verified   yes"]),
    ("peerdma copy 08:00.0 04:00.0/bar2 --verify --via type1", 0, &["type1", "verified   yes"]),
];

/// A user reads too little of config space to be told, and may not open the group.
const AS_A_USER: &[Step] = &[
    (
        "peerdma probe 05:00.0 06:00.0/bar2 --force",
        3,
        &["none    write      unknown", "not permitted to open /dev/vfio/"],
    ),
    drives_are_there!("03 07"),
    ("peerdma probe 03:00.0 07:00.0", 1, &["none    read       refused", "cannot open /dev/nvme", "run as root"]),
    ("peerdma copy 05:00.0 06:00.0/bar2 --verify", 3, &["permitted  unknown", "nothing was touched"]),
    ("peerdma copy 05:00.0 06:00.0/bar2 --verify --force", 4, &["not permitted to open /dev/vfio/"]),
];

const WITHOUT_IOMMU: &[Step] = &[
    // vfio-pci does not bind there, so the driver is what is wrong first.
    ("peerdma copy 05:00.0 06:00.0/bar2 --verify", 4, &["0000:05:00.0"]),
    drives_are_there!("03 04"),
    (writing!("04:00.0"), 0, &["nvme    write      permitted  yes      yes", "the disk is as it was"]),
];

/// Behind QEMU's AMD IOMMU addresses are passed on as they are, which is right where the kernel translates none. VFIO's are
/// IOVAs, so that the kernel's own drivers move the bytes here, below one switch and across root ports.
const UNTRANSLATED: &[Step] = &[
    ("cat /sys/kernel/iommu_groups/*/type | sort -u", 0, &["identity"]),
    drives_are_there!("03 04 07"),
    (
        writing!("07:00.0"),
        0,
        &["nvme    write      permitted  yes      yes", "nvme    read       permitted  yes      yes"],
    ),
    (writing!("04:00.0"), 0, &["nvme    read       permitted  yes      yes", "the disk is as it was"]),
];

/// An engine that reaches its buffer in memory and not the target, and does not say so.
const CUT_SHORT: &[Step] = &[
    ("peerdma copy 05:00.0 06:00.0/bar2 --verify", 4, &["verified   no", "did not arrive"]),
    ("peerdma probe 05:00.0 06:00.0/bar2", 4, &["yes      no", "nothing arrived"]),
    drives_are_there!("03 04"),
    // QEMU's switch sends a bus address to the IOMMU, and its drive reports success.
    ("peerdma probe 03:00.0 04:00.0 --need write", 4, &["permitted  yes      no", "nothing arrived"]),
];

pub(super) fn tests() -> Vec<Test> {
    let stock = || Setup::named(Which::Stock, "default").vfio(&BOUND);
    let small = || Setup::named(Which::Small, "default").vfio(&BOUND);
    // The drives keep their driver there.
    let mut narrow = Setup::named(Which::Stock, "default").vfio(&["0000:05:00.0", "0000:06:00.0"]);
    narrow.replace.push(("dma_mask=0xffffffffffffffff", "dma_mask=0x103fff".into()));
    [
        ("below one switch, and what is refused or wrong", stock(), BELOW_ZEN),
        ("through type1 and iommufd", small().zen(), BOTH_INTERFACES),
        ("as a user", stock().user(User::Nobody), AS_A_USER),
        ("bytes that do not arrive are seen", narrow, CUT_SHORT),
    ]
    .map(|(name, setup, steps)| Test::new("copies", name, move |laboratory| all(laboratory, &setup, steps)))
    .into_iter()
    .chain(
        [
            ("across root ports, intel", stock().zen(), ACROSS),
            ("across root ports, virtio", stock().zen().iommu(Iommu::Virtio), ACROSS),
            (
                "by the kernel's drivers, amd",
                Setup::named(Which::Stock, "default").zen().iommu(Iommu::Amd),
                UNTRANSLATED,
            ),
            ("without an IOMMU", Setup::named(Which::Stock, "default").iommu(Iommu::None), WITHOUT_IOMMU),
        ]
        .map(|(name, setup, steps)| {
            Test::new("copies", name, move |laboratory| keeping(laboratory, &setup, name, steps))
        }),
    )
    .collect()
}

/// Runs all steps with a disk that keeps what is written to it.
fn keeping(laboratory: &Laboratory, setup: &Setup, name: &str, steps: &[Step]) -> Result<Done, Failure> {
    let disk = laboratory.scratch()?.join(format!("copies-{}", name.replace([' ', ','], "-")));
    let head = Pattern::new(5, 0).bytes(Bytes::ZERO, 4 << 20);
    let setup = Setup { replace: vec![(driver::FORGETS, driver::kept_in(&disk))], ..setup.clone() };
    let behind = HostFile { path: disk.clone(), length: head.len() as u64, head };
    let done = steps_of(laboratory, &setup, vec![behind], steps)?;
    fs::remove_file(&disk).map_err(|error| Failure::io("remove", &disk, &error))?;
    Ok(done)
}

/// Runs all steps in one guest and judges each.
pub(super) fn all(laboratory: &Laboratory, setup: &Setup, steps: &[Step]) -> Result<Done, Failure> {
    steps_of(laboratory, setup, Vec::new(), steps)
}

fn steps_of(laboratory: &Laboratory, setup: &Setup, behind: Vec<HostFile>, steps: &[Step]) -> Result<Done, Failure> {
    let script: String = steps
        .iter()
        .enumerate()
        .map(|(at, (command, _, _))| format!("{command} > /out/{at}.said 2>&1; echo $? > /out/{at}.exit\n"))
        .collect();
    let mut job = Job { behind, ..Job::new(vec!["sh".into(), "-c".into(), script]) };
    let outcome = laboratory.boot_job(setup, &mut job)?;
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
