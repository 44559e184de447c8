//! Document of `buffers --machine`.

use super::SCHEMA;
use peerdma_linux::dma_buf::machine::{DmemRegion, HeldBy, Limit, Listed, Listing};
use schemars::JsonSchema;
use serde::Serialize;

/// Document of `buffers --machine`.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct DmaBufsDocument {
    /// Version of this schema.
    schema: u32,
    /// Whether everything could be looked at; if not, there may be more of everything.
    complete: bool,
    /// What could not be looked at, and what to do about it.
    unseen: Vec<String>,
    /// dma-bufs, by their number.
    dma_bufs: Vec<DmaBufDocument>,
    /// Device memory that the kernel counts for groups of processes; null where it does not.
    dmem: Option<Vec<DmemDocument>>,
}

/// One dma-buf.
#[derive(Serialize, JsonSchema, Debug)]
struct DmaBufDocument {
    /// Its number, as `ino` of /proc/PID/fdinfo.
    inode: u64,
    /// How long it is.
    bytes: u64,
    /// Which driver exported it.
    exporter: String,
    /// Its name; null if nobody gave it one.
    name: Option<String>,
    /// Devices that import it; null where they cannot be seen.
    importers: Option<Vec<String>>,
    /// Processes that hold it.
    holders: Vec<HolderDocument>,
}

/// A process that holds a dma-buf.
#[derive(Serialize, JsonSchema, Debug)]
struct HolderDocument {
    /// Its number.
    pid: u32,
    /// What it calls itself; null where it has ended.
    command: Option<String>,
    /// How many descriptors of the dma-buf it has.
    descriptors: u32,
}

/// A region of device memory, and what this process's group may have of it. Limits are numbers of bytes, or `max`.
#[derive(Serialize, JsonSchema, Debug)]
struct DmemDocument {
    /// Its name.
    region: String,
    /// How much there is of it.
    capacity: u64,
    /// What the group has; null for the root group.
    current: Option<u64>,
    /// More is refused; null for the root group.
    max: Option<String>,
    /// Not taken away while others have more than theirs.
    low: Option<String>,
    /// Never taken away.
    min: Option<String>,
}

impl DmaBufsDocument {
    pub(crate) fn new(listing: &Listing) -> Self {
        Self {
            schema: SCHEMA,
            complete: listing.unseen.is_empty(),
            unseen: listing.unseen.iter().map(ToString::to_string).collect(),
            dma_bufs: listing.buffers.iter().map(dma_buf).collect(),
            dmem: listing.dmem.as_ref().map(|regions| regions.iter().map(region).collect()),
        }
    }
}

fn dma_buf(listed: &Listed) -> DmaBufDocument {
    let Listed { id, size, exporter, name, importers, holders } = listed;
    let holder = |it: &HeldBy| HolderDocument { pid: it.pid, command: it.command.clone(), descriptors: it.descriptors };
    DmaBufDocument {
        inode: id.inode(),
        bytes: size.as_u64(),
        exporter: exporter.clone(),
        name: name.clone(),
        importers: importers.clone(),
        holders: holders.iter().map(holder).collect(),
    }
}

fn region(region: &DmemRegion) -> DmemDocument {
    let limit = |limit: Option<Limit>| {
        limit.map(|limit| match limit {
            Limit::None => "max".to_string(),
            Limit::At(bytes) => bytes.as_u64().to_string(),
        })
    };
    DmemDocument {
        region: region.name.clone(),
        capacity: region.capacity.as_u64(),
        current: region.current.map(|bytes| bytes.as_u64()),
        max: limit(region.max),
        low: limit(region.low),
        min: limit(region.min),
    }
}
