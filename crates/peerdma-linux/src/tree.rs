//! A machine's `sys` and `proc`, live, copied into a folder, or in an archive.
//!
//! All readers of sysfs go through [`Tree`], with paths relative to the folder that
//! holds `sys`. A copy may come from anybody: only regular files are opened (a FIFO
//! would hang), reads are bounded, and an archive is held in memory, never unpacked.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::ops::Bound;
use std::path::{Path, PathBuf};

/// Most bytes read of one file.
const MAX_FILE: u64 = 1 << 20;
/// Most folders that a search returns: a domain has at most 65536 functions.
const MAX_FOUND: usize = 1 << 17;

/// Where the files are.
#[derive(Debug)]
pub struct Tree {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// `root` is what holds `proc` and `boot`, where that is the same machine's.
    Directory {
        root: Option<PathBuf>,
        sys: PathBuf,
        live: bool,
    },
    Archive(BTreeMap<String, Node>),
}

/// An entry of an archive, by its normalised path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    File(Vec<u8>),
    Link(String),
}

/// A folder does not hold a copy of sysfs.
#[derive(Debug, thiserror::Error)]
#[error("{path} holds no sys/bus/pci/devices and no sys/devices, nor does a folder in it", path = path.display())]
pub struct NotATree {
    path: PathBuf,
}

impl Tree {
    /// This machine.
    pub fn live() -> Self {
        Self { kind: Kind::Directory { root: Some("/".into()), sys: "/sys".into(), live: true } }
    }

    /// A folder that holds `sys`, one whose only such folder does, or `sys` itself.
    ///
    /// # Errors
    /// [`NotATree`] where none of these is a copy of sysfs; give another folder.
    pub fn from_directory(path: &Path) -> Result<Self, NotATree> {
        let is_sys = |path: &Path| path.join("bus/pci/devices").is_dir() || path.join("devices").is_dir();
        let found = if is_sys(&path.join("sys")) {
            path.join("sys")
        } else if is_sys(path) {
            path.to_path_buf()
        } else {
            let entries = fs::read_dir(path).into_iter().flatten();
            let mut below = entries.filter_map(|entry| Some(entry.ok()?.path().join("sys"))).filter(|sys| is_sys(sys));
            match (below.next(), below.next()) {
                (Some(only), None) => only,
                _ => return Err(NotATree { path: path.to_path_buf() }),
            }
        };
        let sys = fs::canonicalize(&found).map_err(|_| NotATree { path: path.to_path_buf() })?;
        if sys == Path::new("/sys") {
            return Ok(Self::live());
        }
        // `proc` lies beside `sys`; but beside a copy right below / lies this machine's.
        let beside = sys.parent().filter(|parent| *parent != Path::new("/") && sys.ends_with("sys"));
        let root = beside.map(Path::to_path_buf);
        Ok(Self { kind: Kind::Directory { root, sys, live: false } })
    }

    pub(crate) fn from_nodes(nodes: BTreeMap<String, Node>) -> Self {
        Self { kind: Kind::Archive(nodes) }
    }

    /// Whether this is the running machine's sysfs, whose file lengths are the kernel's.
    pub fn is_live(&self) -> bool {
        matches!(self.kind, Kind::Directory { live: true, .. })
    }

    fn on_disk(&self, path: &str) -> Option<PathBuf> {
        let Kind::Directory { root, sys, .. } = &self.kind else { return None };
        match path.strip_prefix("sys/") {
            Some(rest) => Some(sys.join(rest)),
            None => root.as_ref().map(|root| root.join(path)),
        }
    }

    /// As [`on_disk`](Self::on_disk), for reading: a link of a stranger's copy must not
    /// lead out of it, to files of this machine.
    fn readable(&self, path: &str) -> Option<PathBuf> {
        let found = self.on_disk(path)?;
        let Kind::Directory { root, sys, live: false } = &self.kind else { return Some(found) };
        let real = fs::canonicalize(&found).ok()?;
        let inside = real.starts_with(sys) || root.as_ref().is_some_and(|root| real.starts_with(root));
        inside.then_some(real)
    }

    /// The bytes of a file; `None` where it is missing, unreadable or no regular file.
    ///
    /// At most 1 MiB is read. A live sysfs file may give fewer bytes than its length.
    pub fn read(&self, path: &str) -> Option<Vec<u8>> {
        match &self.kind {
            Kind::Archive(nodes) => match nodes.get(path)? {
                Node::File(bytes) => Some(bytes.clone()),
                Node::Link(_) => None,
            },
            Kind::Directory { .. } => {
                let path = self.readable(path)?;
                if !fs::metadata(&path).ok()?.is_file() {
                    return None;
                }
                let mut bytes = Vec::new();
                match fs::File::open(&path).ok()?.take(MAX_FILE).read_to_end(&mut bytes) {
                    Ok(_) => Some(bytes),
                    // Some attributes fail half way; what came is still true.
                    Err(error) if error.kind() != io::ErrorKind::Interrupted && !bytes.is_empty() => Some(bytes),
                    Err(_) => None,
                }
            }
        }
    }

    /// A file as text without the white space around it.
    pub fn text(&self, path: &str) -> Option<String> {
        let bytes = self.read(path)?;
        Some(String::from_utf8_lossy(&bytes).trim().to_string())
    }

    /// Length of a live file as the kernel announces it.
    pub fn live_length(&self, path: &str) -> Option<u64> {
        if !self.is_live() {
            return None;
        }
        fs::metadata(self.on_disk(path)?).ok().map(|metadata| metadata.len())
    }

