//! What the kernel log tells about peer traffic: refusals, faults, errors.
//!
//! When p2pdma refuses, when an IOMMU stops a request, when a port reports an error, the
//! program that asked hears `EINVAL` or nothing; the reason is in the log alone. [`parse`]
//! takes the text of `dmesg`, `journalctl -k` or `/dev/kmsg` line by line and returns
//! [`Event`]s: what happened, to which device, at which address. The forms are those of
//! Linux 7.2, and older ones where people still post them:
//!
//! | file | lines |
//! |---|---|
//! | `p2p` | `drivers/pci/p2pdma.c`, and `pci_setup` about its parameters |
//! | `faults` | VT-d, AMD-Vi, SMMU v2 and v3, virtio-iommu |
//! | `aer` | `drivers/pci/pcie/aer.c`, uncorrectable errors with their TLP header |
//! | `boot` | host bridge windows, memory encryption, VFIO and iommufd |
//!
//! A log comes from anybody: no line panics, none is kept beyond [`MAX_TEXT`] bytes, and
//! after [`MAX_EVENTS`] events the rest is only counted.

mod aer;
mod boot;
mod faults;
mod kmsg;
mod line;
mod p2p;

pub use kmsg::{LogError, read_kmsg};

use line::Line;
use peerdma::addr::Iova;
use peerdma::pcie::{PciAddr, PciId};
use peerdma::topology::HostWindow;
use std::fmt;

/// Most events kept of one log; a device in a fault loop writes ten lines a second.
pub const MAX_EVENTS: usize = 4096;
/// Most bytes of a line that are kept; longer ones are looked at this far.
pub const MAX_TEXT: usize = 512;

/// What a device did when it was stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Access {
    /// It read.
    Read,
    /// It wrote.
    Write,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
        })
    }
}

/// Severity of an uncorrectable error.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Severity {
    /// The link can be trusted still.
    NonFatal,
    /// It cannot.
    Fatal,
}

/// Uncorrectable errors (PCIe 6.0 §7.8.4.2) that peer traffic causes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum AerError {
    /// An ACS control refused a request.
    AcsViolation,
    /// Nobody claims the request, or its receiver does not support it.
    UnsupportedRequest,
    /// A packet that breaks the rules, one with too large a payload among them.
    MalformedTlp,
    /// A read was not answered.
    CompletionTimeout,
    /// A read was answered with a refusal.
    CompleterAbort,
    /// A packet was marked as broken by its sender.
    PoisonedTlp,
    /// An AtomicOp met a port that blocks them.
    AtomicOpBlocked,
    /// Any other.
    Other,
}

impl AerError {
    /// What it means for a request from one device to another.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::AcsViolation => {
                "source validation, translation blocking or egress control refused a request at this port"
            }
            Self::UnsupportedRequest => {
                "nobody took the request: its address is in no window, or decoding is off there"
            }
            Self::MalformedTlp => "a packet that this port does not take, often a payload above its maximum",
            Self::CompletionTimeout => "a read was never answered, as behind a root complex that loses peer reads",
            Self::CompleterAbort => "the target refused a read",
            Self::PoisonedTlp => "a packet marked as broken arrived",
            Self::AtomicOpBlocked => "an AtomicOp met a port whose egress blocks them",
            Self::Other => "an error of another kind",
        }
    }
}

/// What an event is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// p2pdma refused the pair: no common bridge without redirect, no listed host bridge.
    P2pRefused {
        /// Whose memory was asked for.
        provider: Option<PciAddr>,
    },
    /// p2pdma refused something that is no PCI device.
    P2pNotPci,
    /// p2pdma found an ACS redirect on the way, and so asked for the host bridge.
    P2pRedirected {
        /// Whose memory was asked for.
        provider: Option<PciAddr>,
    },
    /// p2pdma proposes a parameter; its list is cut at some ten ports.
    P2pHint {
        /// As proposed: `pci=disable_acs_redir=…`.
        parameter: String,
    },
    /// A host bridge that p2pdma does not know.
    HostBridgeNotListed {
        /// Its first device.
        id: PciId,
    },
    /// The kernel did not understand something of `pci=`.
    ParameterUnread,
    /// An IOMMU stopped a request.
    IommuFault {
        /// Whether it read or wrote, where told.
        access: Option<Access>,
        /// The IOMMU's reason in its driver's words, empty where there is none.
        reason: String,
    },
    /// A function reported an uncorrectable error.
    Aer {
        /// Where told.
        severity: Option<Severity>,
        /// Which.
        error: AerError,
        /// Who sent the packet concerned, where its header was logged.
        requester: Option<PciAddr>,
    },
    /// VFIO or iommufd had trouble.
    Vfio,
    /// Memory is encrypted.
    MemoryEncryption {
        /// Whether this is a guest whose memory is confidential.
        guest: bool,
    },
    /// Addresses that a host bridge passes down.
    HostWindow {
        /// Domain of its root bus.
        domain: u32,
        /// Number of its root bus.
        bus: u8,
        /// The window.
        window: HostWindow,
    },
}

impl Kind {
    /// The word used in text and JSON.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::P2pRefused { .. } => "p2p_refused",
            Self::P2pNotPci => "p2p_not_pci",
            Self::P2pRedirected { .. } => "p2p_redirected",
            Self::P2pHint { .. } => "p2p_hint",
            Self::HostBridgeNotListed { .. } => "host_bridge_not_listed",
            Self::ParameterUnread => "parameter_unread",
            Self::IommuFault { .. } => "iommu_fault",
            Self::Aer { .. } => "aer",
            Self::Vfio => "vfio",
            Self::MemoryEncryption { .. } => "memory_encryption",
            Self::HostWindow { .. } => "host_window",
        }
    }
}

/// One thing that the log tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// What it is.
    pub kind: Kind,
    /// Whom it concerns: the requester of a fault, the reporter of an error, p2pdma's client.
    pub device: Option<PciAddr>,
    /// The address that the device sent, as it stood on the wire before any translation.
    pub address: Option<Iova>,
    /// The line without its stamp, control characters replaced.
    pub text: String,
}

/// What a log tells.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Log {
    /// In the log's order.
    pub events: Vec<Event>,
    /// Events beyond [`MAX_EVENTS`].
    pub dropped: usize,
}

/// Reads a log.
///
/// ```
/// use peerdma_linux::kernel_log::{Kind, parse};
///
/// let log = parse("[   12.3] DMAR: [DMA Write NO_PASID] Request device [03:00.0] fault addr 0xf7e00000 [fault reason 0x05] PTE Write access is not set\n");
/// assert!(matches!(log.events[0].kind, Kind::IommuFault { .. }));
/// assert_eq!(log.events[0].address.unwrap().as_u64(), 0xf7e0_0000);
/// ```
pub fn parse(text: &str) -> Log {
    let mut log = Log::default();
    let mut smmu = faults::SmmuWords::default();
    let mut aer = aer::Reports::default();
    for line in text.lines() {
        let line = Line::read(line);
        if let Some(event) = smmu.take(&line) {
            log.push(event);
        }
        if faults::repeats(&line, &log) {
            log.events.pop();
        }
        if aer.take(&line, &mut log) {
            continue;
        }
        let event = p2p::event(&line).or_else(|| faults::event(&line)).or_else(|| boot::event(&line));
        if let Some(event) = event {
            log.push(event);
        }
    }
    log
}

impl Log {
    fn push(&mut self, event: Event) {
        if self.events.len() < MAX_EVENTS {
            self.events.push(event);
        } else {
            self.dropped += 1;
        }
    }
}

#[cfg(test)]
mod tests;
