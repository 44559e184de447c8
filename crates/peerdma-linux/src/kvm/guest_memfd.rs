//! Memory that belongs to a guest (`guest_memfd`).
//!
//! Linux 6.18 lets it be mapped by the monitor and be shared from the start, which is the only kind that is made here: a
//! confidential guest's memory is not for the CPU. It is charged to whoever makes it, never swapped and never moved.

use super::error::KvmError;
use super::memory::SlotMemory;
use super::vm::{Vm, page};
use crate::memory::{BeyondPages, copy_in, copy_out};
use crate::sys::kvm;
use crate::sys::map::Mapping;
use crate::vfio::errno;
use peerdma::addr::Bytes;
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// `GUEST_MEMFD_FLAG_MMAP` and `GUEST_MEMFD_FLAG_INIT_SHARED`.
const SHARED: u32 = 0x3;

/// Memory of one guest, mapped here too. A slot of it is made of [`memory`](Self::memory), in the machine that it was made for.
#[derive(Debug)]
pub struct GuestMemfd {
    file: Arc<OwnedFd>,
    mapping: Arc<Mapping>,
}

impl Vm {
    /// Makes zeroed memory that belongs to this guest, whole pages.
    ///
    /// # Errors
    /// [`KvmError::Lacks`] where the kernel has none that the CPU can map; [`KvmError::Kernel`]: EINVAL for what is not whole pages.
    pub fn guest_memory(&self, len: Bytes) -> Result<GuestMemfd, KvmError> {
        let capabilities = self.capabilities();
        if !capabilities.guest_memory || capabilities.guest_memory_flags & SHARED != SHARED {
            return Err(KvmError::Lacks {
                what: "memory of a guest that is mapped and shared",
                needs: "Linux 6.18 with CONFIG_KVM_GUEST_MEMFD",
            });
        }
        let refused = |call| move |error| KvmError::Kernel { call, errno: errno(error) };
        let size = usize::try_from(len.as_u64()).ok().filter(|size| *size > 0 && page().divides(len));
        let size = size.ok_or(Errno::INVAL).map_err(refused("KVM_CREATE_GUEST_MEMFD"))?;
        let file = kvm::create_guest_memfd(self.descriptor(), len.as_u64(), SHARED.into());
        let file = file.map_err(refused("KVM_CREATE_GUEST_MEMFD"))?;
        let mapping = Mapping::of_file(file.as_fd(), 0, size).map_err(refused("mmap of a guest's memory"))?;
        Ok(GuestMemfd { file: Arc::new(file), mapping: Arc::new(mapping) })
    }
}

impl GuestMemfd {
    /// What a slot is made of.
    pub fn memory(&self) -> SlotMemory {
        SlotMemory::of_guest(self.mapping.clone(), self.file.clone())
    }

    /// Copies bytes out.
    ///
    /// # Errors
    /// [`BeyondPages`], with nothing read.
    pub fn read(&self, offset: Bytes, into: &mut [u8]) -> Result<(), BeyondPages> {
        copy_out(&self.mapping, offset, into)
    }

    /// Copies bytes in.
    ///
    /// # Errors
    /// [`BeyondPages`], with nothing written.
    pub fn write(&self, offset: Bytes, from: &[u8]) -> Result<(), BeyondPages> {
        copy_in(&self.mapping, offset, from)
    }
}

impl AsFd for GuestMemfd {
    /// The file, for calls that this library does not make.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
