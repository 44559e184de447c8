//! What guests said, kept so that `cargo test` needs no guest to repeat the comparison.
//!
//! Three files a round: both captures as `peerdma capture` wrote them, and the kernel's
//! answers as the module wrote them, compressed. Nothing in them is of a real machine.

use super::plan::GuestPlan;
use crate::failure::Failure;
use crate::vm::guest::Outcome;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::fs;
use std::io::Write;
use std::path::Path;

/// Where `cargo test -p peerdma-linux` looks for them, below the top folder.
const FOLDER: &str = "crates/peerdma-linux/tests/guests";

/// Keeps one guest's rounds, replacing what an earlier guest of the name left.
///
/// # Errors
///
/// A file that the guest did not leave, or that cannot be written.
pub(crate) fn write(root: &Path, plan: &GuestPlan, outcome: &Outcome) -> Result<(), Failure> {
    let folder = root.join(FOLDER);
    fs::create_dir_all(&folder).map_err(|error| Failure::io("create", &folder, &error))?;
    for round in 0..plan.rounds() {
        for (kept, compress) in [("root.peerdma", false), ("user.peerdma", false), ("kernel", true)] {
            let name = format!("{round}.{kept}");
            let bytes = outcome.files.get(&name).ok_or_else(|| {
                Failure::Stopped(format!("guest {}: it did not leave {name}, so there is nothing to keep", plan.name))
            })?;
            let path = folder.join(format!("{}.{name}{}", plan.name, if compress { ".gz" } else { "" }));
            let bytes = if compress { compressed(bytes) } else { Ok(bytes.clone()) };
            bytes.and_then(|bytes| fs::write(&path, bytes)).map_err(|error| Failure::io("write", &path, &error))?;
        }
    }
    Ok(())
}

/// Without a time in its head, so that the same answers give the same file.
fn compressed(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes)?;
    encoder.finish()
}
