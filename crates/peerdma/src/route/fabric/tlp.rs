//! What travels: requests by address, completions by ID.

use super::Kind;
use crate::addr::{AddrRange, BusAddr, Bytes};
use crate::pcie::PciAddr;
use crate::topology::FunctionId;

/// The AT field of a memory request (PCIe 6.0 §10.2.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum At {
    /// 00b: the address is for the IOMMU to translate, if there is one.
    Untranslated,
    /// 01b: a request for a translation, in the form of a read.
    TranslationRequest,
    /// 10b: the address is a translation's result.
    Translated,
}

/// An address on the wire, as far as it is known.
///
/// Ports compare the bare number with windows; nothing tells them what kind it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Number {
    /// The number itself.
    pub(super) range: Option<AddrRange<BusAddr>>,
    /// Whose memory it is the bus address of, if it is one: where number or windows are
    /// not known, it is taken to lie in the windows above that function.
    pub(super) target: Option<FunctionId>,
}

impl Number {
    /// In no window at all.
    pub(super) const NOWHERE: Self = Self { range: None, target: None };
}

/// A TLP on its way.
#[derive(Clone, Copy, Debug)]
pub(super) enum Tlp {
    /// A memory request.
    Request {
        kind: Kind,
        at: At,
        number: Number,
        /// The requester ID it carries.
        requester: PciAddr,
        /// Payload, where sizes are to be checked.
        payload: Option<Bytes>,
        /// Size of the operand of an AtomicOp, where it is known.
        operand: Option<Bytes>,
    },
    /// A completion.
    Completion {
        /// The requester ID it is addressed to.
        to: PciAddr,
        /// Who has that ID, where bus numbers are not known.
        holder: Option<FunctionId>,
        /// Relaxed Ordering.
        relaxed: bool,
        /// Payload, where sizes are to be checked.
        payload: Option<Bytes>,
    },
}

impl Tlp {
    pub(super) fn is_atomic(&self) -> bool {
        matches!(self, Self::Request { kind: Kind::Atomic, .. })
    }

    pub(super) fn payload(&self) -> Option<Bytes> {
        match self {
            Self::Request { payload, .. } | Self::Completion { payload, .. } => *payload,
        }
    }
}
