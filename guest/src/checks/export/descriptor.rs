//! How the descriptor of an exported range behaves, and that it does not tell whether its
//! memory has been taken back.

use super::super::answer::{refused, taken};
use super::super::bench::PAGE;
use super::super::claim::{Claim, Stop, equal};
use super::{Exporters, one_page};
use peerdma::addr::Bytes;
use peerdma::dma::{Errno, Prot};
use peerdma_linux::raw::{self, CpuAccess};
use peerdma_linux::vfio::Command;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;

pub(super) fn claims() -> Vec<Claim<Exporters>> {
    vec![
        Claim::new(
            "the descriptor is a file of the buffer's length, for its owner only, with a number of its own",
            stat,
        ),
        Claim::new("its link in /proc names a dma-buf", link),
        Claim::new("its fdinfo names its exporter, and the name that it was given", fdinfo),
        Claim::new("a seek to the end tells the length, and only start and end can be sought", seek),
        Claim::new("the CPU cannot map it, neither to read nor to write", mmap),
        Claim::new("it can be neither read nor cut", read_and_cut),
        Claim::new("announcing the CPU's accesses is taken", sync),
        Claim::new("its fences can be taken as a file", fences),
        Claim::new("a poll returns at once", polled),
        Claim::new("an export with memory space off is taken and looks like any other", born_revoked),
        Claim::new("memory space off and on again shows nowhere on the descriptor", revoked),
        Claim::new("a reset shows nowhere on the descriptor", reset),
        Claim::new("closing the device with a live descriptor works, and the descriptor stays", closed),
    ]
}

/// Exports a page.
fn exported(on: &Exporters) -> Result<File, Stop> {
    let file = taken("exporting a page", raw::export(on.device()?, &one_page()))?;
    Ok(File::from(file.ok_or_else(|| Stop::broken("the export gave no descriptor"))?))
}

fn number(error: &io::Error) -> Errno {
    Errno::new(error.raw_os_error().unwrap_or(0))
}

fn stat(on: &mut Exporters) -> Result<(), Stop> {
    let (one, other) = (exported(on)?.metadata()?, exported(on)?.metadata()?);
    equal("permissions", &0o600, &(one.mode() & 0o7777))?;
    equal("length", &PAGE.as_u64(), &one.len())?;
    equal("file system of two of them", &one.dev(), &other.dev())?;
    let (one, other) = (exported(on)?, exported(on)?);
    if one.metadata()?.ino() == other.metadata()?.ino() {
        return Err(Stop::broken("two exports: expected two inode numbers, seen one"));
    }
    Ok(())
}

fn link(on: &mut Exporters) -> Result<(), Stop> {
    let file = exported(on)?;
    let link = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let link = link.to_string_lossy();
    match link.starts_with("/dmabuf:") {
        true => Ok(()),
        false => Err(Stop::Broken(format!("link of the descriptor: expected /dmabuf:…, seen {link}"))),
    }
}

fn fdinfo_of(file: &File) -> Result<String, Stop> {
    Ok(fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd()))?)
}

fn fdinfo(on: &mut Exporters) -> Result<(), Stop> {
    let file = exported(on)?;
    taken("naming it", raw::dma_buf_set_name(&file, c"peerdma-check"))?;
    let text = fdinfo_of(&file)?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(|value| value.trim().to_string())
    };
    equal("size", &Some(PAGE.as_u64().to_string()), &field("size"))?;
    equal("exp_name", &Some("vfio_pci_core".to_string()), &field("exp_name"))?;
    equal("name", &Some("peerdma-check".to_string()), &field("name"))?;
    match field("count") {
        Some(_) => Ok(()),
        None => Err(Stop::Broken(format!("expected a count in fdinfo, seen {text:?}"))),
    }
}