    /// Target of a symbolic link, as written.
    pub fn link(&self, path: &str) -> Option<String> {
        match &self.kind {
            Kind::Archive(nodes) => match nodes.get(path)? {
                Node::Link(target) => Some(target.clone()),
                Node::File(_) => None,
            },
            Kind::Directory { .. } => fs::read_link(self.on_disk(path)?).ok()?.to_str().map(str::to_string),
        }
    }

    /// Last component of a link's target: sysfs links name drivers, groups and functions so.
    pub fn link_name(&self, path: &str) -> Option<String> {
        self.link(path)?.rsplit('/').next().map(str::to_string)
    }

    /// Names in a folder, in order; empty where there is none.
    pub fn list(&self, path: &str) -> Vec<String> {
        match &self.kind {
            Kind::Archive(nodes) => {
                let prefix = format!("{path}/");
                let mut names: Vec<String> = Vec::new();
                let mut from = Bound::Included(prefix.clone());
                // From child to child, past everything below each: a folder may hold a whole tree.
                while let Some((key, _)) = nodes.range((from, Bound::Unbounded)).next() {
                    let Some(rest) = key.strip_prefix(&prefix) else { break };
                    from = match rest.split_once('/') {
                        // '0' comes right after '/'.
                        Some((name, _)) => {
                            names.push(name.to_string());
                            Bound::Included(format!("{prefix}{name}0"))
                        }
                        None => {
                            names.push(rest.to_string());
                            Bound::Excluded(key.clone())
                        }
                    };
                }
                names.sort();
                names.dedup();
                names
            }
            Kind::Directory { .. } => {
                let Some(path) = self.on_disk(path) else { return Vec::new() };
                let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
                let mut names: Vec<String> =
                    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
                names.sort();
                names
            }
        }
    }

    /// Whether there is a folder of this name, even an empty one.
    ///
    /// An archive shows a folder by what it holds only, so an empty one there is none.
    pub fn has_folder(&self, path: &str) -> bool {
        match &self.kind {
            Kind::Archive(nodes) => {
                let prefix = format!("{path}/");
                nodes.range(prefix.clone()..).next().is_some_and(|(key, _)| key.starts_with(&prefix))
            }
            Kind::Directory { .. } => self.readable(path).is_some_and(|path| path.is_dir()),
        }
    }

    /// Folders below `path` whose names satisfy `wanted`, at any depth, as paths.
    /// Links are not followed, so the walk ends.
    pub fn find_folders(&self, path: &str, wanted: &dyn Fn(&str) -> bool) -> Vec<String> {
        let mut found = Vec::new();
        match &self.kind {
            Kind::Archive(nodes) => {
                let prefix = format!("{path}/");
                let mut previous = "";
                for key in nodes.range(prefix.clone()..).map(|(key, _)| key).take_while(|key| key.starts_with(&prefix))
                {
                    // Folders shared with the key before were looked at then.
                    let shared = key.bytes().zip(previous.bytes()).take_while(|(a, b)| a == b).count();
                    let mut start = prefix.len();
                    // Every component but the last is a folder.
                    while let Some(slash) = key[start..].find('/') {
                        let end = start + slash;
                        if end >= shared && wanted(&key[start..end]) && found.len() < MAX_FOUND {
                            found.push(key[..end].to_string());
                        }
                        start = end + 1;
                    }
                    previous = key;
                }
                found.sort();
                found.dedup();
            }
            Kind::Directory { .. } => {
                let mut queue = vec![path.to_string()];
                while let Some(folder) = queue.pop() {
                    for name in self.list(&folder) {
                        let path = format!("{folder}/{name}");
                        let is_folder = self
                            .on_disk(&path)
                            .and_then(|path| fs::symlink_metadata(path).ok())
                            .is_some_and(|m| m.is_dir());
                        if is_folder {
                            if wanted(&name) {
                                found.push(path.clone());
                            }
                            queue.push(path);
                        }
                    }
                }
                found.sort();
            }
        }
        found
    }
}

/// Joins a link's target to the folder of the link, without asking a file system.
pub(crate) fn resolve(folder: &str, target: &str) -> String {
    let mut parts: Vec<&str> = if target.starts_with('/') { Vec::new() } else { folder.split('/').collect() };
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_link_is_joined_to_its_folder() {
        assert_eq!(
            resolve("sys/bus/pci/devices", "../../../devices/pci0000:00/0000:00:01.0"),
            "sys/devices/pci0000:00/0000:00:01.0"
        );
        assert_eq!(resolve("a", "../../../../b"), "b");
    }

    #[test]
    fn folders_of_an_archive_are_listed_once_and_in_order() {
        let file = || Node::File(Vec::new());
        let nodes =
            [("sys/a/x", file()), ("sys/a/y/z", file()), ("sys/a.b", file()), ("sys/a/y", Node::Link("w".into()))];
        let tree = Tree::from_nodes(nodes.into_iter().map(|(path, node)| (path.to_string(), node)).collect());
        assert_eq!(tree.list("sys/a"), ["x", "y"]);
        assert_eq!(tree.find_folders("sys", &|name| name == "y"), ["sys/a/y"]);
        assert!(tree.list("proc").is_empty());
    }

    #[test]
    fn a_folder_without_sysfs_is_refused_by_name() {
        let error = Tree::from_directory(Path::new("/proc/self/fdinfo")).unwrap_err();
        assert!(error.to_string().contains("/proc/self/fdinfo"));
    }
}
