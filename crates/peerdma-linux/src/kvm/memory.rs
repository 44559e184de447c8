//! What may lie behind a slot.

use super::error::SlotError;
use super::layout::Standing;
use crate::memory::Pages;
use crate::sys::map::{Mapping, ReadOnly};
use crate::sys::window::Window;
use crate::vfio::{BarMapping, BarRange, MapBarError, VfioDevice, errno};
use peerdma::access::Prot;
use peerdma::addr::{AddrRange, Bytes, ProcVa};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Memory of this process for slots. Clones are of the same memory, which stays mapped as long as one of them or a slot lives.
#[derive(Clone, Debug)]
pub struct SlotMemory {
    at: AddrRange<ProcVa>,
    prot: Prot,
    kept: Kept,
}

/// What keeps the range mapped.
#[derive(Clone, Debug)]
#[expect(dead_code, reason = "most are held and never looked at: they keep the memory there")]
enum Kept {
    Pages(Arc<Pages>),
    Bar(Arc<BarMapping>),
    File(Arc<Mapping>),
    ReadOnlyFile(Arc<ReadOnly>),
    Guest(Arc<Mapping>, Arc<OwnedFd>),
    Window(Arc<Window>, Arc<AtomicBool>),
}

impl SlotMemory {
    /// Pages of this process.
    pub fn of_pages(pages: &Arc<Pages>) -> Self {
        Self::new(pages.address(), pages.len(), Prot::ReadWrite, Kept::Pages(pages.clone()))
    }

    /// A range of a BAR, as it is mapped. Parts count from the range's start.
    ///
    /// The kernel takes it away while the function's memory space is off or it is reset, and gives it back, and nobody is
    /// told but the guest, whose accesses end with [`Exit::Revoked`](super::Exit::Revoked) meanwhile.
    ///
    /// # Errors
    /// [`SlotError::BeyondMemory`] for a range that is not all mapped.
    pub fn of_bar(bar: &Arc<BarMapping>, range: BarRange) -> Result<Self, SlotError> {
        let part = peerdma::buffer::shared::Part::new(range.offset(), range.len());
        let at = bar.process_range(range).ok_or(SlotError::BeyondMemory { part, memory: bar.window().end() })?;
        Ok(Self::new(at.start(), at.len(), Prot::ReadWrite, Kept::Bar(bar.clone())))
    }

    /// Maps `len` bytes of a file from `offset` on: a memfd, or a dma-buf whose exporter permits it (udmabuf and heaps do).
    ///
    /// A file that can be cut off is refused: a guest that touched what is gone would stop. A dma-buf cannot be cut off.
    ///
    /// # Errors
    /// [`SlotError::BeyondMemory`], [`SlotError::NotPermitted`] of a memfd without `F_SEAL_SHRINK`,
    /// [`SlotError::NotMapped`]: EINVAL of a dma-buf that cannot be mapped, such as an exported BAR, EACCES for writing to
    /// what was opened for reading.
    pub fn of_file(file: impl AsFd, offset: Bytes, len: Bytes, prot: Prot) -> Result<Self, SlotError> {
        let file = file.as_fd();
        let refused = |error| SlotError::NotMapped { errno: errno(error) };
        let size = u64::try_from(rustix::fs::fstat(file).map_err(refused)?.st_size).unwrap_or(0);
        let part = peerdma::buffer::shared::Part::new(offset, len);
        if offset.checked_add(len).is_none_or(|end| end > Bytes::new(size)) {
            return Err(SlotError::BeyondMemory { part, memory: Bytes::new(size) });
        }
        // Only memory files have seals; a dma-buf has none and no need of them.
        if let Ok(seals) = rustix::fs::fcntl_get_seals(file)
            && !seals.contains(rustix::fs::SealFlags::SHRINK)
        {
            let next = "seal it with F_SEAL_SHRINK, or a guest can be stopped by whoever shortens it";
            return Err(SlotError::NotPermitted { what: "promise that it keeps its length", next });
        }
        let count = usize::try_from(len.as_u64()).map_err(|_| refused(rustix::io::Errno::NOMEM))?;
        match prot {
            Prot::Read => {
                let mapping = ReadOnly::of_file(file, offset.as_u64(), count).map_err(refused)?;
                Ok(Self::new(mapping.address(), len, prot, Kept::ReadOnlyFile(Arc::new(mapping))))
            }
            Prot::Write | Prot::ReadWrite => {
                let mapping = Mapping::of_file(file, offset.as_u64(), count).map_err(refused)?;
                Ok(Self::new(mapping.address(), len, Prot::ReadWrite, Kept::File(Arc::new(mapping))))
            }
        }
    }

    pub(super) fn of_guest(mapping: Arc<Mapping>, file: Arc<OwnedFd>) -> Self {
        Self::new(mapping.address(), mapping.len(), Prot::ReadWrite, Kept::Guest(mapping, file))
    }

    pub(super) fn of_window(window: Arc<Window>, there: Arc<AtomicBool>, prot: Prot) -> Self {
        let at = window.at();
        Self::new(at.start(), at.len(), prot, Kept::Window(window, there))
    }

    fn new(start: ProcVa, len: Bytes, prot: Prot, kept: Kept) -> Self {
        let Some(at) = AddrRange::new(start, len) else {
            unreachable!("a mapping is not empty and lies within the address space");
        };
        Self { at, prot, kept }
    }

    /// Its length.
    pub fn len(&self) -> Bytes {
        self.at.len()
    }

    /// Always false; memory has a byte at least.
    pub fn is_empty(&self) -> bool {
        false
    }

    pub(super) fn at(&self) -> AddrRange<ProcVa> {
        self.at
    }

    pub(super) fn prot(&self) -> Prot {
        self.prot
    }

    /// The file of memory that belongs to a guest.
    pub(super) fn guest_file(&self) -> Option<BorrowedFd<'_>> {
        match &self.kept {
            Kept::Guest(_, file) => Some(file.as_fd()),
            _ => None,
        }
    }

    pub(super) fn standing(&self) -> Standing {
        match &self.kept {
            Kept::Bar(_) => Standing::Silent,
            Kept::Window(_, there) => Standing::Known(there.clone()),
            _ => Standing::Stays,
        }
    }
}

/// A file as the CPU maps it, for owners of a buffer's ranges: `Source::File` of [`peerdma::dma::Owners`].
///
/// Not a dma-buf that a BAR was exported as, which the CPU cannot map and address spaces can; those are told apart by type.
#[derive(Clone, Debug)]
pub struct CpuFile {
    file: Arc<OwnedFd>,
    /// Where its byte 0 is in the file.
    start: u64,
}

impl CpuFile {
    /// A memfd, or a dma-buf of an allocator; offsets are its own.
    pub fn of_file(file: Arc<OwnedFd>) -> Self {
        Self { file, start: 0 }
    }

    /// A range of a device's BAR; offset 0 is the range's first byte. Keeps the device open.
    ///
    /// # Errors
    /// As [`VfioDevice::map`], which it does not do.
    pub fn of_bar(device: &VfioDevice, range: BarRange) -> Result<Self, MapBarError> {
        let (file, start) = device.cpu_file(range)?;
        Ok(Self { file: Arc::new(file), start })
    }

    /// A file whose byte `start` is offset 0.
    pub(crate) const fn beginning_at(file: Arc<OwnedFd>, start: u64) -> Self {
        Self { file, start }
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    pub(super) fn offset(&self, into: Bytes) -> Option<u64> {
        self.start.checked_add(into.as_u64())
    }
}
