//! Memory in physical ranges, as an exporter has it, and what all ways of access are made from.
//!
//! A device's memory lies in one window of physical addresses: a base address register, an aperture of VRAM. A buffer is
//! one or several parts of it. That is all an exporter says here; offers, addresses for devices, pages for guests and
//! the bounds of each follow from it. In Linux each exporter writes them once for each way of access
//! (7.2: `map_dma_buf`, `mmap`, and page frame numbers by `iommufd_dma_buf_map`), and each anew.
//!
//! A window in the process's address space, where the CPU reaches it, is added by [`Physical::also_at`].

use super::terms::{Offer, OfferError, Place, Stays};
use crate::access::MemAttrs;
use crate::addr::{AddrRange, Bytes, PhysAddr, ProcVa};
use crate::chunk::{Chunk, Chunks, PushError};
use crate::dma::{Owner, Owners, Source};

/// A window of physical addresses, and the parts of it that are one buffer.
///
/// # Examples
/// ```
/// use peerdma::addr::{AddrRange, Bytes, PhysAddr};
/// use peerdma::buffer::physical::Physical;
/// use peerdma::buffer::terms::{Place, Stays};
/// use peerdma::dma::{Owner, OwnerId, Owners};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let window = AddrRange::new(PhysAddr::new(0x20_0000_0000), Bytes::new(1 << 20)).ok_or("no window")?;
/// let page = Bytes::new(0x1000);
/// let doorbell = Physical::new(Owner::Device(OwnerId::new(1)), window, [(page, page)])?;
///
/// let mut owners = Owners::<u32>::new();
/// doorbell.register(&mut owners);
/// let offer = doorbell.offer(Stays::UNTIL_REVOKED, Place::Ram)?;
/// assert_eq!(offer.ranges().len(), page);
///
/// let end = window.len();
/// assert!(Physical::new(Owner::Device(OwnerId::new(1)), window, [(end, page)]).is_err(), "past the end");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Physical {
    owner: Owner,
    window: AddrRange<PhysAddr>,
    process: Option<ProcVa>,
    parts: Chunks<Owner>,
}

/// Why parts of a window are no buffer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PhysicalError {
    /// It is empty, or some of it lies outside.
    #[error(
        "{len} from offset {offset:#x} are no part of {owner}, which has {window}; export what it has",
        offset = offset.as_u64()
    )]
    Outside {
        /// Whose memory.
        owner: Owner,
        /// Where the part was to begin, from the window's start.
        offset: Bytes,
        /// How long it was to be.
        len: Bytes,
        /// How long the window is.
        window: Bytes,
    },
    /// Offsets of this owner are addresses, and do not count from a window's start.
    #[error("offsets of {owner} are addresses; export chunks of it as they are")]
    NoWindow {
        /// The owner.
        owner: Owner,
    },
    /// The parts make no list.
    #[error(transparent)]
    List(#[from] PushError),
}

impl Physical {
    /// The parts of `owner`'s window that are the buffer, in order: offset from the window's start, and length.
    ///
    /// # Errors
    /// [`PhysicalError`] names the part.
    pub fn new(
        owner: Owner,
        window: AddrRange<PhysAddr>,
        parts: impl IntoIterator<Item = (Bytes, Bytes)>,
    ) -> Result<Self, PhysicalError> {
        if matches!(owner, Owner::Ram | Owner::Process) {
            return Err(PhysicalError::NoWindow { owner });
        }
        let mut list = Chunks::new();
        for (offset, len) in parts {
            let inside = offset.checked_add(len).is_some_and(|end| end <= window.len());
            let chunk = Chunk::new(owner, offset, len, MemAttrs::empty()).filter(|_| inside);
            list.push(chunk.ok_or(PhysicalError::Outside { owner, offset, len, window: window.len() })?)?;
        }
        Ok(Self { owner, window, process: None, parts: list })
    }

    /// The whole window.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn whole(owner: Owner, window: AddrRange<PhysAddr>) -> Result<Self, PhysicalError> {
        Self::new(owner, window, [(Bytes::ZERO, window.len())])
    }

    /// Says where the window is in this process, for its CPU.
    #[must_use]
    pub fn also_at(mut self, process: ProcVa) -> Self {
        self.process = Some(process);
        self
    }

    /// What is offered: these parts, which stay so and lie there. The rest is said by the offer's own methods.
    ///
    /// # Errors
    /// [`OfferError::Empty`] if there are no parts.
    pub fn offer(&self, stays: Stays, place: Place) -> Result<Offer, OfferError> {
        Offer::new(self.parts.clone(), stays, place)
    }

    /// Says where the window lies, for all who turn ranges into addresses or pages.
    ///
    /// Nothing past its end is known, so nothing past it is handed out whatever a list says.
    pub fn register<F: Clone>(&self, owners: &mut Owners<F>) {
        let len = self.window.len();
        owners.add(self.owner, Bytes::ZERO, len, Source::Physical(self.window.start()));
        if let Some(process) = self.process {
            owners.add(self.owner, Bytes::ZERO, len, Source::Process(process));
        }
    }
}
