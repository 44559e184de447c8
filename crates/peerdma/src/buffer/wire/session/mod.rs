//! The two sides of a session, as machines: what the peer may say when, and what is to be said to it.

mod exporter;
mod heard;
mod importer;
mod violation;

pub use exporter::{ExporterSession, Said};
pub use heard::Heard;
pub use importer::ImporterSession;
pub use violation::{OutOfTurn, Violation};

/// Most requests to map that an importer may have unanswered.
pub const REQUESTS_MAX: usize = 8;

/// Most answers that wait for an importer to read before it is cut off.
pub const OUTBOX_MAX: usize = 32;

/// Most notices that an importer may leave unanswered; later ones are held back, and only the last is kept.
pub const UNANSWERED_MAX: usize = 16;

/// Most mappings that one attachment may have at a time.
pub const MAPPINGS_MAX: u32 = 4096;
