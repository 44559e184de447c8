//! Who holds how much memory in its place on this machine, by what `/proc` shows.
//!
//! The kernel keeps three counters (`peerdma::pin::Counter`) and shows two: `VmLck` and `VmPin` of each process. The
//! third, which a user's processes share and which io_uring and iommufd are refused by, it shows nowhere; it is added up here
//! from what his processes have pinned, and called *about* that much, since RDMA pins pages that do not
//! count there, and a ring's own memory counts there and shows nowhere.
//!
//! - [`Held::read`]: everything, in one pass. Processes that end meanwhile are left out; those that may not be read are
//!   counted as [unread](Held::unread), and [`Held::is_complete`] says whether others may be hidden.
//! - [`observe`]: tells a [`Ledger`] what is charged outside its books, so that its refusals name who has it.
//! - [`of_this_process`]: a ledger with this process's limit, pages and capability; a pinner is told to ask it by
//!   [`Booked`](crate::pin::Booked).
//!
//! Not here: changing limits, and what is held in devices.

mod fdinfo;
mod limits;
mod observe;
mod process;
mod status;
#[cfg(test)]
mod tests;

pub use fdinfo::Registered;
pub use limits::MemLimit;
pub(crate) use observe::asked_twice;
pub use observe::{observe, of_this_process};
pub use process::Process;

use peerdma::addr::Bytes;
use std::fs;
use std::io::{self, Read};
use std::path::Path;

#[cfg(doc)]
use peerdma::pin::Ledger;

/// What the processes of a machine hold.
///
/// ```
/// use peerdma_linux::held::Held;
/// use std::path::Path;
///
/// let held = Held::read(Path::new("/proc"))?;
/// let own = held.processes.iter().find(|process| process.pid == std::process::id()).expect("this one");
/// println!("{} locked, {} pinned", own.locked, own.pinned);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Held {
    /// Every process with memory that could be read, by number.
    pub processes: Vec<Process>,
    /// Processes that are there and may not be read, by number.
    pub unread: Vec<u32>,
    /// Whether processes of others do not appear: `/proc` is mounted so (`hidepid`), or shows a namespace of processes within
    /// another, as in most containers, where the same user's processes outside count against the same limit.
    pub hidden: bool,
}

/// What the processes of one user hold together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct User {
    /// His number.
    pub uid: u32,
    /// How many processes he has that could be read.
    pub processes: usize,
    /// Sum of what they have locked.
    pub locked: Bytes,
    /// Sum of what they have pinned.
    pub pinned: Bytes,
    /// About what stands in `user->locked_vm`: what those have pinned that are held to a limit.
    pub charged: Bytes,
    /// The least soft limit among those.
    pub limit: Option<MemLimit>,
}

impl Held {
    /// Reads a procfs, live or copied: a folder with a folder for each process, such as `/proc`.
    ///
    /// Opens two or three files for each process, and one more for each ring that it may see; blocks that long.
    ///
    /// # Errors
    /// The folder cannot be listed; give one that can. What cannot be read below it is no error.
    pub fn read(proc: &Path) -> io::Result<Self> {
        let mut held = Self { hidden: hides(proc), ..Self::default() };
        for entry in fs::read_dir(proc)? {
            let Ok(entry) = entry else { continue };
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            match Process::read(&entry.path(), pid) {
                Ok(process) => held.processes.extend(process),
                Err(error) if gone(&error) => {}
                Err(_) => held.unread.push(pid),
            }
        }
        held.processes.sort_by_key(|process| process.pid);
        held.unread.sort_unstable();
        Ok(held)
    }

    /// Whether every process could be read, and none is hidden.
    pub fn is_complete(&self) -> bool {
        self.unread.is_empty() && !self.hidden
    }

    /// The users, by number.
    pub fn users(&self) -> Vec<User> {
        let mut uids: Vec<u32> = self.processes.iter().map(|process| process.uid).collect();
        uids.sort_unstable();
        uids.dedup();
        uids.into_iter().map(|uid| self.user(uid)).collect()
    }

    /// One user, who need not have any process.
    pub fn user(&self, uid: u32) -> User {
        let of = || self.processes.iter().filter(move |process| process.uid == uid);
        let held_to_limit = || of().filter(|process| process.bypass != Some(true));
        User {
            uid,
            processes: of().count(),
            locked: sum(of().map(|process| process.locked)),
            pinned: sum(of().map(|process| process.pinned)),
            charged: sum(held_to_limit().map(|process| process.pinned)),
            limit: held_to_limit().filter_map(|process| process.limit).min_by_key(|limit| limit.soft_or_most()),
        }
    }
}

/// A sum that stays at the most there is: numbers of a copy may be anything.
fn sum(bytes: impl Iterator<Item = Bytes>) -> Bytes {
    Bytes::new(bytes.fold(0, |sum: u64, bytes| sum.saturating_add(bytes.as_u64())))
}

/// Whether the process ended while it was read; a live one answers ESRCH once its files are open.
fn gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

/// Inode of the first namespace of processes (Linux 7.2 `PROC_PID_INIT_INO`).
const FIRST_NAMESPACE: &str = "pid:[4026531836]";

/// Whether this procfs shows less than all processes of the machine, by the mounts and the namespace that it lists itself.
fn hides(proc: &Path) -> bool {
    // A copy has no such link; who made it knows where.
    let namespace = fs::read_link(proc.join("self/ns/pid")).ok();
    if namespace.is_some_and(|namespace| namespace.as_os_str() != FIRST_NAMESPACE) {
        return true;
    }
    let Ok(mounts) = text(&proc.join("self/mounts"), 1 << 20) else { return false };
    let here = proc.to_str();
    let shows_all = |option: &str| {
        !option.starts_with("hidepid=")
            || matches!(option, "hidepid=0" | "hidepid=off" | "hidepid=1" | "hidepid=noaccess")
    };
    let mut options = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (place, kind, options) = (words.next()?, words.next()?, words.next()?);
        // Of a copy nobody knows where it was mounted; most are at /proc.
        (kind == "proc" && (Some(place) == here || place == "/proc")).then_some(options)
    });
    options.next_back().is_some_and(|options| !options.split(',').all(shows_all))
}

/// A regular file as text; a longer one than `most` is damaged, as what is missing of it would read as what is not there.
fn text(path: &Path, most: u64) -> io::Result<String> {
    // A FIFO in somebody's copy would hang.
    if !fs::metadata(path)?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
