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

    #[test]
    fn one_part_of_a_process_watches_at_a_time() {
        let first = Interrupts::watch().unwrap();
        assert!(Interrupts::watch().is_none());
        assert!(!first.came());
        drop(first);
        assert!(Interrupts::watch().is_some());
    }
}
