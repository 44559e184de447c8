//! Where the repository is and which files are its own.

use crate::failure::Failure;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The repository's top folder: the nearest one above with an `xtask` and a workspace.
pub(crate) fn root() -> Result<PathBuf, Failure> {
    let start = std::env::current_dir()
        .map_err(|error| Failure::Stopped(format!("cannot tell the current folder: {error}; change into one")))?;
    let is_root = |folder: &&Path| folder.join("xtask/Cargo.toml").is_file() && folder.join("Cargo.toml").is_file();
    start.ancestors().find(is_root).map(Path::to_path_buf).ok_or_else(|| {
        Failure::Stopped(format!("no folder above {} holds this workspace; run from inside it", start.display()))
    })
}

/// Relative paths of all files that git tracks or would track, sorted, with `/` between their parts.
pub(crate) fn files(root: &Path) -> Result<Vec<String>, Failure> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .map_err(|error| Failure::Stopped(format!("cannot run git: {error}; install it")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::Stopped(format!("git cannot list the files: {}; run from a clone", said.trim())));
    }
    let listed = String::from_utf8_lossy(&output.stdout);
    // Files deleted but still in the index are listed too.
    let mut files: Vec<String> =
        listed.split('\0').filter(|path| !path.is_empty() && root.join(path).is_file()).map(Into::into).collect();
    files.sort_unstable();
    files.dedup();
    Ok(files)
}

/// One text file of the repository.
#[derive(Clone, Debug)]
pub(crate) struct TextFile {
    /// Path below the top folder.
    pub(crate) path: String,
    /// Contents.
    pub(crate) text: String,
}

/// Reads the files for whose path `wanted` says yes.
pub(crate) fn read(root: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<TextFile>, Failure> {
    let chosen = files(root)?.into_iter().filter(|path| wanted(path));
    chosen
        .map(|path| {
            let at = root.join(&path);
            let text = fs::read_to_string(&at).map_err(|error| Failure::io("read", &at, &error))?;
            Ok(TextFile { path, text })
        })
        .collect()
}
