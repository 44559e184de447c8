//! The dma-bufs of this machine, as far as this process may see them.
//!
//! With privilege debugfs lists all of them, with the devices that import each. Without, each process that may be looked at
//! says which descriptors it has; a dma-buf that only a driver holds, or a process of somebody else's, is not seen then, and
//! [`Listing::unseen`] says what could not be looked at.

mod bufinfo;
mod dmem;
mod holders;

pub use dmem::{DmemRegion, Limit};

use super::buf::DmaBufId;
use peerdma::addr::Bytes;
use std::collections::BTreeMap;
use std::path::Path;

/// One dma-buf.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    /// Which.
    pub id: DmaBufId,
    /// Its length.
    pub size: Bytes,
    /// Which driver exported it.
    pub exporter: String,
    /// Its name, where somebody gave it one.
    pub name: Option<String>,
    /// Devices that import it; `None` where debugfs could not be read.
    pub importers: Option<Vec<String>>,
    /// Processes that hold a descriptor of it, of those that may be looked at.
    pub holders: Vec<HeldBy>,
}

/// A process that holds a dma-buf.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeldBy {
    /// Its number.
    pub pid: u32,
    /// Its command's name.
    pub command: Option<String>,
    /// How many descriptors.
    pub descriptors: u32,
}

/// Something that could not be looked at.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unseen {
    /// The kernel's own list.
    #[error(
        "{path} cannot be read ({why}), so that importers, and dma-bufs that no process holds, are not seen; run as root with debugfs mounted"
    )]
    Debugfs {
        /// Where it is.
        path: String,
        /// Why not.
        why: String,
    },
    /// Descriptors of processes.
    #[error("{processes} processes of others may not be looked at; run as root")]
    Processes {
        /// How many.
        processes: u32,
    },
    /// `/proc` itself.
    #[error("/proc cannot be read ({why}), so that no holder is seen; mount it")]
    Proc {
        /// Why not.
        why: String,
    },
    /// Lines of the kernel's list that are no lines of one.
    #[error("{lines} lines of {path} are not understood; this kernel writes them otherwise")]
    Lines {
        /// Where it is.
        path: String,
        /// How many.
        lines: u32,
    },
}

/// What was seen.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Listing {
    /// dma-bufs by their number.
    pub buffers: Vec<Listed>,
    /// Device memory and its limits; `None` where the kernel does not count it: without `CONFIG_CGROUP_DMEM`, or
    /// where nobody wrote `+dmem` to the root group's `cgroup.subtree_control` (Linux 7.3 shows no `dmem.capacity` then).
    pub dmem: Option<Vec<DmemRegion>>,
    /// What could not be looked at; empty if the list is complete.
    pub unseen: Vec<Unseen>,
}

/// Lists them. Reads `/proc` once; what changes meanwhile is seen as it was or as it is.
pub fn list() -> Listing {
    list_below(Path::new("/"))
}

