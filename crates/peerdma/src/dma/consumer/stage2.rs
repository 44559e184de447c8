//! Second-stage page tables of a guest, as runs of physical pages.
//!
//! A virtual machine monitor puts chunks where its guest sees them. The tables that it
//! fills for that translate to physical addresses, so this consumer starts from chunks
//! and their owners and never from a mapping: what a device is handed for the same
//! memory may be a bus address or an IOVA, and neither is a physical page.
//!
//! Everything is looked at before anything is handed out: a list with one chunk that cannot be
//! there gives no run at all.

use crate::access::MemAttrs;
use crate::addr::{AddrRange, Bytes, Granule, PhysAddr};
use crate::chunk::{Iter, View};
use crate::dma::abilities::{Mmio, Sources};
use crate::dma::io_space::Source;
use crate::dma::owner::{Owner, OwnerId, Owners, ResolveError};
use crate::dma::span::Behind;
use core::fmt;

/// Number of a page of a guest's physical memory, in pages of 4 KiB.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[repr(transparent)]
pub struct GuestFrame(u64);

impl GuestFrame {
    /// The page of this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for GuestFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "guest page {:#x}", self.0)
    }
}

/// Whose tables are filled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Guest {
    /// One whose host can read its memory.
    Plain,
    /// A confidential one, whose private memory is [`Owner::Private`] of this name.
    Confidential(OwnerId),
}

/// What a guest may do with pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Read only; writes leave the guest.
    ReadOnly,
    /// Read and write.
    ReadWrite,
}

/// A run of pages: contiguous for the guest and physically, and of one sort.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GuestRun {
    /// Where the guest sees it.
    pub guest: GuestFrame,
    /// The physical pages.
    pub host: AddrRange<PhysAddr>,
    /// Memory or device memory; decides the memory type of the entries.
    pub behind: Behind,
    /// What the guest may do.
    pub access: Access,
    /// Further attributes of the chunk; entries have bits for `NO_EXECUTE` and `NOT_SNOOPED`.
    pub attrs: MemAttrs,
    /// Whether it is private memory of the guest.
    pub private: bool,
}

impl GuestRun {
    /// Number of the first physical page, in pages of 4 KiB.
    pub fn first_pfn(&self) -> u64 {
        self.host.start().as_u64() / PAGE
    }

    /// How many pages there are.
    pub fn pages(&self) -> u64 {
        self.host.len().as_u64() / PAGE
    }
}

/// Bytes in a page.
const PAGE: u64 = Granule::PAGE_4K.bytes().as_u64();

/// Why a list has no place in a guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Stage2Error {
    /// There is nothing in it.
    #[error("there is nothing to enter")]
    Empty,
    /// An owner has no physical address, or not there.
    #[error("byte {at:#x} of the list has no place in a guest: {error}", at = at.as_u64())]
    NoPhysical {
        /// Where in the list.
        at: Bytes,
        /// Why.
        error: ResolveError,
    },
    /// Something begins or ends inside a page.
    #[error("{owner} at offset {offset:#x} is at {address} for {len}, which is not made of whole pages; a guest gets whole pages", offset = offset.as_u64())]
    NotWholePages {
        /// The owner.
        owner: Owner,
        /// Where in it.
        offset: Bytes,
        /// Where that is.
        address: PhysAddr,
        /// How much lies there.
        len: Bytes,
    },
    /// Private memory is entered for somebody else.
    #[error(
        "{owner} is no memory of this guest; a host that entered it would fault, or break the guest that it belongs to"
    )]
    ForeignPrivate {
        /// The owner.
        owner: Owner,
    },
    /// Tables of a second stage have no such attribute.
    #[error("{owner} is asked for as {attrs}, which a second stage cannot say; leave the attribute out")]
    AttrsNotTaken {
        /// The owner.
        owner: Owner,
        /// What it cannot say.
        attrs: MemAttrs,
    },
    /// The list does not fit below the end of the guest's addresses.
    #[error("{len} from {guest} on run past the guest's last address")]
    Wraps {
        /// Where it begins.
        guest: GuestFrame,
        /// Length of the list.
        len: Bytes,
    },
}

/// The runs of a list in a guest.
///
/// ```
/// use peerdma::access::MemAttrs;
/// use peerdma::addr::Bytes;
/// use peerdma::chunk::{Chunk, Chunks};
/// use peerdma::dma::consumer::stage2::{Access, Guest, GuestFrame, Stage2};
/// use peerdma::dma::{Owner, Owners};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let chunk = |page: u64| Chunk::new(Owner::Ram, Bytes::new(page << 12), Bytes::new(0x1000), MemAttrs::empty());
/// let list = Chunks::collect_from([7, 8, 3].into_iter().filter_map(chunk))?;
/// let owners = Owners::<u32>::new();
/// let runs = Stage2::new(list.view(), &owners, GuestFrame::new(0x100), Access::ReadWrite, Guest::Plain)?;
/// let pages: Vec<_> = runs.map(|run| (run.guest.number(), run.first_pfn(), run.pages())).collect();
/// assert_eq!(pages, [(0x100, 7, 2), (0x102, 3, 1)]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Stage2<'a, F> {
    stretches: Stretches<'a, F>,
    next: Option<GuestRun>,
}

