//! Two devices opened with one address space, through the interface of the kernel that fits.
//!
//! iommufd is preferred because it maps a BAR as device memory and takes the mapping away when
//! the device is reset. It needs the target's BAR as a dma-buf, which kernels from 6.6 on have
//! the device nodes for but only 6.19 exports. Whether a kernel exports is known by asking, so
//! it is asked before anything is mapped; where it does not, `auto` closes what it opened (a
//! group cannot be opened while a node of one of its devices is) and takes type1.
//!
//! Not here: mapping; see [`super::session`].

use super::NoSession;
use crate::args::ViaArgument;
use crate::exit::Failure;
use peerdma::addr::Bytes;
use peerdma::dma::IoSpace;
use peerdma::pcie::PciAddr;
use peerdma_linux::iommufd::IommufdSpace;
use peerdma_linux::memory::page_size;
use peerdma_linux::type1::Type1Space;
use peerdma_linux::vfio::{BarRange, Command, DeviceNode, ExportError, Nodes, VfioDevice};
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

pub(super) type File = Arc<OwnedFd>;
pub(super) type Space = Box<dyn IoSpace<File = File>>;

/// An interface of the kernel that maps for devices.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Via {
    /// VFIO containers and groups.
    Type1,
    /// `/dev/iommu` and VFIO device nodes.
    Iommufd,
}

impl Via {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Type1 => "type1",
            Self::Iommufd => "iommufd",
        }
    }
}

/// Which interface to use where `offered` says whether both functions and the machine have what
/// iommufd takes, and `exports` whether the kernel gives BARs away as files, as far as is known.
fn choose(asked: ViaArgument, offered: bool, exports: bool) -> Via {
    match asked {
        ViaArgument::Auto if offered && exports => Via::Iommufd,
        ViaArgument::Auto | ViaArgument::Type1 => Via::Type1,
        // Whoever names it gets its own refusal.
        ViaArgument::Iommufd => Via::Iommufd,
    }
}

/// Who is to reach what.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) initiator: PciAddr,
    pub(crate) target: PciAddr,
    pub(crate) range: BarRange,
}

impl Wanted {
    pub(super) fn refused(self, via: Via, error: &dyn fmt::Display) -> NoSession {
        let Self { initiator, target, range } = self;
        let via = via.word();
        let what = format!("cannot map {target}'s {range} for {initiator} through {via}: {error}");
        NoSession::NotGranted(Failure::Device { what, source: None })
    }

    /// The whole pages around the range, which is what can be mapped.
    fn whole_pages(
        self,
        via: Via,
        space: &dyn IoSpace<File = File>,
        target: &VfioDevice,
    ) -> Result<BarRange, NoSession> {
        let granule = granule(space);
        let whole = self.range.whole_pages(granule);
        let whole = whole.ok_or_else(|| self.refused(via, &"the range ends past 64 bits"))?;
        if target.bar(self.range.bar()).is_none_or(|bar| whole.end() > bar.size) {
            let why = format_args!("only whole pages of {granule} can be mapped, and its BAR is smaller");
            return Err(self.refused(via, &why));
        }
        Ok(whole)
    }
}

/// The unit of mappings, which the CPU's page size is one of.
pub(super) fn granule(space: &dyn IoSpace<File = File>) -> Bytes {
    page_size().max(space.abilities().granule.bytes())
}

/// Two open devices and the address space of the initiator. Nothing is mapped in it yet.
pub(super) struct Opened {
    pub(super) via: Via,
    pub(super) space: Space,
    pub(super) initiator: VfioDevice,
    /// Its memory space is on.
    pub(super) target: VfioDevice,
    /// The whole pages around the range.
    pub(super) whole: BarRange,
    /// A dma-buf of them, where the interface takes one.
    pub(super) file: Option<File>,
}

