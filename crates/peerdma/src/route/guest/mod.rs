//! Whether a guest's addresses lead its devices where the guest means.
//!
//! A machine monitor hands functions A and B to one guest. The guest knows guest-physical addresses and no
//! others, and gives them to A's driver, so A's requests leave with these numbers. What becomes of one is
//! decided twice:
//!
//! - *Below the root complex* every port compares the bare number with windows, and nothing tells it that the number is a
//!   guest's ([`FabricView::follow`](super::fabric::FabricView::follow)). A number that a port claims never comes to an IOMMU: if it is
//!   B's own bus address, the request reaches B's BAR; if the guest means anything else by it, its RAM or
//!   another BAR, the bytes are in the wrong place and nobody is told.
//! - *At the root complex* it is an IOVA, which the monitor has mapped to what the guest means. To a BAR it then has to come
//!   down again, which many root complexes do not do for peers.
//!
//! So where ports do not redirect and the root complex does not forward, the guest must see B's BAR at exactly
//! its own bus address ([`Place::Identity`]); where the root complex forwards, any address that no port claims will
//! do ([`Place::Any`]). An initiator that uses ATS asks for the translation first, by the same number, and
//! then sends what the IOMMU answered: for it any address will do from which the question comes up to the IOMMU, if ports
//! let translated requests through or the root complex forwards them.
//!
//! `layout` is what is shown to the guest; `arrival` follows one initiator's requests; `place` turns the
//! question round, for who is about to place a BAR.
//!
//! ```
//! use peerdma::addr::{AddrRange, Bytes, GuestPhys};
//! use peerdma::route::guest::{GuestLayout, Initiator, check};
//! use peerdma::route::{Judge, Permission};
//! # use peerdma::topology::{Builder, FunctionInfo, IommuMode, Position};
//! # let mut builder = Builder::new();
//! # let mut nic = FunctionInfo::new("00:01.0".parse().unwrap(), Position::RootBus { bus: 0 });
//! # nic.registers.ats = peerdma::pcie::Fact::Known(None);
//! # builder.function(nic);
//! # builder.machine().iommu = Some(IommuMode::Translated);
//! # let topology = builder.build();
//! let nic = Initiator::of(&topology, topology.at("00:01.0".parse().unwrap()).unwrap());
//! let ram = AddrRange::new(GuestPhys::new(0), Bytes::new(2 << 30)).unwrap();
//! let layout = GuestLayout::new(&topology, &[nic], &[ram], &[])?;
//! // On a root bus nothing is below a port, so all of it comes to the IOMMU.
//! assert_eq!(check(&Judge::new(&topology), &layout).permission(), Permission::Permitted);
//! # Ok::<(), peerdma::route::guest::LayoutError>(())
//! ```
//!
//! Not here: whether Linux would map the pair for a driver of its own, since a guest's devices get what their monitor
//! maps; AtomicOps; a function's requests for its own BAR; which legacy addresses below 1 MiB a VGA port claims. Of an IOMMU only what the
//! input holds is looked at: regions that it keeps from the initiator's group, and the width of its addresses.

mod arrival;
mod layout;
mod place;

pub use layout::{GuestBar, GuestLayout, Initiator, LayoutError, Requests};
pub use place::{NeededPlace, Place, Proposal, needed_place};

use super::{Gate, Judge, Permission, Reason, Target};
use crate::addr::{AddrRange, GuestPhys, Iova};
use crate::pcie::PciAddr;
use crate::topology::{FunctionId, Topology};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

/// What a guest means by an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Meant {
    /// Its RAM.
    Ram,
    /// A BAR that it was given.
    Bar {
        /// Whose.
        function: PciAddr,
        /// Which, 0 to 5.
        bar: u8,
    },
}

impl fmt::Display for Meant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ram => f.write_str("RAM"),
            Self::Bar { function, bar } => write!(f, "{function} bar{bar}"),
        }
    }
}

/// What becomes of requests that do not arrive, or are not known to.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Stray {
    /// A function below the same ports takes them, and nobody is told: give the guest other addresses.
    Captured {
        /// Who takes them.
        by: FunctionId,
        /// Into which BAR.
        bar: Option<u8>,
    },
    /// A port or function refuses them: give the guest other addresses, or change the port.
    Stopped {
        /// Who refuses them.
        at: FunctionId,
    },
    /// No IOMMU stands above the initiator, so a guest's address is taken for one of this machine: it cannot be a guest's.
    NotTranslated,
    /// The IOMMU keeps these addresses from the initiator's group: give the guest others.
    Reserved {
        /// The group.
        group: u32,
        /// sysfs' word: `msi`, `direct`, `reserved`, …
        kind: String,
        /// All of what is kept.
        region: AddrRange<Iova>,
    },
    /// The IOMMU does not take addresses so wide: give the guest lower ones.
    TooWide {
        /// How many bits it takes.
        bits: u8,
    },
    /// They get on their way to the BAR and are lost there, or what they bring back is.
    Lost(Vec<Reason>),
    /// The specification does not say what becomes of them.
    Undefined(Vec<Reason>),
    /// What decides was not read.
    Unknown(Vec<Reason>),
}

