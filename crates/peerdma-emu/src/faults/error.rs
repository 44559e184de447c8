//! Why a plan was refused.

use super::Fault;

/// Why a fault was not armed; the machine is as it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArmError {
    /// The fault is about buffers that end or move, and nobody has lent any.
    #[error("{fault} needs a buffer whose lifetime its exporter can end, and nobody has lent one on this machine")]
    NeedsLifetimes {
        /// The fault.
        fault: Fault,
    },
    /// The place is none that the fault can strike at.
    #[error("{fault} cannot strike there; it needs {needs}")]
    WrongPlace {
        /// The fault.
        fault: Fault,
        /// What it needs, in words.
        needs: &'static str,
    },
    /// No place of the machine, or none on the way, is one that the fault can strike at.
    #[error("{fault} has nowhere to strike; it needs {needs}")]
    NoPlace {
        /// The fault.
        fault: Fault,
        /// What it needs, in words.
        needs: &'static str,
    },
}

impl Fault {
    /// What a place has to be or to have for the fault to strike there.
    pub(super) const fn needs(self) -> &'static str {
        match self {
            Self::AllOnes => "a host bridge",
            Self::DropWrites | Self::DeadReads | Self::LateCompletion | Self::BitFlip => {
                "a port, a function or a host bridge"
            }
            Self::MirrorBar => "a function with memory behind a BAR",
            Self::AcsChange => "a port with ACS request redirection",
            Self::SurpriseRemoval => "a device below a port",
            Self::BarOff | Self::Reset | Self::StrayWrite => "a function",
            Self::D3 => "a function with power management",
            Self::Mps => "a port or function whose Max_Payload_Size is above 128 bytes",
            Self::LostInvalidation => "an IOMMU",
            Self::LateUnmap | Self::Revoked | Self::Migrated => "a function whose memory somebody lends as buffers",
        }
    }
}
