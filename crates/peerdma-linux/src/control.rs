//! A path at which a process says what it is at, to whoever of the same user asks.
//!
//! There is no request: who connects is sent one document, to its end. The path has the rules of
//! [`share`](crate::share)'s: made with mode 0600, replaced if nobody listens there, removed when dropped.
//!
//! ```
//! use peerdma_linux::control::{Control, ask};
//! use std::time::Duration;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let path = std::env::temp_dir().join(format!("peerdma-control-{}", std::process::id()));
//! let control = Control::bind(&path)?;
//! let asked = std::thread::spawn({
//!     let path = path.clone();
//!     move || ask(&path, Duration::from_secs(10))
//! });
//! while control.answer(|| b"{}".to_vec())? == 0 {
//!     std::thread::yield_now(); // The work of the process.
//! }
//! assert_eq!(asked.join().unwrap()?, b"{}");
//! # Ok(())
//! # }
//! ```

use crate::share::{BindError, Listener};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long one who does not read holds up the process that answers.
const PATIENCE: Duration = Duration::from_millis(100);
/// How many are answered at a time.
const AT_ONCE: usize = 16;
/// The longest answer that is read, in bytes: nothing that a process says of itself is longer.
const LONGEST: u64 = 16 << 20;

/// Why a process was not asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// Nobody is there.
    #[error("nobody answers at {}; start what is to be asked, or name its path", path.display())]
    Nobody {
        /// Where.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// It did not say everything in time.
    #[error("who listens at {} does not answer; look whether it is stopped", path.display())]
    Silent {
        /// Where.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// It says too much.
    #[error("who listens at {} says more than {LONGEST} bytes; it is not peerdma", path.display())]
    TooLong {
        /// Where.
        path: PathBuf,
    },
}

/// Answers those who ask. Its path is removed when it is dropped.
#[derive(Debug)]
pub struct Control {
    listener: Listener,
}

impl Control {
    /// Listens at this path, which only the same user (and root) may connect to.
    ///
    /// # Errors
    /// [`BindError`]; nothing that was there has changed.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        Ok(Self { listener: Listener::streams(path)? })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.listener.path()
    }

    /// Answers those who have connected since, 16 at most, and says how many. `document` is made once, if anybody
    /// is there.
    ///
    /// Does not wait for anybody to connect; for one who does not read, 100 ms at most, and what he was to be told
    /// is lost.
    ///
    /// # Errors
    /// The kernel's, where it gives no connection although there may be some: it has no descriptors left, mostly.
    pub fn answer(&self, document: impl FnOnce() -> Vec<u8>) -> io::Result<usize> {
        let mut asking = Vec::new();
        while asking.len() < AT_ONCE {
            match accept_with(self.listener.as_fd(), SocketFlags::CLOEXEC) {
                Ok(stream) => asking.push(UnixStream::from(stream)),
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if asking.is_empty() {
            return Ok(0);
        }
        let document = document();
        for stream in &mut asking {
            // One who has gone, or does not read, is no concern of those who work here.
            let _ = stream.set_write_timeout(Some(PATIENCE)).and_then(|()| stream.write_all(&document));
        }
        Ok(asking.len())
    }
}

/// Number of the user that this process works as, for paths that are his alone.
pub fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Asks whoever listens at this path. Waits for `patience` at most for each part of the answer.
///
/// # Errors
/// [`AskError`].
pub fn ask(path: &Path, patience: Duration) -> Result<Vec<u8>, AskError> {
    let nobody = |source| AskError::Nobody { path: path.to_path_buf(), source };
    let silent = |source| AskError::Silent { path: path.to_path_buf(), source };
    let stream = UnixStream::connect(path).map_err(nobody)?;
    stream.set_read_timeout(Some(patience.max(Duration::from_millis(1)))).map_err(silent)?;
    let mut answer = Vec::new();
    stream.take(LONGEST + 1).read_to_end(&mut answer).map_err(silent)?;
    if answer.len() as u64 > LONGEST {
        return Err(AskError::TooLong { path: path.to_path_buf() });
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("peerdma-control-{name}-{}", std::process::id()))
    }

    #[test]
    fn everybody_who_asks_is_told_the_same_and_nobody_who_does_not_read_is_waited_for() {
        let path = path("all");
        let control = Control::bind(&path).unwrap();
        assert_eq!(control.answer(|| unreachable!("nobody has asked")).unwrap(), 0);
        let idle: Vec<_> = (0..3).map(|_| UnixStream::connect(&path).unwrap()).collect();
        // More than the kernel keeps for one who does not read.
        let long = vec![7; 4 << 20];
        assert_eq!(control.answer(|| long.clone()).unwrap(), 3);
        drop(idle);
        let asked: Vec<_> = (0..3)
            .map(|_| {
                thread::spawn({
                    let path = path.clone();
                    move || ask(&path, Duration::from_secs(60)).unwrap()
                })
            })
            .collect();
        let mut answered = 0;
        while answered < 3 {
            answered += control.answer(|| b"state".to_vec()).unwrap();
        }
        assert!(asked.into_iter().all(|asked| asked.join().unwrap() == b"state"));
        drop(control);
        assert!(!path.exists());
    }

    #[test]
    fn who_is_not_there_or_says_nothing_is_named() {
        let path = path("none");
        assert!(matches!(ask(&path, Duration::from_secs(1)), Err(AskError::Nobody { .. })));
        let _control = Control::bind(&path).unwrap();
        let error = ask(&path, Duration::from_millis(10)).unwrap_err();
        assert!(matches!(error, AskError::Silent { .. }), "{error}");
    }
}
