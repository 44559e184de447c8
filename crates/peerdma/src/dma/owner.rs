//! Whose memory a chunk is, and where an address space finds it.
//!
//! A chunk counts from the start of its owner, since that is what stays true while a BAR
//! moves or pages do. Where the owner's bytes are is asked when they are mapped, and an
//! owner may be unable to say: a BAR that was exported as a file has no address in this
//! process, and a memfd has no physical one.
//!
//! Rejected: looking an owner up by physical address on the data path.

use super::abilities::Sources;
use super::io_space::{Source, SourceKind};
use crate::addr::{Bytes, PhysAddr, ProcVa};
use crate::topology::FunctionId;
use alloc::vec::Vec;
use core::fmt;

/// Names an owner that a program registered in its [`Owners`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[repr(transparent)]
pub struct OwnerId(u32);

impl OwnerId {
    /// The owner of this number; numbers are the program's own.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn number(self) -> u32 {
        self.0
    }
}

/// Whose memory a range is; says what its offsets count from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[non_exhaustive]
pub enum Owner {
    /// The machine's memory; offsets are CPU-physical addresses.
    Ram,
    /// The calling process; offsets are its addresses.
    Process,
    /// A file in memory.
    Memfd(OwnerId),
    /// A base address register of a PCI function.
    Bar {
        /// The function.
        function: FunctionId,
        /// Index of the register, 0 to 5.
        bar: u8,
    },
    /// Memory of a device that is no PCI function. Its peer route is unknown unless stated.
    Device(OwnerId),
    /// Memory that belongs to a confidential guest and that nobody else may see.
    Private(OwnerId),
}

impl Owner {
    /// Whether it is device memory: never cached, never bounced.
    pub const fn is_mmio(self) -> bool {
        matches!(self, Self::Bar { .. } | Self::Device(_))
    }
}

impl fmt::Display for Owner {
    /// Writes `ram`, `bar2 of function 4`, `device 1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ram => f.write_str("ram"),
            Self::Process => f.write_str("process memory"),
            Self::Memfd(id) => write!(f, "memfd {}", id.0),
            Self::Bar { function, bar } => write!(f, "bar{bar} of function {}", function.index()),
            Self::Device(id) => write!(f, "device {}", id.0),
            Self::Private(id) => write!(f, "private memory {}", id.0),
        }
    }
}

/// Why an owner's bytes cannot be named to an address space.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// Nothing was registered for the owner in a form that the space takes.
    #[error("{owner} is not known as {wanted}, which is what the address space takes; register it in that form")]
    NoSuchForm {
        /// The owner.
        owner: Owner,
        /// What the space takes.
        wanted: Sources,
    },
    /// Bytes that have to lie in one piece do not; register the area of a pool of copies as one piece.
    #[error("{owner} at offset {offset:#x} is not one piece of {len}; register it as one", offset = offset.as_u64())]
    InPieces {
        /// The owner.
        owner: Owner,
        /// Where the bytes start.
        offset: Bytes,
        /// How many there are.
        len: Bytes,
    },
    /// The owner has no such bytes.
    #[error("{owner} has no byte at offset {offset:#x}", offset = offset.as_u64())]
    Outside {
        /// The owner.
        owner: Owner,
        /// The first offset that it does not have.
        offset: Bytes,
    },
}

/// Bytes of an owner that lie in one piece.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stretch<F> {
    /// Where they start.
    pub source: Source<F>,
    /// How many there are from there on, at most as many as were asked for.
    pub len: Bytes,
}

/// One piece of an owner in one form.
#[derive(Clone, Debug)]
struct Piece<F> {
    owner: Owner,
    offset: Bytes,
    len: Bytes,
    source: Source<F>,
}

/// What a program knows of where its owners' bytes are.
///
/// [`Owner::Ram`] and [`Owner::Process`] need no entry: their offsets are addresses.
///
/// ```
/// use peerdma::addr::{Bytes, PhysAddr};
/// use peerdma::dma::{Mmio, Owner, OwnerId, Owners, Source, Sources};
///
/// let mut owners = Owners::<u32>::new();
/// let buffer = Owner::Memfd(OwnerId::new(7));
/// owners.add(buffer, Bytes::ZERO, Bytes::new(0x2000), Source::Physical(PhysAddr::new(0x10_0000)));
/// let takes = Sources { physical: Some(Mmio::AsMmio), ..Sources::default() };
/// let stretch = owners.resolve(buffer, Bytes::new(0x1800), Bytes::new(0x800), takes)?;
/// assert_eq!(stretch.source, Source::Physical(PhysAddr::new(0x10_1800)));
/// # Ok::<(), peerdma::dma::ResolveError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Owners<F> {
    /// Sorted by owner and offset, forms of one piece side by side.
    pieces: Vec<Piece<F>>,
}

impl<F> Default for Owners<F> {
    fn default() -> Self {
        Self { pieces: Vec::new() }
    }
}

impl<F: Clone> Owners<F> {
    /// Nothing but memory and this process.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says that `len` bytes of `owner` from `offset` lie at `source`, contiguously.
    ///
    /// The same bytes may be added in several forms (a BAR's physical range, its mapping in the
    /// process, the file it was exported as); an address space gets the one that it takes.
    pub fn add(&mut self, owner: Owner, offset: Bytes, len: Bytes, source: Source<F>) {
        let at = self.pieces.partition_point(|piece| (piece.owner, piece.offset) <= (owner, offset));
        self.pieces.insert(at, Piece { owner, offset, len, source });
    }

