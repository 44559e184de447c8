//! Guests: a real kernel in QEMU, with the devices that a test asks for.
//!
//! `vm run` boots one and runs one program in it; `vm kernel` builds the small kernel
//! with iommufd and the test module; `vm test` is the suite. All of it works without
//! hardware virtualisation, needs no image of anybody's, and leaves nothing installed
//! but QEMU and a handful of small tools.
//!
//! ```text
//! apt ── stock ──┐
//!   └─── small ──┴─ kernel ─┐
//! topology ──────── machine ┼─ guest::run ─ outcome ─ suite
//! program ───────── job ────┘
//! ```
//!
//! Not here: what is right. The suite asks `peerdma` and the kernel, and compares.

mod apt;
mod cache;
mod command;
mod cpio;
mod guest;
mod kernel;
mod machine;
mod pairs;
mod process;
mod program;
mod small;
mod stock;
mod suite;
mod topology;

use crate::failure::Failure;
use crate::repo;

pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let root = repo::root()?;
    let top = cache::top(&root);
    match arguments.split_first() {
        Some((first, rest)) if first == "run" => command::run(&root, &top, rest),
        Some((first, rest)) if first == "kernel" => {
            crate::failure::no_arguments(rest)?;
            match small::kernel(&root, &top)? {
                Ok(kernel) => {
                    say!("vm: Linux {} is {}", kernel.release, kernel.image.display());
                    Ok(())
                }
                Err(reasons) => Err(Failure::Stopped(format!("no kernel source is offered: {}", reasons.join("; ")))),
            }
        }
        Some((first, rest)) if first == "test" => suite::run(&root, &top, rest),
        Some((other, _)) => Err(Failure::Usage(format!("`vm {other}` is nothing; there are run, kernel and test"))),
        None => Err(Failure::Usage("say what: vm run, vm kernel or vm test".into())),
    }
}
