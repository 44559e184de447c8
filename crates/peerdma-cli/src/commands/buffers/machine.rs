//! `peerdma buffers --machine`: dma-bufs of this machine, and limits on device memory.

use crate::args::OutputArguments;
use crate::document::dma_bufs::DmaBufsDocument;
use crate::exit::{Exit, Failure};
use crate::output::{self, columns, printable};
use peerdma_linux::dma_buf::machine::{self, DmemRegion, HeldBy, Limit, Listed, Listing};
use std::io::Write;

pub(super) fn run(output: &OutputArguments) -> Result<Exit, Failure> {
    if output.schema {
        output::schema::<DmaBufsDocument>()?;
        return Ok(Exit::Done);
    }
    let listing = machine::list();
    let exit = if listing.unseen.is_empty() { Exit::Done } else { Exit::Unknown };
    let printed = if output.json { output::json(&DmaBufsDocument::new(&listing)) } else { print(&listing) };
    output::concluded(exit, printed)
}

fn print(listing: &Listing) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    match listing.buffers.as_slice() {
        [] if listing.unseen.is_empty() => writeln!(out, "no dma-bufs")?,
        [] => writeln!(out, "no dma-bufs, of those that could be seen")?,
        buffers => {
            let heads = ["INODE", "SIZE", "EXPORTER", "NAME", "IMPORTED BY", "HELD BY"];
            columns(&mut out, &heads, &buffers.iter().map(row).collect::<Vec<_>>())?;
        }
    }
    match &listing.dmem {
        None => writeln!(
            out,
            "\nno limits on device memory: the kernel does not count it; that takes CONFIG_CGROUP_DMEM, and `+dmem` in cgroup.subtree_control of the root"
        )?,
        Some(regions) if regions.is_empty() => writeln!(out, "\nno device memory that the kernel counts")?,
        Some(regions) => {
            writeln!(out)?;
            let heads = ["DEVICE MEMORY", "CAPACITY", "CURRENT", "MAX", "LOW", "MIN"];
            columns(&mut out, &heads, &regions.iter().map(region).collect::<Vec<_>>())?;
        }
    }
    output::notes(&listing.unseen.iter().map(|unseen| printable(&unseen.to_string())).collect::<Vec<_>>())
}

fn row(listed: &Listed) -> Vec<String> {
    let or_dash = |words: Vec<String>| if words.is_empty() { "-".to_string() } else { words.join(", ") };
    let importers = listed.importers.as_ref();
    vec![
        listed.id.inode().to_string(),
        listed.size.to_string(),
        printable(&listed.exporter),
        listed.name.as_deref().map_or("-".into(), printable),
        importers.map_or("?".into(), |names| or_dash(names.iter().map(|name| printable(name)).collect())),
        or_dash(listed.holders.iter().map(holder).collect()),
    ]
}

fn holder(it: &HeldBy) -> String {
    match &it.command {
        Some(command) => format!("{} ({})", it.pid, printable(command)),
        None => it.pid.to_string(),
    }
}

fn region(region: &DmemRegion) -> Vec<String> {
    let limit = |limit: Option<Limit>| match limit {
        None => "-".to_string(),
        Some(Limit::None) => "max".to_string(),
        Some(Limit::At(bytes)) => bytes.to_string(),
    };
    let current = region.current.map_or("-".into(), |bytes| bytes.to_string());
    let (max, low, min) = (limit(region.max), limit(region.low), limit(region.min));
    vec![printable(&region.name), region.capacity.to_string(), current, max, low, min]
}
