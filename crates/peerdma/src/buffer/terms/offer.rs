//! What an exporter says of a buffer.

use super::super::life::AttachmentId;
use super::super::pins::RegionId;
use super::super::{Control, Enforcement};
use crate::access::Prot;
use crate::addr::Bytes;
use crate::chunk::{Chunks, View};
use crate::dma::Owner;
use crate::dma::confidential::MemoryKind;
use alloc::vec::Vec;
use core::fmt;

/// Whether memory goes to another place while it is mapped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Moves {
    /// It does not.
    Never,
    /// It does, but not from under a pin.
    UnlessPinned,
    /// It does, and nothing holds it.
    AtWill,
}

impl Moves {
    /// All of them, from the most to the least that an importer can rely on.
    pub const ALL: [Self; 3] = [Self::Never, Self::UnlessPinned, Self::AtWill];

    /// The word used in text and JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::UnlessPinned => "unless_pinned",
            Self::AtWill => "at_will",
        }
    }
}

/// How well memory stays with those who have mapped it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Stays {
    /// Whether it goes to another place.
    pub moves: Moves,
    /// Whether it is taken away: by a reset, by memory decoding that is turned off, by a lock.
    pub revoked: bool,
}

impl Stays {
    /// Neither moved nor taken away: a sealed memfd, a heap's pages.
    pub const ALWAYS: Self = Self { moves: Moves::Never, revoked: false };
    /// Stays where it is until it is taken away: a base address register.
    pub const UNTIL_REVOKED: Self = Self { moves: Moves::Never, revoked: true };
    /// Moved when its owner needs the room, unless pinned: memory of a GPU under a kernel driver.
    pub const UNLESS_PINNED: Self = Self { moves: Moves::UnlessPinned, revoked: false };

    /// All of them, in the order of the table.
    pub const ALL: [Self; 6] = [
        Self::ALWAYS,
        Self::UNTIL_REVOKED,
        Self::UNLESS_PINNED,
        Self { moves: Moves::AtWill, revoked: false },
        Self { moves: Moves::UnlessPinned, revoked: true },
        Self { moves: Moves::AtWill, revoked: true },
    ];
}

impl fmt::Display for Stays {
    /// Writes `never leaves`, `may move unless pinned and may be revoked`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.moves, self.revoked) {
            (Moves::Never, false) => "never leaves",
            (Moves::Never, true) => "may be revoked",
            (Moves::UnlessPinned, false) => "may move unless pinned",
            (Moves::AtWill, false) => "may move",
            (Moves::UnlessPinned, true) => "may move unless pinned, and may be revoked",
            (Moves::AtWill, true) => "may move, and may be revoked",
        })
    }
}

bitflags::bitflags! {
    /// In which ways memory may be reached. Memory for devices alone has [`DMA`](Self::DMA) and no other.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
    pub struct Methods: u8 {
        /// A device, by addresses of its own.
        const DMA = 0x1;
        /// A process, by its CPU.
        const CPU = 0x2;
        /// Page frame numbers, for tables that somebody else walks: a second stage, an I/O address space.
        const FRAMES = 0x4;
    }
}

impl fmt::Display for Methods {
    /// Writes `dma`, `dma+cpu`, or `nothing`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (method, word) in [(Self::DMA, "dma"), (Self::CPU, "cpu"), (Self::FRAMES, "frames")] {
            if self.contains(method) {
                write!(f, "{separator}{word}")?;
                separator = "+";
            }
        }
        if self.is_empty() { f.write_str("nothing") } else { Ok(()) }
    }
}

/// Where memory lies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Place {
    /// In the machine's memory.
    Ram,
    /// In a device.
    Device(RegionId),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ram => f.write_str("ram"),
            Self::Device(region) => write!(f, "device memory ({region})"),
        }
    }
}

/// A place to which an exporter moves a buffer, when asked or on its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Elsewhere {
    /// The place.
    pub place: Place,
    /// Whose memory the buffer's ranges are there; how an importer reaches it is judged by that.
    pub owner: Owner,
}

