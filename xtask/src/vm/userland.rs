//! What a dynamically linked program finds in a guest: Debian's C library, libibverbs and soft-RoCE's provider.
//!
//! Of the machine's own release, whose C library is the one that programs built here ask for. Packages are unpacked
//! into a folder of ours, and nothing of them is installed.

use super::apt::{self, NotOffered, Package, Suite};
use super::guest::GuestFile;
use super::{cache, stock};
use crate::failure::Failure;
use std::fs;
use std::path::{Path, PathBuf};

const PACKAGES: [&str; 6] =
    ["libc6", "libgcc-s1", "libibverbs1", "ibverbs-providers", "libnl-3-200", "libnl-route-3-200"];

/// Under which the unpacked packages are remembered.
const REMEMBERED: &str = "rdma";

/// Files by the start of their names, and where the guest has them.
const FILES: [(&str, &str); 9] = [
    ("ld-linux-x86-64.so.2", "lib64"),
    ("libc.so.6", "lib/x86_64-linux-gnu"),
    ("libm.so.6", "lib/x86_64-linux-gnu"),
    ("libgcc_s.so.1", "lib/x86_64-linux-gnu"),
    ("libibverbs.so.1", "lib/x86_64-linux-gnu"),
    ("libnl-3.so.200", "lib/x86_64-linux-gnu"),
    ("libnl-route-3.so.200", "lib/x86_64-linux-gnu"),
    ("librxe-rdmav", "usr/lib/x86_64-linux-gnu/libibverbs"),
    ("rxe.driver", "etc/libibverbs.d"),
];

/// The files, fetched once. What was found is used until `target/vm` is removed.
///
/// # Errors
/// The machine's release does not offer a package, or its layout has changed.
pub(super) fn rdma(top: &Path) -> Result<Vec<GuestFile>, Failure> {
    let folder = match cache::remembered(top, REMEMBERED) {
        Some(folder) => folder,
        None => fetched(top)?,
    };
    FILES.iter().map(|(name, place)| file(&folder, name, place)).collect()
}

fn fetched(top: &Path) -> Result<PathBuf, Failure> {
    let mirror = apt::mirror(top)?.ok_or_else(|| {
        Failure::Stopped("apt's configuration names no Debian archive, where libibverbs would come from".into())
    })?;
    let suite = Suite::fetch(top, &mirror, &[&mirror.codename]).map_err(|why| match why {
        NotOffered::Absent(reason) => Failure::Stopped(reason),
        NotOffered::Failed(failure) => failure,
    })?;
    let package = |name: &&str| {
        suite.package(name)?.ok_or_else(|| Failure::Stopped(format!("{} has no package {name}", suite.name)))
    };
    let packages: Vec<Package> = PACKAGES.iter().map(package).collect::<Result<_, _>>()?;
    let digests: Vec<&[u8]> = packages.iter().map(|package| package.sha256.as_bytes()).collect();
    let name = format!("rdma-{}", cache::digest(&digests));
    say!("vm: unpacking libibverbs of {}", suite.name);
    let folder = cache::folder(top, &name, |at| {
        let wanted: Vec<&Package> = packages.iter().collect();
        let downloads = at.join("packages");
        fs::create_dir(&downloads).map_err(|error| Failure::io("create", &downloads, &error))?;
        for package in suite.download(&wanted, &downloads)? {
            stock::extract(&package, at)?;
        }
        fs::remove_dir_all(&downloads).map_err(|error| Failure::io("remove", &downloads, &error))
    })?;
    cache::remember(top, REMEMBERED, &folder)?;
    Ok(folder)
}

/// One file, wherever its package has it: releases differ in what lies below `/usr`.
fn file(folder: &Path, start: &str, place: &str) -> Result<GuestFile, Failure> {
    let roots = ["lib64", "lib/x86_64-linux-gnu", "usr/lib64", "usr/lib/x86_64-linux-gnu", place];
    let found = roots.iter().find_map(|root| named(&folder.join(root), start)).ok_or_else(|| {
        Failure::Stopped(format!(
            "no {start} in the packages below {}: their layout has changed; `FILES` in xtask/src/vm/userland.rs lists the \
             places that are known",
            folder.display()
        ))
    })?;
    let name = found.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let bytes = fs::read(&found).map_err(|error| Failure::io("read", &found, &error))?;
    Ok(GuestFile { path: format!("{place}/{name}"), mode: 0o755, bytes })
}

/// The file whose name is this, or begins so where it carries a version; a link to another root leads nowhere here.
fn named(folder: &Path, start: &str) -> Option<PathBuf> {
    let mut files = fs::read_dir(folder).ok()?.flatten().map(|file| file.path());
    let is_it = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        (name == start || (start.ends_with("rdmav") && name.starts_with(start))) && path.is_file()
    };
    files.find(is_it)
}
