//! Bytes that are no message.

/// Why bytes are no message of this protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// Fewer bytes than a header has.
    #[error("{got} bytes are no message; a header alone has {header}", header = super::HEADER_LEN)]
    Short {
        /// How many there are.
        got: usize,
    },
    /// More bytes than any message may have.
    #[error("{got} bytes are more than a message may have ({max})", max = super::MAX_LEN)]
    Long {
        /// How many there are.
        got: usize,
    },
    /// The header tells another length than there is.
    #[error("the header tells {told} bytes, and {got} came")]
    Length {
        /// What the header tells.
        told: u32,
        /// How many there are.
        got: usize,
    },
    /// The reserved half-word of the header is not zero.
    #[error("the header's reserved bytes are {found:#06x} and must be zero")]
    Reserved {
        /// What they are.
        found: u16,
    },
    /// No version of the protocol that this library speaks has such a message.
    #[error(
        "kind {kind:#06x} is no message of versions {} to {}; the peer speaks a newer one without having agreed on it",
        super::VERSIONS.start(),
        super::VERSIONS.end()
    )]
    UnknownKind {
        /// Its number.
        kind: u16,
    },
    /// The message ends within a field.
    #[error("`{kind}` ends within its field `{field}`")]
    Cut {
        /// Which message.
        kind: &'static str,
        /// Which field.
        field: &'static str,
    },
    /// A field holds a value that has no meaning.
    #[error("`{kind}` has {found:#x} in its field `{field}`, which means nothing")]
    Meaningless {
        /// Which message.
        kind: &'static str,
        /// Which field.
        field: &'static str,
        /// What it holds.
        found: u64,
    },
    /// Text is no UTF-8, or holds control characters.
    #[error("`{kind}` has text in its field `{field}` that is no printable UTF-8")]
    Unprintable {
        /// Which message.
        kind: &'static str,
        /// Which field.
        field: &'static str,
    },
    /// Text is longer than its field allows.
    #[error("`{kind}` has {got} bytes of text in its field `{field}`, which holds {max}")]
    TextTooLong {
        /// Which message.
        kind: &'static str,
        /// Which field.
        field: &'static str,
        /// Its length in bytes.
        got: usize,
        /// The longest there may be.
        max: usize,
    },
    /// Bytes follow the last field.
    #[error("{extra} bytes follow the last field of `{kind}`")]
    Trailing {
        /// Which message.
        kind: &'static str,
        /// How many.
        extra: usize,
    },
}
