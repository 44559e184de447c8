//! What userfaultfd says, 32 bytes at a time.

use peerdma::addr::{AddrRange, Bytes, ProcVa};
use peerdma::mirror::Event;
use thiserror::Error;

/// Bytes of a message (`struct uffd_msg`).
pub const MESSAGE_LEN: usize = 32;

/// Numbers of `linux/userfaultfd.h`.
mod number {
    pub(super) const PAGEFAULT: u8 = 0x12;
    pub(super) const FORK: u8 = 0x13;
    pub(super) const REMAP: u8 = 0x14;
    pub(super) const REMOVE: u8 = 0x15;
    pub(super) const UNMAP: u8 = 0x16;
    pub(super) const FAULT_WRITE: u64 = 1;
    pub(super) const FAULT_PROTECTED: u64 = 2;
}

/// One message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Message {
    /// A thread touched a page that is not there, or is write-protected, and waits.
    Fault {
        /// The address.
        at: ProcVa,
        /// It writes.
        write: bool,
        /// The page is there, and write-protected.
        protected: bool,
    },
    /// The process has a child, whose memory is registered with a descriptor of this number.
    Fork {
        /// The number, in the process that read the message.
        descriptor: i32,
    },
    /// Memory was moved.
    Remap {
        /// Where it was.
        from: AddrRange<ProcVa>,
        /// Where it is.
        to: ProcVa,
    },
    /// What is there is about to be thrown away.
    Discard(AddrRange<ProcVa>),
    /// This is not registered any more, as it is not mapped, or something else is.
    Unmap(AddrRange<ProcVa>),
    /// Something that this version does not know.
    Other {
        /// Its number.
        number: u8,
    },
}

/// Bytes that no kernel sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum MalformedMessage {
    /// It is not as long as messages are.
    #[error("a message of userfaultfd is {MESSAGE_LEN} bytes long, and this is {len}; read one at a time")]
    Length {
        /// How long it is.
        len: usize,
    },
    /// Its range is empty, reversed, or past the last address.
    #[error("event {number:#x} names {first} and {second}, between which no memory lies; stop using this descriptor")]
    Range {
        /// Number of the event.
        number: u8,
        /// Its first address.
        first: ProcVa,
        /// Its end or length.
        second: ProcVa,
    },
}

impl Message {
    /// Reads a message.
    ///
    /// ```
    /// use peerdma_linux::uffd::Message;
    ///
    /// let mut bytes = [0; 32];
    /// bytes[0] = 0x16;
    /// bytes[8..16].copy_from_slice(&0x1000_u64.to_ne_bytes());
    /// bytes[16..24].copy_from_slice(&0x3000_u64.to_ne_bytes());
    /// let Message::Unmap(at) = Message::parse(&bytes)? else { panic!("0x16 is an unmapping") };
    /// assert_eq!(at.to_string(), "0x1000-0x2fff");
    /// # Ok::<(), peerdma_linux::uffd::MalformedMessage>(())
    /// ```
    ///
    /// # Errors
    /// [`MalformedMessage`]. Events with unknown numbers are [`Message::Other`] and no error.
    pub fn parse(bytes: &[u8]) -> Result<Self, MalformedMessage> {
        let whole: &[u8; MESSAGE_LEN] = bytes.try_into().map_err(|_| MalformedMessage::Length { len: bytes.len() })?;
        let [first, second, third] = [8, 16, 24].map(|at| double(whole, at));
        let number = whole[0];
        let malformed = MalformedMessage::Range { number, first: ProcVa::new(first), second: ProcVa::new(second) };
        let between = || {
            let len = second.checked_sub(first).ok_or(malformed)?;
            AddrRange::new(ProcVa::new(first), Bytes::new(len)).ok_or(malformed)
        };
        Ok(match number {
            // The flags come first, and the address second.
            number::PAGEFAULT => Self::Fault {
                at: ProcVa::new(second),
                write: first & number::FAULT_WRITE != 0,
                protected: first & number::FAULT_PROTECTED != 0,
            },
            // Four bytes, of which none is a sign: the kernel's numbers are small.
            number::FORK => Self::Fork { descriptor: i32::try_from(first & u64::from(u32::MAX)).unwrap_or(-1) },
            number::REMAP => {
                let from = AddrRange::new(ProcVa::new(first), Bytes::new(third)).ok_or(malformed)?;
                AddrRange::new(ProcVa::new(second), Bytes::new(third)).ok_or(malformed)?;
                Self::Remap { from, to: ProcVa::new(second) }
            }
            number::REMOVE => Self::Discard(between()?),
            number::UNMAP => Self::Unmap(between()?),
            number => Self::Other { number },
        })
    }

    /// What that is to a mirror; nothing for faults and for what is not known.
    pub fn event(&self) -> Option<Event> {
        match *self {
            Self::Fork { .. } => Some(Event::Fork),
            // The message has the old length alone (Linux 7.2 `mremap_userfaultfd_complete`).
            Self::Remap { from, to } => Some(Event::Remap { from, to, len: from.len() }),
            Self::Discard(at) => Some(Event::Discard(at)),
            Self::Unmap(at) => Some(Event::Unmap(at)),
            Self::Fault { .. } | Self::Other { .. } => None,
        }
    }
}

/// Eight bytes in the machine's own order.
fn double(bytes: &[u8; MESSAGE_LEN], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_ne_bytes(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(number: u8, words: [u64; 3]) -> [u8; MESSAGE_LEN] {
        let mut bytes = [0; MESSAGE_LEN];
        bytes[0] = number;
        for (nth, word) in words.into_iter().enumerate() {
            bytes[8 + 8 * nth..16 + 8 * nth].copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    #[test]
    fn every_event_is_read_as_the_kernel_lays_it_out() {
        let parse = |number, words| Message::parse(&message(number, words)).unwrap();
        let at = AddrRange::new(ProcVa::new(0x2000), Bytes::new(0x1000)).unwrap();
        let fault = Message::Fault { at: ProcVa::new(0x2008), write: true, protected: false };
        assert_eq!(parse(0x12, [1, 0x2008, 0]), fault);
        // The descriptor's four bytes are all that counts.
        assert_eq!(parse(0x13, [0xffff_ffff_0000_0005, 0, 0]), Message::Fork { descriptor: 5 });
        assert_eq!(parse(0x14, [0x2000, 0x9000, 0x1000]), Message::Remap { from: at, to: ProcVa::new(0x9000) });
        assert_eq!(parse(0x15, [0x2000, 0x3000, 0]), Message::Discard(at));
        assert_eq!(parse(0x16, [0x2000, 0x3000, 0]), Message::Unmap(at));
        assert_eq!(parse(0x17, [0x2000, 0x3000, 0]), Message::Other { number: 0x17 });
    }

    #[test]
    fn ranges_without_memory_are_malformed() {
        for (number, words) in [
            (0x15, [0x2000, 0x2000, 0]),
            (0x16, [0x2000, 0x1000, 0]),
            (0x14, [0x2000, 0x3000, 0]),
            (0x14, [0x2000, u64::MAX, 2]),
            (0x14, [u64::MAX, 0, 2]),
        ] {
            let error = Message::parse(&message(number, words)).unwrap_err();
            assert!(matches!(error, MalformedMessage::Range { .. }), "{number:#x} {words:x?}");
        }
        assert_eq!(Message::parse(&[0; 31]), Err(MalformedMessage::Length { len: 31 }));
    }
}
