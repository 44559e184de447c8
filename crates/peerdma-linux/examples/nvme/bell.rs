//! The drive's doorbell, rung by another device: QEMU's edu, which writes a word wherever it is told.
//!
//! The edu has an address space of its own with two things in it: a block of the pool, and the one page of the drive's BAR 0
//! that holds its doorbells.

use super::drive::{DOORBELLS, Drive, PAGE};
use super::{Outcome, ROOM, chunk};
use peerdma::addr::{Bytes, Iova};
use peerdma::chunk::Chunks;
use peerdma::dma::aperture::iovas_for;
use peerdma::dma::{Context, DeviceAddress, Initiator, IoSpace, Owner, Owners, Peers, Prot, Source, Span, Windows};
use peerdma::pcie::PciAddr;
use peerdma::topology::Topology;
use peerdma_linux::edu::Edu;
use peerdma_linux::engine::Engine;
use peerdma_linux::pool::Pool;
use peerdma_linux::type1::Type1Space;
use peerdma_linux::vfio::Nodes;
use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Bits of address that an edu is sure to form.
const BITS: u8 = 28;
/// A word.
const WORD: Bytes = Bytes::new(4);

/// Runs `work` with a drive whose doorbell of the data queue the edu rings.
pub(crate) fn rung(
    topology: &Topology,
    edu: PciAddr,
    pool: &Pool,
    drive: &mut Drive<'_>,
    work: impl FnOnce(&mut Drive<'_>, &mut Ring<'_>) -> Outcome<()>,
) -> Outcome<()> {
    let mut space = Type1Space::open(&Nodes::live(), &[edu])?;
    let mut engine = Edu::new(space.device(edu)?)?;
    let word = pool.take(ROOM, pool.owner("doorbell")?)?;

    let function = topology.at(drive.address()).ok_or("the drive is not in sysfs")?;
    let bell = Owner::Bar { function, bar: 0 };
    let mut owners: Owners<Arc<OwnedFd>> = Owners::new();
    owners.add(bell, DOORBELLS, PAGE, Source::Process(drive.doorbells()?));

    let at = topology.at(edu).ok_or("the edu is not in sysfs")?;
    let peers = Peers::of(topology);
    let depot = RefCell::new(iovas_for(space.abilities(), topology, &[at], &Windows::one_to_one())?);
    let initiator = Initiator::of(topology, at).ok_or("the mode of the edu's IOMMU domain is not told")?;
    let context = Context::new(initiator.with_mask_bits(BITS), &mut space, &owners, &peers, &depot)?;
    let from = chunk(Owner::Process, word.address().as_u64(), PAGE)?;
    let to: Chunks<Owner> = chunk(bell, DOORBELLS.as_u64(), PAGE)?;
    let (from, to) = (context.map(from.view(), Prot::Read)?, context.map(to.view(), Prot::Write)?);
    let (here, there) = (iova(from.spans().next())?, iova(to.spans().next())?);

    work(drive, &mut |doorbell, value| {
        word.write(Bytes::ZERO, &u32::from(value).to_le_bytes())?;
        engine.fetch(here, WORD)?;
        Ok(engine.store(there.checked_add(doorbell).ok_or("the doorbell wraps")?, WORD)?)
    })
}

/// Tells a doorbell, by its offset among the doorbells, a value.
pub(crate) type Ring<'a> = dyn FnMut(Bytes, u16) -> Outcome<()> + 'a;

fn iova(span: Option<Span>) -> Outcome<Iova> {
    match span.map(|span| span.address) {
        Some(DeviceAddress::Iova(at)) => Ok(at),
        other => Err(format!("an edu behind an IOMMU takes IOVAs, and this is {other:?}").into()),
    }
}
