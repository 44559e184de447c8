//! The copy of the working tree that is broken instead of the tree itself.

use crate::failure::Failure;
use crate::repo;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

/// Makes `tree` hold exactly the repository's files.
///
/// A file that is the same already keeps its time stamp, so that the build made
/// from the copy stays good; this also undoes what an interrupted run left broken.
pub(super) fn bring_up_to_date(root: &Path, tree: &Path) -> Result<(), Failure> {
    let files = repo::files(root)?;
    for file in &files {
        let (from, to) = (root.join(file), tree.join(file));
        let wanted = fs::read(&from).map_err(|error| Failure::io("read", &from, &error))?;
        if fs::read(&to).is_ok_and(|there| there == wanted) {
            continue;
        }
        write(&to, &wanted).map_err(|error| Failure::io("write", &to, &error))?;
    }
    let wanted: BTreeSet<&str> = files.iter().map(String::as_str).collect();
    remove_others(tree, "", &wanted).map_err(|error| Failure::io("tidy up", tree, &error))
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, bytes)
}

/// Removes files that are not wanted; `below` is the path of `folder` within the copy.
fn remove_others(folder: &Path, below: &str, wanted: &BTreeSet<&str>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let path = format!("{below}{}", name.to_string_lossy());
        if entry.file_type()?.is_dir() {
            remove_others(&entry.path(), &format!("{path}/"), wanted)?;
        } else if !wanted.contains(path.as_str()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
