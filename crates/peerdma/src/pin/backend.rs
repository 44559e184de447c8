//! Who charges memory to which counter, and how, as data.

use super::counter::Counter;
use core::fmt;

/// A part of the kernel that keeps memory in its place for somebody.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Backend {
    /// `mlock`: keeps memory resident, and lets it move.
    Mlock,
    /// A VFIO container of type 1.
    Type1,
    /// iommufd as it comes: `IOMMU_OPTION_RLIMIT_MODE` 0.
    Iommufd,
    /// iommufd with `IOMMU_OPTION_RLIMIT_MODE` 1, or opened as `/dev/vfio/vfio`.
    IommufdProcess,
    /// Buffers registered with an io_uring.
    IoUring,
    /// A memory region of RDMA (`ibv_reg_mr`).
    Rdma,
    /// A dma-buf made of a memfd.
    Udmabuf,
    /// A dma-buf of a heap.
    DmaHeap,
}

/// In which units memory is charged, and how often the same memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Counted {
    /// Not at all.
    Never,
    /// In whole pages, at each call anew.
    EachCall,
    /// In whole pages, each once for all that shares the scope.
    OncePerScope,
    /// Base pages at each call anew; a compound page whole and once for all that shares the scope, to the first that
    /// pins part of it.
    CompoundOncePerScope,
}

/// Who is charged, but never refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Bypass {
    /// Whoever has `CAP_IPC_LOCK` at the call.
    CapIpcLockAtCall,
    /// Whoever had `CAP_IPC_LOCK` in the initial user namespace when the ring was made.
    CapIpcLockAtCreation,
}

/// What one backend charges.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Rule {
    /// Charged, and held against the limit; `None` if nothing is.
    pub counter: Option<Counter>,
    /// Charged as well, and held against nothing by this backend.
    pub also: Option<Counter>,
    /// Units, and how often.
    pub counted: Counted,
    /// What shares a scope.
    pub scope: &'static str,
    /// Whose `RLIMIT_MEMLOCK` it is.
    pub limit: &'static str,
    /// Who is not held to it.
    pub bypass: Option<Bypass>,
    /// Errors for passing the limit, and what was done before they came.
    pub error: &'static str,
    /// Where in Linux it is counted.
    pub source: &'static str,
}

impl Backend {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Mlock,
        Self::Type1,
        Self::Iommufd,
        Self::IommufdProcess,
        Self::IoUring,
        Self::Rdma,
        Self::Udmabuf,
        Self::DmaHeap,
    ];

    /// One stable word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Mlock => "mlock",
            Self::Type1 => "type1",
            Self::Iommufd => "iommufd",
            Self::IommufdProcess => "iommufd-process",
            Self::IoUring => "io_uring",
            Self::Rdma => "rdma",
            Self::Udmabuf => "udmabuf",
            Self::DmaHeap => "dma-heap",
        }
    }

    /// Whether memory keeps its place; `mlock` promises only that it stays in memory.
    pub const fn pins(self) -> bool {
        !matches!(self, Self::Mlock)
    }

    /// What it charges (Linux 7.2; of io_uring as measured on 6.18).
    pub const fn rule(self) -> Rule {
        match self {
            Self::Mlock => Rule {
                counter: Some(Counter::MmLocked),
                also: None,
                counted: Counted::OncePerScope,
                scope: "process",
                limit: "the caller's",
                bypass: Some(Bypass::CapIpcLockAtCall),
                error: "ENOMEM, or EPERM where the limit is 0; nothing was locked",
                source: "mm/mlock.c do_mlock, can_do_mlock",
            },
            Self::Type1 => Rule {
                counter: Some(Counter::MmLocked),
                also: None,
                counted: Counted::EachCall,
                scope: "mapping of a container",
                limit: "that of the main thread of whoever maps",
                bypass: Some(Bypass::CapIpcLockAtCall),
                error: "ENOMEM; what the mapping had pinned by then is unpinned again",
                source: "drivers/vfio/vfio_iommu_type1.c vfio_lock_acct",
            },
            Self::Iommufd => Rule {
                counter: Some(Counter::UserLocked),
                also: Some(Counter::MmPinned),
                counted: Counted::OncePerScope,
                scope: "iommufd file, for what later mappings copy (IOMMU_IOAS_COPY)",
                limit: "that of whoever maps",
                bypass: Some(Bypass::CapIpcLockAtCall),
                error: "ENOMEM after each batch was pinned, and only once a device is attached",
                source: "drivers/iommu/iommufd/pages.c iopt_alloc_pages, incr_user_locked_vm",
            },
            Self::IommufdProcess => Rule {
                counter: Some(Counter::MmLocked),
                also: Some(Counter::MmPinned),
                counted: Counted::OncePerScope,
                scope: "iommufd file, for what later mappings copy (IOMMU_IOAS_COPY)",
                limit: "that of whoever maps",
                bypass: Some(Bypass::CapIpcLockAtCall),
                error: "ENOMEM after each batch was pinned, and only once a device is attached",
                source: "drivers/iommu/iommufd/pages.c update_mm_locked_vm",
            },
            Self::IoUring => Rule {
                counter: Some(Counter::UserLocked),
                also: Some(Counter::MmPinned),
                counted: Counted::CompoundOncePerScope,
                scope: "ring",
                limit: "the caller's",
                bypass: Some(Bypass::CapIpcLockAtCreation),
                error: "ENOMEM after all of it was pinned; from io_uring_setup itself where the limit is 0",
                source: "io_uring/rsrc.c io_buffer_account_pin, headpage_already_acct",
            },
            Self::Rdma => Rule {
                counter: Some(Counter::MmPinned),
                also: None,
                counted: Counted::EachCall,
                scope: "memory region",
                limit: "the caller's",
                bypass: Some(Bypass::CapIpcLockAtCall),
                error: "ENOMEM before anything is pinned, or EPERM where the limit is 0",
                source: "drivers/infiniband/core/umem.c ib_umem_get",
            },
            Self::Udmabuf => NEVER_UDMABUF,
            Self::DmaHeap => NEVER_HEAP,
        }
    }
}

const NEVER_UDMABUF: Rule = never("drivers/dma-buf/udmabuf.c: memfd_pin_folios charges no counter");
const NEVER_HEAP: Rule = never("drivers/dma-buf/heaps/system_heap.c: its pages are no process's");

const fn never(source: &'static str) -> Rule {
    Rule {
        counter: None,
        also: None,
        counted: Counted::Never,
        scope: "buffer",
        limit: "none",
        bypass: None,
        error: "none by RLIMIT_MEMLOCK",
        source,
    }
}

impl Counted {
    /// In words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Never => "not counted",
            Self::EachCall => "whole pages, each time",
            Self::OncePerScope => "whole pages, once",
            Self::CompoundOncePerScope => "base pages each time, compound pages whole and once",
        }
    }
}

impl Bypass {
    /// In words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::CapIpcLockAtCall => "CAP_IPC_LOCK at the call",
            Self::CapIpcLockAtCreation => "CAP_IPC_LOCK in the initial user namespace when the ring was made",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