impl Stray {
    /// `Refused` of what is known not to arrive, else `Unknown`.
    pub const fn permission(&self) -> Permission {
        match self {
            Self::Undefined(_) | Self::Unknown(_) => Permission::Unknown,
            _ => Permission::Refused,
        }
    }

    /// The word used in text and JSON.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Captured { .. } => "captured",
            Self::Stopped { .. } => "stopped",
            Self::NotTranslated => "not_translated",
            Self::Reserved { .. } => "reserved",
            Self::TooWide { .. } => "too_wide",
            Self::Lost(_) => "lost",
            Self::Undefined(_) => "undefined",
            Self::Unknown(_) => "unknown",
        }
    }

    /// Why, object by object, for requests of `initiator`.
    pub fn reasons(&self, topology: &Topology, initiator: FunctionId) -> Vec<Reason> {
        let name = |function: FunctionId| topology.function(function).address().to_string();
        let elsewhere = || Some("give the guest other addresses for this".to_string());
        let one = |gate, object, evidence, fix| vec![Reason { gate, object, evidence, fix }];
        match self {
            Self::Captured { by, bar } => {
                let whose = bar.map_or_else(|| "its memory".to_string(), |bar| format!("its bar{bar}"));
                let evidence = format!(
                    "the number is one of {whose} below this host bridge, and no port on the way sends such requests up to the \
                     IOMMU (PCIe 6.0 §7.5.1.3)"
                );
                one(Gate::FabricPort, name(*by), evidence, elsewhere())
            }
            Self::Stopped { at } => {
                let evidence = "refuses the request: the number is in a window on the way, and nobody's behind it, or ACS \
                                blocks it";
                one(Gate::FabricPort, name(*at), evidence.into(), elsewhere())
            }
            Self::NotTranslated => {
                let evidence = "no IOMMU stands above it, so a guest's address is taken for an address of this machine";
                one(
                    Gate::IommuMode,
                    name(initiator),
                    evidence.into(),
                    Some("switch the IOMMU on in firmware and kernel".into()),
                )
            }
            Self::Reserved { group, kind, region } => {
                let evidence =
                    format!("the IOMMU keeps {region} ({kind}) from IOMMU group {group}, so nothing is mapped there");
                one(Gate::IommuMode, name(initiator), evidence, elsewhere())
            }
            Self::TooWide { bits } => {
                let evidence = format!("an IOMMU of this machine takes addresses of {bits} bits");
                one(
                    Gate::AddressWidth,
                    name(initiator),
                    evidence,
                    Some("give the guest lower addresses for this".into()),
                )
            }
            Self::Lost(reasons) | Self::Undefined(reasons) | Self::Unknown(reasons) => reasons.clone(),
        }
    }
}

/// Requests of one initiator that do not arrive where the guest means, or are not known to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// Whose requests.
    pub initiator: FunctionId,
    /// At which guest addresses.
    pub range: AddrRange<GuestPhys>,
    /// What the guest means by them.
    pub meant: Meant,
    /// What becomes of the requests instead.
    pub stray: Stray,
}

/// A BAR of the layout for one initiator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlacedBar {
    /// Who sends requests.
    pub initiator: FunctionId,
    /// The BAR.
    pub target: Target,
    /// Where the guest sees it.
    pub at: AddrRange<GuestPhys>,
    /// Where this initiator needs it.
    pub place: Place,
    /// Whether its requests arrive where the guest sees it.
    pub standing: Permission,
}

/// What was found of a layout.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GuestReport {
    /// Every initiator with every BAR of another function.
    pub bars: Vec<PlacedBar>,
    /// Everything that does not arrive or is not known to.
    pub findings: Vec<Finding>,
}

impl GuestReport {
    /// Whether all requests arrive: refused if some are known not to.
    pub fn permission(&self) -> Permission {
        permission(&self.findings)
    }
}

fn permission(findings: &[Finding]) -> Permission {
    findings.iter().fold(Permission::Permitted, |all, finding| all.and(finding.stray.permission()))
}

/// Asks of every initiator of a layout, for every range of it, whether requests arrive where the guest means.
///
/// A report without findings says that reads and writes of every initiator at every address of the layout arrive at the RAM or
/// BAR that the guest means, once the monitor has mapped what comes up to the IOMMU. Computes; blocks nobody.
pub fn check(judge: &Judge<'_>, layout: &GuestLayout) -> GuestReport {
    let mut report = GuestReport { bars: Vec::new(), findings: Vec::new() };
    for &initiator in layout.initiators() {
        for &ram in layout.ram() {
            let parts = place::by_requests(judge, initiator, |sender| sender.ram(ram));
            report.findings.extend(arrival::findings(initiator.function, Meant::Ram, parts));
        }
        for bar in layout.bars().iter().filter(|bar| bar.target().function() != initiator.function) {
            let strays = place::strays(judge, initiator, bar);
            let found: Vec<Finding> =
                arrival::findings(initiator.function, bar.meant(judge.topology()), strays).collect();
            report.bars.push(PlacedBar {
                initiator: initiator.function,
                target: *bar.target(),
                at: bar.at(),
                place: Place::of(judge, initiator, bar.target()),
                standing: permission(&found),
            });
            report.findings.extend(found);
        }
    }
    report
}
