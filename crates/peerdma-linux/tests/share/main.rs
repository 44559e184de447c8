//! Buffers that cross processes, with real processes: killed, stopped, lying, flooding, of other versions.
//!
//! Importers run as this same program, started with a role in its environment ([`child`]). No test waits for
//! anything by time but for what must not happen: deadlines are generous, and reached only by failures.

#![cfg(test)]

mod child;
mod crowd;
mod deaths;
mod manners;
mod permissions;
mod raw;
mod relay;
mod strangers;

use peerdma::access::Prot;
use peerdma::addr::Bytes;
use peerdma::buffer::wire::Declare;
use peerdma::buffer::{Enforcement, Lifetime};
use peerdma_linux::share::{Exporter, Happened, Listener, Memory, Shared};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A moment that only a failure reaches.
fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// A folder of a test's own, removed with what is in it.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("peerdma-{test}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("socket")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const SIZE: Bytes = Bytes::new(0x10000);

fn exporter(path: &Path, shared: Shared) -> Exporter {
    let memory = Memory::create(&shared.name, SIZE).unwrap();
    memory.write(Bytes::ZERO, b"first").unwrap();
    Exporter::new(Listener::bind(path).unwrap(), memory, shared).unwrap()
}

fn frames() -> Shared {
    Shared::named("frames")
}

/// An importer that lets go when told, and says so.
fn cooperative(name: &str) -> Declare {
    Declare {
        takes: Lifetime::Revocable,
        enforcement: Enforcement::Cooperative,
        ..Declare::of_process(name, Prot::ReadWrite)
    }
}

/// Serves until something has happened, and tells what.
fn until<T>(exporter: &mut Exporter, mut wanted: impl FnMut(&Happened) -> Option<T>) -> T {
    let end = soon();
    let mut seen = Vec::new();
    while let Some(happened) = exporter.serve(end).unwrap() {
        if let Some(found) = wanted(&happened) {
            return found;
        }
        seen.push(happened);
    }
    unreachable!("it did not happen, but {seen:?}")
}

fn attached(happened: &Happened) -> Option<peerdma::buffer::life::AttachmentId> {
    match happened {
        Happened::Attached { who, .. } => Some(*who),
        _ => None,
    }
}

fn mapped(happened: &Happened) -> Option<()> {
    matches!(happened, Happened::Mapped { .. }).then_some(())
}