pub(super) fn open(asked: ViaArgument, wanted: Wanted) -> Result<Opened, NoSession> {
    let nodes = Nodes::live();
    let offered = nodes.offer_iommufd(wanted.initiator) && nodes.offer_iommufd(wanted.target);
    if choose(asked, offered, true) == Via::Type1 {
        return by_type1(&nodes, wanted);
    }
    by_iommufd(&nodes, wanted).or_else(|stop| match stop {
        Stop::NotExported(error) => match choose(asked, offered, false) {
            Via::Type1 => by_type1(&nodes, wanted),
            Via::Iommufd => Err(wanted.refused(Via::Iommufd, &error)),
        },
        Stop::Failed(why) => Err(why),
    })
}

/// Why iommufd did not do; everything that was opened is closed again.
enum Stop {
    /// The kernel gives no BARs away.
    NotExported(ExportError),
    Failed(NoSession),
}

impl From<NoSession> for Stop {
    fn from(why: NoSession) -> Self {
        Self::Failed(why)
    }
}

fn by_iommufd(nodes: &Nodes, wanted: Wanted) -> Result<Opened, Stop> {
    let via = Via::Iommufd;
    let open = || {
        let (initiator, target) = (DeviceNode::open(nodes, wanted.initiator)?, DeviceNode::open(nodes, wanted.target)?);
        let mut space = IommufdSpace::open(nodes)?;
        let initiator = space.bind(initiator)?;
        // The target does no DMA, so it gets no address space.
        let target = space.bind(target)?;
        space.attach(&initiator)?;
        Ok((Box::new(space) as Space, initiator, target))
    };
    let (space, initiator, target) = open().map_err(|error| unopened(wanted, error))?;
    answering(via, wanted, &target)?;
    let whole = wanted.whole_pages(via, &*space, &target)?;
    match target.export(whole) {
        Ok(file) => Ok(Opened { via, space, initiator, target, whole, file: Some(file) }),
        Err(error @ ExportError::NotSupported { .. }) => Err(Stop::NotExported(error)),
        Err(error) => Err(wanted.refused(via, &error).into()),
    }
}

fn by_type1(nodes: &Nodes, wanted: Wanted) -> Result<Opened, NoSession> {
    let via = Via::Type1;
    let open = || {
        let space = Type1Space::open(nodes, &[wanted.initiator, wanted.target])?;
        let (initiator, target) = (space.device(wanted.initiator)?, space.device(wanted.target)?);
        Ok((Box::new(space) as Space, initiator, target))
    };
    let (space, initiator, target) = open().map_err(|error| unopened(wanted, error))?;
    answering(via, wanted, &target)?;
    let whole = wanted.whole_pages(via, &*space, &target)?;
    Ok(Opened { via, space, initiator, target, whole, file: None })
}

fn unopened(wanted: Wanted, error: peerdma_linux::vfio::OpenError) -> NoSession {
    let what = format!("cannot open {} and {}", wanted.initiator, wanted.target);
    NoSession::NotReady(Failure::device(what, error))
}

/// Switches the target's memory space on: its BARs answer only then, to this CPU, to the engine
/// and to whoever has a dma-buf of them.
fn answering(via: Via, wanted: Wanted, target: &VfioDevice) -> Result<(), NoSession> {
    target.set_command(Command::MEMORY).map_err(|error| wanted.refused(via, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_takes_type1_where_the_kernel_has_nodes_but_exports_no_bars() {
        // Linux 6.6 to 6.18 have the nodes and export nothing.
        assert_eq!(choose(ViaArgument::Auto, true, true), Via::Iommufd);
        assert_eq!(choose(ViaArgument::Auto, true, false), Via::Type1);
        assert_eq!(choose(ViaArgument::Auto, false, true), Via::Type1);
        assert_eq!(choose(ViaArgument::Auto, false, false), Via::Type1);
    }

    #[test]
    fn an_interface_that_was_named_is_never_replaced() {
        for (offered, exports) in [(true, true), (true, false), (false, true), (false, false)] {
            assert_eq!(choose(ViaArgument::Iommufd, offered, exports), Via::Iommufd);
            assert_eq!(choose(ViaArgument::Type1, offered, exports), Via::Type1);
        }
    }
}
