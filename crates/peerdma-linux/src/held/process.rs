//! One process.

use super::fdinfo::Registered;
use super::limits::MemLimit;
use super::status::{NoStatus, Status};
use super::text;
use peerdma::addr::Bytes;
use std::io;
use std::path::Path;

/// What one process holds.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its real user, to whom pins are charged.
    pub uid: u32,
    /// What it calls itself.
    pub command: String,
    /// `mm->locked_vm`.
    pub locked: Bytes,
    /// `mm->pinned_vm`.
    pub pinned: Bytes,
    /// Its `RLIMIT_MEMLOCK`; `None` where that could not be read.
    pub limit: Option<MemLimit>,
    /// Whether it has `CAP_IPC_LOCK` in the initial user namespace, and is not held to the limit; `None` if that cannot be told.
    pub bypass: Option<bool>,
    /// Its registered buffers; `None` where one may not look into it, or where it fills slots all the time.
    pub registered: Option<Registered>,
}

/// A process may be in 65536 groups, each ten digits of a line.
const STATUS: u64 = 4 << 20;

impl Process {
    /// Reads a process's folder; `None` for what has no memory.
    pub(super) fn read(folder: &Path, pid: u32) -> io::Result<Option<Self>> {
        let status = match Status::parse(&text(&folder.join("status"), STATUS)?) {
            Ok(status) => status,
            Err(NoStatus::NoMemory) => return Ok(None),
            Err(NoStatus::Damaged) => return Err(io::ErrorKind::InvalidData.into()),
        };
        let limits = text(&folder.join("limits"), 1 << 16);
        Ok(Some(Self {
            pid,
            uid: status.uid,
            command: status.command,
            locked: status.locked,
            pinned: status.pinned,
            limit: limits.ok().and_then(|limits| MemLimit::parse(&limits)),
            bypass: bypass(folder, status.ipc_lock),
            registered: Registered::read(folder).ok(),
        }))
    }
}

/// A capability counts in the initial user namespace only, whose map of users is the whole identity.
fn bypass(folder: &Path, ipc_lock: Option<bool>) -> Option<bool> {
    if !ipc_lock? {
        return Some(false);
    }
    // A kernel without user namespaces has no such file, and a namespace within which all is mapped alike passes for the first.
    let Ok(map) = text(&folder.join("uid_map"), 1 << 12) else { return ipc_lock };
    Some(map.split_whitespace().eq(["0", "0", "4294967295"]))
}