/// Why ranges cannot be exported.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OfferError {
    /// There are none.
    #[error("a buffer without ranges cannot be exported; push a chunk first")]
    Empty,
    /// Addresses of a process name whatever lies there, which may be somebody's export already.
    #[error(
        "process memory at offset {offset:#x} cannot be exported, since it may be a mapping of somebody else's \
         buffer; export the file or the register that it is a mapping of",
        offset = offset.as_u64()
    )]
    ProcessMemory {
        /// Where in the process.
        offset: Bytes,
    },
    /// Nobody has read what this driver of Linux does with its buffers.
    #[error("nobody has read what {exporter} does with its buffers; say whether they move and are revoked")]
    DriverUnknown {
        /// The driver.
        exporter: &'static str,
    },
}

/// What an exporter says of one buffer: where it lies, what may happen to it, and what it permits.
///
/// The exporter keeps one for each buffer and changes it when the buffer moves, is pinned or is
/// handed to somebody in full. Nothing is permitted that was not said: a new offer is for devices
/// alone, to read and write, from the side of the root complex, with whatever enforcement.
///
/// # What holding one tells you
/// The ranges are the exporter's own. A mapping has addresses and no owners, so that nothing an
/// importer was given makes a range; and addresses of a process, which might be a mapping of
/// somebody else's buffer, are refused. Thus nobody exports on, or pins, what he has imported.
///
/// ```
/// use peerdma::access::MemAttrs;
/// use peerdma::addr::Bytes;
/// use peerdma::buffer::pins::RegionId;
/// use peerdma::buffer::terms::{Methods, Offer, OfferError, Place, Stays};
/// use peerdma::chunk::{Chunk, Chunks};
/// use peerdma::dma::{Owner, OwnerId};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let of = |owner| -> Result<_, Box<dyn std::error::Error>> {
///     let chunk = Chunk::new(owner, Bytes::ZERO, Bytes::new(0x4000), MemAttrs::empty()).ok_or("empty")?;
///     Ok(Chunks::collect_from([chunk])?)
/// };
/// let vram = of(Owner::Device(OwnerId::new(1)))?;
/// let offer = Offer::new(vram, Stays::UNLESS_PINNED, Place::Device(RegionId::new(0)))?
///     .permitting(Methods::DMA | Methods::CPU)
///     .to_peers();
/// assert_eq!(offer.ranges().len(), Bytes::new(0x4000));
///
/// let process = Offer::new(of(Owner::Process)?, Stays::ALWAYS, Place::Ram);
/// assert_eq!(process.err(), Some(OfferError::ProcessMemory { offset: Bytes::ZERO }));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Offer {
    pub(super) ranges: Chunks<Owner>,
    pub(super) stays: Stays,
    pub(super) place: Place,
    pub(super) elsewhere: Vec<Elsewhere>,
    pub(super) methods: Methods,
    pub(super) prot: Prot,
    /// What the exporter permits now.
    pub(super) permitted: Prot,
    pub(super) peers: bool,
    pub(super) memory: Option<MemoryKind>,
    pub(super) floor: Enforcement,
    pub(super) control: Control,
    pub(super) in_full: Option<AttachmentId>,
    pub(super) pinned: Vec<AttachmentId>,
}

impl Offer {
    /// Offers these ranges, which lie in this place, to devices.
    ///
    /// # Errors
    /// - [`OfferError::Empty`]: there are no ranges.
    /// - [`OfferError::ProcessMemory`]: export what the process has mapped there, not its addresses.
    pub fn new(ranges: Chunks<Owner>, stays: Stays, place: Place) -> Result<Self, OfferError> {
        check_ranges(&ranges)?;
        Ok(Self {
            ranges,
            stays,
            place,
            elsewhere: Vec::new(),
            methods: Methods::DMA,
            prot: Prot::ReadWrite,
            permitted: Prot::ReadWrite,
            peers: false,
            memory: None,
            floor: Enforcement::None,
            control: Control::Use,
            in_full: None,
            pinned: Vec::new(),
        })
    }

    /// No longer permits these ways.
    #[must_use]
    pub fn without(mut self, methods: Methods) -> Self {
        self.methods = self.methods.difference(methods);
        self
    }

    /// In which ways the memory may be reached.
    #[must_use]
    pub fn permitting(mut self, methods: Methods) -> Self {
        self.methods = methods;
        self
    }

    /// What may be done with it.
    #[must_use]
    pub fn with_prot(mut self, prot: Prot) -> Self {
        (self.prot, self.permitted) = (prot, prot);
        self
    }

