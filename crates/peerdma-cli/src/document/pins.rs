//! Document of `pins`.

use super::SCHEMA;
use peerdma::addr::Bytes;
use peerdma_linux::held::{Held, MemLimit, Process, User};
use schemars::JsonSchema;
use serde::Serialize;

/// Document of `pins`.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct PinsDocument {
    /// Version of this schema.
    schema: u32,
    /// Whether every process could be read and none is hidden; if not, sums are lower bounds.
    complete: bool,
    /// Whether /proc is mounted so that others' processes do not appear.
    hidden: bool,
    /// Processes that are there and may not be read.
    unread: Vec<u32>,
    /// Processes.
    processes: Vec<ProcessDocument>,
    /// Their users.
    users: Vec<UserDocument>,
}

/// One process.
#[derive(Serialize, JsonSchema, Debug)]
struct ProcessDocument {
    /// Its number.
    pid: u32,
    /// Number of its real user.
    uid: u32,
    /// What it calls itself.
    command: String,
    /// Bytes of mm->locked_vm.
    locked: u64,
    /// Bytes of mm->pinned_vm.
    pinned: u64,
    /// Its registered buffers; null where one may not look into it.
    registered: Option<RegisteredDocument>,
    /// Its RLIMIT_MEMLOCK; null where it could not be read.
    limit: Option<LimitDocument>,
    /// Whether it has CAP_IPC_LOCK and is not held to the limit; null where that cannot be told.
    bypass: Option<bool>,
    /// The larger of locked and pinned, as a part of its soft limit; null where it is held to none, or to one of zero.
    share: Option<f64>,
}

/// Buffers registered with rings.
#[derive(Serialize, JsonSchema, Debug)]
struct RegisteredDocument {
    /// How many rings.
    rings: usize,
    /// How many buffers in them.
    buffers: usize,
    /// How many bytes, as registered.
    bytes: u64,
}

/// RLIMIT_MEMLOCK.
#[derive(Serialize, JsonSchema, Debug)]
struct LimitDocument {
    /// Bytes; null is unlimited.
    soft: Option<u64>,
    /// Bytes; null is unlimited.
    hard: Option<u64>,
}

/// One user.
#[derive(Serialize, JsonSchema, Debug)]
struct UserDocument {
    /// His number.
    uid: u32,
    /// How many processes he has that could be read.
    processes: usize,
    /// Sum of mm->locked_vm.
    locked: u64,
    /// Sum of mm->pinned_vm.
    pinned: u64,
    /// About what user->locked_vm is: what those have pinned that are held to a limit.
    counted: u64,
    /// The lowest limit among those.
    limit: Option<LimitDocument>,
    /// `counted` as a part of that limit.
    share: Option<f64>,
}

/// The larger of what is locked and pinned, as a part of the limit that the process is held to.
pub(crate) fn share(process: &Process) -> Option<f64> {
    let limit = process.limit.filter(|_| process.bypass != Some(true))?;
    limit.share(process.locked.max(process.pinned))
}

/// What the user's own counter is about, as a part of the lowest limit.
pub(crate) fn user_share(user: &User) -> Option<f64> {
    user.limit?.share(user.charged)
}

impl PinsDocument {
    pub(crate) fn new(held: &Held, processes: &[&Process], users: &[User]) -> Self {
        Self {
            schema: SCHEMA,
            complete: held.is_complete(),
            hidden: held.hidden,
            unread: held.unread.clone(),
            processes: processes.iter().map(|it| process(it)).collect(),
            users: users.iter().map(user).collect(),
        }
    }
}

fn process(it: &Process) -> ProcessDocument {
    ProcessDocument {
        pid: it.pid,
        uid: it.uid,
        command: it.command.clone(),
        locked: it.locked.as_u64(),
        pinned: it.pinned.as_u64(),
        registered: it.registered.map(|it| RegisteredDocument {
            rings: it.rings,
            buffers: it.buffers,
            bytes: it.bytes.as_u64(),
        }),
        limit: it.limit.map(limit),
        bypass: it.bypass,
        share: share(it),
    }
}

fn limit(it: MemLimit) -> LimitDocument {
    LimitDocument { soft: it.soft.map(Bytes::as_u64), hard: it.hard.map(Bytes::as_u64) }
}

fn user(it: &User) -> UserDocument {
    UserDocument {
        uid: it.uid,
        processes: it.processes,
        locked: it.locked.as_u64(),
        pinned: it.pinned.as_u64(),
        counted: it.charged.as_u64(),
        limit: it.limit.map(limit),
        share: user_share(it),
    }
}
