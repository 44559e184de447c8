//! Why nothing was done to interrupts.

use super::interrupts::InterruptKind;
use peerdma::dma::Errno;
use peerdma::pcie::PciAddr;

/// Why something was not done to interrupts; nothing has changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InterruptError {
    /// The device has none of the kind; use another.
    #[error("{device} has no {kind}; use another kind")]
    Absent {
        /// The function.
        device: PciAddr,
        /// The kind.
        kind: InterruptKind,
    },
    /// None was named.
    #[error("no {kind} of {device} was named; name one at least")]
    Empty {
        /// The function.
        device: PciAddr,
        /// The kind.
        kind: InterruptKind,
    },
    /// The device has fewer; choose among those.
    #[error("{device} has {has} {kind}, and {count} from number {first} on do not lie among them")]
    Outside {
        /// The function.
        device: PciAddr,
        /// The kind.
        kind: InterruptKind,
        /// The first.
        first: u32,
        /// How many.
        count: u64,
        /// How many there are, or are enabled.
        has: u32,
    },
    /// Another kind is on; disable it first.
    #[error("{kind} of {device} cannot be on beside {enabled}; disable {enabled} first")]
    OtherKind {
        /// The function.
        device: PciAddr,
        /// The kind that was asked for.
        kind: InterruptKind,
        /// The kind that is on.
        enabled: InterruptKind,
    },
    /// Nothing of the kind is on; enable it first.
    #[error("{kind} of {device} is not enabled; enable it first")]
    NotEnabled {
        /// The function.
        device: PciAddr,
        /// The kind.
        kind: InterruptKind,
    },
    /// Interrupts of the kind are not masked through VFIO; only INTx is.
    #[error("{kind} of {device} is not masked through VFIO; mask it in the device, or disable it")]
    NotMaskable {
        /// The function.
        device: PciAddr,
        /// The kind.
        kind: InterruptKind,
    },
    /// The kernel enlarges nothing that is on; disable the kind and enable as many as are wanted.
    #[error("{kind} of {device} has {enabled} vectors on and is not enlarged to {wanted}; disable it and enable anew")]
    CannotGrow {
        /// The function.
        device: PciAddr,
        /// The kind.
        kind: InterruptKind,
        /// How many are on.
        enabled: u32,
        /// How many were asked for.
        wanted: u32,
    },
    /// The machine has fewer vectors free; enable no more than that.
    #[error("{wanted} {kind} of {device} cannot be had; {available} can")]
    Fewer {
        /// The function.
        device: PciAddr,
        /// The kind.
        kind: InterruptKind,
        /// How many were asked for.
        wanted: u32,
        /// How many the kernel would give.
        available: u32,
    },
    /// The kernel refused; EINVAL mostly means that another holder of the device has interrupts on.
    #[error(
        "{doing} {kind} of {device} refused with {errno}; see that no other holder of the device has interrupts on"
    )]
    Kernel {
        /// The function.
        device: PciAddr,
        /// The kind.
        kind: InterruptKind,
        /// What was to be done.
        doing: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
}
