//! A memory region of RDMA: one range of addresses for peers, from spans of any kind.
//!
//! An adapter translates addresses of a region with a list of pages of one size. The
//! larger the pages, the shorter the list; how large they can be follows from where spans
//! begin and end against where the region begins. Linux decides so in
//! `ib_umem_find_best_pgsz` (7.2, `drivers/infiniband/core/umem.c`).
//!
//! A region lives long and nobody synchronises copies for it, so a span that is a copy
//! refuses the region.

use super::joined::Joined;
use crate::access::Prot;
use crate::addr::{BusAddr, Bytes, Granule, Iova, PhysAddr};
use crate::dma::span::{DeviceAddress, Span};
use core::fmt;

/// The smallest pages of a region, 4 KiB, as a power of two.
const SMALLEST_LOG2: u32 = 12;
/// The largest pages of a region, 2 GiB, as a power of two.
const LARGEST_LOG2: u32 = 31;

/// An address in a memory region, as work requests and remote peers write it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[repr(transparent)]
pub struct RegionAddr(u64);

impl RegionAddr {
    /// Takes a number as an address in a region.
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// The number, for work requests.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for RegionAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// The sizes of page that an adapter translates with.
///
/// Regions use those from 4 KiB to 2 GiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct PageSizes(u64);

impl PageSizes {
    /// Every size from 4 KiB to 2 GiB.
    pub const ALL: Self = Self::from_bits(u64::MAX);

    /// The sizes in a bitmap: bit n for 2^n bytes, as in `ib_device_attr.page_size_cap`.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits & ((2 << LARGEST_LOG2) - (1 << SMALLEST_LOG2)))
    }

    /// The best of these sizes up to `2^most`: the smallest of those with which one page would
    /// hold all, else the largest.
    fn best(self, most: u32, whole: u32) -> Option<Granule> {
        let fitting = self.0 & (u64::MAX >> (63 - most.min(63)));
        let holding_all = fitting & u64::MAX.checked_shl(whole).unwrap_or(0);
        let log2 = match holding_all {
            0 => fitting.checked_ilog2()?,
            sizes => sizes.trailing_zeros(),
        };
        Granule::new(Bytes::new(1 << log2))
    }
}

impl fmt::Display for PageSizes {
    /// Writes `4 KiB, 2 MiB`, or `none`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for log2 in (SMALLEST_LOG2..=LARGEST_LOG2).filter(|log2| self.0 >> log2 & 1 != 0) {
            write!(f, "{separator}{}", Bytes::new(1 << log2))?;
            separator = ", ";
        }
        if separator.is_empty() {
            return f.write_str("none");
        }
        Ok(())
    }
}

/// Why spans make no memory region.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegionError {
    /// There are no spans.
    #[error("a memory region needs a byte at least")]
    Empty,
    /// A span is a copy, and nobody would copy back and forth while the region lives.
    #[error("the span at byte {at:#x} of the region is a copy ({address}); map for a region with bouncing off", at = at.as_u64())]
    Bounced {
        /// Where in the region.
        at: Bytes,
        /// What the device was to be handed.
        address: DeviceAddress,
    },
    /// A span was mapped for less than the region is to be used for.
    #[error("the span at byte {at:#x} of the region is mapped {mapped}, and the region is to be used {wanted}; map it for that", at = at.as_u64())]
    Access {
        /// Where in the region.
        at: Bytes,
        /// What the adapter may do there.
        mapped: Prot,
        /// What it is to do.
        wanted: Prot,
    },
    /// The region begins elsewhere in a page than its first span.
    #[error(
        "the region begins at {base} and its first span at {address}, which differ in their place in a page of 4 KiB; choose a base with the same low 12 bits"
    )]
    Base {
        /// Where the region begins.
        base: RegionAddr,
        /// Where the first span does.
        address: DeviceAddress,
    },
    /// A span in the middle does not begin at a page, or what lies before it does not end with one.
    #[error("byte {at:#x} of the region, where a span begins at {address}, is a boundary inside a page of 4 KiB; map the parts so that they continue each other", at = at.as_u64())]
    Boundary {
        /// Where in the region.
        at: Bytes,
        /// Where the span begins.
        address: DeviceAddress,
    },
    /// The boundaries ask for smaller pages than the adapter has.
    #[error("the boundary at byte {at:#x} of the region takes pages of {largest} at most, and the adapter has {sizes}; choose another base, or map with larger alignment", at = at.as_u64())]
    PageSize {
        /// Where in the region; zero if it is its base.
        at: Bytes,
        /// The largest pages that the boundaries allow.
        largest: Bytes,
        /// What the adapter has.
        sizes: PageSizes,
    },
    /// Region or span runs past the end of all addresses.
    #[error("the region from {base} runs past the last address at byte {at:#x}", at = at.as_u64())]
    Wraps {
        /// Where the region begins.
        base: RegionAddr,
        /// Where in the region the offending span begins.
        at: Bytes,
    },
}

