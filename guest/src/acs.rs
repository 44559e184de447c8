//! Writes ACS control words at run time, as an administrator with `setpci` would.
//!
//! Linux programs these words when it meets a device and never looks at them again
//! until somebody asks about a route, so writing them behind its back is the way to
//! bring a guest into states that no firmware leaves it in.

use crate::failure::Failure;
use peerdma::pcie::PciAddr;
use peerdma::pcie::caps::{self, Lookup, extended};
use peerdma::pcie::config::{ConfigBytes, ConfigSize};
use serde::Serialize;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Control word, relative to the capability (PCIe 6.0 §7.7.11.3).
const CONTROL: u64 = 6;

/// What became of one word.
#[derive(Serialize, Debug)]
pub(crate) struct Written {
    /// Address of the function.
    function: String,
    /// The word that was there.
    was: u16,
    /// The word written.
    wrote: u16,
    /// The word that is there now; bits that the function does not implement stay 0.
    reads: u16,
}

/// The functions with an ACS capability, in order of addresses, each with its offset.
fn carriers() -> Result<Vec<(PciAddr, PathBuf, u64)>, Failure> {
    let devices = PathBuf::from("/sys/bus/pci/devices");
    let mut found = Vec::new();
    for entry in fs::read_dir(&devices).map_err(Failure::file("list", &devices))? {
        let entry = entry.map_err(Failure::file("list", &devices))?;
        let Some(address) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let path = entry.path().join("config");
        let bytes = fs::read(&path).map_err(Failure::file("read", &path))?;
        let size = u16::try_from(bytes.len()).map_or(ConfigSize::Unknown, ConfigSize::Kernel);
        if let Lookup::At(offset) = caps::extended_list(&ConfigBytes::new(bytes, size)).find(extended::ACS) {
            found.push((address, path, u64::from(offset)));
        }
    }
    found.sort_unstable_by_key(|(address, ..)| *address);
    Ok(found)
}

/// Gives the functions with an ACS capability the given words, in turn and starting
/// over when the words are used up, so that a guest's layout need not be known.
///
/// # Errors
/// A config space that cannot be read or written; the words before it stay written.
pub(crate) fn write_in_turn(words: &[u16]) -> Result<Vec<Written>, Failure> {
    let pairs = carriers()?.into_iter().zip(words.iter().cycle());
    pairs.map(|((address, path, offset), &word)| write(address, &path, offset + CONTROL, word)).collect()
}

/// Gives the bits of `mask` in the word at `offset` of one function's ACS capability those of
/// `value`.
///
/// # Errors
/// A function without the capability, or a config space that cannot be read or written.
pub(crate) fn assign(address: PciAddr, offset: u64, value: u16, mask: u16) -> Result<Written, Failure> {
    let carrier = carriers()?.into_iter().find(|(carrier, ..)| *carrier == address);
    let (_, path, capability) = carrier.ok_or(Failure::NoAcs { address })?;
    let file = File::open(&path).map_err(Failure::file("open", &path))?;
    let was = read(&file, &path, capability + offset)?;
    write(address, &path, capability + offset, (was & !mask) | (value & mask))
}

fn write(address: PciAddr, path: &Path, at: u64, word: u16) -> Result<Written, Failure> {
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(Failure::file("open", path))?;
    let was = read(&file, path, at)?;
    file.write_all_at(&word.to_le_bytes(), at).map_err(Failure::file("write", path))?;
    Ok(Written { function: address.to_string(), was, wrote: word, reads: read(&file, path, at)? })
}

fn read(file: &File, path: &Path, at: u64) -> Result<u16, Failure> {
    let mut word = [0; 2];
    file.read_exact_at(&mut word, at).map_err(Failure::file("read", path))?;
    Ok(u16::from_le_bytes(word))
}
