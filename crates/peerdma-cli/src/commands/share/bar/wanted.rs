//! Which pages of which BAR, and why not those.

use super::Stop;
use crate::args::InputArguments;
use crate::exit::Failure;
use crate::{input, select};
use peerdma::addr::Bytes;
use peerdma::pcie::PciAddr;
use peerdma_linux::memory::page_size;
use peerdma_linux::tree::Tree;
use peerdma_linux::vfio::{BarIndex, BarRange};

/// What is to be shared.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub(super) address: PciAddr,
    pub(super) range: BarRange,
    /// Whether it is a virtual function, whose memory answers whatever its Command register says.
    pub(super) is_virtual: bool,
}

/// Finds it on this machine; wrong words are an error, and what cannot be shared is refused.
pub(super) fn wanted(what: &str) -> Result<Wanted, Stop> {
    let loaded = input::load(&InputArguments::default())?;
    let topology = &loaded.topology;
    let (name, range) = what.split_once('/').unwrap_or((what, ""));
    let id = select::function(topology, name)?;
    let (address, physical) = (topology.function(id).address(), topology.function(id).physical());
    if range.is_empty() {
        let bars: Vec<String> =
            topology.function(id).info().bars.iter().map(|bar| format!("{address}/bar{}", bar.index)).collect();
        let bars = if bars.is_empty() { "it has no memory BAR".to_string() } else { bars.join(" or ") };
        return Err(Failure::usage(format!("{what}: name the BAR to share: {bars}")).into());
    }
    let number = range.strip_prefix("bar").and_then(|rest| rest.split('+').next()?.parse().ok());
    if let Some(bar) = number.and_then(BarIndex::new).filter(|bar| is_of_ports(&Tree::live(), address, *bar)) {
        return Err(Stop::Refused(format!(
            "{bar} of {address} is of I/O ports, which no process maps and no device reaches; share a BAR of memory"
        )));
    }
    let target = select::target(topology, what)?.target;
    let unsized_bar = || {
        Stop::Refused(format!(
            "the size of {what} is not told here; enable the function, or give the range: {what}+0,4KiB"
        ))
    };
    let bar = target.bar().and_then(BarIndex::new).ok_or_else(unsized_bar)?;
    let len = target.len().ok_or_else(unsized_bar)?;
    let range = BarRange::new(bar, target.offset(), len).ok_or_else(unsized_bar)?;
    let whole = topology.function(id).info().bars.iter().find(|one| one.index == bar.as_u8()).and_then(|bar| bar.size);
    match not_pages(address, range, whole, page_size()) {
        Some(why) => Err(Stop::Refused(why)),
        None => Ok(Wanted { address, range, is_virtual: physical.is_some() }),
    }
}

/// Whether a BAR is of ports, as its lowest bit says.
fn is_of_ports(tree: &Tree, address: PciAddr, bar: BarIndex) -> bool {
    let config = tree.read(&format!("sys/bus/pci/devices/{address}/config")).unwrap_or_default();
    config.get(0x10 + 4 * usize::from(bar.as_u8())).is_some_and(|byte| byte & 1 == 1)
}

/// Why a range is no whole pages, and which would be.
fn not_pages(address: PciAddr, range: BarRange, bar: Option<Bytes>, page: Bytes) -> Option<String> {
    let around = range.whole_pages(page);
    if around == Some(range) {
        return None;
    }
    let fits = |around: &BarRange| bar.is_none_or(|bar| around.end() <= bar);
    let next = match around.filter(fits) {
        Some(around) => {
            let (bar, offset, len) = (around.bar(), around.offset().as_u64(), around.len().as_u64());
            format!("share the pages around it: {address}/{bar}+{offset:#x},{len:#x}")
        }
        None => "its BAR ends before those around it do; share another BAR".to_string(),
    };
    Some(format!(
        "{range} of {address} is not whole pages of {page}, and a page is the least that another process maps; {next}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_within_a_page_is_refused_with_the_pages_that_would_do() {
        let (address, page): (PciAddr, _) = ("0000:06:00.0".parse().unwrap(), Bytes::new(4096));
        let range =
            |offset, len| BarRange::new(BarIndex::new(2).unwrap(), Bytes::new(offset), Bytes::new(len)).unwrap();
        assert_eq!(not_pages(address, range(0x1000, 0x2000), Some(Bytes::new(0x10000)), page), None);
        let odd = not_pages(address, range(0x1800, 0x1000), Some(Bytes::new(0x10000)), page).unwrap();
        assert!(odd.ends_with("share the pages around it: 0000:06:00.0/bar2+0x1000,0x2000"), "{odd}");
        let small = not_pages(address, range(0, 256), Some(Bytes::new(256)), page).unwrap();
        assert!(small.contains("256 bytes") && small.ends_with("share another BAR"), "{small}");
    }

    #[test]
    fn a_bar_of_ports_is_told_by_its_lowest_bit() {
        let root = std::env::temp_dir().join(format!("peerdma-ports-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&root);
        let folder = root.join("sys/bus/pci/devices/0000:06:00.0");
        std::fs::create_dir_all(&folder).unwrap();
        let mut config = vec![0; 64];
        (config[0x10], config[0x14]) = (0x0c, 0x01);
        std::fs::write(folder.join("config"), config).unwrap();
        let (tree, address) = (Tree::from_directory(&root).unwrap(), "0000:06:00.0".parse().unwrap());
        let ports: Vec<bool> = BarIndex::all().map(|bar| is_of_ports(&tree, address, bar)).collect();
        assert_eq!(ports, [false, true, false, false, false, false]);
        std::fs::remove_dir_all(&root).unwrap();
    }
}
