//! Virtual machines inside guests: `peerdma-guest checks kvm` where the processor has AMD's virtualisation.
//!
//! QEMU emulates that too, so that no host needs to have it.

use super::checks::count;
use super::setup::{Laboratory, Setup, Which};
use super::{Done, Test};
use crate::failure::Failure;
use crate::vm::guest::Job;

/// A Zen with virtualisation for its guests.
const CPU: &str = "EPYC,svm=on";

/// An `ivshmem-plain` below the switch of the topology `default`.
const TARGET: &str = "0000:06:00.0";

/// How many claims hold at least.
const FEWEST: usize = 32;

pub(super) fn tests() -> Vec<Test> {
    [
        ("slots over BARs, files and buffers, stock kernel", Which::Stock, &["kvm-amd"][..]),
        // Built in.
        ("slots over BARs, files and buffers, small kernel", Which::Small, &[]),
    ]
    .map(|(name, kernel, modules)| Test::new("kvm", name, move |laboratory| slots(laboratory, kernel, modules)))
    .into()
}

fn slots(laboratory: &Laboratory, kernel: Which, modules: &[&str]) -> Result<Done, Failure> {
    let mut setup = Setup::named(kernel, "default").vfio(&[TARGET]);
    setup.cpu = CPU.into();
    let argv = ["peerdma-guest", "checks", "kvm", "--target", TARGET];
    let mut job = Job::new(argv.map(Into::into).into());
    job.modules = modules.iter().map(|&name| name.into()).collect();
    let outcome = laboratory.boot_job(&setup, &mut job)?;
    let said = String::from_utf8_lossy(&outcome.stdout);
    count(&said, outcome.exit, FEWEST)
        .map_err(|failure| Failure::Found(format!("{failure}\n{}", String::from_utf8_lossy(&outcome.stderr))))
}
