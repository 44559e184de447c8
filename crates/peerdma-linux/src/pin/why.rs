//! Why memory cannot be pinned: the kernel has one answer for all of it, `EFAULT`.
//!
//! What is certain from the mapping's permissions is refused before the kernel is asked. The rest is asked, since what
//! kernels take has changed (shared file mappings until Linux 6.5), and looked into if it refuses. The mapping may
//! have changed in between by another thread; then the look afterwards says what there is now.

use crate::own::maps::{Area, Maps};
use crate::own::pagemap::Pagemap;
use crate::sys::procmap::Found;
use peerdma::addr::{AddrRange, Bytes, Granule, ProcVa};
use rustix::io::Errno;
use std::fmt;

/// What is wrong with memory that cannot be pinned for writing.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Refusal {
    /// The addresses are the kernel's.
    KernelAddress,
    /// Nothing is mapped there.
    Hole,
    /// The mapping allows no access at all (`PROT_NONE`).
    NoAccess,
    /// The mapping may not be written. A private one could be pinned by force, which would give the device a copy of
    /// what it is meant to change; it never is.
    ReadOnly {
        /// Whether it is a private mapping, which `mprotect` can make writable.
        private: bool,
    },
    /// A shared mapping of a file whose file system keeps track of what is written.
    SharedFile {
        /// The file.
        name: String,
        /// The type of its file system, where it is known.
        filesystem: Option<String>,
    },
    /// Memory of `memfd_secret`, which not even the kernel reaches.
    Secret,
    /// Addresses of a device, or others that have no pages the kernel could hold (`VM_IO`, `VM_PFNMAP`).
    DeviceMemory {
        /// What is mapped.
        name: String,
    },
    /// Peer memory that has pages, as of a drive's controller memory buffer (`p2pmem`): no pin takes those for long
    /// (EFAULT for the file of a pool, EREMOTEIO for such pages elsewhere).
    PeerMemory {
        /// What is mapped.
        name: String,
    },
    /// A file whose pages are the storage itself (fsdax): a long-term pin would stop the file system from moving its blocks
    /// (EOPNOTSUPP).
    Dax {
        /// The file.
        name: String,
    },
    /// A guard page (`MADV_GUARD_INSTALL`).
    GuardPage,
    /// The mapping goes on past the end of its file.
    BeyondFile {
        /// The file.
        name: String,
        /// How long it is.
        size: Bytes,
    },
    /// A missing page whose userfaultfd is not told of accesses by the kernel (`UFFD_USER_MODE_ONLY`).
    UserFault,
    /// The pool of huge pages is empty.
    HugePoolEmpty,
    /// The mapping looks like one that is pinned.
    Unexplained,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KernelAddress => f.write_str("is not an address of a process; check where it came from"),
            Self::Hole => f.write_str("is not mapped; map it first"),
            Self::NoAccess => f.write_str("allows no access (PROT_NONE); make it readable and writable first"),
            Self::ReadOnly { private: true } => {
                f.write_str("is a private mapping that is read-only, and pins are for writing; make it writable first")
            }
            Self::ReadOnly { private: false } => f.write_str("is mapped read-only, and pins are for writing"),
            Self::SharedFile { name, filesystem } => write!(
                f,
                "is a shared mapping of {name}{}, whose file system must see every write; map it private, or use a memfd",
                InFilesystem(filesystem.as_deref())
            ),
            Self::Secret => f.write_str("is memory of memfd_secret, which nobody else may reach; use a memfd"),
            Self::DeviceMemory { name } => write!(
                f,
                "is memory without pages ({name}), as of a device; it does not move, and is reached by the driver that mapped it"
            ),
            Self::PeerMemory { name } => write!(
                f,
                "is memory of another device ({name}), which stays where it is; give the device its bus address instead"
            ),
            Self::Dax { name } => {
                write!(f, "is storage that is mapped itself ({name}, fsdax); read it into memory, or use a device-dax node")
            }
            Self::GuardPage => f.write_str("has a guard page (MADV_GUARD_INSTALL); leave it out, or remove it"),
            Self::BeyondFile { name, size } => write!(f, "goes on past the end of {name}, which has {size}; extend the file"),
            Self::UserFault => f.write_str(
                "has pages missing that a userfaultfd is to serve, but not for the kernel (UFFD_USER_MODE_ONLY); touch them first",
            ),
            Self::HugePoolEmpty => f.write_str("needs huge pages, and none is free; raise vm.nr_hugepages"),
            Self::Unexplained => f.write_str(
                "looks like memory that can be pinned, and is not; it may have changed meanwhile, or its pages may be damaged",
            ),
        }
    }
}

