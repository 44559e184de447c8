//! `/dev/kvm`, and what its kernel can do.

use super::error::{FdKind, KvmError};
use super::vcpu::Vcpu;
use super::vm::Vm;
use crate::sys::kvm;
use crate::vfio::errno;
use rustix::fs::{Mode, OFlags, open, readlink};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// The only version there is (Linux 7.2 `KVM_API_VERSION`).
const VERSION: i32 = 12;

/// What a kernel's KVM can do, asked once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Capabilities {
    /// How many slots a machine has.
    pub slots: u32,
    /// Whether slots may be read-only (Linux 3.7).
    pub read_only: bool,
    /// Whether the guest's tables follow what is mapped here (`KVM_CAP_SYNC_MMU`); without, no slot is made.
    pub follows_mappings: bool,
    /// Whether an exit for memory that is not there may say where (Linux 6.8). On x86 most do not say so all the same.
    pub says_where: bool,
    /// Whether there is memory that belongs to a guest (Linux 6.8).
    pub guest_memory: bool,
    /// What such memory may be made with (Linux 6.18): bit 0 mapped here, bit 1 shared from the start.
    pub guest_memory_flags: u32,
}

impl Capabilities {
    const SLOTS: u32 = 10;
    const SYNC_MMU: u32 = 16;
    const READ_ONLY: u32 = 81;
    const MEMORY_FAULT_INFO: u32 = 232;
    const GUEST_MEMFD: u32 = 234;
    const GUEST_MEMFD_FLAGS: u32 = 244;
    /// What a kernel has that does not say how many (Linux before 2.6.24).
    const FEWEST_SLOTS: u32 = 32;

    /// Asks `/dev/kvm`, or a machine, which may have less.
    pub(super) fn of(fd: BorrowedFd<'_>) -> Result<Self, KvmError> {
        let ask = |capability| {
            let said = kvm::check_extension(fd, capability);
            said.map_err(|error| KvmError::Kernel { call: "KVM_CHECK_EXTENSION", errno: errno(error) })
        };
        let slots = match ask(Self::SLOTS)? {
            0 => Self::FEWEST_SLOTS,
            slots => slots,
        };
        let all = Self {
            slots,
            read_only: ask(Self::READ_ONLY)? > 0,
            follows_mappings: ask(Self::SYNC_MMU)? > 0,
            says_where: ask(Self::MEMORY_FAULT_INFO)? > 0,
            guest_memory: ask(Self::GUEST_MEMFD)? > 0,
            guest_memory_flags: ask(Self::GUEST_MEMFD_FLAGS)?,
        };
        match all.follows_mappings {
            true => Ok(all),
            false => Err(KvmError::Lacks { what: "KVM_CAP_SYNC_MMU", needs: "Linux 2.6.27" }),
        }
    }
}

/// The kernel's KVM, opened.
///
/// *What holding this tells you:* it speaks the version of the interface that this library does, and its [`Capabilities`]
/// are known.
#[derive(Debug)]
pub struct Kvm {
    fd: OwnedFd,
    capabilities: Capabilities,
}

impl Kvm {
    /// Opens `/dev/kvm`.
    ///
    /// # Errors
    /// [`KvmError::Absent`] and [`KvmError::Permission`] say what to do; the others as [`from_fd`](Self::from_fd).
    pub fn open() -> Result<Self, KvmError> {
        use rustix::io::Errno;
        match open("/dev/kvm", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
            Ok(fd) => Self::from_fd(fd),
            Err(Errno::NOENT | Errno::NODEV | Errno::NXIO) => Err(KvmError::Absent),
            Err(error @ (Errno::ACCESS | Errno::PERM)) => Err(KvmError::Permission { errno: errno(error) }),
            Err(error) => Err(KvmError::Kernel { call: "open of /dev/kvm", errno: errno(error) }),
        }
    }

    /// Takes a descriptor of `/dev/kvm` that the caller opened.
    ///
    /// # Errors
    /// [`KvmError::NotA`] for a descriptor of something else, [`KvmError::Version`] for an interface of another version.
    ///
    /// ```
    /// use peerdma_linux::kvm::{Kvm, KvmError};
    ///
    /// let received = std::fs::File::open("/dev/null")?.into();
    /// assert!(matches!(Kvm::from_fd(received), Err(KvmError::NotA { .. })));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn from_fd(fd: OwnedFd) -> Result<Self, KvmError> {
        expect_kind(fd.as_fd(), FdKind::System)?;
        match kvm::api_version(fd.as_fd()) {
            Ok(VERSION) => {}
            Ok(seen) => return Err(KvmError::Version { seen }),
            Err(error) => return Err(KvmError::Kernel { call: "KVM_GET_API_VERSION", errno: errno(error) }),
        }
        let capabilities = Capabilities::of(fd.as_fd())?;
        Ok(Self { fd, capabilities })
    }

    /// What it can do.
    pub fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    /// Makes a machine without memory and processors.
    ///
    /// # Errors
    /// [`KvmError::Kernel`]: EBUSY where another hypervisor has the processor's virtualisation.
    pub fn create_vm(&self) -> Result<Vm, KvmError> {
        let fd = kvm::create_vm(self.fd.as_fd());
        Vm::new(fd.map_err(|error| KvmError::Kernel { call: "KVM_CREATE_VM", errno: errno(error) })?)
    }

    /// Makes a processor of a machine.
    ///
    /// # Errors
    /// [`KvmError::Kernel`]: EEXIST where the machine has one of this index.
    pub fn create_vcpu(&self, vm: &Vm, index: u32) -> Result<Vcpu, KvmError> {
        let fd = kvm::create_vcpu(vm.descriptor(), index);
        let fd = fd.map_err(|error| KvmError::Kernel { call: "KVM_CREATE_VCPU", errno: errno(error) })?;
        Vcpu::from_fd(self, vm, fd)
    }

    pub(super) fn vcpu_mmap_size(&self) -> Result<usize, KvmError> {
        let size = kvm::vcpu_mmap_size(self.fd.as_fd());
        size.map_err(|error| KvmError::Kernel { call: "KVM_GET_VCPU_MMAP_SIZE", errno: errno(error) })
    }
}

impl AsFd for Kvm {
    /// The descriptor, for calls that this library does not make.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Refuses a descriptor of another kind, by what its link says: a number means something else to each file that is asked.
pub(super) fn expect_kind(fd: BorrowedFd<'_>, wanted: FdKind) -> Result<(), KvmError> {
    let link = readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()), Vec::new());
    let link = link.map_err(|error| KvmError::Kernel { call: "readlink in /proc/self/fd", errno: errno(error) })?;
    let seen = String::from_utf8_lossy(link.as_bytes()).into_owned();
    let is = match wanted {
        FdKind::System => seen == "/dev/kvm",
        FdKind::Machine => seen == "anon_inode:kvm-vm",
        FdKind::Processor => seen.starts_with("anon_inode:kvm-vcpu:"),
    };
    if is { Ok(()) } else { Err(KvmError::NotA { wanted, seen }) }
}
