//! Captures: one file that holds what live reading would have read.
//!
//! Gzip over JSON: `{"kind":"peerdma-capture","schema":1,"tool":…,"redacted":…,"snapshot":…}`,
//! the last holding the members of [`Snapshot`]. Members that this version does not know are ignored,
//! a schema number that it does not know is refused.

use crate::archive::{self, ArchiveError};
use crate::redact;
use crate::snapshot::Snapshot;
use serde::{Deserialize, Serialize};
use std::io::{self, Write};

/// Version of the schema written, and the only one read so far.
pub const SCHEMA: u32 = 1;
const KIND: &str = "peerdma-capture";
/// Most bytes of JSON: eight thousand functions with all of config space.
const MAX_JSON: u64 = 64 << 20;

/// A capture in memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capture {
    kind: String,
    schema: u32,
    /// Name and version of the program that took it.
    pub tool: String,
    /// Whether serial numbers and MAC addresses were taken out.
    pub redacted: bool,
    /// What was read. A member of its own: flattened into this one, every member that
    /// is not known would be buffered before it is ignored.
    pub snapshot: Snapshot,
}

/// Why a file cannot be read as a capture.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaptureError {
    /// The compression is damaged.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// It is not JSON of a capture's form.
    #[error("not a peerdma capture, or a damaged one")]
    Form(#[source] serde_json::Error),
    /// It is of another version.
    #[error(
        "capture of schema {found}, this program reads schema {SCHEMA}; use the version of peerdma that wrote it, or a newer one"
    )]
    Schema {
        /// The number in the file.
        found: u32,
    },
    /// It is JSON of something else.
    #[error("JSON, but not a peerdma capture: \"kind\" is {found:?} and not {KIND:?}")]
    Kind {
        /// The word in the file.
        found: String,
    },
}

impl Capture {
    /// Wraps a snapshot, redacted unless `keep_serials`.
    pub fn new(mut snapshot: Snapshot, keep_serials: bool) -> Self {
        if !keep_serials {
            redact::redact(&mut snapshot);
        }
        Self {
            kind: KIND.into(),
            schema: SCHEMA,
            tool: concat!("peerdma ", env!("CARGO_PKG_VERSION")).into(),
            redacted: !keep_serials,
            snapshot,
        }
    }

    /// Whether bytes, once decompressed, are to be read as a capture: JSON, which no
    /// other input is.
    pub fn recognises(bytes: &[u8]) -> bool {
        bytes.trim_ascii_start().first() == Some(&b'{')
    }

    /// Reads a capture, compressed or not.
    ///
    /// # Errors
    /// See [`CaptureError`]; each concerns the file alone.
    pub fn read(bytes: &[u8]) -> Result<Self, CaptureError> {
        /// Only what must be right before the rest is looked at.
        #[derive(Deserialize)]
        struct Head {
            kind: String,
            schema: u32,
        }
        let bytes = archive::decompress_at_most(bytes, MAX_JSON)?;
        let head: Head = serde_json::from_slice(&bytes).map_err(CaptureError::Form)?;
        if head.kind != KIND {
            return Err(CaptureError::Kind { found: head.kind.chars().take(40).collect() });
        }
        if head.schema != SCHEMA {
            return Err(CaptureError::Schema { found: head.schema });
        }
        serde_json::from_slice(&bytes).map_err(CaptureError::Form)
    }

    /// The file's bytes.
    ///
    /// # Errors
    /// Only what the compressor reports, which writes to memory.
    pub fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        serde_json::to_writer(&mut gz, self)?;
        gz.write_all(b"\n")?;
        gz.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::FunctionFacts;

    fn capture() -> Capture {
        let function =
            FunctionFacts { address: "0000:00:00.0".into(), config: "8680".into(), ..FunctionFacts::default() };
        Capture::new(Snapshot { functions: vec![function], ..Snapshot::default() }, false)
    }

    #[test]
    fn a_capture_reads_back_as_it_was() {
        let bytes = capture().to_bytes().unwrap();
        assert_eq!(Capture::read(&bytes).unwrap(), capture());
        assert!(Capture::recognises(&archive::decompress(bytes.clone()).unwrap()));
    }

    #[test]
    fn a_capture_of_another_schema_is_refused_by_number() {
        let mut other = capture();
        other.schema = 99;
        assert!(matches!(Capture::read(&other.to_bytes().unwrap()), Err(CaptureError::Schema { found: 99 })));
    }

    #[test]
    fn every_cut_of_a_capture_is_an_error_and_none_a_panic() {
        let bytes = capture().to_bytes().unwrap();
        for len in 0..bytes.len() {
            assert!(Capture::read(&bytes[..len]).is_err(), "{len}");
        }
    }
}
