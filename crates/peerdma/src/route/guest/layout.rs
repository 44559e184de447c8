//! What a machine monitor is about to show a guest: RAM, BARs, and who sends requests.

use super::Meant;
use crate::addr::{AddrRange, Bytes, GuestPhys};
use crate::pcie::{Fact, PciAddr};
use crate::route::{Target, TargetError};
use crate::topology::{FunctionId, Topology};
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

/// What a function's requests for guest addresses carry.
///
/// ATS lets a function ask for a translation and use that, and lets it send untranslated requests beside
/// (PCIe 6.0 §10.1.1). Which of the two its driver has it do stands in no register.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Requests {
    /// Guest addresses, untranslated. State this also of one that sends both kinds.
    Untranslated,
    /// Translations that it has asked for, always.
    Translated,
    /// Not told: what is said of it has to be true of either.
    Untold,
}

/// A function that the guest lets move bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Initiator {
    /// Which.
    pub function: FunctionId,
    /// What its requests carry.
    pub requests: Requests,
}

impl Initiator {
    /// An initiator as its registers tell: without ATS, or with ATS disabled, untranslated; else untold.
    pub fn of(topology: &Topology, function: FunctionId) -> Self {
        let requests = match topology.function(function).info().registers.ats {
            Fact::Known(None) => Requests::Untranslated,
            Fact::Known(Some(ats)) if !ats.enabled => Requests::Untranslated,
            Fact::Known(Some(_)) | Fact::Unknown => Requests::Untold,
        };
        Self { function, requests }
    }
}

/// A BAR as the guest sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GuestBar {
    target: Target,
    at: AddrRange<GuestPhys>,
}

impl GuestBar {
    /// The BAR, all of it.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Where the guest sees it.
    pub fn at(&self) -> AddrRange<GuestPhys> {
        self.at
    }

    pub(super) fn new(topology: &Topology, target: Target, at: GuestPhys) -> Result<Self, LayoutError> {
        let function = topology.function(target.function()).address();
        let bar = target.bar().unwrap_or_default();
        let Some(size) = target.len() else { return Err(LayoutError::SizeUntold { function, bar }) };
        let Some(range) = AddrRange::new(at, size) else {
            return Err(LayoutError::PastTheEnd { function, bar, at, size });
        };
        if size.as_u64().is_power_of_two() && !at.as_u64().is_multiple_of(size.as_u64()) {
            return Err(LayoutError::Misaligned { function, bar, at, size });
        }
        Ok(Self { target, at: range })
    }

    /// What a guest means by an address in it.
    pub(super) fn meant(&self, topology: &Topology) -> Meant {
        let function = topology.function(self.target.function()).address();
        Meant::Bar { function, bar: self.target.bar().unwrap_or_default() }
    }
}

/// The guest-physical addresses of one guest, as far as devices may be given them.
///
/// Holding one tells that no two of its ranges overlap, that each BAR is one that its function has, whole, aligned to
/// its size, and that each initiator may be one. It does not tell that requests arrive; [`check`](super::check) does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GuestLayout {
    initiators: Vec<Initiator>,
    ram: Vec<AddrRange<GuestPhys>>,
    bars: Vec<GuestBar>,
}

/// A layout that cannot be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// The function has no such BAR.
    #[error(transparent)]
    NoSuchBar(#[from] TargetError),
    /// Where a BAR ends is not known.
    #[error(
        "{function} bar{bar}: the input does not tell its size, so where it would end is not known; read sysfs, or lspci -v"
    )]
    SizeUntold {
        /// Whose.
        function: PciAddr,
        /// Which.
        bar: u8,
    },
    /// A BAR would not end below 2^64.
    #[error("{function} bar{bar} of {size} does not fit at guest address {at}: it would end past 2^64")]
    PastTheEnd {
        /// Whose.
        function: PciAddr,
        /// Which.
        bar: u8,
        /// Where it was to be.
        at: GuestPhys,
        /// Its size.
        size: Bytes,
    },
    /// No base address register holds this number (PCIe 6.0 §7.5.1.2.1).
    #[error("{function} bar{bar} of {size} cannot be at guest address {at}: a BAR is aligned to its size")]
    Misaligned {
        /// Whose.
        function: PciAddr,
        /// Which.
        bar: u8,
        /// Where it was to be.
        at: GuestPhys,
        /// Its size.
        size: Bytes,
    },
    /// Two things at one address.
    #[error("{one} at {one_at} and {other} at {other_at} overlap; move one of them")]
    Overlap {
        /// The one that starts first.
        one: Meant,
        /// Where it is.
        one_at: AddrRange<GuestPhys>,
        /// The other one.
        other: Meant,
        /// Where that is.
        other_at: AddrRange<GuestPhys>,
    },
    /// A function named twice.
    #[error("{function} is named as an initiator twice; name it once")]
    NamedTwice {
        /// Which.
        function: PciAddr,
    },
    /// A bridge sends nothing of its own.
    #[error("{function} is a bridge, and no initiator; name the functions below it")]
    Bridge {
        /// Which.
        function: PciAddr,
    },
    /// A function that cannot send translated requests.
    #[error(
        "{function} has no ATS capability, so it sends no translated requests; state that it sends untranslated ones"
    )]
    NoAts {
        /// Which.
        function: PciAddr,
    },
}

impl GuestLayout {
    /// A guest with these initiators, RAM at these ranges, and BARs of functions at these addresses.
    ///
    /// A BAR may be shown at several addresses. One that is left out is one that no device is given an address of.
    ///
    /// # Errors
    /// [`LayoutError`] says which part cannot be, and what to state instead. Only
    /// [`SizeUntold`](LayoutError::SizeUntold) is about the input: read it anew.
    pub fn new(
        topology: &Topology,
        initiators: &[Initiator],
        ram: &[AddrRange<GuestPhys>],
        bars: &[(FunctionId, u8, GuestPhys)],
    ) -> Result<Self, LayoutError> {
        let mut named = BTreeSet::new();
        for initiator in initiators {
            let info = topology.function(initiator.function).info();
            let function = info.address;
            if info.is_bridge() {
                return Err(LayoutError::Bridge { function });
            }
            if !named.insert(initiator.function) {
                return Err(LayoutError::NamedTwice { function });
            }
            if initiator.requests == Requests::Translated && info.registers.ats == Fact::Known(None) {
                return Err(LayoutError::NoAts { function });
            }
        }
        let mut placed = Vec::new();
        for &(function, bar, at) in bars {
            placed.push(GuestBar::new(topology, Target::of_bar(topology, function, bar, None)?, at)?);
        }
        let mut all: Vec<(AddrRange<GuestPhys>, Meant)> = ram.iter().map(|&range| (range, Meant::Ram)).collect();
        all.extend(placed.iter().map(|bar| (bar.at, bar.meant(topology))));
        all.sort_by_key(|(range, _)| range.start().as_u64());
        for two in all.windows(2) {
            if let [(one_at, one), (other_at, other)] = *two
                && other_at.start() <= one_at.last()
            {
                return Err(LayoutError::Overlap { one, one_at, other, other_at });
            }
        }
        Ok(Self { initiators: initiators.to_vec(), ram: ram.to_vec(), bars: placed })
    }

    /// Who sends requests.
    pub fn initiators(&self) -> &[Initiator] {
        &self.initiators
    }

    /// Where the guest's RAM is.
    pub fn ram(&self) -> &[AddrRange<GuestPhys>] {
        &self.ram
    }

    /// The BARs that the guest sees.
    pub fn bars(&self) -> &[GuestBar] {
        &self.bars
    }
}
