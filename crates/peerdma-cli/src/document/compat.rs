//! Document of `compat`.

use peerdma::pcie::Fact;
use peerdma::route::compat::{self, Class, Exporter, Importer, Outcome};
use peerdma::topology::KernelVersion;
use schemars::JsonSchema;
use serde::Serialize;

/// Document of `compat`.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct CompatDocument {
    /// Version of this schema.
    pub(crate) schema: u32,
    /// Kernel that was asked about; null where none was told and the table's is taken.
    pub(crate) kernel: Option<String>,
    /// Kernel series that the table was read in.
    pub(crate) table: String,
    /// Whether the table holds for that kernel; if not, every outcome is unknown.
    pub(crate) holds: bool,
    /// Exporters asked about; empty where the table does not hold.
    pub(crate) exporters: Vec<ExporterDocument>,
    /// Importers asked about; empty where the table does not hold.
    pub(crate) importers: Vec<ImporterDocument>,
    /// What comes of each of their pairs.
    pub(crate) pairs: Vec<OutcomeDocument>,
}

/// A driver that hands out memory.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct ExporterDocument {
    name: &'static str,
    what: &'static str,
}

/// A driver that maps memory of others.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct ImporterDocument {
    name: &'static str,
    what: &'static str,
    /// What it promises: `static`, `pinned`, `pinned_revocable`, `movable` or `movable_in_system_memory`.
    class: &'static str,
    /// Whether it takes memory of a device.
    takes_peer_memory: bool,
    /// Whether it lets go when the exporter says so.
    lets_go: bool,
}

/// What comes of one pair.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct OutcomeDocument {
    exporter: &'static str,
    importer: &'static str,
    /// `works`, `refused` or `unknown`.
    outcome: &'static str,
    /// Where the memory is: `device`, `device_if_all_take_it`, `system` or `moved_to_system`; null unless it works.
    memory: Option<&'static str>,
    /// How long the mapping holds: `pinned`, `until_revoked`, `until_revoked_for_good` or
    /// `until_moved`; null unless it works.
    lifetime: Option<&'static str>,
    /// The kernel's error where it refuses.
    error: Option<&'static str>,
    /// What else to know, or why it is refused.
    note: Option<&'static str>,
}

impl CompatDocument {
    pub(crate) fn new(kernel: Option<KernelVersion>, exporters: &[Exporter], importers: &[Importer]) -> Self {
        let (major, minor) = compat::SERIES;
        let holds = compat::holds_for(kernel);
        let pairs = exporters.iter().flat_map(|&exporter| {
            importers.iter().map(move |&importer| OutcomeDocument::new(kernel, exporter, importer))
        });
        Self {
            schema: super::SCHEMA,
            kernel: kernel.map(|kernel| kernel.to_string()),
            table: format!("{major}.{minor}"),
            holds,
            exporters: exporters.iter().filter(|_| holds).map(|&exporter| ExporterDocument::new(exporter)).collect(),
            importers: importers.iter().filter(|_| holds).map(|&importer| ImporterDocument::new(importer)).collect(),
            pairs: pairs.collect(),
        }
    }
}

impl ExporterDocument {
    fn new(exporter: Exporter) -> Self {
        Self { name: exporter.name(), what: exporter.what() }
    }
}

impl ImporterDocument {
    fn new(importer: Importer) -> Self {
        let class: Class = importer.class();
        Self {
            name: importer.name(),
            what: importer.what(),
            class: class.word(),
            takes_peer_memory: class.takes_peer_memory(),
            lets_go: class.lets_go(),
        }
    }
}

impl OutcomeDocument {
    fn new(kernel: Option<KernelVersion>, exporter: Exporter, importer: Importer) -> Self {
        let (exporter_name, importer_name) = (exporter.name(), importer.name());
        let unknown = Self {
            exporter: exporter_name,
            importer: importer_name,
            outcome: "unknown",
            memory: None,
            lifetime: None,
            error: None,
            note: None,
        };
        match compat::outcome(kernel, exporter, importer) {
            Fact::Unknown => unknown,
            Fact::Known(Outcome::Refused { error, why }) => {
                Self { outcome: "refused", error: Some(error), note: Some(why), ..unknown }
            }
            Fact::Known(Outcome::Works { memory, lifetime, note }) => Self {
                outcome: "works",
                memory: Some(memory.word()),
                lifetime: Some(lifetime.word()),
                note: Some(note),
                ..unknown
            },
        }
    }
}
