//! Compressed files and archives from strangers, bounded in memory.

use crate::tree::{Node, Tree};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Cursor, Read};

/// Most bytes that one input may decompress to.
const MAX_DECOMPRESSED: u64 = 512 << 20;
/// Most bytes kept of an archive: a large server's relevant files take a few megabytes.
const MAX_KEPT: usize = 128 << 20;
/// Most bytes kept of one file: cpuinfo of a machine with hundreds of CPUs fits.
const MAX_KEPT_FILE: u64 = 2 << 20;
/// Size of a tar's blocks.
const BLOCK: u64 = 512;
/// Longest path that any Linux file system call takes (`PATH_MAX`); longer ones are no copies of sysfs.
const MAX_PATH: usize = 4096;

/// Why an archive could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The compressed stream or the archive is damaged.
    #[error("damaged archive or compressed file, pack it again")]
    Damaged(#[source] io::Error),
    /// The archive ends without its end mark.
    #[error("the archive is cut: the empty block that ends every tar is missing; pack or copy it again")]
    Cut,
    /// It decompresses to more than the limit.
    #[error("larger, once decompressed, than any copy of sysfs or capture; pack only sys and proc")]
    TooLarge,
    /// A compression that is not read here.
    #[error("compressed with {0}, which is not read here; decompress it first, or use gzip or bzip2")]
    OtherCompression(&'static str),
    /// It holds no `sys` folder at its top or one folder down.
    #[error("the archive holds no sys/bus/pci/devices and no sys/devices, at its top or one folder down")]
    NoSysfs,
}

/// Takes one layer of gzip or bzip2 off, if there is one.
///
/// # Errors
/// [`ArchiveError::Damaged`], [`ArchiveError::TooLarge`], [`ArchiveError::OtherCompression`].
pub fn decompress(bytes: Vec<u8>) -> Result<Vec<u8>, ArchiveError> {
    match decompressed(&bytes, MAX_DECOMPRESSED)? {
        Some(decompressed) => Ok(decompressed),
        None => Ok(bytes),
    }
}

/// As [`decompress`], for what is known to be small; borrows what is not compressed.
pub(crate) fn decompress_at_most(bytes: &[u8], limit: u64) -> Result<Cow<'_, [u8]>, ArchiveError> {
    match decompressed(bytes, limit)? {
        Some(decompressed) => Ok(Cow::Owned(decompressed)),
        None if bytes.len() as u64 > limit => Err(ArchiveError::TooLarge),
        None => Ok(Cow::Borrowed(bytes)),
    }
}

/// `None` for bytes that are not compressed.
fn decompressed(bytes: &[u8], limit: u64) -> Result<Option<Vec<u8>>, ArchiveError> {
    match bytes {
        [0x1f, 0x8b, ..] => bounded(flate2::read::MultiGzDecoder::new(bytes), limit).map(Some),
        [b'B', b'Z', b'h', ..] => bounded(bzip2::read::MultiBzDecoder::new(bytes), limit).map(Some),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => Err(ArchiveError::OtherCompression("xz")),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Err(ArchiveError::OtherCompression("zstd")),
        [b'P', b'K', 3, 4, ..] => Err(ArchiveError::OtherCompression("zip")),
        _ => Ok(None),
    }
}

fn bounded(reader: impl Read, limit: u64) -> Result<Vec<u8>, ArchiveError> {
    let mut bytes = Vec::new();
    reader.take(limit + 1).read_to_end(&mut bytes).map_err(ArchiveError::Damaged)?;
    if bytes.len() as u64 > limit { Err(ArchiveError::TooLarge) } else { Ok(bytes) }
}

/// Whether bytes start with a tar header (its checksum holds).
pub fn is_tar(bytes: &[u8]) -> bool {
    let Some(header) = bytes.get(..512) else { return false };
    let stored = header[148..156]
        .iter()
        .filter(|byte| byte.is_ascii_digit())
        .fold(0u32, |sum, digit| sum.wrapping_mul(8).wrapping_add(u32::from(digit - b'0')));
    // The checksum's own field counts as spaces.
    let sum: u32 =
        header.iter().enumerate().map(|(at, &byte)| if (148..156).contains(&at) { 32 } else { u32::from(byte) }).sum();
    header[0] != 0 && stored == sum
}

