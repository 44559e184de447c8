//! Finds drivers that use mappings wrongly, and names both places.
//!
//! A debug layer, as Linux's `CONFIG_DMA_API_DEBUG`: a [`Watch`] is told of every mapping and
//! unmapping with the place in the program, and of accesses where something knows them (an
//! emulated device, an IOMMU's fault record). It finds what an address space cannot or will not
//! tell: a range that is mapped or unmapped twice, used after it was unmapped, written though it
//! was mapped for reading, overrun, or never unmapped.
//!
//! Bus addresses, IOVAs and CPU-physical addresses are counted apart, because a number of one kind
//! says nothing about the same number of another. Only IOVAs can be mapped twice: an untranslated
//! address is the memory's own, so two mappings of the same bytes have the same one.
//!
//! ```
//! use core::panic::Location;
//! use peerdma::access::Prot;
//! use peerdma::addr::{Bytes, Iova};
//! use peerdma::dma::misuse::{Misuse, Watch};
//! use peerdma::dma::{Behind, DeviceAddress, Span};
//!
//! let watch = Watch::new(64);
//! let ring = Span {
//!     at: Bytes::ZERO,
//!     address: DeviceAddress::Iova(Iova::new(0x10_0000)),
//!     len: Bytes::new(0x1000),
//!     behind: Behind::Memory,
//!     snooped: true,
//!     prot: Prot::Read,
//!     bounced: false,
//! };
//! watch.mapped(&ring, Location::caller());
//! let misuse = watch.access(ring.address, Bytes::new(8), Prot::Write, Location::caller());
//! assert!(matches!(misuse, Err(Misuse::WrongDirection { .. })));
//! watch.unmapped(&ring, Location::caller());
//! assert!(watch.leaks().is_empty());
//! ```
//!
//! Not here: stopping anybody; what is found is returned and told to whoever asked.

mod ledger;
mod report;
#[cfg(test)]
mod tests;

pub use report::{DeviceRange, Misuse, Place};

use self::ledger::Ledger;
use super::span::{DeviceAddress, Span};
use crate::access::Prot;
use crate::addr::Bytes;
use crate::sync::Lock;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

/// Told of each misuse as it is found, and of leaks when a watch is dropped.
type Listener = Box<dyn Fn(&Misuse) + Send + Sync>;

/// A ledger of what is mapped, where that was done, and what was unmapped last.
///
/// Its size follows what is mapped; of what was unmapped, and of what was found, it keeps as many
/// as it was told to. Mappings are recorded as spans, and an access has to lie in one of them.
///
/// # Concurrency
/// One lock, held for a search in an ordered map. The listener runs without it.
pub struct Watch {
    ledger: Lock<Ledger>,
    listener: Option<Listener>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("ledger", &self.ledger).finish_non_exhaustive()
    }
}

impl Watch {
    /// Nothing mapped; keeps the last `kept` ranges that were unmapped, and the first `kept` misuses.
    pub fn new(kept: usize) -> Self {
        Self { ledger: Lock::new(Ledger::new(kept)), listener: None }
    }

    /// Tells `listener` of each misuse as it is found, and of what is still mapped when the watch
    /// is dropped.
    #[must_use]
    pub fn telling(mut self, listener: impl Fn(&Misuse) + Send + Sync + 'static) -> Self {
        self.listener = Some(Box::new(listener));
        self
    }

    /// Records a span as mapped at this place of the program, for what its protection says.
    ///
    /// Finds [`Misuse::MappedTwice`]; the span is not recorded then.
    pub fn mapped(&self, span: &Span, at: Place) {
        let range = DeviceRange { address: span.address, len: span.len };
        self.told(self.ledger.with(|ledger| ledger.map(range, span.prot, at)));
    }

    /// Records it as unmapped; parts of what was mapped may go one by one.
    ///
    /// Of several mappings of one untranslated range the oldest goes. Finds
    /// [`Misuse::UnmappedTwice`], [`Misuse::Outside`] if it is not all of one mapping, and
    /// [`Misuse::NotMapped`]; nothing changes then.
    pub fn unmapped(&self, span: &Span, at: Place) {
        let range = DeviceRange { address: span.address, len: span.len };
        self.told(self.ledger.with(|ledger| ledger.unmap(range, at)));
    }

    /// Whether a device may do this with `len` bytes from `address`; `at` is what is to blame for it.
    ///
    /// # Errors
    /// [`Misuse::WrongDirection`], [`Misuse::Outside`], [`Misuse::UsedAfterUnmap`] and
    /// [`Misuse::NotMapped`].
    pub fn access(&self, address: DeviceAddress, len: Bytes, access: Prot, at: Place) -> Result<(), Misuse> {
        match self.told(self.ledger.with(|ledger| ledger.access(DeviceRange { address, len }, access, at))) {
            None => Ok(()),
            Some(misuse) => Err(misuse),
        }
    }

    /// What was found so far, the oldest first and no more than are kept.
    pub fn found(&self) -> Vec<Misuse> {
        self.ledger.with(|ledger| ledger.found.clone())
    }

    /// What is still mapped, as [`Misuse::Leaked`]; ask where everything should be unmapped.
    pub fn leaks(&self) -> Vec<Misuse> {
        self.ledger.with(|ledger| ledger.leaks().collect())
    }

    fn told(&self, outcome: Result<(), Misuse>) -> Option<Misuse> {
        let misuse = outcome.err()?;
        self.ledger.with(|ledger| ledger.keep(&misuse));
        if let Some(listener) = &self.listener {
            listener(&misuse);
        }
        Some(misuse)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(listener) = &self.listener {
            self.leaks().iter().for_each(listener);
        }
    }
}
