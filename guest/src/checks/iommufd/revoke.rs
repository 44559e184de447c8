//! Claims about revocation: what becomes of a mapping when its exporter takes the memory back.
//!
//! A reset, memory space off and closing the device all kill the mapping at once and for
//! good, and it stays in the way until it is unmapped. What differs is whether the same
//! descriptor can be mapped anew (Linux 7.3 `vfio_pci_dma_buf_move`, `iopt_revoke_notify`).

use super::super::answer::{refused, taken};
use super::super::bench::{ELSEWHERE, Fate, HERE, Space, USED, expect};
use super::super::claim::{Claim, Stop, equal};
use super::{Tried, exported, map, mapped};
use peerdma::addr::Bytes;
use peerdma::dma::{Errno, Prot};
use peerdma_linux::vfio::Command;
use std::os::fd::OwnedFd;

pub(super) fn claims() -> Vec<Claim<Tried>> {
    vec![
        Claim::new("a reset of the target kills the mapping, and the IOMMU logs a fault", reset_kills),
        Claim::new("a mapping killed by a reset is in the way with EEXIST until it is unmapped", reset_in_the_way),
        Claim::new("after a reset the same dma-buf is mapped anew at once", reset_anew),
        Claim::new("memory space off kills the mapping, and on again does not revive it", memory_off_kills),
        Claim::new(
            "with memory space off a dma-buf is refused with ENODEV, and taken when it is on",
            memory_off_refuses,
        ),
        Claim::new("a dma-buf exported with memory space off is refused with ENODEV until it is on", born_revoked),
        Claim::new("closing the target kills the mapping, also when it is opened again", close_kills),
        Claim::new(
            "a dma-buf of a closed device is refused with ENODEV for ever, and a new one is taken",
            close_refuses,
        ),
    ]
}

fn again(bench: &Tried, file: &OwnedFd) -> Result<(), Errno> {
    map(bench, Prot::ReadWrite, file, HERE)
}

/// Maps a dma-buf elsewhere and expects a write through it to arrive.
fn arrives_elsewhere(bench: &mut Tried, file: &OwnedFd) -> Result<(), Stop> {
    taken("mapping it elsewhere", map(bench, Prot::ReadWrite, file, ELSEWHERE))?;
    expect("a write through the new mapping", Fate::Arrived, bench.write(ELSEWHERE, Bytes::ZERO)?)
}

fn reset(bench: &Tried) -> Result<(), Stop> {
    bench.device()?.reset()?;
    // A reset puts Command back as it was.
    let command = bench.device()?.read_command()?;
    equal("memory space after a reset", &true, &command.contains(Command::MEMORY))
}

fn reset_kills(bench: &mut Tried) -> Result<(), Stop> {
    let _file = mapped(bench, Prot::ReadWrite)?;
    expect("a write before", Fate::Arrived, bench.write(HERE, Bytes::ZERO)?)?;
    reset(bench)?;
    bench.expect_fault("a write after", HERE)
}

fn reset_in_the_way(bench: &mut Tried) -> Result<(), Stop> {
    let file = mapped(bench, Prot::ReadWrite)?;
    reset(bench)?;
    refused("mapping there again", Errno::EEXIST, again(bench, &file))?;
    equal("bytes unmapped", &USED, &taken("unmapping the dead mapping", bench.space.unmap(HERE, USED))?)?;
    taken("mapping there after that", again(bench, &file))?;
    expect("a write", Fate::Arrived, bench.write(HERE, Bytes::ZERO)?)
}

fn reset_anew(bench: &mut Tried) -> Result<(), Stop> {
    let file = mapped(bench, Prot::ReadWrite)?;
    reset(bench)?;
    arrives_elsewhere(bench, &file)?;
    expect("a write through the old mapping", Fate::Lost, bench.write(HERE, Bytes::ZERO)?)
}

fn memory_off_kills(bench: &mut Tried) -> Result<(), Stop> {
    let _file = mapped(bench, Prot::ReadWrite)?;
    bench.device()?.clear_command(Command::MEMORY)?;
    bench.device()?.set_command(Command::MEMORY)?;
    expect("a write", Fate::Lost, bench.write(HERE, Bytes::ZERO)?)
}

fn memory_off_refuses(bench: &mut Tried) -> Result<(), Stop> {
    let file = exported(bench)?;
    bench.device()?.clear_command(Command::MEMORY)?;
    refused("mapping it meanwhile", Errno::ENODEV, again(bench, &file))?;
    bench.device()?.set_command(Command::MEMORY)?;
    arrives_elsewhere(bench, &file)
}

fn born_revoked(bench: &mut Tried) -> Result<(), Stop> {
    bench.device()?.clear_command(Command::MEMORY)?;
    let file = exported(bench)?;
    refused("mapping it meanwhile", Errno::ENODEV, again(bench, &file))?;
    bench.device()?.set_command(Command::MEMORY)?;
    arrives_elsewhere(bench, &file)
}

fn close_kills(bench: &mut Tried) -> Result<(), Stop> {
    let _file = mapped(bench, Prot::ReadWrite)?;
    bench.close_target();
    bench.open_target()?;
    expect("a write", Fate::Lost, bench.write(HERE, Bytes::ZERO)?)
}

fn close_refuses(bench: &mut Tried) -> Result<(), Stop> {
    let file = exported(bench)?;
    bench.close_target();
    refused("mapping it while the device is closed", Errno::ENODEV, again(bench, &file))?;
    bench.open_target()?;
    refused("mapping it when the device is open again", Errno::ENODEV, again(bench, &file))?;
    let anew = exported(bench)?;
    arrives_elsewhere(bench, &anew)
}