impl Tree {
    /// Reads a `.tar`, `.tar.gz` or `.tar.bz2` of a copied `sys` (and `proc`, `boot`).
    ///
    /// # Errors
    /// See [`ArchiveError`]; all of them concern the file, not this machine.
    pub fn from_archive(bytes: &[u8]) -> Result<Self, ArchiveError> {
        let bytes = decompress_at_most(bytes, MAX_DECOMPRESSED)?;
        let mut archive = tar::Archive::new(Cursor::new(&bytes));
        let mut end = 0u64;
        let mut nodes: BTreeMap<String, Node> = BTreeMap::new();
        let mut kept = 0usize;
        for entry in archive.entries().map_err(ArchiveError::Damaged)? {
            let mut entry = entry.map_err(ArchiveError::Damaged)?;
            let size = if entry.header().entry_type().is_file() { entry.size() } else { 0 };
            end = entry.raw_file_position().saturating_add(size).div_ceil(BLOCK).saturating_mul(BLOCK);
            let path = normalise(&String::from_utf8_lossy(&entry.path_bytes()));
            if path.len() > MAX_PATH || !is_wanted(&path) {
                continue;
            }
            let kind = entry.header().entry_type();
            let node = if kind.is_symlink() {
                let Some(target) = entry.link_name_bytes() else { continue };
                Node::Link(String::from_utf8_lossy(&target).into_owned())
            } else if kind.is_file() {
                let mut contents = Vec::new();
                (&mut entry).take(MAX_KEPT_FILE).read_to_end(&mut contents).map_err(ArchiveError::Damaged)?;
                Node::File(contents)
            } else {
                continue;
            };
            kept += path.len()
                + match &node {
                    Node::File(contents) => contents.len(),
                    Node::Link(target) => target.len(),
                };
            if kept > MAX_KEPT {
                return Err(ArchiveError::TooLarge);
            }
            nodes.insert(path, node);
        }
        // Without the block of zeros that ends every archive, functions may be missing,
        // and what is missing would be taken for not being there.
        let is_end = |at: u64| {
            let at = usize::try_from(at).ok()?;
            Some(bytes.get(at..at.checked_add(BLOCK as usize)?)?.iter().all(|&byte| byte == 0))
        };
        if is_end(end) != Some(true) {
            return Err(ArchiveError::Cut);
        }
        let prefix = sysfs_prefix(&nodes).ok_or(ArchiveError::NoSysfs)?;
        let nodes = nodes
            .into_iter()
            .filter_map(|(path, node)| Some((path.strip_prefix(&prefix)?.to_string(), node)))
            .collect();
        Ok(Tree::from_nodes(nodes))
    }
}

fn normalise(path: &str) -> String {
    path.split('/').filter(|part| !part.is_empty() && *part != ".").collect::<Vec<_>>().join("/")
}

/// Below `sys`, only what the readers ask for; whole copies hold a lot more.
fn is_wanted(path: &str) -> bool {
    let mut parts = path.split('/');
    let below = |top: &str, parts: std::str::Split<'_, char>| match top {
        "sys" => matches!(parts.clone().next(), Some("bus" | "devices" | "kernel")),
        "proc" => matches!(
            parts.clone().next(),
            Some("cpuinfo" | "cmdline" | "version" | "config" | "config.gz" | "hwloc-nofile-info")
        ),
        "boot" => parts.clone().next().is_some_and(|name| name.starts_with("config-")),
        _ => false,
    };
    let Some(first) = parts.next() else { return false };
    if below(first, parts.clone()) {
        return true;
    }
    parts.next().is_some_and(|second| below(second, parts))
}

/// The part of the paths before `sys/`: nothing, or one folder.
fn sysfs_prefix(nodes: &BTreeMap<String, Node>) -> Option<String> {
    nodes.keys().find_map(|path| {
        let is_sys = |rest: &str| rest.starts_with("sys/bus/pci/devices/") || rest.starts_with("sys/devices/");
        if is_sys(path) {
            return Some(String::new());
        }
        let (folder, rest) = path.split_once('/')?;
        is_sys(rest).then(|| format!("{folder}/"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar_of(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, contents) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(contents.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            builder.append_data(&mut header, path, *contents).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn sys_may_lie_one_folder_down() {
        for prefix in ["", "./", "host/", "./host/"] {
            let bytes = tar_of(&[
                (&format!("{prefix}sys/devices/x/vendor"), b"0x8086\n"),
                (&format!("{prefix}proc/version"), b"v"),
            ]);
            assert!(is_tar(&bytes));
            let tree = Tree::from_archive(&bytes).unwrap();
            assert_eq!(tree.text("sys/devices/x/vendor").as_deref(), Some("0x8086"), "{prefix:?}");
            assert_eq!(tree.text("proc/version").as_deref(), Some("v"));
        }
    }

    #[test]
    fn two_folders_down_is_no_copy_of_sysfs() {
        let bytes = tar_of(&[("a/b/sys/devices/x/vendor", b"1")]);
        assert!(matches!(Tree::from_archive(&bytes), Err(ArchiveError::NoSysfs)));
    }

    #[test]
    fn a_cut_compressed_archive_is_damaged_and_not_half_believed() {
        use std::io::Write;
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gz.write_all(&tar_of(&[("sys/devices/x/vendor", b"0x8086")])).unwrap();
        let whole = gz.finish().unwrap();
        assert!(Tree::from_archive(&whole).is_ok());
        assert!(matches!(Tree::from_archive(&whole[..whole.len() / 2]), Err(ArchiveError::Damaged(_))));
    }

    #[test]
    fn an_archive_cut_between_two_entries_is_refused() {
        let whole = tar_of(&[("sys/devices/x/vendor", b"0x8086"), ("sys/devices/y/vendor", b"0x8086")]);
        assert!(Tree::from_archive(&whole).is_ok());
        // Each entry takes a header and a block of data.
        for len in [1024, 2048] {
            assert!(matches!(Tree::from_archive(&whole[..len]), Err(ArchiveError::Cut)), "{len}");
        }
    }

    #[test]
    fn text_is_not_taken_for_an_archive() {
        assert!(!is_tar(&[b' '; 1024]));
        assert!(!is_tar(&[0; 1024]));
        assert!(!is_tar(b"00:00.0 Host bridge"));
    }
}
