//! Rules by name.

use core::fmt;

/// A rule that stands between an initiator and memory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// The initiator's interface is in ERROR.
    InitiatorFailed,
    /// The initiator's interface is locked and not started.
    InitiatorNotStarted,
    /// RAM is not below a switch.
    RamAcross,
    /// A request without T for private RAM.
    PrivateRam,
    /// Private memory of one guest for a device of another.
    AnotherGuest,
    /// The target's interface is in ERROR.
    TargetFailed,
    /// A request with T for device memory that takes none, with nobody between them.
    TrustedAcross,
    /// A request without T for device memory that belongs to a guest.
    PrivateMmio,
    /// The target's interface is locked and not started.
    TargetNotStarted,
    /// A request with T for a guest's device memory, through the root complex.
    PrivateMmioUp,
    /// No protected stream between two interfaces of one guest.
    NoPeerStream,
    /// The table has no row for it.
    NotListed,
}

impl Rule {
    /// All rules.
    pub const ALL: [Self; 12] = [
        Self::InitiatorFailed,
        Self::InitiatorNotStarted,
        Self::RamAcross,
        Self::PrivateRam,
        Self::AnotherGuest,
        Self::TargetFailed,
        Self::TrustedAcross,
        Self::PrivateMmio,
        Self::TargetNotStarted,
        Self::PrivateMmioUp,
        Self::NoPeerStream,
        Self::NotListed,
    ];

    /// The code used in text and JSON.
    pub const fn code(self) -> &'static str {
        match self {
            Self::InitiatorFailed => "initiator_failed",
            Self::InitiatorNotStarted => "initiator_not_started",
            Self::RamAcross => "ram_across",
            Self::PrivateRam => "private_ram",
            Self::AnotherGuest => "another_guest",
            Self::TargetFailed => "target_failed",
            Self::TrustedAcross => "trusted_across",
            Self::PrivateMmio => "private_mmio",
            Self::TargetNotStarted => "target_not_started",
            Self::PrivateMmioUp => "private_mmio_up",
            Self::NoPeerStream => "no_peer_stream",
            Self::NotListed => "not_listed",
        }
    }

    /// What it says and what to do, in one sentence.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::InitiatorFailed => "an interface in ERROR sends no requests; stop it and lock it again",
            Self::InitiatorNotStarted => "a locked interface sends no requests before its guest starts it",
            Self::RamAcross => "a bus address across a switch does not lead to RAM; map it through the root complex",
            Self::PrivateRam => {
                "private RAM takes only requests of an interface in RUN; share the memory, or copy through memory that is shared"
            }
            Self::AnotherGuest => "private memory belongs to one guest, and the initiator to another",
            Self::TargetFailed => "an interface in ERROR answers nothing; stop it and lock it again",
            Self::TrustedAcross => {
                "an interface in RUN sends no request to an unprotected peer across a switch; go through the root complex"
            }
            Self::PrivateMmio => {
                "device memory of a locked interface takes only requests of its guest; revoke what was mapped before it is locked"
            }
            Self::TargetNotStarted => "a guest's device memory is reached once the guest has started the interface",
            Self::PrivateMmioUp => {
                "no root complex is known to hand a guest's requests on to device memory; bind a stream between the two"
            }
            Self::NoPeerStream => {
                "two interfaces of a guest reach each other on a stream that the guest has bound; bind one"
            }
            Self::NotListed => "no rule permits it",
        }
    }

    /// Where it comes from.
    pub const fn citation(self) -> &'static str {
        match self {
            Self::InitiatorFailed | Self::TargetFailed => "PCIe 6.0 §11.2, TDI state ERROR",
            Self::InitiatorNotStarted => "PCIe 6.0 §11.2, TDI state CONFIG_LOCKED; §11.3, START_INTERFACE_REQUEST",
            Self::RamAcross => "Linux 7.2 pci_p2pdma_bus_addr_map: bus addresses name BARs alone",
            Self::PrivateRam => {
                "PCIe 6.0 §11.2: T is sent in RUN alone; SEV-TIO, TDX Connect and RME-DA check it in the root complex; \
                 Linux 7.2 force_dma_unencrypted"
            }
            Self::AnotherGuest => "SEV-TIO, TDX Connect and RME-DA: each page and each interface has one owner",
            Self::TrustedAcross => "PCIe 6.0 §6.33: T exists in IDE TLPs alone; §11.2: an interface in RUN sends it",
            Self::PrivateMmio => {
                "PCIe 6.0 §11.2: TEE memory takes requests with T alone; Linux 7.2 pci_p2pdma_bus_addr_map does not ask"
            }
            Self::TargetNotStarted => "PCIe 6.0 §11.2, TDI state CONFIG_LOCKED",
            Self::PrivateMmioUp => {
                "Linux 7.2: DMA_ATTR_CC_SHARED names shared device memory, and nothing names a private one"
            }
            Self::NoPeerStream => "PCIe 6.0 §11.3, BIND_P2P_STREAM_REQUEST; Linux 7.2 pairs no IDE streams of peers",
            Self::NotListed => "this table",
        }
    }
}

impl fmt::Display for Rule {
    /// Writes the sentence and where it comes from.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.sentence(), self.citation())
    }
}

impl core::error::Error for Rule {}
