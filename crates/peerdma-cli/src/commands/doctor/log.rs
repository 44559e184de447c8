//! The kernel log, laid beside the gates.

use crate::document::doctor::EventDocument;
use crate::exit::Failure;
use peerdma::addr::Iova;
use peerdma::pcie::{Fact, PciAddr};
use peerdma::route::Verdict;
use peerdma::route::checkup::fault::{self, Meaning, SentKind};
use peerdma::route::checkup::{Check, Scope, Station, Status};
use peerdma::route::lint::passthrough_parameter;
use peerdma::topology::{HostBridgeFacts, HostWindow, Topology};
use peerdma_linux::archive;
use peerdma_linux::kernel_log::{self, Access, AerError, Event, Kind, Log};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Most bytes of a log that are read.
const MAX_LOG: u64 = 64 << 20;

/// What the log tells, and why it tells nothing.
pub(super) struct Heard {
    log: Log,
    pub(super) notes: Vec<String>,
}

impl Heard {
    /// Reads `file`, or this machine's log where `is_live`.
    pub(super) fn read(file: Option<&Path>, is_live: bool) -> Result<Self, Failure> {
        let mut notes = Vec::new();
        let text = match file {
            Some(path) => read_file(path)?,
            None if is_live => match kernel_log::read_kmsg() {
                Ok(text) => text,
                Err(error) => {
                    notes.push(with_cause(&error));
                    String::new()
                }
            },
            None => {
                notes.push("no kernel log was read; --log FILE takes the output of dmesg".into());
                String::new()
            }
        };
        let log = kernel_log::parse(&text);
        if log.dropped > 0 {
            notes.push(format!("the log tells of {} more events than are looked at", log.dropped));
        }
        Ok(Self { log, notes })
    }

    /// The topology with what the log tells of the machine, where the input does not.
    pub(super) fn told_of(&self, topology: Topology) -> Topology {
        let mut windows: BTreeMap<(u32, u8), Vec<HostWindow>> = BTreeMap::new();
        let mut encrypted_guest = false;
        for event in &self.log.events {
            match event.kind {
                Kind::HostWindow { domain, bus, window } => windows.entry((domain, bus)).or_default().push(window),
                Kind::MemoryEncryption { guest } => encrypted_guest |= guest,
                _ => {}
            }
        }
        if windows.is_empty() && !encrypted_guest {
            return topology;
        }
        let mut builder = topology.to_builder();
        for (_, host) in topology.host_bridges().filter(|(_, host)| host.facts().windows.is_empty()) {
            if let Some(windows) = windows.remove(&(host.domain(), host.bus())) {
                builder.host_bridge(host.domain(), host.bus(), HostBridgeFacts { windows, ..host.facts().clone() });
            }
        }
        if encrypted_guest {
            builder.machine().in_guest = Fact::Known(true);
            builder.machine().in_confidential_guest = Fact::Known(true);
        }
        builder.build()
    }

    /// Every event with what its address is, alike ones once.
    pub(super) fn named(&self, topology: &Topology) -> Vec<Named> {
        let mut named: Vec<Named> = Vec::new();
        let mut seen: BTreeMap<(&str, Option<PciAddr>, String), usize> = BTreeMap::new();
        for event in self.log.events.iter().filter(|event| !matches!(event.kind, Kind::HostWindow { .. })) {
            let meaning = event.address.map(|address| of_address(topology, event, address));
            let words = words(event, meaning.as_ref());
            let key = (event.kind.word(), event.device, words.clone());
            if let Some(&at) = seen.get(&key) {
                let before: &mut Named = &mut named[at];
                before.document.count += 1;
                continue;
            }
            seen.insert(key, named.len());
            let owner = meaning.as_ref().and_then(|meaning| meaning.owner);
            named.push(Named {
                document: EventDocument {
                    kind: event.kind.word(),
                    device: event.device.map(|device| device.to_string()),
                    address: event.address.map(|address| address.to_string()),
                    address_kind: meaning.as_ref().map(|meaning| meaning.kind.word()),
                    owner: owner.map(|owner| topology.function(owner).address().to_string()),
                    meaning: words,
                    count: 1,
                    text: event.text.clone(),
                },
                event: event.clone(),
                meaning,
            });
        }
        named
    }
}

/// An event with what it means.
pub(super) struct Named {
    pub(super) document: EventDocument,
    event: Event,
    meaning: Option<Meaning>,
}

impl Named {
    /// What it says about a gate of what was asked about; nothing of other devices. `route` is
    /// the verdict of the pair, where there is one pair.
    pub(super) fn check(&self, topology: &Topology, scope: Scope<'_>, route: Option<Verdict>) -> Option<Check> {
        let station = match &self.event.kind {
            Kind::P2pRefused { .. } | Kind::HostBridgeNotListed { .. } => Station::Route,
            Kind::ParameterUnread => Station::Kernel,
            Kind::IommuFault { .. } => Station::Iommu,
            Kind::Aer { .. } => Station::Direction,
            Kind::Vfio => Station::Grant,
            // Said while a route is sought, and no trouble by itself.
            Kind::P2pNotPci | Kind::P2pRedirected { .. } | Kind::P2pHint { .. } => return None,
            Kind::MemoryEncryption { .. } | Kind::HostWindow { .. } => return None,
        };
        let about_machine = matches!(self.event.kind, Kind::ParameterUnread | Kind::HostBridgeNotListed { .. });
        if !about_machine && matches!(scope, Scope::Pair(..)) && !self.concerns(topology, scope) {
            return None;
        }
        // Below one switch nobody asks the host bridge.
        if matches!(self.event.kind, Kind::HostBridgeNotListed { .. }) && route == Some(Verdict::Direct) {
            return None;
        }
        let status = if self.may_be_no_peer_s(topology) { Status::Unknown } else { Status::Fail };
        let object = self.document.device.clone().unwrap_or_else(|| "kernel log".into());
        let evidence = format!("the kernel log tells: {}", self.document.meaning);
        let check = Check::new(station, status, object, evidence);
        Some(match (&self.event.kind, &self.meaning) {
            (Kind::IommuFault { .. }, Some(meaning)) if meaning.owner.is_some() => {
                let parameter = passthrough_parameter(topology.machine());
                check.next(format!(
                    "boot with {parameter}, or let the importer map the target (dma_map_resource, VFIO, iommufd)"
                ))
            }
            (Kind::P2pRefused { .. }, _) => check.next("peerdma route FROM TO says why"),
            (Kind::ParameterUnread, _) => check.next("peerdma lint-cmdline"),
            _ => check,
        })
    }

