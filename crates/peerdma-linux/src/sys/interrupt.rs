//! Notices Ctrl-C instead of dying of it, while something has to be put back.
//!
//! UNSAFETY: `sigaction`. The handler stores one atomic flag and nothing else, which is
//! all that may be done in a signal handler. Written here and not taken from a crate of
//! signals: this is all of it, and the alternative adds two crates.

#![expect(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};

const SIGNALS: [libc::c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
/// Whether [`Handlers`] exist; there is one flag, so there is one of them at a time.
static TAKEN: AtomicBool = AtomicBool::new(false);

extern "C" fn note(_: libc::c_int) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// Handlers of SIGINT, SIGTERM and SIGHUP, given back when dropped.
#[derive(Debug)]
pub(crate) struct Handlers {
    /// What was there before, per signal that was taken over.
    before: Vec<(libc::c_int, Before)>,
}

struct Before(libc::sigaction);

impl std::fmt::Debug for Before {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Before")
    }
}

impl Handlers {
    /// Takes the signals over; `None` if somebody in this process has done so already.
    ///
    /// A signal that is ignored stays ignored, as `nohup` wants. The second signal of a
    /// kind ends the process as ever (`SA_RESETHAND`), for whoever cannot wait.
    pub(crate) fn install() -> Option<Self> {
        if TAKEN.swap(true, Ordering::Relaxed) {
            return None;
        }
        INTERRUPTED.store(false, Ordering::Relaxed);
        let mut before = Vec::new();
        for signal in SIGNALS {
            // SAFETY: all zeros is a valid `sigaction`: no flags, no handler, an empty mask.
            let mut old: libc::sigaction = unsafe { std::mem::zeroed() };
            let mut new = old;
            new.sa_sigaction = note as extern "C" fn(libc::c_int) as libc::sighandler_t;
            new.sa_flags = libc::SA_RESTART | libc::SA_RESETHAND;
            // SAFETY: both pointers are to live structures, one of them read, one written.
            let asked = unsafe { libc::sigaction(signal, std::ptr::null(), &mut old) };
            if asked != 0 || old.sa_sigaction == libc::SIG_IGN {
                continue;
            }
            // SAFETY: 1. As above. 2. `note` has the signature of a handler without
            // SA_SIGINFO and only does what a handler may.
            if unsafe { libc::sigaction(signal, &new, std::ptr::null_mut()) } == 0 {
                before.push((signal, Before(old)));
            }
        }
        Some(Self { before })
    }

    /// Whether a signal came since [`install`](Self::install).
    pub(crate) fn noticed(&self) -> bool {
        INTERRUPTED.load(Ordering::Relaxed)
    }
}

impl Drop for Handlers {
    fn drop(&mut self) {
        for (signal, before) in &self.before {
            // SAFETY: the structure is the one that the kernel gave for this signal.
            unsafe { libc::sigaction(*signal, &before.0, std::ptr::null_mut()) };
        }
        TAKEN.store(false, Ordering::Relaxed);
    }
}
