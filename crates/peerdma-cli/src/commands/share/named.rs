//! Why a BAR that was named is not shared.

use crate::args::InputArguments;
use crate::exit::Failure;
use crate::{input, select};
use peerdma_linux::vfio::{DeviceNode, Nodes};

/// Why this function's BAR is not shared; an error if there is no such function.
///
/// None is ever: importers of this command map memory by their CPU, and VFIO's export cannot be mapped so (Linux 7.2
/// `vfio_pci_dmabuf_ops` has no `mmap`). What stands in the way before that is told first.
pub(super) fn refusal(what: &str) -> Result<String, Failure> {
    let loaded = input::load(&InputArguments::default())?;
    let asked = select::target(&loaded.topology, what)?;
    let address = loaded.topology.function(asked.target.function()).info().address;
    Ok(match DeviceNode::open(&Nodes::live(), address) {
        Err(why) => format!("{address} is not to be had through VFIO, which exports BARs: {why}"),
        Ok(_) => format!(
            "{address} is to be had through VFIO, but a BAR that VFIO exports is mapped by devices alone, and importers of this \
             command map by their CPU; import it into an iommufd address space instead, as `peerdma copy --via iommufd` does"
        ),
    })
}
