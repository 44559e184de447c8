//! `peerdma share BDF/barN`: pages of a BAR that other processes map, through everything that is done to its device.
//!
//! The device is opened through VFIO and never behind [`SharedDevice`]'s back: what would disturb the memory is announced to
//! importers and waits for them. Nothing is written to the memory unless asked to, as registers take bytes for commands.

mod session;
mod wanted;

use super::chronicle::Chronicle;
use crate::args::ShareArguments;
use crate::document::share::ShareDocument;
use crate::exit::{Exit, Failure};
use crate::output;
use peerdma::dma::{Owner, OwnerId};
use peerdma_linux::interrupt::Interrupts;
use peerdma_linux::iommufd::IommufdSpace;
use peerdma_linux::share::{BindError, Exporter, Listener, ShareBarError, Shared};
use peerdma_linux::type1::Type1Space;
use peerdma_linux::vfio::{DeviceNode, Nodes, OpenError, SharedDevice};
use session::Session;
use std::path::Path;
use wanted::Wanted;

/// Why a BAR is not shared.
enum Stop {
    /// It is not to be had as things are: what is in the way, and what to do.
    Refused(String),
    Failed(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// The address space that keeps the device open.
enum Kept {
    Group(#[expect(dead_code, reason = "kept open")] Type1Space),
    Node(#[expect(dead_code, reason = "kept open")] IommufdSpace),
}

pub(super) fn run(
    arguments: &ShareArguments,
    what: &str,
    socket: &Path,
    mut document: ShareDocument,
) -> Result<Exit, Failure> {
    // Before there is a socket that would be left behind.
    let interrupts = Interrupts::watch();
    let opened = wanted::wanted(what).and_then(|wanted| open(arguments, wanted, socket));
    let (wanted, device, _kept, mut exporter) = match opened {
        Ok(opened) => opened,
        Err(Stop::Failed(failure)) => return Err(failure),
        Err(Stop::Refused(why)) => {
            document.refused = Some(why.clone());
            let printed = match arguments.output.json {
                true => output::json(&document),
                false => Chronicle::new(false).tell("refused", &why),
            };
            return output::concluded(Exit::Refused, printed);
        }
    };
    document.bytes = Some(wanted.range.len().as_u64());
    let mut session = Session::new(arguments, &mut exporter, device, wanted.range, interrupts.as_ref())?;
    let outcome = session.run();
    (document.events, document.events_left_out) = session.into_events();
    let printed = if arguments.output.json { output::json(&document) } else { Ok(()) };
    output::concluded(outcome?, printed)
}

type Opened = (Wanted, SharedDevice, Kept, Exporter<peerdma_linux::share::Bar>);

fn open(arguments: &ShareArguments, wanted: Wanted, socket: &Path) -> Result<Opened, Stop> {
    let Wanted { address, range, is_virtual } = wanted;
    let nodes = Nodes::live();
    let opened = if nodes.offer_iommufd(address) {
        DeviceNode::open(&nodes, address).and_then(|node| {
            let space = IommufdSpace::open(&nodes)?;
            Ok((space.bind(node)?, Kept::Node(space)))
        })
    } else {
        Type1Space::open(&nodes, &[address]).and_then(|space| Ok((space.device(address)?, Kept::Group(space))))
    };
    let (device, kept) = opened.map_err(|error| unopened(address, error))?;
    let shared = match is_virtual {
        true => SharedDevice::of_virtual_function(device),
        false => SharedDevice::new(device),
    };
    let device = shared.map_err(|error| Failure::device(format!("cannot read registers of {address}"), error))?;
    let listener = Listener::bind(socket).map_err(|error| match error {
        BindError::NotASocket { .. } | BindError::TooLong { .. } => Failure::usage(error.to_string()),
        error => Failure::device("cannot share", error),
    })?;
    let name = format!("{address}/{range}");
    let shared = Shared { floor: arguments.floor.into(), ..Shared::named(&name) };
    let exporter = Exporter::of_bar(listener, &device, range, Owner::Device(OwnerId::new(0)), shared);
    let exporter = exporter.map_err(|error| match error {
        // The range of a BAR that the CPU does not map: the next one may be.
        ShareBarError::Range(why) => Stop::Refused(why.to_string()),
        error => Failure::device(format!("cannot share {name}"), error).into(),
    })?;
    Ok((wanted, device, kept, exporter))
}

/// What is in the way of the device, with this command's own words for what this command does.
fn unopened(address: peerdma::pcie::PciAddr, error: OpenError) -> Stop {
    match error {
        OpenError::OtherDriver { driver, .. } => Stop::Refused(format!(
            "{address} is bound to {driver}, and a BAR is shared through vfio-pci; peerdma vfio bind {address} says what binding it takes"
        )),
        OpenError::NoDriver { .. } => Stop::Refused(format!(
            "{address} is bound to no driver, and a BAR is shared through vfio-pci; as root: peerdma vfio bind {address} --yes"
        )),
        error @ (OpenError::NoPrivilege { .. } | OpenError::Kernel { .. } | OpenError::DamagedRegion { .. }) => {
            Failure::device(format!("cannot open {address}"), error).into()
        }
        error => Stop::Refused(error.to_string()),
    }
}