    /// Forgets what was said of `owner`.
    pub fn remove(&mut self, owner: Owner) {
        self.pieces.retain(|piece| piece.owner != owner);
    }

    /// Where the bytes of `owner` from `offset` lie, as many of the `len` as lie in one piece.
    ///
    /// # Errors
    /// [`ResolveError`]; register the owner in a form that the space takes.
    #[inline]
    pub fn resolve(&self, owner: Owner, offset: Bytes, len: Bytes, taken: Sources) -> Result<Stretch<F>, ResolveError> {
        match owner {
            Owner::Ram if taken.physical.is_some() => {
                Ok(Stretch { source: Source::Physical(PhysAddr::new(offset.as_u64())), len })
            }
            Owner::Process if taken.process.is_some() => {
                Ok(Stretch { source: Source::Process(ProcVa::new(offset.as_u64())), len })
            }
            _ => self.look_up(owner, offset, len, taken),
        }
    }

    fn look_up(&self, owner: Owner, offset: Bytes, len: Bytes, taken: Sources) -> Result<Stretch<F>, ResolveError> {
        let mut known = false;
        // Physical ranges first, then files, which say what they are, then addresses of the process.
        for kind in [SourceKind::Physical, SourceKind::File, SourceKind::Process] {
            if taken.of(kind).is_none() {
                continue;
            }
            for piece in self.of(owner).filter(|piece| piece.source.kind() == kind) {
                known = true;
                let Some(into) = offset.as_u64().checked_sub(piece.offset.as_u64()) else { continue };
                let Some(left) = piece.len.as_u64().checked_sub(into).filter(|left| *left > 0) else { continue };
                let Some(source) = advanced(&piece.source, Bytes::new(into)) else { continue };
                return Ok(Stretch { source, len: Bytes::new(left.min(len.as_u64())) });
            }
        }
        match known {
            true => Err(ResolveError::Outside { owner, offset }),
            false => Err(ResolveError::NoSuchForm { owner, wanted: taken }),
        }
    }

    fn of(&self, owner: Owner) -> impl Iterator<Item = &Piece<F>> {
        let first = self.pieces.partition_point(|piece| piece.owner < owner);
        self.pieces[first..].iter().take_while(move |piece| piece.owner == owner)
    }
}

/// The source `by` further on; `None` past the end of its numbers.
pub(super) fn advanced<F: Clone>(source: &Source<F>, by: Bytes) -> Option<Source<F>> {
    Some(match source {
        Source::Physical(at) => Source::Physical(at.checked_add(by)?),
        Source::Process(at) => Source::Process(at.checked_add(by)?),
        Source::File { file, offset } => Source::File { file: file.clone(), offset: offset.checked_add(by)? },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dma::abilities::Mmio;

    fn takes(kind: SourceKind) -> Sources {
        let mut taken = Sources::default();
        match kind {
            SourceKind::Physical => taken.physical = Some(Mmio::AsMmio),
            SourceKind::Process => taken.process = Some(Mmio::AsMmio),
            SourceKind::File => taken.file = Some(Mmio::AsMmio),
        }
        taken
    }

    #[test]
    fn a_space_gets_the_form_it_takes_and_as_much_as_lies_in_one_piece() {
        let (owner, page) = (Owner::Memfd(OwnerId::new(1)), Bytes::new(0x1000));
        let mut owners = Owners::<u8>::new();
        owners.add(owner, Bytes::ZERO, page, Source::Physical(PhysAddr::new(0x5000)));
        owners.add(owner, page, page, Source::Physical(PhysAddr::new(0x9000)));
        owners.add(owner, Bytes::ZERO, Bytes::new(0x2000), Source::File { file: 3, offset: Bytes::ZERO });
        let two = Bytes::new(0x2000);
        let stretch = owners.resolve(owner, Bytes::new(0x800), two, takes(SourceKind::Physical)).unwrap();
        assert_eq!(stretch, Stretch { source: Source::Physical(PhysAddr::new(0x5800)), len: Bytes::new(0x800) });
        let stretch = owners.resolve(owner, page, two, takes(SourceKind::File)).unwrap();
        assert_eq!(stretch, Stretch { source: Source::File { file: 3, offset: page }, len: page });
    }

    #[test]
    fn bytes_that_an_owner_does_not_have_and_forms_it_is_not_known_in_are_told_apart() {
        let owner = Owner::Device(OwnerId::new(1));
        let mut owners = Owners::<u8>::new();
        owners.add(owner, Bytes::ZERO, Bytes::new(0x1000), Source::Physical(PhysAddr::new(0x5000)));
        let outside = owners.resolve(owner, Bytes::new(0x1000), Bytes::new(1), takes(SourceKind::Physical));
        assert_eq!(outside, Err(ResolveError::Outside { owner, offset: Bytes::new(0x1000) }));
        let form = owners.resolve(owner, Bytes::ZERO, Bytes::new(1), takes(SourceKind::File));
        assert_eq!(form, Err(ResolveError::NoSuchForm { owner, wanted: takes(SourceKind::File) }));
        assert!(owners.resolve(Owner::Ram, Bytes::new(1 << 40), Bytes::new(1), takes(SourceKind::File)).is_err());
    }
}
