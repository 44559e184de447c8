//! Documents of `peerdma vfio`.

use super::SCHEMA;
use crate::output::printable;
use peerdma_linux::type1::settings::Settings;
use peerdma_linux::vfio::binding::Obstacle;
use peerdma_linux::vfio::standing::Standing;
use schemars::JsonSchema;
use serde::Serialize;

/// `peerdma vfio list --json`.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct VfioListDocument {
    /// Version of the document.
    schema: u32,
    /// In order of addresses.
    functions: Vec<VfioFunctionDocument>,
    /// How the module of type1 is set; null where it is not loaded, or not in the input.
    type1: Option<Type1Document>,
}

/// Parameters of `vfio_iommu_type1`.
#[derive(Serialize, JsonSchema, Debug)]
struct Type1Document {
    /// Whether contiguous pages become large entries of an IOMMU's table; null where it does not say.
    huge_pages: Option<bool>,
    /// How many mappings a new container takes; null where it does not say.
    entry_limit: Option<u32>,
    /// Whether devices are given away although interrupts could be forged; null where it does not say.
    unsafe_interrupts: Option<bool>,
}

/// One function.
#[derive(Serialize, JsonSchema, Debug)]
struct VfioFunctionDocument {
    /// `domain:bus:device.function`.
    address: String,
    /// `vendor:device`; null where it is not read.
    id: Option<String>,
    /// Class code, six hex digits; null where it is not read.
    class: Option<String>,
    /// Driver; null if it has none.
    driver: Option<String>,
    /// Whether that is one of VFIO's.
    vfio: bool,
    /// The driver that it is kept for (`driver_override`); null if for none.
    kept_for: Option<String>,
    /// IOMMU group; null without one.
    group: Option<u32>,
    /// The group's other functions.
    neighbours: Vec<NeighbourDocument>,
    /// Its node below /dev/vfio/devices; null where the kernel makes none.
    node: Option<String>,
    /// Ways of reset, the preferred one first; null where the kernel does not say.
    reset_methods: Option<Vec<String>>,
    /// Who uses it, in words.
    uses: Vec<String>,
    /// What of its users could not be looked at, in words.
    unseen: Vec<String>,
    /// Whether a program may open it through VFIO as things are.
    ready: bool,
    /// Why not, in words; null if it may.
    in_the_way: Option<String>,
}

/// Another function of the group.
#[derive(Serialize, JsonSchema, Debug)]
struct NeighbourDocument {
    /// Its address.
    address: String,
    /// Its driver; null if it has none.
    driver: Option<String>,
}

impl VfioListDocument {
    pub(crate) fn new(standings: &[Standing], settings: Settings) -> Self {
        let Settings { huge_pages, entry_limit, unsafe_interrupts, .. } = settings;
        let type1 =
            (settings != Settings::default()).then_some(Type1Document { huge_pages, entry_limit, unsafe_interrupts });
        Self { schema: SCHEMA, functions: standings.iter().map(VfioFunctionDocument::new).collect(), type1 }
    }
}

impl VfioFunctionDocument {
    fn new(standing: &Standing) -> Self {
        let place = &standing.place;
        let ready = place.ready_group();
        let neighbours = standing.neighbours.iter();
        Self {
            address: place.device.to_string(),
            id: standing.id.map(|id| id.to_string()),
            class: standing.class.map(|class| format!("{class:06x}")),
            driver: place.driver.as_deref().map(printable),
            vfio: place.is_vfio,
            kept_for: standing.kept_for.as_deref().map(printable),
            group: place.group.as_ref().map(|group| group.number),
            neighbours: neighbours
                .map(|other| NeighbourDocument {
                    address: other.device.to_string(),
                    driver: other.driver.as_deref().map(printable),
                })
                .collect(),
            node: place.node.as_deref().map(printable),
            reset_methods: standing
                .reset_methods
                .as_ref()
                .map(|methods| methods.iter().map(|way| printable(way)).collect()),
            uses: standing.uses.iter().map(|user| printable(&user.to_string())).collect(),
            unseen: standing.unseen.iter().map(ToString::to_string).collect(),
            ready: ready.is_ok(),
            in_the_way: ready.err().map(|error| printable(&error.to_string())),
        }
    }
}

/// `peerdma vfio bind`, `unbind` and `reset` with `--json`.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct VfioChangeDocument {
    /// Version of the document.
    pub(crate) schema: u32,
    /// `bind`, `unbind` or `reset`.
    pub(crate) action: &'static str,
    /// The function.
    pub(crate) device: String,
    /// What is done, or would be, in order, as lines of a shell or requests to the kernel.
    pub(crate) steps: Vec<String>,
    /// What stands in the way.
    pub(crate) obstacles: Vec<ObstacleDocument>,
    /// What could not be looked at.
    pub(crate) unseen: Vec<String>,
    /// Files that this user may not write or open.
    pub(crate) not_permitted: Vec<String>,
    /// Whether it was done.
    pub(crate) done: bool,
}

/// Something in the way of a change.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct ObstacleDocument {
    /// What.
    what: String,
    /// Whether `--force` overrides it.
    yields_to_force: bool,
}

impl From<&Obstacle> for ObstacleDocument {
    fn from(obstacle: &Obstacle) -> Self {
        Self { what: printable(&obstacle.to_string()), yields_to_force: obstacle.yields() }
    }
}
