//! A drive driven from a process, which reads blocks straight into another device's BAR.
//!
//! ```text
//! nvme DRIVE TARGET SEED [EDU]      as in: nvme 0000:03:00.0 0000:06:00.0 7 0000:05:00.0
//! ```
//!
//! All functions must be bound to vfio-pci, and BAR 2 of the target be memory. **The drive is written to.**
//! Its first blocks are expected to hold the pattern of run 0 with that seed ([`peerdma_linux::pattern`]); they are read into memory and into the
//! BAR, and looked at by the CPU. Then run 1 goes into the BAR, from where the drive writes it behind the first. An edu, if one is named, then
//! rings the drive's doorbell for one more read.
//!
//! What it shows:
//!
//! - Queues lie in a [`Pool`]: pinned once, in blocks.
//! - A [`Context`] maps queues, memory and BAR for the drive, and refuses a BAR that it does not reach.
//! - [`Controller::prps`] turns a mapping into what a command says of its data, whatever lies behind.
//! - The drive is stopped before anything that it reaches is unmapped.
//!
//! [`bell`] is the doorbell in another device's hands. [`drive`] is the controller, in the terms of the NVM Express Base Specification 2.0. One command at a time, polled.

mod bell;
mod drive;

use drive::Drive;
use peerdma::addr::{Bytes, ProcVa};
use peerdma::chunk::{Chunk, Chunks};
use peerdma::dma::aperture::iovas_for;
use peerdma::dma::consumer::nvme::{Controller, ListPage, Prps};
use peerdma::dma::{
    Context, DeviceAddress, Granule, Initiator, IoSpace, MemAttrs, Owner, Owners, Peers, Prot, Source, Span, Windows,
};
use peerdma::pcie::PciAddr;
use peerdma::topology::{Origin, Topology};
use peerdma_linux::pattern::Pattern;
use peerdma_linux::pci_names::PciNames;
use peerdma_linux::pin::Pinner;
use peerdma_linux::pool::{Buffer, Options, Pool, Stay};
use peerdma_linux::tree::Tree;
use peerdma_linux::type1::Type1Space;
use peerdma_linux::vfio::{BarIndex, BarMapping, BarRange, Command, Nodes};
use std::cell::RefCell;
use std::error::Error;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::Arc;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// How much is moved: more than two pages, so that a command takes a list.
const LEN: Bytes = Bytes::new(40 << 10);
/// Where in memory and BAR it goes: inside a page, as far as a drive takes it.
const AT: Bytes = Bytes::new(0x1200);
/// Memory and BAR that take part.
const ROOM: Bytes = Bytes::new(64 << 10);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.as_slice() {
        [drive, target, seed] => run(drive, target, seed, None),
        [drive, target, seed, edu] => run(drive, target, seed, Some(edu)),
        _ => {
            eprintln!("usage: nvme DRIVE TARGET SEED [EDU], as in: nvme 0000:03:00.0 0000:06:00.0 7");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nvme: {error}");
            ExitCode::from(4)
        }
    }
}

fn run(drive: &str, target: &str, seed: &str, edu: Option<&String>) -> Outcome<()> {
    let (drive, target, seed): (PciAddr, PciAddr, u64) = (drive.parse()?, target.parse()?, seed.parse()?);
    let snapshot = peerdma_linux::sysfs::read(&Tree::live());
    let topology = peerdma_linux::assemble::builder(&snapshot, Origin::Sysfs, &PciNames::built_in())?.build();

    let mut space = Type1Space::open(&Nodes::live(), &[drive, target])?;
    let (device, peer) = (space.device(drive)?, space.device(target)?);
    peer.set_command(Command::MEMORY)?;
    let memory = BarIndex::new(2).and_then(|bar| BarRange::new(bar, Bytes::ZERO, ROOM)).ok_or("no such range")?;
    let bar = peer.map(memory)?;
    let (owners, in_bar) = owners(&topology, target, &bar, memory)?;

    let pool = Pool::new(Bytes::new(1 << 20), Options::new(Stay::Pinned(Pinner::new()?)))?;
    let (queues, ram) = (pool.take(ROOM, pool.owner("queues")?)?, pool.take(ROOM, pool.owner("data")?)?);

    let at = topology.at(drive).ok_or("the drive is not in sysfs")?;
    let peers = Peers::of(&topology);
    let depot = RefCell::new(iovas_for(space.abilities(), &topology, &[at], &Windows::one_to_one())?);
    let initiator = Initiator::of(&topology, at).ok_or("the mode of the drive's IOMMU domain is not told")?;
    let context = Context::new(initiator, &mut space, &owners, &peers, &depot)?;

    // Mapped before the drive is there, so that the drive goes first.
    let list = process(queues.address())?;
    let mapped = context.map(list.view(), Prot::ReadWrite)?;
    let start = mapped.spans().next().ok_or("a mapping without spans")?.address;
    let mut drive = Drive::start(device, &queues, start)?;
    println!("{}: {} blocks of {}", drive.model(), drive.blocks(), drive.block());

    let list = part(Owner::Process, ram.address().as_u64())?;
    let data = context.map(list.view(), Prot::Write)?;
    let wanted = Pattern::new(seed, 0).bytes(Bytes::ZERO, LEN.as_u64() as usize);
    ram.write(Bytes::ZERO, &around(&wanted, 0xff))?;
    let prps = prps(&drive, &queues, start, data.spans())?;
    drive.read(0, &prps, LEN)?;
    expect("memory", &wanted, |into| Ok(ram.read(Bytes::ZERO, into)?))?;
    drop(data);

    let list = part(in_bar, 0)?;
    let data = context.map(list.view(), Prot::ReadWrite)?;
    bar.write(Bytes::ZERO, &around(&wanted, 0xff))?;
    let prps = self::prps(&drive, &queues, start, data.spans())?;
    drive.read(0, &prps, LEN)?;
    expect("the BAR", &wanted, |into| Ok(bar.read(Bytes::ZERO, into)?))?;

    let sent = Pattern::new(seed, 1).bytes(Bytes::ZERO, LEN.as_u64() as usize);
    bar.write(AT, &sent)?;
    drive.write(LEN.as_u64() / drive.block().as_u64(), &prps, LEN)?;
    drive.flush()?;
    println!("written from the BAR: {LEN} behind the first {LEN}");

    if let Some(edu) = edu {
        bar.write(Bytes::ZERO, &around(&wanted, 0xff))?;
        bell::rung(&topology, edu.parse()?, &pool, &mut drive, |drive, ring| drive.read_rung(0, &prps, LEN, ring))?;
        expect("the BAR, the doorbell rung by an edu", &wanted, |into| Ok(bar.read(Bytes::ZERO, into)?))?;
    }
    // Now by hand what leaving does too: first the drive, then what it reaches.
    drop(drive);
    drop(data);
    Ok(())
}

