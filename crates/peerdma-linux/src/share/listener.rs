//! The path at which an exporter is found.

use rustix::fs::{FlockOperation, Mode, OFlags, fchmod, flock};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with};
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// Connections that the kernel keeps for an exporter that is busy.
const BACKLOG: i32 = 16;

/// Why a path cannot be listened at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Something else is there.
    #[error("{} is there and is no socket; it is left alone, so name another path", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// Somebody listens there.
    #[error("somebody listens at {} already; attach to it, or name another path", path.display())]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// The kernel takes no path as long as this.
    #[error("{} is too long for a socket's path; the kernel takes 107 bytes", path.display())]
    TooLong {
        /// The path.
        path: PathBuf,
    },
    /// The kernel refuses.
    #[error("cannot listen at {}; name a new file in a folder that may be written", path.display())]
    Kernel {
        /// The path.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
    },
}

/// A path at which importers of the same user attach; removed when dropped.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    path: PathBuf,
    /// Device and inode of what was made, so that nothing else is removed.
    made: (u64, u64),
}

impl Listener {
    /// Listens at this path, which only the same user (and root) may connect to.
    ///
    /// A socket that is left from a process which did not clean up is replaced if nobody listens at it. Two exporters
    /// that want the same path at the same time take turns by a lock on its folder, for which this waits a second at most.
    ///
    /// # Errors
    /// [`BindError`]; nothing that was there has changed.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        Self::bind_as(path, SocketType::SEQPACKET)
    }

    /// The same for connections that are streams of bytes.
    pub(crate) fn streams(path: &Path) -> Result<Self, BindError> {
        Self::bind_as(path, SocketType::STREAM)
    }

    fn bind_as(path: &Path, kind: SocketType) -> Result<Self, BindError> {
        let failed = |error: Errno| BindError::Kernel { path: path.to_path_buf(), source: error.into() };
        let address = address(path).map_err(|error| match error {
            Errno::NAMETOOLONG => BindError::TooLong { path: path.to_path_buf() },
            other => failed(other),
        })?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let folder = rustix::fs::open(folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let folder = folder.map_err(failed)?;
        lock(folder.as_fd()).map_err(failed)?;
        clear(path, &address)?;
        let socket = unbound(kind).map_err(failed)?;
        // Before it has a path, so that at no moment anybody else can connect: the kernel gives the path the mode
        // of the socket (Linux 7.2 `unix_bind_bsd`).
        fchmod(&socket, Mode::RUSR | Mode::WUSR).map_err(failed)?;
        bind(&socket, &address).map_err(failed)?;
        let made = fs::symlink_metadata(path).map(|made| (made.dev(), made.ino()));
        let made = made.map_err(|source| BindError::Kernel { path: path.to_path_buf(), source })?;
        let listener = Self { socket, path: path.to_path_buf(), made };
        listen(&listener.socket, BACKLOG).map_err(failed)?;
        Ok(listener)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let is_ours = |found: &fs::Metadata| (found.dev(), found.ino()) == self.made;
        if fs::symlink_metadata(&self.path).is_ok_and(|found| is_ours(&found)) {
            // Nobody can be told here; a socket that is left is replaced by the next one.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A path as a socket's address.
pub(super) fn address(path: &Path) -> Result<SocketAddrUnix, Errno> {
    SocketAddrUnix::new(path)
}

/// A socket that keeps messages apart and whole, and never blocks.
pub(super) fn seqpacket() -> Result<OwnedFd, Errno> {
    unbound(SocketType::SEQPACKET)
}

/// A socket without an address that never blocks.
fn unbound(kind: SocketType) -> Result<OwnedFd, Errno> {
    socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
}

/// Takes the lock of a folder, which is held for the time that a bind takes; for a second at most.
fn lock(folder: BorrowedFd<'_>) -> Result<(), Errno> {
    for _ in 0..100 {
        match flock(folder, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::AGAIN) => thread::sleep(Duration::from_millis(10)),
            // A kernel without file locks (CONFIG_FILE_LOCKING): of two who bind at once, one is refused by the kernel.
            Err(Errno::NOSYS) => return Ok(()),
            other => return other,
        }
    }
    flock(folder, FlockOperation::NonBlockingLockExclusive)
}

/// Removes a socket at which nobody listens; anything else is an error.
fn clear(path: &Path, address: &SocketAddrUnix) -> Result<(), BindError> {
    let kernel = |source| BindError::Kernel { path: path.to_path_buf(), source };
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found.map_err(kernel)?,
    };
    if !found.file_type().is_socket() {
        return Err(BindError::NotASocket { path: path.to_path_buf() });
    }
    let probe = seqpacket().map_err(|error| kernel(error.into()))?;
    match connect(&probe, address) {
        Err(Errno::CONNREFUSED) => fs::remove_file(path).map_err(kernel),
        // Connected, too busy to accept, a socket of another type, or not ours to connect to.
        _ => Err(BindError::InUse { path: path.to_path_buf() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;

    fn folder(name: &str) -> io::Result<PathBuf> {
        let folder = std::env::temp_dir().join(format!("peerdma-listener-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder)?;
        Ok(folder)
    }

    #[test]
    fn a_path_is_for_its_user_alone_and_goes_with_its_listener() {
        let folder = folder("mode").unwrap();
        let path = folder.join("socket");
        let listener = Listener::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(Listener::bind(&path), Err(BindError::InUse { .. })));
        drop(listener);
        assert!(!path.exists());
        fs::remove_dir(&folder).unwrap();
    }

    #[test]
    fn what_is_no_stale_socket_is_left_alone() {
        let folder = folder("stale").unwrap();
        let path = folder.join("file");
        fs::write(&path, "dear").unwrap();
        assert!(matches!(Listener::bind(&path), Err(BindError::NotASocket { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"dear");
        let other = folder.join("stream");
        let stream = UnixListener::bind(&other).unwrap();
        assert!(matches!(Listener::bind(&other), Err(BindError::InUse { .. })));
        drop(stream);
        // Nobody listens any more, and its path is still there.
        let listener = Listener::bind(&other).unwrap();
        // Somebody put something else in its place.
        fs::remove_file(&other).unwrap();
        fs::write(&other, "new").unwrap();
        drop(listener);
        assert_eq!(fs::read(&other).unwrap(), b"new");
        let long = folder.join("x".repeat(120));
        assert!(matches!(Listener::bind(&long), Err(BindError::TooLong { .. })));
        fs::remove_dir_all(&folder).unwrap();
    }
}