struct InFilesystem<'a>(Option<&'a str>);

impl fmt::Display for InFilesystem<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |name| write!(f, " in a file system of type {name}"))
    }
}

/// Where it is wrong, and what.
pub(crate) type Wrong = (AddrRange<ProcVa>, Refusal);

/// What explains that the kernel did not pin a range and answered this, by what is mapped there now.
pub(crate) fn explained(range: AddrRange<ProcVa>, errno: Errno) -> Wrong {
    Look::at(Maps::of_this_process().ok().as_ref(), range).explained(errno)
}

/// What a look at the mappings of a range gave.
pub(super) struct Look {
    areas: Vec<Area>,
    range: AddrRange<ProcVa>,
}

impl Look {
    /// Looks, as far as `/proc` allows.
    pub(super) fn at(maps: Option<&Maps>, range: AddrRange<ProcVa>) -> Self {
        Self { areas: maps.and_then(|maps| maps.areas(range).ok()).unwrap_or_default(), range }
    }

    /// What needs no kernel to be refused.
    pub(super) fn certain(&self) -> Option<Wrong> {
        // The upper half belongs to the kernel on every processor that Linux splits so.
        if self.range.last().as_u64() >> 63 != 0 {
            return Some((self.range, Refusal::KernelAddress));
        }
        self.areas.iter().find_map(|area| match area {
            Area::Hole(hole) => Some((*hole, Refusal::Hole)),
            Area::Mapped(found) if !found.readable && !found.writable => Some((self.part(found)?, Refusal::NoAccess)),
            Area::Mapped(found) if !found.writable => {
                Some((self.part(found)?, Refusal::ReadOnly { private: !found.shared }))
            }
            Area::Mapped(_) => None,
        })
    }

    /// What the kernel charges at least for a part of the range: pages of each mapping, whole.
    pub(super) fn charge(&self, part: AddrRange<ProcVa>) -> Bytes {
        let small = crate::memory::page_size().as_u64();
        let pages = |range: AddrRange<ProcVa>, page: u64| {
            let (first, last) = (range.start().as_u64() / page, range.last().as_u64() / page);
            (last - first + 1).saturating_mul(page)
        };
        let of = |found: &Found| overlap(part, found).map_or(0, |part| pages(part, found.page.max(small)));
        let seen = self.mapped().map(of).fold(0, u64::saturating_add);
        Bytes::new(if self.areas.is_empty() { pages(part, small) } else { seen })
    }

    /// The largest pages of the mappings, where they are larger than the smallest.
    pub(super) fn compound(&self, part: AddrRange<ProcVa>) -> Option<Granule> {
        let largest = self.mapped().filter(|found| overlap(part, found).is_some()).map(|found| found.page).max()?;
        Granule::new(Bytes::new(largest)).filter(|page| page.bytes() > crate::memory::page_size())
    }

    fn mapped(&self) -> impl Iterator<Item = &Found> + Clone {
        self.areas.iter().filter_map(|area| match area {
            Area::Mapped(found) => Some(found),
            Area::Hole(_) => None,
        })
    }

    /// What explains that the kernel refused with this.
    pub(super) fn explained(&self, errno: Errno) -> Wrong {
        let name = |found: &Found| printable(&found.name);
        let first = self.mapped().find_map(|found| Some((self.part(found)?, name(found))));
        match (errno, first) {
            (Errno::REMOTEIO, Some((at, name))) => return (at, Refusal::PeerMemory { name }),
            (Errno::OPNOTSUPP, Some((at, name))) => return (at, Refusal::Dax { name }),
            _ => {}
        }
        let details = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
        self.certain()
            .or_else(|| self.mapped().find_map(|found| Some((self.part(found)?, self.of(found, &details)?))))
            .unwrap_or((self.range, Refusal::Unexplained))
    }

