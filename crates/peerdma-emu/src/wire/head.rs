//! The head of a request: all of it but the data.

use peerdma::addr::{BusAddr, Bytes};
use peerdma::pcie::PciAddr;
use std::fmt;

/// Names one address space of a device (PCIe 6.0 §6.20), 20 bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[repr(transparent)]
pub struct Pasid(u32);

impl Pasid {
    /// The PASID of this number; `None` from 2^20 on.
    pub const fn new(number: u32) -> Option<Self> {
        if number < 1 << 20 { Some(Self(number)) } else { None }
    }

    /// The number.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// Whether a function whose PASIDs are `bits` wide can send it.
    pub const fn fits(self, bits: u8) -> bool {
        bits >= 20 || self.0 >> bits == 0
    }
}

impl fmt::Display for Pasid {
    /// Writes `pasid 5`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pasid {}", self.0)
    }
}

/// The AT field (PCIe 6.0 §10.2.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
pub enum AddressType {
    /// 00: an address that an IOMMU may translate.
    #[default]
    Untranslated,
    /// 01: a request for a translation.
    TranslationRequest,
    /// 10: an address that a translation gave.
    Translated,
}

/// Hints of a request; none of them selects its route.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
pub struct Attributes {
    /// Relaxed Ordering: may pass writes that went before it.
    pub relaxed: bool,
    /// No Snoop: caches need not be asked.
    pub no_snoop: bool,
    /// ID-based ordering: may pass what others sent.
    pub id_ordered: bool,
}

/// Who asks, and on whose behalf.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Requester {
    /// The requester ID, with the segment that its host bridge belongs to.
    pub id: PciAddr,
    /// The address space; none for the function's own.
    pub pasid: Option<Pasid>,
    /// Whether it asks with the rights of a supervisor; with a PASID only.
    pub privileged: bool,
    /// The T bit of IDE: it comes from within a trusted device interface.
    pub trusted: bool,
}

impl Requester {
    /// A function that asks in its own name.
    pub const fn plain(id: PciAddr) -> Self {
        Self { id, pasid: None, privileged: false, trusted: false }
    }
}

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Kind {
    /// Memory write; posted, so that nobody is told what became of it.
    Write,
    /// Memory read.
    Read,
    /// AtomicOp; its length is the operand's.
    Atomic,
    /// Message that asks a root complex for a page (PCIe 6.0 §10.4.1); posted, and routed to the root
    /// whatever its address.
    PageRequest,
}

impl Kind {
    /// Whether no completion answers it.
    pub const fn is_posted(self) -> bool {
        matches!(self, Self::Write | Self::PageRequest)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Write => "write",
            Self::Read => "read",
            Self::Atomic => "atomic",
            Self::PageRequest => "page request",
        })
    }
}

/// The head of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Head {
    /// What is asked for.
    pub kind: Kind,
    /// Who asks.
    pub requester: Requester,
    /// The AT field; a translation request is a read.
    pub at: AddressType,
    /// Hints.
    pub attributes: Attributes,
    /// The number that ports compare with their windows; of a page request the page's.
    pub address: BusAddr,
    /// Bytes of data, 1 to 4096; of an AtomicOp the operand's, of a page request none.
    pub len: Bytes,
}

impl Head {
    /// The same request for other bytes.
    #[must_use]
    pub const fn at(self, address: BusAddr, len: Bytes) -> Self {
        Self { address, len, ..self }
    }
}
