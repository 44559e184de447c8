//! Documents of `share` and `attach`.

use super::SCHEMA;
use schemars::JsonSchema;
use serde::Serialize;

/// Document of `share`.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct ShareDocument {
    /// Version of this schema.
    pub(crate) schema: u32,
    /// What was shared.
    pub(crate) name: String,
    /// Its length in bytes; null where nothing was shared.
    pub(crate) bytes: Option<u64>,
    /// Where.
    pub(crate) socket: String,
    /// Why nothing was shared; null where something was.
    pub(crate) refused: Option<String>,
    /// What happened, in order; the last of it.
    pub(crate) events: Vec<EventDocument>,
    /// How many events happened before those; 0 mostly.
    pub(crate) events_left_out: u64,
}

/// Document of `attach`.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct AttachDocument {
    /// Version of this schema.
    pub(crate) schema: u32,
    /// Where.
    pub(crate) socket: String,
    /// What was settled; null where it was refused.
    pub(crate) terms: Option<TermsDocument>,
    /// The word of the rule that refuses; null where nothing does.
    pub(crate) rule: Option<String>,
    /// Why, in the exporter's words; null where it does not refuse.
    pub(crate) refused: Option<String>,
    /// What happened, in order; the last of it.
    pub(crate) events: Vec<EventDocument>,
    /// How many events happened before those; 0 mostly.
    pub(crate) events_left_out: u64,
}

/// What was settled.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct TermsDocument {
    /// The buffer's name.
    pub(crate) name: String,
    /// The number of the attachment.
    pub(crate) attachment: u64,
    /// Its length in bytes.
    pub(crate) bytes: u64,
    /// `pinned`, `revocable` or `movable`.
    pub(crate) lifetime: &'static str,
    /// `r`, `w` or `rw`.
    pub(crate) prot: String,
    /// `none`, `cooperative` or `kernel`.
    pub(crate) enforcement: &'static str,
    /// `use` or `full`.
    pub(crate) control: &'static str,
    /// Where the bytes lie.
    pub(crate) place: String,
}

/// Something that happened.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct EventDocument {
    /// Milliseconds since the command began.
    pub(crate) at_ms: u64,
    /// What, in a word.
    pub(crate) what: &'static str,
    /// The rest, for people.
    pub(crate) text: String,
}

impl ShareDocument {
    pub(crate) fn new(name: &str, socket: &std::path::Path) -> Self {
        let (name, socket) = (name.to_string(), socket.display().to_string());
        Self { schema: SCHEMA, name, bytes: None, socket, refused: None, events: Vec::new(), events_left_out: 0 }
    }
}

impl AttachDocument {
    pub(crate) fn new(socket: &std::path::Path) -> Self {
        let socket = socket.display().to_string();
        Self { schema: SCHEMA, socket, terms: None, rule: None, refused: None, events: Vec::new(), events_left_out: 0 }
    }
}
