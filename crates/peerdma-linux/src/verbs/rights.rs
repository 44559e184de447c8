//! What may be done with a region.

use crate::sys::verbs::registration::{LOCAL_WRITE, REMOTE_READ, REMOTE_WRITE};
use peerdma::access::Prot;

/// What may be done with registered memory, by the adapter itself and by peers.
///
/// ```
/// use peerdma::access::Prot;
/// use peerdma_linux::verbs::Rights;
///
/// let rights = Rights::read_only().remote(Prot::Write);
/// assert!(rights.writes(), "what a peer writes the adapter writes");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rights {
    write: bool,
    remote: Option<Prot>,
}

impl Rights {
    /// The adapter reads it, to send it.
    pub const fn read_only() -> Self {
        Self { write: false, remote: None }
    }

    /// The adapter reads it, and writes what was received and what its own reads bring.
    pub const fn local() -> Self {
        Self { write: true, remote: None }
    }

    /// Peers who have its key may do this to it; for writing the adapter must be able to write, and so it may then.
    #[must_use]
    pub const fn remote(self, prot: Prot) -> Self {
        Self { write: self.write || prot.writes(), remote: Some(prot) }
    }

    /// Whether memory must be writable for it.
    pub const fn writes(&self) -> bool {
        self.write
    }

    pub(super) const fn flags(&self) -> u32 {
        let remote = match self.remote {
            None => 0,
            Some(Prot::Read) => REMOTE_READ,
            Some(Prot::Write) => REMOTE_WRITE,
            Some(Prot::ReadWrite) => REMOTE_READ | REMOTE_WRITE,
        };
        remote | if self.write { LOCAL_WRITE } else { 0 }
    }
}