/// Who owns the target's memory, which type 1 takes as this process maps it.
fn owners(
    topology: &Topology,
    target: PciAddr,
    bar: &BarMapping,
    range: BarRange,
) -> Outcome<(Owners<Arc<OwnedFd>>, Owner)> {
    let function = topology.at(target).ok_or("the target is not in sysfs")?;
    let owner = Owner::Bar { function, bar: 2 };
    let at = bar.process_range(range).ok_or("the mapping lacks its range")?.start();
    let mut owners = Owners::new();
    owners.add(owner, Bytes::ZERO, ROOM, Source::Process(at));
    Ok((owners, owner))
}

/// All of a block of the pool.
fn process(at: ProcVa) -> Outcome<Chunks<Owner>> {
    chunk(Owner::Process, at.as_u64(), ROOM)
}

/// The part that is moved, of memory or BAR that begins there.
fn part(owner: Owner, start: u64) -> Outcome<Chunks<Owner>> {
    chunk(owner, start + AT.as_u64(), LEN)
}

fn chunk(owner: Owner, at: u64, len: Bytes) -> Outcome<Chunks<Owner>> {
    let chunk = Chunk::new(owner, Bytes::new(at), len, MemAttrs::empty()).ok_or("a chunk that wraps")?;
    Ok(Chunks::collect_from([chunk])?)
}

/// What a command says of its data; a list, if it takes one, goes to its page among the queues.
fn prps(
    drive: &Drive,
    queues: &Buffer,
    start: DeviceAddress,
    spans: impl Iterator<Item = Span> + Clone,
) -> Outcome<Prps> {
    let controller = Controller::new(Granule::PAGE_4K).ok_or("no page size of NVMe")?;
    let controller = controller.with_longest_transfer(drive.longest());
    let mut words = [0; 512];
    let address = drive::beyond(start, drive::LIST)?;
    let prps = controller.prps(spans, &mut [ListPage { address, words: &mut words }])?;
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    queues.write(drive::LIST, &bytes)?;
    Ok(prps)
}

/// All of a room that holds something else than `wanted` in every byte where that is to come, and beside it.
fn around(wanted: &[u8], fill: u8) -> Vec<u8> {
    let mut room = vec![fill; ROOM.as_u64() as usize];
    for (byte, wanted) in room.iter_mut().skip(AT.as_u64() as usize).zip(wanted) {
        *byte = !wanted;
    }
    room
}

/// Looks, as the destination's owner, whether every byte came and none beside them.
fn expect(place: &str, wanted: &[u8], look: impl FnOnce(&mut [u8]) -> Outcome<()>) -> Outcome<()> {
    let mut expected = around(wanted, 0xff);
    for (byte, wanted) in expected.iter_mut().skip(AT.as_u64() as usize).zip(wanted) {
        *byte = *wanted;
    }
    let mut seen = vec![0; expected.len()];
    look(&mut seen)?;
    match expected.iter().zip(&seen).position(|(expected, seen)| expected != seen) {
        None => println!("read into {place}: every byte of {LEN} arrived, and none beside them changed"),
        Some(at) => {
            return Err(format!("byte {at:#x} of {place} is {:#04x}, not {:#04x}", seen[at], expected[at]).into());
        }
    }
    Ok(())
}
