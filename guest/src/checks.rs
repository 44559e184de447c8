//! `peerdma-guest checks GROUP`: facts about VFIO, iommufd and dma-buf, tried as claims.
//!
//! The library relies on answers that only a real kernel gives: which range an export
//! refuses, what a reset does to a mapping, whether a device still reaches what was
//! unmapped. Each is a claim here, a sentence with what is expected beside it as data,
//! tried on the kernel that runs. A kernel that answers differently breaks exactly the
//! claim that it changes, and the line names what was expected and what was seen.
//!
//! One line of JSON for each claim:
//!
//! ```text
//! {"group":"export","claim":"…","result":"held"|"broken"|"does-not-apply","why":"…"}
//! ```
//!
//! - [`asked`]: the command line. [`claim`]: claims, and how they end. [`mod@line`]: what is printed.
//! - [`supervisor`] runs the group in a second process, so that a claim that hangs or dies
//!   of a signal is one broken claim; [`worker`] is that process.
//! - [`answer`]: expected answers. [`mod@bench`]: an engine, a target and address spaces around them.
//! - [`contract`], [`mixed`], [`export`], [`type1`], [`iommufd`], [`vfio`], [`kvm`], [`dma_bufs`], [`importing`],
//!   [`pinned`]: the groups.
//!
//! Exit code 0 if no claim is broken, 1 if one is, 2 for wrong usage, 4 if the group could
//! not be run at all.
//!
//! Not here: which claims a machine or kernel should be asked for; whoever boots the guest
//! knows its topology.

mod answer;
mod asked;
mod bench;
mod claim;
mod contract;
mod dma_bufs;
mod export;
mod importing;
mod iommufd;
mod kernel_log;
mod kvm;
mod line;
mod mixed;
mod pinned;
mod supervisor;
mod type1;
mod vfio;
mod worker;

pub(crate) use asked::address;
pub(crate) use bench::{MEMORY_BAR, PAGE, USED, pattern};
pub(crate) use claim::{Stop, equal};
pub(crate) use kvm::{Inner, told};
pub(crate) use line::Line;
pub(crate) use vfio::Via;

use crate::failure::Failure;
use asked::Asked;
use worker::Worker;

pub(crate) const USAGE: &str = "peerdma-guest checks GROUP [--edu BDF] [--target BDF] [--far BDF] [--bell BDF] [--nvme BDF] [--importer BDF] [--shared BDF] (groups: contract-type1, \
     contract-type1-bar, contract-iommufd, contract-iommufd-bar, mixed-type1, mixed-iommufd, export, type1, iommufd, \
     vfio-type1, vfio-iommufd, kvm, dma-bufs, importing, pinned)";

/// A group of claims that share what they are tried on.
struct Group {
    name: &'static str,
    run: fn(&Asked, &mut Worker<'_>),
}

const GROUPS: [Group; 15] = [
    Group { name: "contract-type1", run: contract::type1_pages },
    Group { name: "contract-type1-bar", run: contract::type1_bar },
    Group { name: "contract-iommufd", run: contract::iommufd_pages },
    Group { name: "contract-iommufd-bar", run: contract::iommufd_bar },
    Group { name: "export", run: export::run },
    Group { name: "mixed-type1", run: mixed::type1 },
    Group { name: "mixed-iommufd", run: mixed::iommufd },
    Group { name: "type1", run: type1::run },
    Group { name: "iommufd", run: iommufd::run },
    Group { name: "vfio-type1", run: vfio::type1 },
    Group { name: "vfio-iommufd", run: vfio::iommufd },
    Group { name: "kvm", run: kvm::run },
    Group { name: "dma-bufs", run: dma_bufs::run },
    Group { name: "importing", run: importing::run },
    Group { name: "pinned", run: pinned::run },
];

pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let asked = Asked::parse(arguments).map_err(|why| Failure::Usage(format!("{why}\n{USAGE}")))?;
    let Some(group) = GROUPS.iter().find(|group| group.name == asked.group) else {
        return Err(Failure::Usage(format!("no group is called `{}`\n{USAGE}", asked.group)));
    };
    match asked.worker_from {
        Some(from) => worker::run(group.name, from, |worker| (group.run)(&asked, worker)),
        None => supervisor::run(group.name, arguments),
    }
}
