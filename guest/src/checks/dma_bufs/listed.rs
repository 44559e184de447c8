//! Claims about what the machine tells of its dma-bufs, and about drivers that import them.

use super::super::answer::{Answer, Refused, Taken};
use super::super::claim::{Claim, Stop, equal};
use super::super::type1::open;
use super::{LIMIT, PAGE, Tried, sealed};
use peerdma::dma::Errno;
use peerdma_linux::dma_buf::DmaBuf;
use peerdma_linux::dma_buf::machine::{Listed, list};
use peerdma_linux::raw;
use std::os::fd::AsFd;
use std::path::Path;

/// Where vgem's node is, where the module is loaded.
pub(super) const NODE: &str = "/dev/dri/card0";

pub(super) fn claims() -> Vec<Claim<Tried>> {
    vec![
        Claim::new("root sees every dma-buf with its name, exporter and holders, and nothing is left unseen", seen),
        Claim::new("vgem imports udmabufs and memory of heaps, and is listed as their importer", imported),
        Claim::new("vgem does not import an exported BAR", |tried: &mut Tried| {
            import(&tried.exported()?, Refused(Errno::new(95)))
        }),
        Claim::new("limits on device memory are told where the kernel counts it", limits),
    ]
}

fn own(dma_buf: &DmaBuf) -> Result<Listed, Stop> {
    let found = list().buffers.into_iter().find(|listed| listed.id == dma_buf.id());
    found.ok_or_else(|| Stop::broken(format!("{} is not listed", dma_buf.id())))
}

fn seen(tried: &mut Tried) -> Result<(), Stop> {
    let dma_bufs = [tried.udmabuf(&sealed(3)?)?, tried.heap.allocate(PAGE, LIMIT)?, tried.exported()?];
    let _second = dma_bufs[0].try_clone()?;
    for (nth, dma_buf) in dma_bufs.iter().enumerate() {
        let name = format!("claim {nth}");
        dma_buf.set_name(&name)?;
        let listed = own(dma_buf)?;
        let told = (listed.name.as_deref(), listed.exporter.as_str(), listed.size);
        equal("what is told of it", &(Some(name.as_str()), dma_buf.exporter(), dma_buf.size()), &told)?;
        let held: Vec<_> = listed.holders.iter().map(|holder| (holder.pid, holder.descriptors)).collect();
        equal("who holds it", &vec![(std::process::id(), if nth == 0 { 2 } else { 1 })], &held)?;
        equal("who imports it", &Some(Vec::new()), &listed.importers)?;
    }
    equal("what was not seen", &Vec::new(), &list().unseen)
}

/// Ends a claim that takes vgem where there is none.
pub(super) fn has_vgem() -> Result<(), Stop> {
    match Path::new(NODE).exists() {
        true => Ok(()),
        false => Err(Stop::DoesNotApply(format!("{NODE} is not there: vgem is a module of the stock kernel"))),
    }
}

fn import(dma_buf: &DmaBuf, expected: Answer) -> Result<(), Stop> {
    has_vgem()?;
    let node = open(NODE)?;
    expected.expect("importing it", raw::prime_import(node.as_fd(), dma_buf))?;
    if expected == Taken {
        let importers = own(dma_buf)?.importers.unwrap_or_default();
        equal("whether vgem is listed", &true, &importers.iter().any(|name| name.contains("vgem")))?;
    }
    Ok(())
}

fn imported(tried: &mut Tried) -> Result<(), Stop> {
    import(&tried.udmabuf(&sealed(2)?)?, Taken)?;
    import(&tried.heap.allocate(PAGE, LIMIT)?, Taken)
}

fn limits(_: &mut Tried) -> Result<(), Stop> {
    let counts = Path::new("/sys/fs/cgroup/dmem.capacity").exists();
    // No driver here has memory of its own that is counted.
    equal("regions of device memory", &counts.then(Vec::new), &list().dmem)
}
