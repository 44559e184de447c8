//! What is costly to make is made once: folders under `target/vm`, named by what went into them.
//!
//! A folder gets its name when it is complete, so one that is there can be used, and
//! whatever a killed run left behind is in the way of nobody. A lock file keeps two
//! tasks (the kernel build in the background of `.ci/run` and the tests that wait for
//! it) from making the same folder at once.

use crate::failure::Failure;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

/// Where everything of the virtual machines lies.
pub(super) fn top(root: &Path) -> PathBuf {
    // Cargo's own variable moves the folder with the rest of what is built.
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    // Programs are run in other folders, where a relative path would lead elsewhere.
    std::path::absolute(&target).unwrap_or(target).join("vm")
}

/// Sixteen digits that change with any of the parts.
pub(super) fn digest(parts: &[&[u8]]) -> String {
    let mut hasher = DefaultHasher::new();
    for part in parts {
        part.hash(&mut hasher);
    }
    format!("{:016x}", hasher.finish())
}

/// The folder `name`, made by `make` in a folder beside it if it is not there.
///
/// `make` gets an empty folder. Blocks while another task makes the same.
pub(super) fn folder(
    top: &Path,
    name: &str,
    make: impl FnOnce(&Path) -> Result<(), Failure>,
) -> Result<PathBuf, Failure> {
    let done = top.join(name);
    fs::create_dir_all(top).map_err(|error| Failure::io("create", top, &error))?;
    let _lock = lock(&top.join(format!("{name}.lock")))?;
    if done.is_dir() {
        return Ok(done);
    }
    let making = top.join(format!("{name}.part"));
    if making.exists() {
        fs::remove_dir_all(&making).map_err(|error| Failure::io("remove", &making, &error))?;
    }
    fs::create_dir(&making).map_err(|error| Failure::io("create", &making, &error))?;
    if let Err(failure) = make(&making) {
        // The reason is what counts; a remainder is removed by the next attempt too.
        let _ = fs::remove_dir_all(&making);
        return Err(failure);
    }
    fs::rename(&making, &done).map_err(|error| Failure::io("rename", &making, &error))?;
    Ok(done)
}

/// The folder that was last remembered under a key, if it is still there.
pub(super) fn remembered(top: &Path, key: &str) -> Option<PathBuf> {
    let name = fs::read_to_string(top.join(key)).ok()?;
    let folder = top.join(name.trim());
    (!name.trim().is_empty() && folder.is_dir()).then_some(folder)
}

/// Remembers a folder under a key, and removes the one that it takes the place of.
pub(super) fn remember(top: &Path, key: &str, folder: &Path) -> Result<(), Failure> {
    if let Some(before) = remembered(top, key)
        && before != folder
    {
        fs::remove_dir_all(&before).map_err(|error| Failure::io("remove", &before, &error))?;
    }
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let file = top.join(key);
    fs::write(&file, name).map_err(|error| Failure::io("write", &file, &error))
}

/// Holds a lock file until the value is dropped or this process ends. Blocks while another task holds it.
pub(super) fn lock(path: &Path) -> Result<File, Failure> {
    let file = File::create(path).map_err(|error| Failure::io("create", path, &error))?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)
        .map_err(|error| Failure::io("lock", path, &error.into()))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_made_once_and_never_half() {
        let top = std::env::temp_dir().join(format!("peerdma-vm-cache-{}", std::process::id()));
        let failed = folder(&top, "thing", |at| {
            fs::write(at.join("half"), "x").unwrap();
            Err(Failure::Stopped("no space".into()))
        });
        assert!(failed.is_err());
        assert!(!top.join("thing").exists() && !top.join("thing.part").exists());
        for _ in 0..2 {
            let mut made = 0;
            let at = folder(&top, "thing", |at| {
                made += 1;
                fs::write(at.join("whole"), "x").map_err(|error| Failure::io("write", at, &error))
            })
            .unwrap();
            assert!(made <= 1 && at.join("whole").is_file());
        }
        fs::remove_dir_all(&top).unwrap();
    }

    #[test]
    fn what_is_remembered_takes_the_place_of_what_was() {
        let top = std::env::temp_dir().join(format!("peerdma-vm-remember-{}", std::process::id()));
        let (old, new) = (top.join("small-1"), top.join("small-2"));
        for folder in [&old, &new] {
            fs::create_dir_all(folder).unwrap();
        }
        assert_eq!(remembered(&top, "small"), None);
        remember(&top, "small", &old).unwrap();
        remember(&top, "small", &old).unwrap();
        assert_eq!(remembered(&top, "small"), Some(old.clone()));
        remember(&top, "small", &new).unwrap();
        assert!(!old.exists() && new.is_dir());
        fs::remove_dir_all(&new).unwrap();
        assert_eq!(remembered(&top, "small"), None);
        fs::remove_dir_all(&top).unwrap();
    }

    #[test]
    fn a_digest_tells_where_one_part_ends() {
        assert_ne!(digest(&[b"ab", b"c"]), digest(&[b"a", b"bc"]));
        assert_eq!(digest(&[b"ab"]), digest(&[b"ab"]));
    }
}