    fn of(&self, found: &Found, details: &str) -> Option<Refusal> {
        let name = || printable(&found.name);
        let flags = flags(details, found);
        let has = |flag: &str| flags.contains(&flag);
        if found.name == b"/secretmem (deleted)" {
            return Some(Refusal::Secret);
        }
        if has("io") || has("pf") {
            return Some(Refusal::DeviceMemory { name: name() });
        }
        if self.has_guard(found) {
            return Some(Refusal::GuardPage);
        }
        if found.shared && found.inode != 0 {
            let filesystem = filesystem(found.device);
            // The mapping is refused as that of a file before its pages are looked at (Linux 7.3 `writable_file_mapping_allowed`).
            if filesystem.as_deref() == Some("sysfs") && found.name.ends_with(b"/p2pmem/allocate") {
                return Some(Refusal::PeerMemory { name: name() });
            }
            // What the kernel makes by itself is of no mount: memfds, shared anonymous memory, System V segments.
            let own = [&b"/memfd:"[..], b"/dev/zero", b"/SYSV", b"/anon_hugepage"];
            let inner = filesystem.is_none() && own.iter().any(|start| found.name.starts_with(start));
            if !inner && !matches!(filesystem.as_deref(), Some("tmpfs" | "devtmpfs" | "hugetlbfs" | "ramfs")) {
                return Some(Refusal::SharedFile { name: name(), filesystem });
            }
        }
        if let Some(size) = self.file_ends(found) {
            return Some(Refusal::BeyondFile { name: name(), size });
        }
        if has("um") {
            return Some(Refusal::UserFault);
        }
        (has("ht") && free_huge_pages() == Some(0)).then_some(Refusal::HugePoolEmpty)
    }

    /// The part of the range that lies in a mapping.
    fn part(&self, found: &Found) -> Option<AddrRange<ProcVa>> {
        overlap(self.range, found)
    }

    fn has_guard(&self, found: &Found) -> bool {
        let mut guard = false;
        if let (Ok(pagemap), Some(part)) = (Pagemap::of_this_process(), self.part(found)) {
            // An error leaves the question open.
            let _ = pagemap.pages(part, |entry| {
                guard |= entry.is_guard();
                !guard
            });
        }
        guard
    }

    /// The length of the file, if the range goes on past its last page; needs privilege for files without a path.
    fn file_ends(&self, found: &Found) -> Option<Bytes> {
        let link = format!("/proc/self/map_files/{:x}-{:x}", found.start, found.end);
        let metadata = std::fs::metadata(link).ok()?;
        let end = metadata.len().checked_next_multiple_of(crate::memory::page_size().as_u64())?;
        let last = found.offset.checked_add(self.part(found)?.last().as_u64() - found.start)?;
        (last >= end && metadata.is_file()).then_some(Bytes::new(metadata.len()))
    }
}

/// The part of a range that lies in a mapping.
fn overlap(range: AddrRange<ProcVa>, found: &Found) -> Option<AddrRange<ProcVa>> {
    let first = range.start().max(ProcVa::new(found.start));
    let last = range.last().min(ProcVa::new(found.end.wrapping_sub(1)));
    AddrRange::from_inclusive(first, last)
}

/// The words of `VmFlags:` of a mapping.
fn flags<'t>(smaps: &'t str, found: &Found) -> Vec<&'t str> {
    let head = format!("{:x}-{:x} ", found.start, found.end);
    let mut lines = smaps.lines().skip_while(|line| !line.starts_with(&head));
    let flags = lines.find_map(|line| line.strip_prefix("VmFlags:"));
    flags.map(|flags| flags.split_whitespace().collect()).unwrap_or_default()
}

/// The type of the file system of a device, by the mounts that this process sees.
fn filesystem((major, minor): (u32, u32)) -> Option<String> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let device = format!("{major}:{minor}");
    mounts.lines().find_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        (place.split(' ').nth(2)? == device).then(|| kind.split(' ').next().unwrap_or_default().to_string())
    })
}

fn free_huge_pages() -> Option<u64> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    info.lines().find_map(|line| line.strip_prefix("HugePages_Free:"))?.trim().parse().ok()
}

/// A name of somebody's file, without what would end the line or hide the rest of it.
fn printable(name: &[u8]) -> String {
    let mark = |letter: char| if letter.is_control() { char::REPLACEMENT_CHARACTER } else { letter };
    String::from_utf8_lossy(name).chars().map(mark).collect()
}

/// Whether an answer of the kernel is one that is explained by what is mapped.
pub(super) fn is_one_of_many(errno: Errno) -> bool {
    matches!(errno, Errno::FAULT | Errno::REMOTEIO | Errno::OPNOTSUPP)
}