/// A memory region: its base, its length, and the pages behind it.
///
/// What holding one tells you: all its pages have one size, none of them is a copy, and every
/// byte of the spans is in exactly one of them at the place that the region's address says.
///
/// ```
/// use peerdma::addr::{BusAddr, Bytes, Iova};
/// use peerdma::dma::consumer::rdma::{PageSizes, Region, RegionAddr};
/// use peerdma::dma::{Behind, DeviceAddress, Prot, Span};
///
/// # fn main() -> Result<(), peerdma::dma::consumer::rdma::RegionError> {
/// let memory = Span {
///     at: Bytes::ZERO,
///     address: DeviceAddress::Iova(Iova::new(0x7000_1000)),
///     len: Bytes::new(0x1000),
///     behind: Behind::Memory,
///     snooped: true,
///     prot: Prot::ReadWrite,
///     bounced: false,
/// };
/// let bar = Span {
///     at: memory.len,
///     address: DeviceAddress::Bus { address: BusAddr::new(0xf000_0000), bridge: None },
///     len: Bytes::new(0x2000),
///     behind: Behind::Mmio,
///     snooped: false,
///     prot: Prot::ReadWrite,
///     bounced: false,
/// };
/// let region = Region::new([memory, bar].into_iter(), RegionAddr::new(0x5000), PageSizes::ALL, Prot::Read)?;
/// // The boundary at 0x6000 takes pages of 8 KiB at most, and the base lies inside the first.
/// assert_eq!((region.page().bytes(), region.offset()), (Bytes::new(0x2000), Bytes::new(0x1000)));
/// assert_eq!(region.pages().last(), Some(bar.address));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Region<I> {
    spans: I,
    base: RegionAddr,
    len: Bytes,
    page: Granule,
    pages: u64,
}

impl<I: Iterator<Item = Span> + Clone> Region<I> {
    /// The region of these spans from `base` on, with the best of the adapter's page sizes.
    ///
    /// `access` is what the adapter is to do with it, for itself and for peers.
    ///
    /// That is the largest one, or the smallest that holds the whole region in one page.
    ///
    /// # Errors
    /// [`RegionError`] names the span that stands in the way.
    pub fn new(spans: I, base: RegionAddr, sizes: PageSizes, access: Prot) -> Result<Self, RegionError> {
        refuse_access(spans.clone(), access)?;
        let mut limit = Limit { log2: LARGEST_LOG2, at: Bytes::ZERO };
        let mut len = 0_u64;
        for span in Joined::new(spans.clone()) {
            let (at, address) = (Bytes::new(len), span.address);
            let wraps = RegionError::Wraps { base, at };
            if span.bounced {
                return Err(RegionError::Bounced { at, address });
            }
            address.as_u64().checked_add(span.len.as_u64() - 1).ok_or(wraps)?;
            let va = base.0.checked_add(len).ok_or(wraps)?;
            // Translation leaves the low bits of an address alone, so they have to be equal; and pages begin
            // with zeros there, so a boundary in the middle has to.
            let first = len == 0;
            limit.lower(at, (address.as_u64() ^ va) | if first { 0 } else { va });
            if limit.log2 < SMALLEST_LOG2 {
                return Err(match first {
                    true => RegionError::Base { base, address },
                    false => RegionError::Boundary { at, address },
                });
            }
            len =
                len.checked_add(span.len.as_u64()).filter(|len| base.0.checked_add(*len - 1).is_some()).ok_or(wraps)?;
        }
        let last = len.checked_sub(1).ok_or(RegionError::Empty)? + base.0;
        // Bits of an address that differ within the region; a page of that size holds all of it.
        let whole = (base.0 ^ last).checked_ilog2().map_or(0, |log2| log2 + 1);
        let largest = Bytes::new(1 << limit.log2);
        let page = sizes.best(limit.log2, whole).ok_or(RegionError::PageSize { at: limit.at, largest, sizes })?;
        let log2 = page.bytes().as_u64().trailing_zeros();
        let pages = (last >> log2) - (base.0 >> log2) + 1;
        Ok(Self { spans, base, len: Bytes::new(len), page, pages })
    }

