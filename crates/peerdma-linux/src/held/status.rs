//! What `/proc/PID/status` says of a process's memory.

use peerdma::addr::Bytes;

/// `CAP_IPC_LOCK` in a set of capabilities.
const IPC_LOCK: u32 = 14;

/// The lines that matter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Status {
    pub(super) command: String,
    /// The real user, whose counter pins are charged to (Linux 7.2 `current_user`).
    pub(super) uid: u32,
    pub(super) locked: Bytes,
    pub(super) pinned: Bytes,
    /// Whether `CAP_IPC_LOCK` is effective in its user namespace; `None` where it does not say.
    pub(super) ipc_lock: Option<bool>,
}

/// Why a status is of no use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NoStatus {
    /// A thread of the kernel's, or a process that has ended: it has no memory.
    NoMemory,
    /// No status, or cut.
    Damaged,
}

impl Status {
    pub(super) fn parse(text: &str) -> Result<Self, NoStatus> {
        let field = |name: &str| text.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()));
        let kib = |name: &str| {
            let number: u64 = field(name)?.strip_suffix("kB")?.trim().parse().ok()?;
            number.checked_mul(1024).map(Bytes::new)
        };
        let command = field("Name").ok_or(NoStatus::Damaged)?;
        let uid = field("Uid").and_then(|uids| uids.split_whitespace().next()?.parse().ok());
        let uid = uid.ok_or(NoStatus::Damaged)?;
        if field("VmLck").is_none() && field("VmPin").is_none() {
            return Err(NoStatus::NoMemory);
        }
        let effective = field("CapEff").and_then(|caps| u64::from_str_radix(caps, 16).ok());
        Ok(Self {
            command: printable(command),
            uid,
            locked: kib("VmLck").ok_or(NoStatus::Damaged)?,
            pinned: kib("VmPin").ok_or(NoStatus::Damaged)?,
            ipc_lock: effective.map(|caps| caps & 1 << IPC_LOCK != 0),
        })
    }
}

/// A process may name itself anything.
fn printable(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}