impl<'a, F: Clone> Stage2<'a, F> {
    /// The runs of `list`, which the guest sees from `guest` on.
    ///
    /// # Errors
    /// [`Stage2Error`] names the chunk; nothing of the list is to be entered then.
    pub fn new(
        list: View<'a, Owner>,
        owners: &'a Owners<F>,
        guest: GuestFrame,
        access: Access,
        whose: Guest,
    ) -> Result<Self, Stage2Error> {
        let wraps = Stage2Error::Wraps { guest, len: list.len() };
        let start = guest.0.checked_mul(PAGE).ok_or(wraps)?;
        let last = list.len().as_u64().checked_sub(1).ok_or(Stage2Error::Empty)?;
        start.checked_add(last).ok_or(wraps)?;
        let stretches = Stretches { list: list.iter(), rest: None, at: 0, guest: guest.0, owners, access, whose };
        stretches.clone().try_for_each(|run| run.map(drop))?;
        Ok(Self { stretches, next: None })
    }
}

impl<F: Clone> Iterator for Stage2<'_, F> {
    type Item = GuestRun;

    fn next(&mut self) -> Option<GuestRun> {
        let mut run = self.next.take();
        // All of them were looked at before.
        for stretch in self.stretches.by_ref().map_while(Result::ok) {
            match &mut run {
                None => run = Some(stretch),
                Some(first) => match continued(first, &stretch) {
                    Some(host) => first.host = host,
                    None => {
                        self.next = Some(stretch);
                        break;
                    }
                },
            }
        }
        run
    }
}

/// The physical pages of both; `None` if the second does not continue the first.
fn continued(first: &GuestRun, second: &GuestRun) -> Option<AddrRange<PhysAddr>> {
    let alike = GuestRun { guest: first.guest, host: first.host, ..*second };
    if alike != *first || first.host.start().checked_add(first.host.len()) != Some(second.host.start()) {
        return None;
    }
    AddrRange::new(first.host.start(), first.host.len().checked_add(second.host.len())?)
}

/// What lies in one piece physically, chunk by chunk.
#[derive(Debug)]
struct Stretches<'a, F> {
    list: Iter<'a, Owner>,
    /// What is left of a chunk: owner, offset, length, attributes.
    rest: Option<(Owner, Bytes, Bytes, MemAttrs)>,
    /// Bytes of the list before it.
    at: u64,
    /// Number of the guest page where it goes.
    guest: u64,
    owners: &'a Owners<F>,
    access: Access,
    whose: Guest,
}

impl<F> Clone for Stretches<'_, F> {
    fn clone(&self) -> Self {
        Self { list: self.list.clone(), ..*self }
    }
}

impl<F: Clone> Iterator for Stretches<'_, F> {
    type Item = Result<GuestRun, Stage2Error>;

    fn next(&mut self) -> Option<Result<GuestRun, Stage2Error>> {
        let (owner, offset, len, attrs) = match self.rest.take() {
            Some(rest) => rest,
            None => self.list.next().map(|chunk| (chunk.owner(), chunk.offset(), chunk.len(), chunk.attrs()))?,
        };
        Some(self.run(owner, offset, len, attrs))
    }
}

impl<F: Clone> Stretches<'_, F> {
    fn run(&mut self, owner: Owner, offset: Bytes, len: Bytes, attrs: MemAttrs) -> Result<GuestRun, Stage2Error> {
        let private = match (owner, self.whose) {
            (Owner::Private(id), Guest::Confidential(own)) if id == own => true,
            (Owner::Private(_), _) => return Err(Stage2Error::ForeignPrivate { owner }),
            _ => false,
        };
        let further = attrs.difference(MemAttrs::MMIO);
        let unknown = further.difference(MemAttrs::NO_EXECUTE.union(MemAttrs::NOT_SNOOPED));
        if !unknown.is_empty() {
            return Err(Stage2Error::AttrsNotTaken { owner, attrs: unknown });
        }
        let taken = Sources { physical: Some(Mmio::AsMmio), ..Sources::default() };
        let at = Bytes::new(self.at);
        let stretch = self.owners.resolve(owner, offset, len, taken);
        let stretch = stretch.map_err(|error| Stage2Error::NoPhysical { at, error })?;
        let Source::Physical(address) = stretch.source else {
            return Err(Stage2Error::NoPhysical { at, error: ResolveError::NoSuchForm { owner, wanted: taken } });
        };
        let here = stretch.len;
        let not_whole = Stage2Error::NotWholePages { owner, offset, address, len: here };
        let whole = Granule::PAGE_4K.aligns(address) && Granule::PAGE_4K.divides(here);
        let host = AddrRange::new(address, here).filter(|_| whole).ok_or(not_whole)?;
        let behind = match owner.is_mmio() || attrs.contains(MemAttrs::MMIO) {
            true => Behind::Mmio,
            false => Behind::Memory,
        };
        let guest = GuestFrame(self.guest);
        // The list's length was added to both before.
        self.at += here.as_u64();
        self.guest += here.as_u64() / PAGE;
        if here < len {
            let left = Bytes::new(len.as_u64() - here.as_u64());
            self.rest = offset.checked_add(here).map(|offset| (owner, offset, left, attrs));
        }
        Ok(GuestRun { guest, host, behind, access: self.access, attrs: further, private })
    }
}
