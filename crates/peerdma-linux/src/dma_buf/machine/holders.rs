//! Which processes hold dma-bufs, by what `/proc` shows of their descriptors.

use super::super::buf::DmaBufId;
use super::super::fdinfo;
use super::{HeldBy, Listed};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

/// What was seen in all processes.
#[derive(Default)]
pub(super) struct Scanned {
    /// Each dma-buf with each holder.
    pub(super) found: Vec<(Listed, HeldBy)>,
    /// How many processes may not be looked at.
    pub(super) refused: u32,
}

pub(super) fn scan(proc: &Path) -> io::Result<Scanned> {
    let mut scanned = Scanned::default();
    for entry in fs::read_dir(proc)?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let of_process = match fs::read_dir(entry.path().join("fdinfo")) {
            Ok(entries) => entries,
            Err(error) => {
                // One that has ended meanwhile holds nothing.
                scanned.refused += u32::from(error.kind() == io::ErrorKind::PermissionDenied);
                continue;
            }
        };
        let mut held: BTreeMap<DmaBufId, (Listed, u32)> = BTreeMap::new();
        for descriptor in of_process.flatten() {
            let Some(found) = look(&descriptor.path()) else { continue };
            held.entry(found.id).or_insert((found, 0)).1 += 1;
        }
        if held.is_empty() {
            continue;
        }
        let command = fs::read(entry.path().join("comm")).ok();
        let command = command.map(|text| String::from_utf8_lossy(&text).trim_end().to_string());
        let holder = |descriptors| HeldBy { pid, command: command.clone(), descriptors };
        scanned.found.extend(held.into_values().map(|(found, count)| (found, holder(count))));
    }
    scanned.found.sort_by_key(|(found, holder)| (found.id, holder.pid));
    Ok(scanned)
}

fn look(fdinfo: &Path) -> Option<Listed> {
    let text = fs::read(fdinfo).ok()?;
    let info = fdinfo::parse(&String::from_utf8_lossy(&text))?;
    Some(Listed {
        id: DmaBufId(info.inode?),
        size: info.size,
        exporter: info.exporter,
        name: info.name,
        importers: None,
        holders: Vec::new(),
    })
}
