//! Virtual machines inside guests: `peerdma-guest checks kvm` where the processor has AMD's virtualisation.
//!
//! QEMU emulates that too, so that no host needs to have it.

use super::claims::claims;
use super::dma_bufs::{FAR, IMPORTED, IMPORTER, IMPORTING, TARGET, importing};
use super::setup::{Laboratory, Setup, Which};
use super::{Done, Test};
use crate::failure::Failure;
use crate::vm::guest::Job;
use crate::vm::topology;

const CHECKS: &str = "peerdma-guest checks";

/// How many claims hold at least.
const FEWEST: usize = 35;

pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::new("kvm", "slots over BARs, files and buffers, stock kernel", |laboratory| {
            // Such a processor's host bridge forwards, so that virtio-gpu imports across root ports here.
            let script = format!("{CHECKS} kvm {IMPORTER} --target {TARGET} && {}", importing());
            let modules = [&["kvm-amd"][..], &IMPORTING].concat();
            let setup = Setup::named(Which::Stock, topology::IMPORTERS).vfio(&[TARGET, FAR]).nested();
            slots(laboratory, setup, &modules, (&script, FEWEST + 1 + IMPORTED + 1))
        }),
        Test::new("kvm", "slots over BARs, files and buffers, small kernel", |laboratory| {
            let setup = Setup::named(Which::Small, "default").vfio(&[TARGET]).nested();
            // Modules are built in.
            slots(laboratory, setup, &[], (&format!("{CHECKS} kvm --target {TARGET}"), FEWEST))
        }),
    ]
}

fn slots(
    laboratory: &Laboratory,
    setup: Setup,
    modules: &[&str],
    (script, fewest): (&str, usize),
) -> Result<Done, Failure> {
    let mut job = Job::new(["sh", "-c", script].map(Into::into).into());
    job.modules = modules.iter().map(|&name| name.into()).collect();
    claims(laboratory, &setup, &job, fewest).map(|(done, _)| done)
}
