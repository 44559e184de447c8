//! What an NVMe command reads about its data.
//!
//! Two forms: PRPs ([`prp`]) name pages, so all boundaries inside the data have to be those of
//! pages; SGLs ([`sgl`]) name ranges of any length, and not every drive reads them. Both are
//! written into pages of the caller's, which the drive must reach: map them too, and pass
//! the addresses that came of it.
//!
//! Sections are those of the NVM Express Base Specification 2.0.
//!
//! Not here: which of the two a drive wants and how much one command may transfer (Identify
//! Controller says both), and data that lives in the drive's own memory buffer, which is
//! addressed like any other.

pub mod prp;
pub mod sgl;

use crate::addr::{Bytes, Granule};
use crate::dma::span::DeviceAddress;
pub use prp::{PrpError, Prps};
pub use sgl::{Descriptor, Sgl, SglError};

/// Memory for lists, and the address under which the drive finds it.
///
/// Words are written as they have to lie in memory, that is little-endian; store them as they are.
#[derive(Debug)]
pub struct ListPage<'a> {
    /// Where the drive finds the first word.
    pub address: DeviceAddress,
    /// The memory.
    pub words: &'a mut [u64],
}

/// What a controller takes.
///
/// ```
/// use peerdma::addr::{Bytes, Granule, Iova};
/// use peerdma::dma::consumer::nvme::{Controller, ListPage};
/// use peerdma::dma::{Behind, DeviceAddress, Prot, Span};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let iova = |at| DeviceAddress::Iova(Iova::new(at));
/// let data = Span {
///     at: Bytes::ZERO,
///     address: iova(0x10_0200),
///     len: Bytes::new(0x3000),
///     behind: Behind::Memory,
///     snooped: true,
///     prot: Prot::Write,
///     bounced: false,
/// };
/// let controller = Controller::new(Granule::PAGE_4K).ok_or("no page size of NVMe")?;
/// let mut words = [0; 512];
/// let mut list = [ListPage { address: iova(0x20_0000), words: &mut words }];
/// let prps = controller.prps([data].into_iter(), &mut list)?;
/// assert_eq!(prps.prp1(), iova(0x10_0200));
/// assert_eq!(prps.prp2(), Some(iova(0x20_0000)), "more than two pages take a list");
/// assert_eq!(words[..3].iter().map(|word| u64::from_le(*word)).collect::<Vec<_>>(), [0x10_1000, 0x10_2000, 0x10_3000]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Controller {
    page: Granule,
    longest: Bytes,
    dword_sgls: bool,
}

impl Controller {
    /// A controller with memory pages of this size (`CC.MPS`, §3.1.3.5).
    ///
    /// `None` unless that is 4 KiB to 128 MiB.
    pub fn new(page: Granule) -> Option<Self> {
        let known = (12..=27).contains(&page.bytes().as_u64().trailing_zeros());
        known.then_some(Self { page, longest: Bytes::new(u64::MAX), dword_sgls: false })
    }

    /// Takes at most `longest` in one command (`MDTS` of Identify Controller, times its unit).
    #[must_use]
    pub fn with_longest_transfer(mut self, longest: Bytes) -> Self {
        self.longest = longest;
        self
    }

    /// Wants addresses and lengths in SGLs that are multiples of four (`SGLS` bits 1:0 = 10b).
    #[must_use]
    pub fn with_dword_sgls(mut self) -> Self {
        self.dword_sgls = true;
        self
    }

    /// Its memory pages.
    pub fn page(&self) -> Granule {
        self.page
    }

    fn page_bytes(&self) -> u64 {
        self.page.bytes().as_u64()
    }
}
