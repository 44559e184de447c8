//! Notices Ctrl-C where something has to be put back before the process ends.
//!
//! Not here: what is put back; whoever watches asks between two steps and cleans up.

use crate::sys::interrupt::Handlers;

/// SIGINT, SIGTERM and SIGHUP are noted instead of ending the process, until dropped.
///
/// A signal that was ignored before stays ignored. The second of a kind ends the process at
/// once, as it would without this.
#[derive(Debug)]
pub struct Interrupts {
    handlers: Handlers,
}

impl Interrupts {
    /// Starts watching; `None` if another part of this process already does.
    ///
    /// ```
    /// use peerdma_linux::interrupt::Interrupts;
    ///
    /// let interrupts = Interrupts::watch().ok_or("somebody else watches")?;
    /// assert!(!interrupts.came());
    /// # Ok::<(), &str>(())
    /// ```
    pub fn watch() -> Option<Self> {
        Some(Self { handlers: Handlers::install()? })
    }

    /// Whether one of the signals came since then.
    pub fn came(&self) -> bool {
        self.handlers.noticed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Signal, getpid, kill_process};
    use std::thread;
    use std::time::Duration;

    /// Whether this process was started with the signal ignored, as a shell starts what it
    /// puts into the background.
    fn is_ignored(signal: Signal) -> bool {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let set = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap_or_default();
        let set = u64::from_str_radix(set.trim(), 16).unwrap_or_default();
        set >> (signal.as_raw() - 1) & 1 == 1
    }

    /// One test for both, since there is one watch in a process and tests share theirs.
    #[test]
    fn a_signal_is_noticed_instead_of_ending_the_process_by_one_watch_at_a_time() {
        for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
            let watch = Interrupts::watch().unwrap();
            assert!(Interrupts::watch().is_none());
            assert!(!watch.came(), "what came before is forgotten");
            kill_process(getpid(), signal).unwrap();
            if is_ignored(signal) {
                thread::sleep(Duration::from_millis(50));
                assert!(!watch.came(), "{signal:?} stays ignored");
                continue;
            }
            // Any thread of the process may take it, so it may come a moment later.
            let came = (0..1000).any(|_| {
                thread::sleep(Duration::from_millis(5));
                watch.came()
            });
            assert!(came, "{signal:?}");
        }
        assert!(Interrupts::watch().is_some());
    }
}
