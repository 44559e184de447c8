//! A drive driven from a process reads blocks into memory and into a peer's BAR, and writes them from there.
//!
//! The medium is a file of this machine, so that neither side of a transfer is only the drive's word: what is read was written
//! here before the guest began, and what was written is looked at here after it has ended.

use super::setup::{Laboratory, Setup, Which, expect_exit, expect_words};
use super::{Done, Test};
use crate::failure::Failure;
use crate::vm::guest::{GuestFile, HostFile, Job};
use crate::vm::{program, userland};
use peerdma::addr::Bytes;
use peerdma_linux::pattern::Pattern;
use std::fs;
use std::path::Path;

/// The first drive of the topology `default`, and the memory below the same switch.
const DRIVE: &str = "0000:03:00.0";
const TARGET: &str = "0000:06:00.0";
/// The edu below that switch.
const EDU: &str = "0000:05:00.0";
const SEED: u64 = 11;
/// As much as the example moves at a time, and its runs.
const LEN: usize = 40 << 10;
const READ: u64 = 0;
const WRITTEN: u64 = 1;
/// The drive's disk in that topology, which forgets, and its length.
pub(super) const FORGETS: &str = "driver=null-co,node-name=d1,size=67108864,read-zeroes=on";
const SIZE: usize = 64 << 20;

const SAID: [&str; 4] = [
    "read into memory: every byte",
    "read into the BAR: every byte",
    "written from the BAR",
    "read into the BAR, the doorbell rung by an edu: every byte",
];

pub(super) fn tests() -> Vec<Test> {
    vec![Test::new("driver", "a drive in a process's hands reads into a peer's BAR, and writes from there", all)]
}

fn all(laboratory: &Laboratory) -> Result<Done, Failure> {
    let disk = laboratory.scratch()?.join("nvme-disk");
    let pattern = |run| Pattern::new(SEED, run).bytes(Bytes::ZERO, LEN);
    let (root, top) = (&laboratory.root, laboratory.top());
    let built = program::build_example(root, top, "peerdma-linux", "nvme")?;
    let bytes = fs::read(&built).map_err(|error| Failure::io("read", &built, &error))?;
    let mut job = Job::new(["nvme", DRIVE, TARGET, &SEED.to_string(), EDU].map(Into::into).into());
    job.files = userland::rdma(top)?;
    job.files.push(GuestFile { path: "job/bin/nvme".into(), mode: 0o755, bytes });
    job.behind.push(HostFile { path: disk.clone(), length: SIZE as u64, head: pattern(READ) });
    // Through type 1 requests go up to the host bridge, which is known to forward from Zen on.
    let mut setup = Setup::named(Which::Stock, "default").zen().vfio(&[DRIVE, TARGET, EDU]);
    setup.replace.push((FORGETS, kept_in(&disk)));
    let outcome = laboratory.boot_job(&setup, &mut job)?;
    expect_exit(&outcome, 0, "the drive's program")?;
    expect_words(&outcome, &SAID, "the drive's program")?;
    written(&disk, &pattern(READ), &pattern(WRITTEN))?;
    fs::remove_file(&disk).map_err(|error| Failure::io("remove", &disk, &error))?;
    Ok(Done { claims: SAID.len() + 1, pairs: 0 })
}

/// The drive's disk as a file of this machine.
pub(super) fn kept_in(disk: &Path) -> String {
    let file = disk.display().to_string().replace(',', ",,");
    format!("driver=file,node-name=d1,filename={file}")
}

/// Fails unless the medium holds what it held, behind it what was written, and nothing else.
fn written(disk: &Path, first: &[u8], second: &[u8]) -> Result<(), Failure> {
    let medium = fs::read(disk).map_err(|error| Failure::io("read", disk, &error))?;
    let expected = first.iter().chain(second).chain(std::iter::repeat(&0)).take(SIZE);
    match medium.iter().zip(expected).position(|(seen, expected)| seen != expected) {
        None if medium.len() == SIZE => Ok(()),
        None => Err(Failure::Found(format!("the medium has {} bytes, and had {SIZE}", medium.len()))),
        Some(at) => Err(Failure::Found(format!("byte {at:#x} of the medium is not what the drive was told to write"))),
    }
}
