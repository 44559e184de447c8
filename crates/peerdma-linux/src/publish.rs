//! Writes a file so that it is there whole or not at all.
//!
//! The bytes go into a file without a name (`O_TMPFILE`), which gets its name when
//! it is complete; a program that is killed in between leaves nothing behind. On
//! file systems without such files it is written under its own name and taken away
//! again if that fails.

use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, openat};
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// Writes `bytes` to a new file at `path`.
///
/// # Errors
/// `AlreadyExists` if there is something at `path` and `replace` is not set; any
/// error of the file system else.
pub fn publish(path: &Path, bytes: &[u8], replace: bool) -> io::Result<()> {
    if !replace && path.symlink_metadata().is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH;
    match openat(CWD, folder, OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC, mode) {
        Ok(nameless) => {
            let mut file = File::from(nameless);
            file.write_all(bytes)?;
            file.sync_all()?;
            name(&file, path, replace)
        }
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => named_from_the_start(path, bytes, replace),
        Err(error) => Err(error.into()),
    }
}

fn name(file: &File, path: &Path, replace: bool) -> io::Result<()> {
    let through = format!("/proc/self/fd/{}", file.as_raw_fd());
    let link = |to: &Path| linkat(CWD, &through, CWD, to, AtFlags::SYMLINK_FOLLOW);
    match link(path) {
        // linkat cannot replace, rename can.
        Err(Errno::EXIST) if replace => {
            let beside = beside(path);
            link(&beside)?;
            rename(&beside, path)
        }
        result => Ok(result?),
    }
}

fn named_from_the_start(path: &Path, bytes: &[u8], replace: bool) -> io::Result<()> {
    let beside = beside(path);
    let at = if replace { &beside } else { path };
    let mut file = OpenOptions::new().write(true).create_new(true).open(at)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).inspect_err(|_| {
        let _ = fs::remove_file(at);
    })?;
    if replace { rename(at, path) } else { Ok(()) }
}

/// A name in the same folder that nobody else takes.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(format!(".{}", std::process::id()));
    name.into()
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to).inspect_err(|_| {
        let _ = fs::remove_file(from);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_existing_file_is_replaced_only_when_told() {
        let folder = std::env::temp_dir().join(format!("peerdma-publish-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let path = folder.join("capture");
        publish(&path, b"one", false).unwrap();
        assert_eq!(publish(&path, b"two", false).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"one");
        publish(&path, b"two", true).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        named_from_the_start(&path, b"three", true).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"three");
        assert!(named_from_the_start(&path, b"four", false).is_err());
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing else is left behind");
        fs::remove_dir_all(&folder).unwrap();
    }
}
