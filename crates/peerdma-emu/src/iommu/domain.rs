//! Address spaces, and how a stream is joined to one.

use super::tables::Tables;
use std::fmt;

/// Names a domain; tags what the IOTLB remembers.
///
/// VT-d calls it domain ID, AMD too, an SMMU ASID or VMID. Two domains with one number and
/// different tables give each other's remembered answers, as they do on hardware.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[repr(transparent)]
pub struct DomainId(u32);

impl DomainId {
    /// The domain of this number.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for DomainId {
    /// Writes `domain 3`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "domain {}", self.0)
    }
}

/// An address space: its number and its page tables.
#[derive(Clone, Debug)]
pub struct Domain {
    /// What the IOTLB tags its answers with.
    pub id: DomainId,
    /// What it translates by.
    pub tables: Tables,
}

/// What becomes of a stream's requests without a PASID.
#[derive(Clone, Debug, Default)]
pub enum Attachment {
    /// All are refused.
    #[default]
    Blocked,
    /// Addresses are passed through as they are.
    Identity,
    /// Addresses are translated.
    Translated(Domain),
}