fn list_below(root: &Path) -> Listing {
    let mut unseen = Vec::new();
    let mut buffers: BTreeMap<DmaBufId, Listed> = BTreeMap::new();
    let path = root.join("sys/kernel/debug/dma_buf/bufinfo");
    match std::fs::read(&path) {
        Ok(text) => {
            let (listed, strange) = bufinfo::parse(&String::from_utf8_lossy(&text));
            buffers.extend(listed.into_iter().map(|buffer| (buffer.id, buffer)));
            if strange > 0 {
                unseen.push(Unseen::Lines { path: path.display().to_string(), lines: strange });
            }
        }
        Err(error) => unseen.push(Unseen::Debugfs { path: path.display().to_string(), why: error.to_string() }),
    }
    match holders::scan(&root.join("proc")) {
        Ok(scanned) => {
            for (found, holder) in scanned.found {
                buffers.entry(found.id).or_insert(found).holders.push(holder);
            }
            if scanned.refused > 0 {
                unseen.push(Unseen::Processes { processes: scanned.refused });
            }
        }
        Err(error) => unseen.push(Unseen::Proc { why: error.to_string() }),
    }
    Listing { buffers: buffers.into_values().collect(), dmem: dmem::read(root), unseen }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn root(name: &str) -> std::path::PathBuf {
        let root = std::env::temp_dir().join(format!("peerdma-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(&root).unwrap();
        root
    }

    const FDINFO: &str =
        "pos:\t0\nflags:\t02\nmnt_id:\t15\nino:\t7\nsize:\t4096\ncount:\t3\nexp_name:\tudmabuf\nname:\tring\n";

    #[test]
    fn what_the_kernel_lists_and_what_processes_hold_come_together_by_inode() {
        let root = root("listing");
        let bufinfo = "\nDma-buf Objects:\nsize    \tflags   \tmode    \tcount   \texp_name\tino     \tname\n\
                       00004096\t00000002\t00080007\t00000003\tudmabuf\t00000007\tring\n\
                       \tAttached Devices:\n\t0000:05:00.0\nTotal 1 devices attached\n\n\
                       00008192\t00000002\t00080007\t00000001\tsystem\t00000009\t<none>\n\
                       \tAttached Devices:\nTotal 0 devices attached\n\n\
                       \nTotal 2 objects, 12288 bytes\n";
        write(&root, "sys/kernel/debug/dma_buf/bufinfo", bufinfo);
        for fd in [3, 4] {
            write(&root, &format!("proc/42/fdinfo/{fd}"), FDINFO);
        }
        write(&root, "proc/42/fdinfo/5", "pos:\t0\nflags:\t02\nmnt_id:\t15\nino:\t8\n");
        write(&root, "proc/42/comm", "server\n");
        let listing = list_below(&root);
        let ids: Vec<u64> = listing.buffers.iter().map(|it| it.id.inode()).collect();
        assert_eq!((ids.as_slice(), listing.unseen.as_slice(), &listing.dmem), (&[7, 9][..], &[][..], &None));
        let ring = &listing.buffers[0];
        assert_eq!(ring.importers.as_deref(), Some(&["0000:05:00.0".to_string()][..]));
        let holder = HeldBy { pid: 42, command: Some("server".into()), descriptors: 2 };
        assert_eq!((ring.name.as_deref(), ring.holders.as_slice()), (Some("ring"), &[holder][..]));
        assert_eq!((listing.buffers[1].name.as_ref(), listing.buffers[1].size), (None, Bytes::new(8192)));
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn what_could_not_be_looked_at_is_said() {
        let root = root("unseen");
        let listing = list_below(&root);
        assert!(matches!(&listing.unseen[..], [Unseen::Debugfs { .. }, Unseen::Proc { .. }]), "{listing:?}");
        write(&root, "proc/42/fdinfo/3", FDINFO);
        let listing = list_below(&root);
        assert_eq!((listing.buffers.len(), listing.buffers[0].importers.as_ref()), (1, None));
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn limits_of_device_memory_are_those_of_the_own_group() {
        let root = root("dmem");
        write(&root, "proc/self/cgroup", "0::/job\n");
        write(&root, "proc/self/mounts", "cgroup /sys/fs/cgroup cgroup2 rw 0 0\n");
        write(&root, "sys/fs/cgroup/dmem.capacity", "drm/0000:03:00.0/vram0 8514437120\n");
        write(&root, "sys/fs/cgroup/job/dmem.max", "drm/0000:03:00.0/vram0 max\n");
        write(&root, "sys/fs/cgroup/job/dmem.low", "drm/0000:03:00.0/vram0 1073741824\n");
        write(&root, "sys/fs/cgroup/job/dmem.current", "drm/0000:03:00.0/vram0 4096\n");
        let region = &list_below(&root).dmem.unwrap()[0];
        assert_eq!((region.name.as_str(), region.capacity), ("drm/0000:03:00.0/vram0", Bytes::new(8_514_437_120)));
        assert_eq!((region.max, region.low), (Some(Limit::None), Some(Limit::At(Bytes::new(1 << 30)))));
        assert_eq!((region.min, region.current), (None, Some(Bytes::new(4096))));
        fs::remove_dir_all(&root).unwrap();
    }
}
