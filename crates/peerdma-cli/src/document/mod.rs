//! The JSON documents, which are the machine interface; `--schema` publishes them.
//!
//! Fields are added, never renamed or removed, while [`SCHEMA`] stays.

pub(crate) mod buffers;
pub(crate) mod compat;
mod copy;
pub(crate) mod demo;
pub(crate) mod dma_bufs;
pub(crate) mod doctor;
mod emulated;
pub(crate) mod explain;
pub(crate) mod fix;
pub(crate) mod guest;
pub(crate) mod lint_cmdline;
pub(crate) mod map;
pub(crate) mod memlock;
mod pairs;
pub(crate) mod pin;
pub(crate) mod pins;
mod probe;
pub(crate) mod share;
mod topology;
mod trace;
pub(crate) mod verify;
pub(crate) mod vfio;
pub(crate) mod whatif;
pub(crate) mod whose;

pub(crate) use copy::{CopyDocument, GrantedDocument, VerifiedDocument};
pub(crate) use emulated::{
    EmulatedCopyDocument, FaultDocument, HandedDocument, InitiatorDocument, OwnerDocument, SpeedDocument,
};
pub(crate) use pairs::{Pair, PairsDocument, ReasonDocument, StepDocument, fate_word};
pub(crate) use probe::{AbsentEngineDocument, ProbeDocument, ProbeRowDocument, StageDocument};
pub(crate) use topology::TopologyDocument;
pub(crate) use trace::{HopDocument, RequestDocument, TraceDocument};

use crate::input::Loaded;
use schemars::JsonSchema;
use serde::Serialize;

/// Version of the documents.
pub(crate) const SCHEMA: u32 = 1;

/// Where the facts came from.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct Source {
    /// `live`, `sysfs`, `archive`, `capture`, `lspci` or `platform`.
    kind: &'static str,
    /// Path or platform name; null for this machine.
    path: Option<String>,
    /// `vendor:family`, null where not told.
    cpu: Option<String>,
    /// Kernel version whose rules were applied, null where not told (the newest table was).
    kernel: Option<String>,
    /// Whether all of config space could be read; null where the input does not tell.
    privileged: Option<bool>,
    /// What the reader of the input should know: contradictions, skipped parts.
    notes: Vec<String>,
}

impl Source {
    pub(crate) fn new(loaded: &Loaded) -> Self {
        let machine = loaded.topology.machine();
        Self {
            kind: loaded.kind.word(),
            path: loaded.path.clone(),
            cpu: machine.cpu.as_ref().map(|cpu| format!("{}:{}", cpu.vendor, cpu.family)),
            kernel: machine.kernel.map(|version| version.to_string()),
            privileged: loaded.privileged,
            notes: loaded.notes.clone(),
        }
    }
}

/// Document of `capture`.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct CaptureDocument {
    /// Version of this schema.
    pub(crate) schema: u32,
    /// File written, `-` for standard output.
    pub(crate) file: String,
    /// Its size in bytes.
    pub(crate) bytes: usize,
    /// Functions in it.
    pub(crate) functions: usize,
    /// Whether all of config space could be read; null where nothing was.
    pub(crate) privileged: Option<bool>,
    /// Whether serial numbers and MAC addresses were taken out.
    pub(crate) redacted: bool,
}
