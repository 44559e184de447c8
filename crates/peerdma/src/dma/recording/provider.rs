//! What lies behind the sources of a recording space: one process and some files.
//!
//! Only what a kernel looks at when it maps: what sort of pages a process range has, how
//! long a file is, and whether the device that provides a dma-buf has taken it back.

use crate::addr::{AddrRange, Bytes, ProcVa};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// What is mapped at a range of the process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum ProcessKind {
    /// Memory that the process may write.
    Memory,
    /// Memory that it may only read; refused for writing devices with EFAULT.
    ReadOnlyMemory,
    /// A BAR through VFIO's `mmap` (`VM_PFNMAP`): type1 takes it, iommufd answers EFAULT.
    Bar,
    /// A BAR's pages out of `p2pmem/allocate`: both answer EFAULT, as pages of peers are
    /// not pinned for long.
    P2pmem,
}

/// A file that [`RecordingSpace::add_file`](super::RecordingSpace::add_file) opened.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct FileId(u32);

/// What a file is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum FileKind {
    /// Memory without a name.
    Memfd,
    /// A dma-buf that VFIO exported from one range of a BAR.
    VfioDmabuf,
    /// Any other dma-buf (udmabuf, a heap's, a GPU's, or VFIO's of several ranges), which
    /// iommufd refuses with EOPNOTSUPP.
    OtherDmabuf,
}

/// What happens to a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Disturbance {
    /// `VFIO_DEVICE_RESET`: its dma-bufs are revoked, and can be mapped again at once.
    Reset,
    /// Its command register's memory bit is cleared: revoked until it is set.
    MemoryOff,
    /// That bit is set.
    MemoryOn,
    /// It is closed: revoked for ever, also after it is opened again.
    Close,
}

/// What the device behind a file lets through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Access {
    Open,
    Off,
    Closed,
}

/// A file as mapping sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct FileState {
    pub(super) kind: FileKind,
    pub(super) len: Bytes,
    access: Access,
}

impl FileState {
    /// Whether the device has taken the memory back.
    pub(super) fn revoked(&self) -> bool {
        self.access != Access::Open
    }
}

/// The process and its files.
#[derive(Clone, Debug, Default)]
pub(super) struct Provider {
    process: BTreeMap<ProcVa, (AddrRange<ProcVa>, ProcessKind)>,
    files: Vec<FileState>,
}

impl Provider {
    pub(super) fn add_process(&mut self, range: AddrRange<ProcVa>, kind: ProcessKind) {
        self.remove_process(range);
        self.process.insert(range.start(), (range, kind));
    }

    pub(super) fn remove_process(&mut self, gone: AddrRange<ProcVa>) {
        self.process.retain(|_, (range, _)| range.last() < gone.start() || gone.last() < range.start());
    }

    /// The kinds of all that `len` bytes from `at` touch; `None` if some of it is not there.
    pub(super) fn kinds_of(&self, at: ProcVa, len: Bytes) -> Option<Vec<ProcessKind>> {
        let wanted = AddrRange::new(at, len)?;
        let mut kinds = Vec::new();
        let mut next = wanted.start();
        loop {
            let (_, (range, kind)) = self.process.range(..=next).next_back()?;
            if range.last() < next {
                return None;
            }
            kinds.push(*kind);
            if wanted.last() <= range.last() {
                return Some(kinds);
            }
            next = range.last().checked_add(Bytes::new(1))?;
        }
    }

    pub(super) fn add_file(&mut self, kind: FileKind, len: Bytes) -> FileId {
        self.files.push(FileState { kind, len, access: Access::Open });
        FileId((self.files.len() - 1) as u32)
    }

    pub(super) fn file(&self, file: FileId) -> Option<&FileState> {
        self.files.get(file.0 as usize)
    }

    /// Notes what happened to a dma-buf's device, and says whether that revoked the dma-buf.
    pub(super) fn disturb(&mut self, file: FileId, what: Disturbance) -> bool {
        let Some(state) = self.files.get_mut(file.0 as usize) else {
            return false;
        };
        if state.kind == FileKind::Memfd || state.access == Access::Closed {
            return false;
        }
        match what {
            // Revoked and given back in one call, unless memory was off all along.
            Disturbance::Reset => {}
            Disturbance::MemoryOff => state.access = Access::Off,
            Disturbance::MemoryOn => state.access = Access::Open,
            Disturbance::Close => state.access = Access::Closed,
        }
        what != Disturbance::MemoryOn
    }
}
