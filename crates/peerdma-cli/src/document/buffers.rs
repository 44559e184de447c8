//! Document of `buffers`, which `demo --serve` sends and `buffers` reads.

use peerdma::buffer::fence::{FenceName, Usage};
use peerdma::buffer::life::AttachmentId;
use peerdma::buffer::shared::{Attendance, Held, Report};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Document of `buffers`.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq)]
pub(crate) struct BuffersDocument {
    /// Version of this schema.
    pub(crate) schema: u32,
    /// What runs, in words.
    pub(crate) running: String,
    /// Number of the process that said so.
    pub(crate) pid: u32,
    /// Every buffer.
    pub(crate) buffers: Vec<BufferDocument>,
}

/// One buffer at one moment.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq)]
pub(crate) struct BufferDocument {
    /// Its name.
    pub(crate) name: String,
    /// How long it is.
    pub(crate) bytes: u64,
    /// Where it lies, in words.
    pub(crate) place: String,
    /// `live`, `invalidating`, `draining`, `revoked`, `moving`, `restored` or `dead`.
    pub(crate) phase: String,
    /// What disturbs it, or is about to: words of `peerdma explain states`.
    pub(crate) disturbed_by: Vec<String>,
    /// Which mappings are good.
    pub(crate) generation: u64,
    /// What the exporter permits: `r`, `w` or `rw`.
    pub(crate) permitted: String,
    /// Who has attached.
    pub(crate) attachments: Vec<AttachmentDocument>,
    /// What devices are doing with it.
    pub(crate) fences: Vec<FenceDocument>,
    /// Whom the disturbance waits for; empty if for nobody.
    pub(crate) waits_for: Vec<WaitDocument>,
}

/// One who has attached.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq)]
pub(crate) struct AttachmentDocument {
    /// Number of the attachment.
    pub(crate) attachment: u64,
    /// Who.
    pub(crate) holder: String,
    /// His process; null where it is the exporter's.
    pub(crate) pid: Option<u32>,
    /// `pinned`, `revocable` or `movable`.
    pub(crate) lifetime: String,
    /// `r`, `w` or `rw`.
    pub(crate) prot: String,
    /// `none`, `cooperative` or `kernel`.
    pub(crate) enforcement: String,
    /// `use` or `full`.
    pub(crate) control: String,
    /// Places where the importer reaches it.
    pub(crate) places: Vec<String>,
    /// How many mappings he has.
    pub(crate) mappings: u32,
}

/// Something that a device is doing.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq)]
pub(crate) struct FenceDocument {
    /// On which timeline.
    pub(crate) timeline: String,
    /// Its number there.
    pub(crate) sequence: u64,
    /// `kernel`, `write`, `read` or `bookkeeping`.
    pub(crate) usage: String,
}

/// Somebody, or something, that a disturbance waits for.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq)]
pub(crate) struct WaitDocument {
    /// The number of his attachment; null for fences.
    pub(crate) attachment: Option<u64>,
    /// Who; null for fences.
    pub(crate) holder: Option<String>,
    /// His process; null where it is the exporter's, and for fences.
    pub(crate) pid: Option<u32>,
    /// What is outstanding, in words.
    pub(crate) outstanding: String,
    /// Which fences, where it is fences.
    pub(crate) fences: Vec<String>,
}

impl BufferDocument {
    pub(crate) fn new(report: &Report) -> Self {
        Self {
            name: report.name.clone(),
            bytes: report.len.as_u64(),
            place: report.place.to_string(),
            phase: report.phase.word().to_string(),
            disturbed_by: report.causes.iter().map(|cause| cause.word().to_string()).collect(),
            generation: report.generation.number(),
            permitted: report.permitted.to_string(),
            attachments: report.attached.iter().map(attachment).collect(),
            fences: report.fences.iter().map(fence).collect(),
            waits_for: report.held.iter().map(wait).collect(),
        }
    }
}

fn attachment(attended: &Attendance) -> AttachmentDocument {
    let Attendance { who, holder, terms, mappings } = attended;
    AttachmentDocument {
        attachment: who.number(),
        holder: holder.name.clone(),
        pid: holder.process.as_ref().map(|process| process.pid),
        lifetime: terms.lifetime().word().to_string(),
        prot: terms.prot().to_string(),
        enforcement: terms.enforcement().word().to_string(),
        control: terms.control().word().to_string(),
        places: terms.places().iter().map(ToString::to_string).collect(),
        mappings: *mappings,
    }
}

fn fence((name, usage): &(FenceName, Usage)) -> FenceDocument {
    FenceDocument {
        timeline: name.timeline.to_string(),
        sequence: name.sequence.number(),
        usage: usage.word().to_string(),
    }
}

fn wait(held: &Held) -> WaitDocument {
    WaitDocument {
        attachment: held.who.map(AttachmentId::number),
        holder: held.holder.as_ref().map(|holder| holder.name.clone()),
        pid: held.holder.as_ref().and_then(|holder| holder.process.as_ref()).map(|process| process.pid),
        outstanding: match held.reservation_taken {
            true => "somebody has its reservation, and its fences cannot be looked at".to_string(),
            false => held.what.to_string(),
        },
        fences: held.fences.iter().map(ToString::to_string).collect(),
    }
}
