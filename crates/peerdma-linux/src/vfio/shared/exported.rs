//! Ranges of a BAR as one buffer.
//!
//! To whoever imports it a buffer of several ranges is one: one life, one length, and consecutive IOVAs. To the kernel each of its
//! ranges is a dma-buf of its own, since iommufd takes a dma-buf of one range only, and since other importers fail on one of several
//! behind a host bridge that translates: Linux up to 7.3 links each range at the start of the IOVAs of all
//! (`dma_buf_phys_vec_to_sgt`), which is EADDRINUSE from the second on. `docs/dma-bufs.md` shows both in a guest.

use super::super::bar::MapBarError;
use super::super::device::VfioDevice;
use super::super::region::{BarIndex, BarRange};
use super::{Function, SharedDevice};
use peerdma::access::MemAttrs;
use peerdma::addr::Bytes;
use peerdma::buffer::life::Refused;
use peerdma::buffer::shared::Buffer;
use peerdma::buffer::terms::{Methods, Offer, OfferError, Place, Stays};
use peerdma::chunk::{Chunk, Chunks, PushError};
use peerdma::dma::Owner;
use peerdma::pcie::PciAddr;
use std::sync::Arc;

/// A buffer of a BAR, and where in it.
pub struct Exported<F: Function = VfioDevice> {
    device: SharedDevice<F>,
    buffer: Buffer,
    ranges: Arc<[BarRange]>,
    size: Bytes,
}

/// Why ranges of a BAR did not become a buffer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShareError {
    /// There is no such range; choose one that the device has.
    #[error(transparent)]
    Range(#[from] MapBarError),
    /// No range was given.
    #[error("a buffer of no ranges cannot be made; give one at least")]
    NoRanges,
    /// They are not all of one BAR.
    #[error("{first} and {other} are of different BARs, which are taken away one without the other; make two buffers")]
    TwoBars {
        /// The first.
        first: BarRange,
        /// One of another BAR.
        other: BarRange,
    },
    /// Together they are longer than a buffer can be.
    #[error(transparent)]
    TooLong(#[from] PushError),
    /// The memory is gone for good, or too much is under way.
    #[error(transparent)]
    Life(#[from] Refused),
    /// The ranges make no offer.
    #[error(transparent)]
    Offer(#[from] OfferError),
    /// What is offered is not as long as the ranges that it stands for.
    #[error("the offer has {offered} and the ranges {ranges} together; offer the ranges' bytes")]
    Length {
        /// What is offered.
        offered: Bytes,
        /// How long the ranges are together.
        ranges: Bytes,
    },
}

impl<F: Function> SharedDevice<F> {
    /// Makes a range of a BAR a buffer, for devices, page tables and CPUs that may all read and write it.
    ///
    /// `owner` is what the range's bytes are called to [`Owners`](peerdma::dma::Owners), counted from the BAR's start.
    ///
    /// # Errors
    /// [`ShareError`].
    pub fn export(&self, name: &str, range: BarRange, owner: Owner) -> Result<Exported<F>, ShareError> {
        self.export_ranges(name, &[range], owner)
    }

    /// The same of several ranges of one BAR, in this order, as one buffer.
    ///
    /// # Errors
    /// [`ShareError`] names the first range that is wrong.
    pub fn export_ranges(&self, name: &str, ranges: &[BarRange], owner: Owner) -> Result<Exported<F>, ShareError> {
        let chunks = ranges.iter().filter_map(|range| Chunk::new(owner, range.offset(), range.len(), MemAttrs::MMIO));
        let offer = Offer::new(Chunks::collect_from(chunks)?, Stays::UNTIL_REVOKED, Place::Ram);
        // Of no ranges there is no offer either, which says less.
        let offer = offer.map_err(|error| if ranges.is_empty() { ShareError::NoRanges } else { error.into() })?;
        self.export_as(name, ranges, offer.to_peers().permitting(Methods::DMA | Methods::CPU | Methods::FRAMES))
    }

    /// The same with terms of the caller's own, such as a floor of enforcement.
    ///
    /// # Errors
    /// [`ShareError`].
    pub fn export_as(&self, name: &str, ranges: &[BarRange], offer: Offer) -> Result<Exported<F>, ShareError> {
        let &[first, ..] = ranges else { return Err(ShareError::NoRanges) };
        let device = self.address();
        let sizes = self.with(Function::bars).ok_or_else(|| closed(device, first))?;
        let size = sizes[usize::from(first.bar().as_u8())];
        if size.as_u64() == 0 {
            let has = BarIndex::all().filter(|bar| sizes[usize::from(bar.as_u8())].as_u64() > 0).collect();
            return Err(MapBarError::Absent { device, bar: first.bar(), has }.into());
        }
        let mut len = Bytes::ZERO;
        for &range in ranges {
            if range.bar() != first.bar() {
                return Err(ShareError::TwoBars { first, other: range });
            }
            if range.end() > size {
                return Err(MapBarError::Outside { device, range, size }.into());
            }
            len = len.checked_add(range.len()).ok_or(PushError::TooLong { list: len, chunk: range.len() })?;
        }
        let offered = offer.ranges().len();
        if offered != len {
            return Err(ShareError::Length { offered, ranges: len });
        }
        let buffer = self.0.bars[usize::from(first.bar().as_u8())].export(name, offer)?;
        Ok(Exported { device: self.clone(), buffer, ranges: ranges.into(), size: len })
    }
}

pub(super) fn closed(device: PciAddr, range: BarRange) -> MapBarError {
    MapBarError::Kernel { device, range, errno: peerdma::dma::Errno::ENODEV }
}

impl<F: Function> Exported<F> {
    /// The buffer, for importers of all kinds.
    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// Where it lies: one range at least, all of one BAR, in the order in which they make up the buffer.
    pub fn ranges(&self) -> &[BarRange] {
        &self.ranges
    }

    /// How long the ranges are together.
    pub fn size(&self) -> Bytes {
        self.size
    }

    /// The device whose it is.
    pub fn device(&self) -> &SharedDevice<F> {
        &self.device
    }
}

impl<F: Function> Clone for Exported<F> {
    fn clone(&self) -> Self {
        Self { device: self.device.clone(), buffer: self.buffer.clone(), ranges: self.ranges.clone(), size: self.size }
    }
}

impl<F: Function> std::fmt::Debug for Exported<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} at {:?} of {}", self.buffer, self.ranges, self.device.address())
    }
}
