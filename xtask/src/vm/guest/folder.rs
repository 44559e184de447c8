//! Where the files of one boot lie while it runs.

use crate::failure::Failure;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A folder for the files of one boot, removed with the value.
///
/// A run that was killed cannot remove its own; the next one does, told by the process id in the name.
pub(super) struct RunFolder(PathBuf);

impl RunFolder {
    pub(super) fn create(top: &Path) -> Result<Self, Failure> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let runs = top.join("runs");
        fs::create_dir_all(&runs).map_err(|error| Failure::io("create", &runs, &error))?;
        remove_orphans(&runs);
        let name = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = runs.join(name);
        // In containers a killed run had this very process id more often than not.
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(|error| Failure::io("remove", &folder, &error))?;
        }
        fs::create_dir(&folder).map_err(|error| Failure::io("create", &folder, &error))?;
        Ok(Self(folder))
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        // Nothing to do about a folder that does not go; the next run tries again.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn remove_orphans(runs: &Path) {
    for entry in fs::read_dir(runs).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.split('-').next().unwrap_or_default();
        if !owner.is_empty() && !Path::new("/proc").join(owner).exists() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_of_a_killed_run_is_removed_by_the_next() {
        let top = std::env::temp_dir().join(format!("peerdma-vm-runs-{}", std::process::id()));
        // No process has this id: it is above the kernel's largest, 2^22.
        let orphan = top.join("runs/4194305-0");
        fs::create_dir_all(&orphan).unwrap();
        let folder = RunFolder::create(&top).unwrap();
        assert!(!orphan.exists() && folder.path("").is_dir());
        drop(folder);
        assert_eq!(fs::read_dir(top.join("runs")).unwrap().count(), 0);
        fs::remove_dir_all(&top).unwrap();
    }

    #[test]
    fn a_killed_run_of_the_same_process_id_is_in_nobodys_way() {
        let top = std::env::temp_dir().join(format!("peerdma-vm-same-{}", std::process::id()));
        for count in 0..64 {
            let left = top.join(format!("runs/{}-{count}/initrd", std::process::id()));
            fs::create_dir_all(&left).unwrap();
        }
        let folder = RunFolder::create(&top).unwrap();
        assert_eq!(fs::read_dir(folder.path("")).unwrap().count(), 0);
        drop(folder);
        fs::remove_dir_all(&top).unwrap();
    }
}
