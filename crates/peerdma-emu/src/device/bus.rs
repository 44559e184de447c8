//! What a device sees of the machine around it.

use crate::memory::Memory;
use crate::wire::{AddressType, Atomic, Attributes, Failure, Pasid};
use peerdma::addr::{BusAddr, Bytes};

/// How a request is to be sent; the default is the function's own, untranslated, strictly ordered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct How {
    /// The address space to name; none for the function's own.
    pub pasid: Option<Pasid>,
    /// Translated by the device before ([`Bus::translate`]), or not. A device asks for
    /// translations by that call and not by this field.
    pub at: AddressType,
    /// Hints. What the function's control register does not enable is left out.
    pub attributes: Attributes,
    /// With the rights of a supervisor.
    pub privileged: bool,
    /// From within the trusted device interface; sent only while that runs.
    pub trusted: bool,
}

impl How {
    /// In an address space of the device's.
    pub const fn within(pasid: Pasid) -> Self {
        let attributes = Attributes { relaxed: false, no_snoop: false, id_ordered: false };
        Self { pasid: Some(pasid), at: AddressType::Untranslated, attributes, privileged: false, trusted: false }
    }
}

/// A write to one of the device's registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RegisterWrite {
    /// Index of the BAR.
    pub bar: u8,
    /// Where in the BAR.
    pub offset: Bytes,
    /// The bytes, as a little-endian number.
    pub value: u64,
    /// How many, 1 to 8.
    pub len: u8,
}

/// An answer to a translation request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Translation {
    /// Where the byte that was asked for is, to be used with [`AddressType::Translated`].
    pub to: BusAddr,
    /// How many bytes from there on the answer holds for.
    pub len: Bytes,
    /// Whether writes are permitted.
    pub write: bool,
}

/// What a page request came to (PCIe 6.0 §10.4.2.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageResponse {
    /// The page is there; ask for the translation again.
    Success,
    /// There is no such page, or it does not permit what was asked.
    Invalid,
    /// No more page requests are served.
    Failure,
}

/// Names a function as one that requests can be sent for, see [`Bus::relay`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Agent {
    /// What is around it.
    pub(crate) around: Around,
    /// Which of the functions there it is.
    pub(crate) index: usize,
}

/// What is around a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Around {
    /// The machine of this number.
    Machine(u64),
    /// A flat memory, by where it is.
    Flat(usize),
}

impl Agent {
    /// Whether both are in one machine, so that either can send requests for the other.
    pub fn is_beside(self, other: Self) -> bool {
        self.around == other.around
    }
}

/// Whose request it was that failed while bytes were relayed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RelayError {
    /// The other function's read.
    #[error("the other function's read failed: {0}")]
    Read(Failure),
    /// The device's own write.
    #[error("the device's own write failed: {0}")]
    Write(Failure),
}

impl RelayError {
    /// What it came to.
    pub const fn failure(self) -> Failure {
        match self {
            Self::Read(failure) | Self::Write(failure) => failure,
        }
    }
}

/// What a device sees of the machine around it, while it is stepped.
///
/// Lengths are any: requests are cut at payload sizes and at 4 KiB boundaries as hardware does.
/// A read returns when its completions are there. Nothing here waits for another device's code.
pub trait Bus {
    /// The earliest write to one of the device's registers that it has not seen.
    fn next_write(&mut self) -> Option<RegisterWrite>;

    /// Reads memory.
    ///
    /// # Errors
    /// The first [`Failure`]; `into` then holds what came before it, and the rest as it was.
    fn read(&mut self, how: How, at: BusAddr, into: &mut [u8]) -> Result<(), Failure>;

    /// Writes memory. Nobody is told whether it arrives.
    ///
    /// # Errors
    /// [`Failure::NotSent`] only.
    fn write(&mut self, how: How, at: BusAddr, from: &[u8]) -> Result<(), Failure>;

    /// Reads `len` bytes into `memory`, which is the device's own.
    ///
    /// # Errors
    /// As [`read`](Self::read); also [`Failure::NotSent`] where `memory` has no such bytes.
    fn fetch(&mut self, how: How, at: BusAddr, memory: (&dyn Memory, Bytes), len: Bytes) -> Result<(), Failure>;

    /// Writes `len` bytes out of `memory`, which is the device's own.
    ///
    /// # Errors
    /// [`Failure::NotSent`] only.
    fn send(&mut self, how: How, memory: (&dyn Memory, Bytes), at: BusAddr, len: Bytes) -> Result<(), Failure>;

    /// Copies from one place of the machine to another.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn copy(&mut self, how: How, from: BusAddr, to: BusAddr, len: Bytes) -> Result<(), Failure>;

    /// The function itself, for others to relay from; `None` where nobody can.
    fn agent(&self) -> Option<Agent> {
        None
    }

    /// Writes what another function reads, in one go.
    ///
    /// The read is that function's in every respect: its requester ID, its route, its address space.
    /// It is for devices that agreed on it, as two adapters that cut a transfer through instead of
    /// storing it in between.
    ///
    /// # Errors
    /// [`RelayError::Read`] as of [`read`](Self::read), with [`Failure::NotSent`] where the other
    /// function is not [beside](Agent::is_beside) this one; [`RelayError::Write`] as of [`write`](Self::write).
    fn relay(
        &mut self,
        _reader: Agent,
        _from: (How, BusAddr),
        _to: (How, BusAddr),
        _len: Bytes,
    ) -> Result<(), RelayError> {
        Err(RelayError::Read(Failure::NotSent))
    }

    /// Sends an AtomicOp; the value that stood there before.
    ///
    /// # Errors
    /// [`Failure`]; [`Failure::NotSent`] too where the address is not a multiple of the operand.
    fn atomic(&mut self, how: How, at: BusAddr, atomic: Atomic) -> Result<u64, Failure>;

    /// Sends the interrupt message of a vector; without one that is enabled nothing is sent.
    fn interrupt(&mut self, vector: u16);

    /// Asks the root complex where an address leads (ATS), and remembers the answer until it
    /// is invalidated. `None`: not mapped, or not so.
    ///
    /// # Errors
    /// [`Failure::NotSent`] for a function without ATS; [`Failure::UnsupportedRequest`] where
    /// the root complex gives no translations to it.
    fn translate(&mut self, how: How, at: BusAddr, write: bool) -> Result<Option<Translation>, Failure>;

    /// Asks for a page to be brought (PRI); the answer comes as [`next_page_response`](Self::next_page_response).
    ///
    /// # Errors
    /// [`Failure::NotSent`] for a function without PRI, or with as many requests on the way as
    /// it may have.
    fn request_page(&mut self, how: How, at: BusAddr, write: bool, group: u16) -> Result<(), Failure>;

    /// The earliest response to a page request that the device has not seen, with its group.
    fn next_page_response(&mut self) -> Option<(u16, PageResponse)>;
}
