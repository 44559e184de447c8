//! Pins on the kernel that runs the tests.

mod accepted;
mod basics;
mod booked;
mod charges;
mod child;
mod direct;
mod diverged;
mod hand_on;
mod life;
mod limits;
mod refused;
mod settings;
mod unpinned;
mod withheld;

use super::{Limit, Options, Pinner, Ring, RingKind};
use peerdma::addr::Bytes;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

fn page() -> u64 {
    crate::memory::page_size().as_u64()
}

fn pages(count: u64) -> Bytes {
    Bytes::new(count * page())
}

/// A pinner of either kind of ring that this kernel has.
fn both_kinds() -> Vec<Pinner> {
    let best = Pinner::new().unwrap();
    let other = Pinner::with(Options::default().ring(Ring::Descriptor)).unwrap();
    assert_eq!(other.ring_kind(), RingKind::Descriptor);
    if best.ring_kind() == RingKind::Descriptor { vec![other] } else { vec![best, other] }
}

/// Whether a test may pin more than the few MiB that everybody may; says if not.
fn may_pin_much(test: &str) -> bool {
    let may = Limit::of_this_thread() == Limit::None;
    if !may {
        skip(test, "it pins more than RLIMIT_MEMLOCK commonly is, and this process has no CAP_IPC_LOCK");
    }
    may
}

/// Says that a check does not run here; past the harness, which keeps the output of tests that pass to itself.
fn skip(name: &str, reason: &str) {
    note(&format!("SKIPPED {name}: {reason}"));
}

/// Writes a line past the harness, in one piece: other threads write there too.
fn note(line: &str) {
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// A file of a test's own, removed when dropped.
struct Scratch {
    file: File,
    path: PathBuf,
}

impl Scratch {
    fn new(folder: &Path, bytes: &[u8]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!("peerdma-pins-{}-{number}", std::process::id()));
        let mut file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        file.write_all(bytes).unwrap();
        Self { file, path }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
