//! How commands end.

use std::fmt;

/// The status field of a completion (NVMe Base 2.0 §3.3.3.2.1), without its phase tag.
///
/// Bits 7:0 are the status code, 10:8 its type, bit 14 says that a retry is of no use. Values
/// that no constant here names are kept as they are.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(u16);

/// Do Not Retry.
const DNR: u16 = 1 << 14;

macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident = $value:expr, $words:literal;)*) => {
        impl Status {
            $($(#[$doc])* pub const $name: Self = Self($value);)*

            /// What it means, in the specification's words; `None` for values not used here.
            pub const fn words(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some($words),)*
                    _ => None,
                }
            }
        }
    };
}

statuses! {
    /// All was done.
    SUCCESS = 0, "successful completion";
    /// No command has this opcode.
    INVALID_OPCODE = DNR | 0x01, "invalid command opcode";
    /// A field of the command holds what is not supported.
    INVALID_FIELD = DNR | 0x02, "invalid field in command";
    /// The data did not come, or did not go out.
    DATA_TRANSFER_ERROR = 0x04, "data transfer error";
    /// The device's own fault.
    INTERNAL_ERROR = 0x06, "internal error";
    /// No such namespace.
    INVALID_NAMESPACE = DNR | 0x0b, "invalid namespace or format";
    /// Commands came in an order that is not permitted.
    SEQUENCE_ERROR = DNR | 0x0c, "command sequence error";
    /// A segment descriptor stands where none may, or has a length that none has.
    INVALID_SGL_SEGMENT = DNR | 0x0d, "invalid SGL segment descriptor";
    /// There are more descriptors than the device follows, or none where one must be.
    INVALID_SGL_COUNT = DNR | 0x0e, "invalid number of SGL descriptors";
    /// The SGL is longer or shorter than the data.
    SGL_LENGTH_INVALID = DNR | 0x0f, "data SGL length invalid";
    /// A descriptor of a type that is not supported.
    SGL_TYPE_INVALID = DNR | 0x11, "SGL descriptor type invalid";
    /// A range that is partly in the controller memory buffer.
    INVALID_CMB_USE = DNR | 0x12, "invalid use of controller memory buffer";
    /// A PRP entry that does not point to where its place permits.
    PRP_OFFSET_INVALID = DNR | 0x13, "PRP offset invalid";
    /// Blocks past the end of the namespace.
    LBA_OUT_OF_RANGE = DNR | 0x80, "LBA out of range";
    /// No such completion queue.
    COMPLETION_QUEUE_INVALID = DNR | 0x100, "completion queue invalid";
    /// No such queue, or one that is there already.
    INVALID_QUEUE_ID = DNR | 0x101, "invalid queue identifier";
    /// A queue of one entry, or of more than are supported.
    INVALID_QUEUE_SIZE = DNR | 0x102, "invalid queue size";
    /// More requests for events than are held.
    EVENT_LIMIT = DNR | 0x105, "asynchronous event request limit exceeded";
    /// A vector past the last.
    INVALID_VECTOR = DNR | 0x108, "invalid interrupt vector";
    /// No such log page.
    INVALID_LOG_PAGE = DNR | 0x109, "invalid log page";
    /// A completion queue that submission queues still use.
    INVALID_QUEUE_DELETION = DNR | 0x10c, "invalid queue deletion";
    /// A feature that cannot be saved.
    NOT_SAVEABLE = DNR | 0x10d, "feature identifier not saveable";
    /// The blocks are not what they were compared with.
    COMPARE_FAILURE = 0x285, "compare failure";
    /// The medium did not take the data.
    WRITE_FAULT = 0x280, "write fault";
    /// The medium did not give the data.
    READ_ERROR = 0x281, "unrecovered read error";
}

impl Status {
    /// The status of these bits of a completion.
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits & 0x7fff)
    }

    /// The bits, to be put above the phase tag.
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// Whether all was done.
    pub const fn is_success(self) -> bool {
        self.0 & 0x7ff == 0
    }
}

impl fmt::Display for Status {
    /// Writes `LBA out of range (type 0, code 0x80)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.words().unwrap_or("a status of another specification");
        write!(f, "{words} (type {}, code {:#04x})", self.0 >> 8 & 7, self.0 & 0xff)
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Status({:#x}, {self})", self.0)
    }
}
