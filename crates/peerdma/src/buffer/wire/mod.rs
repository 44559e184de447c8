//! What exporter and importer of a buffer say to each other when they are two processes.
//!
//! Messages are read and written here ([`Message`]), and each side has a machine that knows what
//! the other may say when ([`ExporterSession`], [`ImporterSession`]). Neither knows a socket: bytes
//! come in and go out as values, and `peerdma-linux` carries them.
//!
//! Three principles:
//!
//! 1. **The peer is a stranger.** A message has one encoding, a bounded length and no room for what
//!    is not understood; whoever says something else, or at the wrong time, or more than was asked
//!    for, is cut off with a reason that has a name ([`Violation`]).
//! 2. **A mapping is counted before it exists.** An importer asks, the exporter counts it and grants it, then
//!    the importer maps. Rejected: telling afterwards, because a notice to let go that crosses the
//!    news would find nothing mapped, and the buffer would be called quiet while it is used.
//! 3. **Nothing grows without bound.** Notices that a peer does not answer are held back until it does, and
//!    only the last of them is kept; answers that it does not read end its session.
//!
//! The documentation's table of bytes is made from [`KINDS`], which the code is made from too.
//!
//! ```
//! use peerdma::buffer::life::NoticeId;
//! use peerdma::buffer::wire::{Message, Noted};
//!
//! let message = Message::Noted(Noted { notice: NoticeId::new(7) });
//! let bytes = message.encode();
//! assert_eq!(bytes.len(), 16);
//! assert_eq!(Message::decode(&bytes)?, message);
//! # Ok::<(), peerdma::buffer::wire::Malformed>(())
//! ```

mod codes;
mod convert;
mod field;
mod malformed;
mod message;
mod session;
mod text;

#[cfg(test)]
mod tests;

pub use codes::{CODES, Carrier, Code, Coded, Descriptors, Ending, Features};
pub use convert::Export;
pub use field::Shape;
pub use malformed::Malformed;
pub use message::{
    Channel, Declare, Denied, FieldAbout, Gone, Goodbye, Granted, HEADER_LEN, Hello, KINDS, Kind, LetGo, MAX_LEN, Map,
    MayMap, Message, Moved, Noted, Offer, Refusal, Sender, Terms, Unmapped, Welcome,
};
pub use session::{
    ExporterSession, Heard, ImporterSession, MAPPINGS_MAX, OUTBOX_MAX, OutOfTurn, REQUESTS_MAX, Said, UNANSWERED_MAX,
    Violation,
};
pub use text::Text;

/// Versions of the protocol that this library speaks, from the lowest to the highest, both included.
pub const VERSIONS: core::ops::RangeInclusive<u16> = 1..=1;

/// Names one request of an importer to map; never used twice in one session.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default)]
#[repr(transparent)]
pub struct RequestId(u64);

impl RequestId {
    /// The request of this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn number(self) -> u64 {
        self.0
    }
}
