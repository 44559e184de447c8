//! Programs for the guest: ours, built static, or one that the caller brings.

use super::process::{bound, tail};
use crate::failure::Failure;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What the guest runs without a C library of its own.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The guest holds it twice for a moment, packed and unpacked, and has 1 GiB of memory.
const LARGEST: u64 = 256 << 20;

/// A program of this workspace that runs in guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Own {
    /// The command line.
    Peerdma,
    /// The checks that only run in a guest.
    Guest,
}

impl Own {
    pub(super) fn by_name(name: &str) -> Option<Self> {
        [Self::Peerdma, Self::Guest].into_iter().find(|own| own.name() == name)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Peerdma => "peerdma",
            Self::Guest => "peerdma-guest",
        }
    }

    fn package(self) -> &'static str {
        match self {
            Self::Peerdma => "peerdma-cli",
            Self::Guest => "peerdma-guest",
        }
    }
}

/// Builds programs of the workspace so that they run in a guest, and says where they are.
pub(super) fn build(root: &Path, top: &Path, programs: &[Own]) -> Result<Vec<PathBuf>, Failure> {
    // A folder of its own: other flags than the workspace's would build everything anew each time.
    let target = top.join("static");
    let mut command = bound("cargo");
    command.current_dir(root).args(["build", "--release", "--target", TARGET]);
    for program in programs {
        command.args(["-p", program.package()]);
    }
    command.env("CARGO_TARGET_DIR", &target).env("RUSTFLAGS", "-C target-feature=+crt-static");
    // Cargo set these for this very process, and they name another package.
    command.env_remove("CARGO_MANIFEST_DIR").env_remove("CARGO_PKG_NAME");
    say!("vm: building {}", programs.iter().map(|program| program.name()).collect::<Vec<_>>().join(" and "));
    run(command)?;
    Ok(programs.iter().map(|program| target.join(TARGET).join("release").join(program.name())).collect())
}

/// Builds the guest's checks once more, linked dynamically, for what loads libraries at run time.
pub(super) fn build_dynamic(root: &Path, top: &Path) -> Result<PathBuf, Failure> {
    dynamic(root, top, &["-p", Own::Guest.package()], Own::Guest.name())
}

/// Builds an example of a package, linked dynamically.
pub(super) fn build_example(root: &Path, top: &Path, package: &str, example: &str) -> Result<PathBuf, Failure> {
    dynamic(root, top, &["-p", package, "--example", example], &format!("examples/{example}"))
}

/// Unoptimised and in the workspace's own folder, where the tests' build has most of it already: what such programs do is
/// wait for devices.
fn dynamic(root: &Path, top: &Path, what: &[&str], built: &str) -> Result<PathBuf, Failure> {
    let target = top.parent().unwrap_or(top);
    let mut command = bound("cargo");
    command.current_dir(root).arg("build").args(what).env("CARGO_TARGET_DIR", target);
    command.env_remove("CARGO_MANIFEST_DIR").env_remove("CARGO_PKG_NAME");
    say!("vm: building {built}, linked dynamically");
    run(command)?;
    Ok(target.join("debug").join(built))
}

/// Runs cargo.
fn run(mut command: Command) -> Result<(), Failure> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Failure::Stopped(format!("cannot run cargo: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = tail(&String::from_utf8_lossy(&output.stderr), 30);
    Err(Failure::Stopped(format!("the guest's programs do not build:\n{said}")))
}

/// Reads a program for the guest, and refuses one that would not start there.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let about = fs::metadata(path).map_err(|error| Failure::io("read", path, &error))?;
    if !about.is_file() {
        return Err(Failure::Stopped(format!("{} is no file, so it is no program for the guest", path.display())));
    }
    if about.len() > LARGEST {
        return Err(Failure::Stopped(format!(
            "{} has {} MiB and a guest's memory takes a program of {} MiB at most; strip it",
            path.display(),
            about.len() >> 20,
            LARGEST >> 20
        )));
    }
    let bytes = fs::read(path).map_err(|error| Failure::io("read", path, &error))?;
    if let Some(loader) = interpreter(&bytes) {
        return Err(Failure::Stopped(format!(
            "{} is dynamically linked and asks for {loader}, which the guest does not have; build it with \
             RUSTFLAGS='-C target-feature=+crt-static' --target {TARGET}",
            path.display()
        )));
    }
    Ok(bytes)
}

/// The loader that a 64-bit ELF program names (segment type `PT_INTERP`, 3); `None` for a
/// static program and for anything that is no such file, a script for example.
fn interpreter(bytes: &[u8]) -> Option<String> {
    if bytes.get(..5)? != b"\x7fELF\x02" {
        return None;
    }
    let half = |at: usize| Some(usize::from(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?)));
    let quad =
        |at: usize| usize::try_from(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?)).ok();
    let (table, size, count) = (quad(0x20)?, half(0x36)?, half(0x38)?);
    (0..count).find_map(|index| {
        let segment = table.checked_add(index.checked_mul(size)?)?;
        let kind = bytes.get(segment..segment.checked_add(4)?)?;
        if kind != 3u32.to_le_bytes() {
            return None;
        }
        let (offset, length) = (quad(segment + 8)?, quad(segment + 32)?);
        let name = bytes.get(offset..offset.checked_add(length)?)?;
        Some(String::from_utf8_lossy(name).trim_end_matches('\0').to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_program_is_refused_by_its_loader() {
        // This very test is a dynamic program.
        let own = std::env::current_exe().unwrap();
        let bytes = fs::read(&own).unwrap();
        if interpreter(&bytes).is_some() {
            assert!(read(&own).unwrap_err().to_string().contains("dynamically linked"));
        }
        assert_eq!(interpreter(b"#!/bin/sh\n"), None);
    }

    #[test]
    fn what_is_no_file_is_no_program() {
        for path in ["/dev/zero", "/"] {
            assert!(read(Path::new(path)).unwrap_err().to_string().contains("no file"), "{path}");
        }
    }

    #[test]
    fn a_damaged_program_is_no_panic() {
        let own = fs::read(std::env::current_exe().unwrap()).unwrap();
        for length in 0..256 {
            interpreter(&own[..length]);
        }
        let mut wild = own[..4096].to_vec();
        wild[0x20..0x28].fill(0xff);
        assert_eq!(interpreter(&wild), None);
    }
}
