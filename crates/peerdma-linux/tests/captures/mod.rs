//! The captures of `guests/`, for tests that hold something against real kernels.

use peerdma::topology::{Origin, Topology};
use peerdma_linux::assemble;
use peerdma_linux::capture::Capture;
use peerdma_linux::pci_names::PciNames;
use std::fs;
use std::path::{Path, PathBuf};

pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guests")
}

/// What the names of files with this end are without it, in order.
pub(crate) fn names_with(end: &str) -> Vec<String> {
    let names = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter_map(|name| Some(name.strip_suffix(end)?.to_string())).collect();
    names.sort();
    names
}

/// What `user` captured in `round`, which is named `GUEST.ROUND`.
pub(crate) fn topology(round: &str, user: &str) -> Topology {
    let bytes = fs::read(folder().join(format!("{round}.{user}.peerdma"))).unwrap();
    let snapshot = Capture::read(&bytes).unwrap().snapshot;
    assemble::builder(&snapshot, Origin::Sysfs, &PciNames::built_in()).unwrap().build()
}