    /// Permits that devices reach it from beside, where it is device memory.
    #[must_use]
    pub fn to_peers(mut self) -> Self {
        self.peers = true;
        self
    }

    /// The least enforcement that the exporter accepts.
    #[must_use]
    pub fn with_floor(mut self, floor: Enforcement) -> Self {
        self.floor = floor;
        self
    }

    /// Permits that one attachment at a time has it in full.
    #[must_use]
    pub fn in_full(mut self) -> Self {
        self.control = Control::Full;
        self
    }

    /// What it is to confidential guests; without this, what is stated of its owners counts.
    #[must_use]
    pub fn with_memory(mut self, memory: MemoryKind) -> Self {
        self.memory = Some(memory);
        self
    }

    /// Names a place to which the exporter moves it: for an importer that asks for that place when it
    /// attaches, and on its own where importers follow.
    #[must_use]
    pub fn or_at(mut self, place: Place, owner: Owner) -> Self {
        self.elsewhere.push(Elsewhere { place, owner });
        self
    }

    /// The ranges, in order.
    pub fn ranges(&self) -> View<'_, Owner> {
        self.ranges.view()
    }

    /// The ranges, to keep.
    #[cfg(any(feature = "std", peerdma_shuttle))]
    pub(in crate::buffer) fn all(&self) -> &Chunks<Owner> {
        &self.ranges
    }

    /// What may be done with it, as it was made.
    pub fn prot(&self) -> Prot {
        self.prot
    }

    /// What the exporter permits now, of what may be done with it.
    pub fn permitted(&self) -> Prot {
        self.permitted
    }

    /// Permits no more than this from now on: who attaches is offered that much.
    pub fn permit(&mut self, prot: Prot) {
        self.permitted = prot;
    }

    /// Where it lies.
    pub fn place(&self) -> Place {
        self.place
    }

    /// Other places to which the exporter moves it.
    pub fn elsewhere(&self) -> &[Elsewhere] {
        &self.elsewhere
    }

    /// How well it stays.
    pub fn stays(&self) -> Stays {
        self.stays
    }

    /// The least enforcement that the exporter accepts.
    pub fn floor(&self) -> Enforcement {
        self.floor
    }

    /// Says where the buffer lies now, after a move. The place it left is one where it may be again.
    ///
    /// # Errors
    /// As [`new`](Self::new); the offer is as it was.
    pub fn moved_to(&mut self, ranges: Chunks<Owner>, place: Place) -> Result<(), OfferError> {
        check_ranges(&ranges)?;
        if place != self.place {
            // Every range of a buffer lies in one place, so the first one's owner says whose it was.
            let left = self.ranges().iter().next().map(|chunk| Elsewhere { place: self.place, owner: chunk.owner() });
            self.elsewhere.retain(|other| other.place != place && Some(other.place) != left.map(|left| left.place));
            self.elsewhere.extend(left);
        }
        (self.ranges, self.place) = (ranges, place);
        Ok(())
    }

    /// What it is to confidential guests from now on.
    pub fn set_memory(&mut self, memory: MemoryKind) {
        self.memory = Some(memory);
    }

    /// Says which attachment has the buffer in full, if one does.
    pub fn set_in_full(&mut self, who: Option<AttachmentId>) {
        self.in_full = who;
    }

    /// Which attachment has the buffer in full, if one does.
    pub fn held_in_full_by(&self) -> Option<AttachmentId> {
        self.in_full
    }

    /// Says that an attachment holds the buffer in its place by a pin.
    pub fn add_pin(&mut self, who: AttachmentId) {
        self.pinned.push(who);
    }

    /// Says that an attachment has let one pin go.
    pub fn remove_pin(&mut self, who: AttachmentId) {
        if let Some(at) = self.pinned.iter().position(|holder| *holder == who) {
            self.pinned.remove(at);
        }
    }
}

fn check_ranges(ranges: &Chunks<Owner>) -> Result<(), OfferError> {
    if ranges.is_empty() {
        return Err(OfferError::Empty);
    }
    match ranges.iter().find(|chunk| chunk.owner() == Owner::Process) {
        Some(chunk) => Err(OfferError::ProcessMemory { offset: chunk.offset() }),
        None => Ok(()),
    }
}
