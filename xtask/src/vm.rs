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
mod graphics;
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
mod userland;

use crate::failure::Failure;
use crate::repo;

/// What the subcommands take, for the help.
pub(crate) const OPTIONS: &str = "

  vm run [OPTIONS] -- PROGRAM ARGS      boots a guest and runs one program in it; its exit code is the command's
    --topology NAME      default, pxb, multifunction, deep or sriov [default: default]
    --platform FILE|NAME a platform file instead, as far as QEMU can be that machine
    --kernel NAME|PATH   stock (Debian's), iommufd (`vm kernel` builds it), or a bootable image [default: stock]
    --cpu MODEL          QEMU's name: qemu64 is AMD below Zen, EPYC is Zen [default: qemu64]
    --iommu KIND         intel, amd, virtio or none [default: intel]
    --cmdline WORDS      more words for the kernel
    --nodes MIB,MIB      memory in two NUMA nodes with a processor each [default: 1024 in one]
    --user               run as nobody instead of root
    --vfio BDF,...       give these functions to vfio-pci first
    --with PROGRAM       put another program into the guest: peerdma, peerdma-guest or a path to a static one
    --module NAME        load another module of the stock kernel
    --out DIR            where /out of the guest and kernel.log go [default: target/vm/out]
    --limit SECONDS      how long the guest may take [default: 120]

  vm kernel                             builds the small kernel, once

  vm test [WORD] [OPTIONS]              the suite, or the tests with WORD in their group or name
    --random N           compare N random topologies more
    --seed S             where their seeds start [default: 1]
    --write-fixtures     keep captures and the kernel's answers for `cargo test`";

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
