//! What processes say to each other about a buffer: messages, and sessions with a peer that says anything.

mod exporter;
mod importer;

use peerdma::buffer::wire::Message;

/// Reads a message, and writes it again.
///
/// # Panics
/// If a message has two encodings, or a refusal no words.
pub fn message(data: &[u8]) -> Option<Message> {
    match Message::decode(data) {
        Ok(message) => {
            assert_eq!(message.encode(), data, "a message has one encoding");
            assert!(!message.word().is_empty());
            Some(message)
        }
        Err(malformed) => {
            assert!(!malformed.to_string().is_empty(), "a refusal says what is wrong");
            None
        }
    }
}

/// Leads a session with a peer that says what the input says; the first byte says which side the peer is.
///
/// Answers how many things that the peer said were found in order.
///
/// # Panics
/// Where a session lets through what cannot be, or lets grow what must not.
pub fn session(data: &[u8]) -> usize {
    let Some((first, rest)) = data.split_first() else { return 0 };
    let input = Input(rest);
    match first % 2 {
        0 => exporter::with_importer(input),
        _ => importer::with_exporter(input),
    }
}

/// Bytes that are taken from the front; zeros when there are none left.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn word(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// One of these.
    fn choice<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::from(self.byte()) % of.len()]
    }

    /// As many bytes as the next one says, or what is left.
    fn some(&mut self) -> &'a [u8] {
        let len = usize::from(self.byte()).min(self.0.len());
        let (some, rest) = self.0.split_at(len);
        self.0 = rest;
        some
    }
}
