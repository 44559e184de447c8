//! A sign of life on standard error for anything that takes over two seconds.

use peerdma::addr::Bytes;
use std::io::{self, IsTerminal, Write};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Says how far a piece of work is on standard error, after two seconds and then every five, if
/// somebody looks.
#[derive(Debug)]
pub(crate) struct Steps {
    next: Option<Instant>,
}

impl Steps {
    /// Starts watching; silent if nobody looks.
    pub(crate) fn new() -> Self {
        Self { next: io::stderr().is_terminal().then(|| Instant::now() + Duration::from_secs(2)) }
    }

    /// Between two steps of the work.
    pub(crate) fn show(&mut self, what: &str, done: Bytes, total: Bytes) {
        if self.next.is_some_and(|next| Instant::now() >= next) {
            // A closed standard error is no reason to stop the work.
            let _ = writeln!(io::stderr(), "still {what} ({done} of {total})");
            self.next = Some(Instant::now() + Duration::from_secs(5));
        }
    }
}

/// Prints what is being done after two seconds, then every five, until dropped.
#[derive(Debug)]
pub(crate) struct Progress {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Progress {
    /// Starts watching; silent if the work ends soon or nobody looks.
    pub(crate) fn start(what: &'static str) -> Self {
        if !io::stderr().is_terminal() {
            return Self { stop: None, thread: None };
        }
        let (stop, stopped) = mpsc::channel();
        let begun = Instant::now();
        let thread = thread::spawn(move || {
            let mut wait = Duration::from_secs(2);
            while stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                // A closed standard error is no reason to stop the work.
                let _ = writeln!(io::stderr(), "still {what} ({} s)", begun.elapsed().as_secs());
                wait = Duration::from_secs(5);
            }
        });
        Self { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        // Dropping the sender ends the wait.
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
