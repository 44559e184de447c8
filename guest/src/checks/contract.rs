//! The contract of address spaces, tried on VFIO type1 and iommufd with a real device behind them.
//!
//! The claims are `peerdma::dma::contract`'s, the same as for the recording fake. Here a device
//! looks: the fixture's probe has an `edu` write to an IOVA, or read from it, and compares what
//! the CPU finds in the source.

mod fixture;
mod probe;

use super::asked::Asked;
use super::claim::Stop;
use super::worker::Worker;
use fixture::{Lends, OnSpace};
use peerdma::dma::IoSpace;
use peerdma::dma::contract::{self, Verdict};
use peerdma::pcie::PciAddr;
use peerdma_linux::edu::Edu;
use peerdma_linux::iommufd::IommufdSpace;
use peerdma_linux::type1::Type1Space;
use peerdma_linux::vfio::{DeviceNode, Nodes, VfioDevice};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// What is opened for a run: a space, the engine in it, and the target if one is lent.
type Opened<S> = (S, Edu, Option<VfioDevice>);

pub(super) fn type1_pages(asked: &Asked, worker: &mut Worker<'_>) {
    let edu = asked.edu;
    run(worker, move || type1(edu, None), Lends::Memory);
}

pub(super) fn type1_bar(asked: &Asked, worker: &mut Worker<'_>) {
    let (edu, target) = (asked.edu, asked.target);
    run(worker, move || type1(edu, Some(target.ok_or_else(no_target)?)), Lends::Bar);
}

pub(super) fn iommufd_pages(asked: &Asked, worker: &mut Worker<'_>) {
    let edu = asked.edu;
    run(worker, move || iommufd(edu, None), Lends::Memory);
}

pub(super) fn iommufd_bar(asked: &Asked, worker: &mut Worker<'_>) {
    let (edu, target) = (asked.edu, asked.target);
    run(worker, move || iommufd(edu, Some(target.ok_or_else(no_target)?)), Lends::Bar);
}

fn no_target() -> Stop {
    Stop::broken("name an ivshmem-plain with --target")
}

fn no_engine() -> Stop {
    Stop::broken("name an edu with --edu")
}

fn type1(edu: Option<PciAddr>, target: Option<PciAddr>) -> Result<Opened<Type1Space>, Stop> {
    let edu = edu.ok_or_else(no_engine)?;
    let devices: Vec<PciAddr> = [Some(edu), target].into_iter().flatten().collect();
    let space = Type1Space::open(&Nodes::live(), &devices)?;
    let engine = Edu::new(space.device(edu)?)?;
    let target = target.map(|target| space.device(target)).transpose()?;
    Ok((space, engine, target))
}

fn iommufd(edu: Option<PciAddr>, target: Option<PciAddr>) -> Result<Opened<IommufdSpace>, Stop> {
    let nodes = Nodes::live();
    let mut space = IommufdSpace::open(&nodes)?;
    let engine = space.bind(DeviceNode::open(&nodes, edu.ok_or_else(no_engine)?)?)?;
    space.attach(&engine)?;
    let engine = Edu::new(engine)?;
    let target = match target {
        Some(target) => Some(space.bind(DeviceNode::open(&nodes, target)?)?),
        None => None,
    };
    Ok((space, engine, target))
}

/// Runs the suite as one claim, with a line for each of its own.
fn run<S: IoSpace<File = Arc<OwnedFd>>>(
    worker: &mut Worker<'_>,
    open: impl FnOnce() -> Result<Opened<S>, Stop>,
    lends: Lends,
) {
    worker.suite("the contract suite runs to its end", |tell| {
        let (space, engine, target) = open()?;
        let mut fixture = OnSpace::new(space, engine, target, lends)?;
        let tally = contract::run(&mut fixture, &mut |outcome| {
            let claim = match outcome.source {
                Some(kind) => format!("{} ({kind})", outcome.claim),
                None => outcome.claim.to_string(),
            };
            let outcome = match &outcome.verdict {
                Verdict::Held => Ok(()),
                Verdict::Broken { why } => Err(Stop::broken(why.as_str())),
                Verdict::DoesNotApply { reason } => Err(Stop::DoesNotApply((*reason).into())),
            };
            tell(&claim, outcome);
        });
        fixture.last_words()?;
        match tally.held {
            0 => Err(Stop::broken("nothing could be tried")),
            _ => Ok(()),
        }
    });
}