fn seek(on: &mut Exporters) -> Result<(), Stop> {
    let mut file = exported(on)?;
    equal("where its end is", &PAGE.as_u64(), &file.seek(SeekFrom::End(0))?)?;
    equal("where its start is", &0, &file.seek(SeekFrom::Start(0))?)?;
    for to in [SeekFrom::Start(1), SeekFrom::End(-1), SeekFrom::Current(0)] {
        let seen = file.seek(to).map_err(|error| number(&error));
        refused(format_args!("seeking to {to:?}"), Errno::EINVAL, seen)?;
    }
    Ok(())
}

fn mmap(on: &mut Exporters) -> Result<(), Stop> {
    let file = exported(on)?;
    for prot in [Prot::ReadWrite, Prot::Read] {
        refused(format_args!("mapping it {prot}"), Errno::EINVAL, raw::try_mmap(&file, PAGE, prot))?;
    }
    Ok(())
}

fn read_and_cut(on: &mut Exporters) -> Result<(), Stop> {
    let mut file = exported(on)?;
    refused("reading it", Errno::EINVAL, file.read(&mut [0; 8]).map_err(|error| number(&error)))?;
    refused("cutting it", Errno::EINVAL, file.set_len(0).map_err(|error| number(&error)))
}

fn sync(on: &mut Exporters) -> Result<(), Stop> {
    announce(&exported(on)?)
}

fn announce(file: &File) -> Result<(), Stop> {
    taken("announcing accesses", raw::dma_buf_sync(file, CpuAccess::Begins))?;
    taken("announcing their end", raw::dma_buf_sync(file, CpuAccess::Ends))
}

fn fences(on: &mut Exporters) -> Result<(), Stop> {
    taken("taking its fences", raw::dma_buf_fences(exported(on)?)).map(drop)
}

fn polled(on: &mut Exporters) -> Result<(), Stop> {
    let file = exported(on)?;
    let second = Timespec { tv_sec: 1, tv_nsec: 0 };
    let mut fds = [PollFd::new(&file, PollFlags::IN | PollFlags::OUT)];
    equal("descriptors that are ready within a second", &1, &poll(&mut fds, Some(&second))?)
}

/// What a descriptor tells of itself.
fn looks(file: &File) -> Result<(u32, u64, Vec<String>), Stop> {
    let stat = file.metadata()?;
    // Position and flags stay, and so does the count of one holder.
    Ok((stat.mode(), stat.len(), fdinfo_of(file)?.lines().map(Into::into).collect()))
}

fn born_revoked(on: &mut Exporters) -> Result<(), Stop> {
    on.device()?.clear_command(Command::MEMORY)?;
    let file = exported(on)?;
    let off = looks(&file)?;
    announce(&file)?;
    on.device()?.set_command(Command::MEMORY)?;
    equal("what the descriptor tells with memory space off and on", &off, &looks(&file)?)
}

fn revoked(on: &mut Exporters) -> Result<(), Stop> {
    let file = exported(on)?;
    let before = looks(&file)?;
    on.device()?.clear_command(Command::MEMORY)?;
    equal("what the descriptor tells with memory space off", &before, &looks(&file)?)?;
    announce(&file)?;
    on.device()?.set_command(Command::MEMORY)?;
    equal("what the descriptor tells with memory space on again", &before, &looks(&file)?)
}

fn reset(on: &mut Exporters) -> Result<(), Stop> {
    let file = exported(on)?;
    let before = looks(&file)?;
    on.device()?.reset()?;
    equal("what the descriptor tells after a reset", &before, &looks(&file)?)?;
    announce(&file)
}

fn closed(on: &mut Exporters) -> Result<(), Stop> {
    let file = exported(on)?;
    let before = looks(&file)?;
    on.device = None;
    equal("what the descriptor tells after its device was closed", &before, &looks(&file)?)?;
    announce(&file)?;
    let end = rustix::fs::seek(&file, rustix::fs::SeekFrom::End(0))?;
    equal("its length", &PAGE, &Bytes::new(end))
}
