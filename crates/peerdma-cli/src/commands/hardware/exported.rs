//! A target in VFIO's hands whose memory is exported as a dma-buf, for an initiator in the kernel's.

use super::open::File;
use super::session::with_guards;
use crate::exit::chain;
use peerdma::pcie::PciAddr;
use peerdma_linux::iommufd::IommufdSpace;
use peerdma_linux::memory::page_size;
use peerdma_linux::type1::Type1Space;
use peerdma_linux::vfio::{BarMapping, BarRange, Command, DeviceNode, ExportError, Nodes, OpenError, VfioDevice};
use std::error::Error;

/// The memory, for the CPU and as a file; what owns the device goes last.
pub(crate) struct Exported {
    memory: BarMapping,
    file: File,
    whole: BarRange,
    _device: VfioDevice,
    _owner: Owner,
}

/// Whoever the device is opened through.
enum Owner {
    Type1(#[expect(dead_code, reason = "held open")] Type1Space),
    Iommufd(#[expect(dead_code, reason = "held open")] IommufdSpace),
}

impl Exported {
    /// Opens `device`, through a group or, where the machine has none, a node, and exports the whole pages around `range`.
    pub(crate) fn open(device: PciAddr, range: BarRange) -> Result<Self, Box<dyn Error>> {
        let nodes = Nodes::live();
        let by_node = || -> Result<(Owner, VfioDevice), OpenError> {
            let space = IommufdSpace::open(&nodes)?;
            let opened = space.bind(DeviceNode::open(&nodes, device)?)?;
            Ok((Owner::Iommufd(space), opened))
        };
        let by_group = || -> Result<(Owner, VfioDevice), OpenError> {
            let space = Type1Space::open(&nodes, &[device])?;
            let opened = space.device(device)?;
            Ok((Owner::Type1(space), opened))
        };
        let (owner, opened) = if nodes.offer_iommufd(device) { by_node()? } else { by_group()? };
        opened.set_command(Command::MEMORY)?;
        let whole = range.whole_pages(page_size());
        let whole = whole.filter(|whole| opened.bar(whole.bar()).is_some_and(|bar| whole.end() <= bar.size));
        let whole = whole.ok_or_else(|| {
            format!("{device} {range} lies in no whole pages of its BAR, which is all that can be exported")
        })?;
        let file = opened.export(whole).map_err(|error: ExportError| chain(&error))?;
        let memory = with_guards(&opened, range)?;
        Ok(Self { memory, file, whole, _device: opened, _owner: owner })
    }

    /// The whole pages.
    pub(crate) fn whole(&self) -> BarRange {
        self.whole
    }

    /// Their dma-buf.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// The range and what is around it, for the CPU.
    pub(crate) fn memory(&self) -> &BarMapping {
        &self.memory
    }
}
