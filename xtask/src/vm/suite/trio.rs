//! Three processes and one BAR: an owner with an engine, and a virtual machine's process, joined by the protocol between
//! processes, through resets, switchings and closings by seed, a process that holds on, and a device that goes, again and again.
//!
//! The BAR is a file of this machine. When the guest has ended, with the memory closed while a virtual machine and an engine
//! wanted to write to it, the file holds what the owner saw when the memory was taken away, to the byte.

use super::claims::claims;
use super::setup::{Laboratory, Setup, Which};
use super::{Done, Test};
use crate::failure::Failure;
use crate::vm::guest::{HostFile, Job};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// An edu and an `ivshmem-plain` below the switch of the topology `default`.
const EDU: &str = "0000:05:00.0";
const TARGET: &str = "0000:06:00.0";
/// The memory behind the latter in that topology, and its length.
const BEHIND: &str = "memory-backend-memfd,id=m3,size=16777216,share=on";
const SIZE: u64 = 16 << 20;
/// A drive below the same switch, and what it is given a persistent memory region by.
const DRIVE: &str = "0000:04:00.0";
const BARE: &str = "serial=d2,drive=d2";
/// How many claims hold at least.
const FEWEST: usize = 12;

/// One boot.
struct Boot {
    name: &'static str,
    kernel: Which,
    modules: &'static [&'static str],
    via: &'static str,
    rounds: u32,
    seed: u64,
}

const BOOTS: [Boot; 2] = [
    Boot {
        name: "three processes and one BAR, through iommufd",
        kernel: Which::Small,
        modules: &[],
        via: "iommufd",
        rounds: 40,
        seed: 1,
    },
    Boot {
        name: "three processes and one BAR, through type1",
        kernel: Which::Stock,
        modules: &["kvm-amd"],
        via: "type1",
        rounds: 10,
        seed: 2,
    },
];

pub(super) fn tests() -> Vec<Test> {
    let test = |boot: &'static Boot| Test::new("trio", boot.name, move |laboratory| all(laboratory, boot));
    BOOTS.iter().map(test).collect()
}

fn all(laboratory: &Laboratory, boot: &Boot) -> Result<Done, Failure> {
    let memory = zeros(laboratory, &format!("trio-{}", boot.via))?;
    let persistent = zeros(laboratory, &format!("trio-{}-drive", boot.via))?;
    let object = |id: &str, file: &HostFile| {
        let path = file.path.display().to_string().replace(',', ",,");
        format!("memory-backend-file,id={id},size={SIZE},share=on,mem-path={path}")
    };
    let mut setup = Setup::named(boot.kernel, "default").vfio(&[EDU, TARGET, DRIVE]).nested();
    setup.replace.push((BEHIND, object("m3", &memory)));
    setup.objects.push(object("pmr", &persistent));
    setup.replace.push((BARE, format!("{BARE},pmrdev=pmr")));
    let (rounds, seed) = (boot.rounds.to_string(), boot.seed.to_string());
    let argv = ["peerdma-guest", "trio", "--via", boot.via, "--edu", EDU, "--target", TARGET, "--nvme", DRIVE];
    let argv = argv.into_iter().chain(["--rounds", &rounds, "--seed", &seed]);
    let mut job = Job::new(argv.map(Into::into).collect());
    job.modules = boot.modules.iter().map(|&name| name.into()).collect();
    // A quarter of a second a round on a quiet machine, and two for each removal.
    job.limit = Duration::from_secs(400);
    job.behind = vec![memory.clone(), persistent.clone()];
    let (done, outcome) = claims(laboratory, &setup, &job, FEWEST)?;
    witness(&memory.path, outcome.files.get("held"))?;
    witness(&persistent.path, outcome.files.get("held-by-drive"))?;
    Ok(Done { claims: done.claims + 2, ..done })
}

/// A file of zeros to be memory of the guest's devices.
fn zeros(laboratory: &Laboratory, name: &str) -> Result<HostFile, Failure> {
    Ok(HostFile { path: laboratory.scratch()?.join(name), length: SIZE, head: Vec::new() })
}

/// Fails unless the file begins with what the owner saw when the memory was taken away; removes it then.
fn witness(file: &Path, held: Option<&Vec<u8>>) -> Result<(), Failure> {
    let bytes = fs::read(file).map_err(|error| Failure::io("read", file, &error))?;
    let held = held.map(Vec::as_slice).unwrap_or_default();
    if held.is_empty() || !bytes.starts_with(held) {
        let at = held.iter().zip(&bytes).position(|(held, seen)| held != seen);
        return Err(Failure::Found(format!(
            "{} is not what the owner saw when the memory was taken away ({} bytes, first different at {at:?})",
            file.display(),
            held.len()
        )));
    }
    fs::remove_file(file).map_err(|error| Failure::io("remove", file, &error))
}
