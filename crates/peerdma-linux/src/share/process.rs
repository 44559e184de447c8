//! The process behind a connection.

use crate::sys::peer;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Who connected, as the kernel tells it.
#[derive(Debug)]
pub struct Peer {
    /// Its number, as this process sees it; 0 for one that is not visible from here.
    pub pid: u32,
    /// Its user.
    pub uid: u32,
    /// Its command's name when it connected, where `/proc` told it.
    pub command: Option<String>,
    process: Option<OwnedFd>,
}

/// What becomes of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It runs, or waits.
    Running,
    /// A signal or a debugger has stopped it.
    Stopped,
    /// It has ended.
    Ended,
    /// Neither a process descriptor nor `/proc` tells.
    Unknown,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Ended => "ended",
            Self::Unknown => "unknown",
        })
    }
}

impl Peer {
    pub(super) fn of(socket: BorrowedFd<'_>) -> Result<Self, rustix::io::Errno> {
        let who = rustix::net::sockopt::socket_peercred(socket)?;
        let pid = u32::try_from(who.pid.as_raw_pid()).unwrap_or(0);
        // Without it (Linux before 6.5) nobody is told when the process ends, and nothing else is lost. Rejected: opening
        // one by number, which may be another process's by now.
        let process = peer::process(socket).ok();
        Ok(Self { pid, uid: who.uid.as_raw(), command: command(pid), process })
    }

    /// Something that can be read once the process has ended, where the kernel has such descriptors.
    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.process.as_ref().map(AsFd::as_fd)
    }

    /// What becomes of it just now.
    pub fn standing(&self) -> Standing {
        let state = state(self.pid);
        // Asked afterwards: as long as it has not ended, its number is its own.
        let Some(process) = self.descriptor() else { return Standing::Unknown };
        let mut asked = [PollFd::new(&process, PollFlags::IN)];
        match poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
            Ok(0) => match state {
                Some('T' | 't') => Standing::Stopped,
                Some(_) => Standing::Running,
                None => Standing::Unknown,
            },
            Ok(_) => Standing::Ended,
            Err(_) => Standing::Unknown,
        }
    }
}

impl fmt::Display for Peer {
    /// Writes `process 4711 (server)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}", self.pid)?;
        match &self.command {
            Some(command) => write!(f, " ({command})"),
            None => Ok(()),
        }
    }
}

/// A process may name itself anything, so that control characters are replaced.
fn command(pid: u32) -> Option<String> {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    let name = name.strip_suffix('\n').unwrap_or(&name);
    Some(name.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect())
}

/// The letter after the name in `/proc/PID/stat`; the name may hold parentheses and spaces itself.
fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}