    /// Whether it may have nothing to do with a peer: an IOVA that is not mapped is often a
    /// driver's own mistake, and an error without a peer's address may be of any request.
    fn may_be_no_peer_s(&self, topology: &Topology) -> bool {
        let kind = self.meaning.as_ref().map(|meaning| meaning.kind);
        let is_peer_s = self.meaning.as_ref().is_some_and(|meaning| {
            let owner = meaning.owner.map(|owner| topology.function(owner).address());
            owner.is_some() && owner != self.sender()
        });
        match self.event.kind {
            // Whoever owns a device through VFIO chooses its IOVAs, and any number may be one.
            Kind::IommuFault { .. } => {
                let id = self.event.device.and_then(|device| topology.at(device));
                let is_vfio_owned = id.is_some_and(|id| topology.function(id).info().is_vfio_owned());
                is_vfio_owned || matches!(kind, Some(SentKind::Iova | SentKind::Ram))
            }
            Kind::Aer { error, .. } => error != AerError::AcsViolation && !is_peer_s,
            _ => false,
        }
    }

    /// Who sent what the event is about.
    fn sender(&self) -> Option<PciAddr> {
        match self.event.kind {
            Kind::Aer { requester, .. } => requester.or(self.event.device),
            _ => self.event.device,
        }
    }

    /// Whether it is about the two ends: everybody it names, port or not, is one of them.
    fn concerns(&self, topology: &Topology, scope: Scope<'_>) -> bool {
        let ends: Vec<PciAddr> = scope.ends().into_iter().map(|end| topology.function(end).address()).collect();
        let owner = self.meaning.as_ref().and_then(|meaning| meaning.owner).map(|id| topology.function(id).address());
        let other = match self.event.kind {
            Kind::P2pRefused { provider } => provider,
            _ => owner,
        };
        let mut named = [self.sender(), other].into_iter().flatten().peekable();
        named.peek().is_some() && named.all(|one| ends.contains(&one))
    }
}

/// What an address is to whoever sent it: of a port's report, the requester.
fn of_address(topology: &Topology, event: &Event, address: Iova) -> Meaning {
    let sender = match event.kind {
        Kind::Aer { requester, .. } => requester.or(event.device),
        _ => event.device,
    };
    fault::meaning(topology, sender.and_then(|sender| topology.at(sender)), address)
}

fn words(event: &Event, meaning: Option<&Meaning>) -> String {
    let provider = |provider: &Option<PciAddr>| match provider {
        Some(provider) => format!(" the memory of {provider}"),
        None => String::new(),
    };
    match &event.kind {
        Kind::P2pRefused { provider: whose } => {
            format!("Linux refused it{}: no common port without redirect, no listed host bridge", provider(whose))
        }
        Kind::P2pNotPci => "Linux refused it: it is no PCI device".into(),
        Kind::P2pRedirected { provider: whose } => {
            format!("ACS sends its requests for{} up to the root", provider(whose))
        }
        Kind::P2pHint { parameter } => format!("Linux proposes {parameter} (its list is cut at some ten ports)"),
        Kind::HostBridgeNotListed { id } => {
            format!("Linux does not know whether host bridge {id} forwards peer requests")
        }
        Kind::ParameterUnread => "Linux did not understand something of pci=".into(),
        Kind::IommuFault { access, reason } => {
            let did = match access {
                Some(Access::Read) => "a read was stopped",
                Some(Access::Write) => "a write was stopped",
                None => "a request was stopped",
            };
            let reason = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
            let what = meaning.map(|meaning| format!(": {}", meaning.words)).unwrap_or_default();
            format!("{did}{reason}{what}")
        }
        Kind::Aer { error, requester, .. } => {
            let by = requester.map(|requester| format!(", sent by {requester}")).unwrap_or_default();
            let to =
                meaning.and_then(|meaning| meaning.bar.as_ref()).map(|bar| format!(", for {bar}")).unwrap_or_default();
            format!("{}{by}{to}", error.meaning())
        }
        Kind::Vfio => "VFIO or iommufd had trouble".into(),
        Kind::MemoryEncryption { guest: true } => "this guest's memory is confidential".into(),
        Kind::MemoryEncryption { guest: false } => "the host encrypts memory".into(),
        Kind::HostWindow { .. } => "a window of a host bridge".into(),
    }
}

/// The first [`MAX_LOG`] bytes of a file or of standard input, decompressed.
fn read_file(path: &Path) -> Result<String, Failure> {
    let failed = |source: io::Error| Failure::Read { path: path.to_path_buf(), source };
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        io::stdin().lock().take(MAX_LOG).read_to_end(&mut bytes).map_err(failed)?;
    } else {
        File::open(path).and_then(|file| file.take(MAX_LOG).read_to_end(&mut bytes)).map_err(failed)?;
    }
    let bytes =
        archive::decompress(bytes).map_err(|error| Failure::input(format!("cannot read {}", path.display()), error))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn with_cause(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
