//! What the IOMMU knows of one requester.

use super::domain::{Attachment, Domain, DomainId};
use crate::wire::Pasid;
use peerdma::pcie::PciAddr;
use std::collections::BTreeMap;

/// A device's cache that may hold translations of a domain.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Cached {
    /// The function whose cache it is.
    pub requester: PciAddr,
    /// The address space of the function; none for its own.
    pub pasid: Option<Pasid>,
}

/// One requester.
#[derive(Debug, Default)]
pub(super) struct Stream {
    pub(super) attachment: Attachment,
    pub(super) pasids: BTreeMap<Pasid, Domain>,
    pub(super) ats: bool,
    pub(super) pri: bool,
}

impl Stream {
    /// Whether nothing of it is translated or passed through.
    pub(super) fn is_blocked(&self) -> bool {
        matches!(self.attachment, Attachment::Blocked) && self.pasids.is_empty()
    }

    /// The address spaces of this stream that a domain stands behind.
    pub(super) fn spaces_of(&self, id: DomainId) -> impl Iterator<Item = Option<Pasid>> {
        let own = matches!(&self.attachment, Attachment::Translated(domain) if domain.id == id);
        let pasids = self.pasids.iter().filter(move |(_, domain)| domain.id == id);
        own.then_some(None).into_iter().chain(pasids.map(|(pasid, _)| Some(*pasid)))
    }
}