    /// Where the region begins.
    pub fn base(&self) -> RegionAddr {
        self.base
    }

    /// Its length.
    pub fn len(&self) -> Bytes {
        self.len
    }

    /// Always false; a region holds at least one byte.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The size of its pages.
    pub fn page(&self) -> Granule {
        self.page
    }

    /// How far into the first page the base is.
    pub fn offset(&self) -> Bytes {
        Bytes::new(self.base.0 & (self.page.bytes().as_u64() - 1))
    }

    /// How many pages there are.
    pub fn page_count(&self) -> u64 {
        self.pages
    }

    /// What the adapter is handed for each page, in order: the page's first address.
    ///
    /// The first and the last page may reach out of the spans; the adapter keeps to base and length.
    pub fn pages(&self) -> Pages<I> {
        Pages { spans: Joined::new(self.spans.clone()), next: None, page: self.page.bytes().as_u64() }
    }
}

/// Refuses spans that do not let the adapter do what the region is for.
fn refuse_access(spans: impl Iterator<Item = Span>, wanted: Prot) -> Result<(), RegionError> {
    let short = |span: &Span| wanted.reads() && !span.prot.reads() || wanted.writes() && !span.prot.writes();
    let mut at = 0_u64;
    for span in spans {
        if short(&span) && span.len != Bytes::ZERO {
            return Err(RegionError::Access { at: Bytes::new(at), mapped: span.prot, wanted });
        }
        // Sums that do not fit are refused with the region.
        at = at.saturating_add(span.len.as_u64());
    }
    Ok(())
}

/// The largest page so far, and the boundary that allows no larger one.
struct Limit {
    log2: u32,
    at: Bytes,
}

impl Limit {
    fn lower(&mut self, at: Bytes, bits: u64) {
        if bits.trailing_zeros() < self.log2 {
            *self = Self { log2: bits.trailing_zeros(), at };
        }
    }
}

/// The pages of a [`Region`].
#[derive(Clone, Debug)]
pub struct Pages<I> {
    spans: Joined<I>,
    next: Option<(DeviceAddress, u64)>,
    page: u64,
}

impl<I: Iterator<Item = Span>> Iterator for Pages<I> {
    type Item = DeviceAddress;

    #[inline]
    fn next(&mut self) -> Option<DeviceAddress> {
        let (address, left) = match self.next.take() {
            Some(next) => next,
            None => {
                let span = self.spans.next()?;
                let into = span.address.as_u64() & (self.page - 1);
                (back(span.address, into), span.len.as_u64().saturating_add(into))
            }
        };
        if self.page < left {
            self.next = address.checked_add(Bytes::new(self.page)).map(|next| (next, left - self.page));
        }
        Some(address)
    }
}

/// The address `by` lower, of the same kind; `by` are low bits of it.
fn back(address: DeviceAddress, by: u64) -> DeviceAddress {
    match address {
        DeviceAddress::Bus { address, bridge } => {
            DeviceAddress::Bus { address: BusAddr::new(address.as_u64() - by), bridge }
        }
        DeviceAddress::Iova(address) => DeviceAddress::Iova(Iova::new(address.as_u64() - by)),
        DeviceAddress::CpuPhysical(address) => DeviceAddress::CpuPhysical(PhysAddr::new(address.as_u64() - by)),
    }
}
