//! A virtual machine, as far as its memory goes.

use super::error::{FdKind, KvmError, SlotError};
use super::layout::{Layout, checked};
use super::memory::SlotMemory;
use super::slot::{Slot, SlotId};
use super::system::{Capabilities, expect_kind};
use crate::memory::page_size;
use crate::sys::kvm::{self, READ_ONLY, SlotRequest};
use crate::vfio::errno;
use peerdma::access::Prot;
use peerdma::addr::{AddrRange, Bytes, Granule, GuestPhys};
use peerdma::buffer::shared::Part;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Three pages that KVM uses on some processors while the guest is in real mode; nobody has memory there.
const TSS: AddrRangeParts = (0xfffb_d000, 3 << 12);
type AddrRangeParts = (u32, u64);

/// A virtual machine. Handles are cheap to clone and all the same machine, which ends with the last of them and of its slots.
#[derive(Clone, Debug)]
pub struct Vm(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    fd: OwnedFd,
    capabilities: Capabilities,
    /// Held while the kernel is asked, so that two threads cannot take one range.
    layout: Mutex<Layout>,
}

impl Vm {
    /// A machine that was just made, and whose slots are all ours.
    pub(super) fn new(fd: OwnedFd) -> Result<Self, KvmError> {
        let slots = Capabilities::of(fd.as_fd())?.slots;
        let last = u16::try_from(slots.saturating_sub(1)).unwrap_or(u16::MAX);
        // Only some processors need it, and to the others it is nothing.
        let tss = kvm::set_tss(fd.as_fd(), TSS.0);
        let vm = Self::from_fd(fd, 0..=last)?;
        if let (Ok(()), Some(range)) = (tss, AddrRange::new(GuestPhys::new(TSS.0.into()), Bytes::new(TSS.1))) {
            vm.reserve(range);
        }
        Ok(vm)
    }

    /// Takes a machine that the caller made. `numbers` are those of slots that nobody else uses.
    ///
    /// Say with [`reserve`](Self::reserve) where the machine has memory already: the kernel refuses what overlaps, and does not say
    /// with what.
    ///
    /// # Errors
    /// [`KvmError::NotA`] for a descriptor of something else.
    pub fn from_fd(fd: OwnedFd, numbers: RangeInclusive<u16>) -> Result<Self, KvmError> {
        expect_kind(fd.as_fd(), FdKind::Machine)?;
        let capabilities = Capabilities::of(fd.as_fd())?;
        let most = u16::try_from(capabilities.slots.saturating_sub(1)).unwrap_or(u16::MAX);
        let numbers = *numbers.start()..=(*numbers.end()).min(most);
        Ok(Self(Arc::new(Inner { fd, capabilities, layout: Mutex::new(Layout::new(numbers)) })))
    }

    /// What the machine can do.
    pub fn capabilities(&self) -> Capabilities {
        self.0.capabilities
    }

    /// Keeps slots from a range of the guest's.
    pub fn reserve(&self, range: AddrRange<GuestPhys>) {
        self.0.layout().reserve(range);
    }

    /// Lets the guest see a part of memory from `at` on.
    ///
    /// Blocks for other changes of the machine's slots, and for its processors, which leave the guest for a moment.
    ///
    /// # Errors
    /// [`SlotError`]; nothing has changed then.
    pub fn add(&self, at: GuestPhys, memory: &SlotMemory, part: Part, prot: Prot) -> Result<Slot, SlotError> {
        Inner::add(&self.0, at, memory, part, prot)
    }

    /// The slot that an address of the guest's is in.
    pub fn slot_at(&self, at: GuestPhys) -> Option<SlotId> {
        self.0.layout().slot_at(at)
    }

    /// Slots whose memory is out of reach; where none is known to be, those from which the kernel may take it without a word.
    ///
    /// For monitors that run processors themselves: KVM does not say on x86 which access ended with EFAULT.
    pub fn suspects(&self) -> Vec<SlotId> {
        self.0.layout().suspects()
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }
}

impl AsFd for Vm {
    /// The descriptor, for calls that this library does not make.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor()
    }
}

/// The granule of slots.
pub(super) fn page() -> Granule {
    Granule::new(page_size()).unwrap_or(Granule::PAGE_4K)
}

impl Inner {
    fn layout(&self) -> MutexGuard<'_, Layout> {
        // What is in there is whole after each step.
        self.layout.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(vm: &Arc<Self>, at: GuestPhys, memory: &SlotMemory, part: Part, prot: Prot) -> Result<Slot, SlotError> {
        let range = checked(at, part.at, part.len, page())?;
        let process = memory.at().slice(part.at, part.len);
        let process = process.ok_or(SlotError::BeyondMemory { part, memory: memory.len() })?;
        let read_only = prot == Prot::Read;
        if !read_only && prot.within(memory.prot()) != Some(prot) {
            let next = "map it for writing, or make the slot for reading";
            return Err(SlotError::NotPermitted { what: "writing", next });
        }
        if read_only && (!vm.capabilities.read_only || memory.guest_file().is_some()) {
            let next = "make the slot for writing; accesses to one for reading leave the guest, which this cannot do";
            return Err(SlotError::NotPermitted { what: "slot for reading", next });
        }
        // This process's address has to be a page's too; that of a BAR smaller than one is.
        checked(at, Bytes::new(process.start().as_u64()), part.len, page())?;
        let mut layout = vm.layout();
        let id = layout.place(range, memory.standing(), prot)?;
        let request = SlotRequest {
            slot: id.number().into(),
            flags: if read_only { READ_ONLY } else { 0 },
            guest: at.as_u64(),
            len: part.len.as_u64(),
            process: process.start().as_u64(),
        };
        let made = match memory.guest_file() {
            Some(file) => kvm::set_guest_region(vm.fd.as_fd(), request, file, part.at.as_u64()),
            None => kvm::set_region(vm.fd.as_fd(), request),
        };
        if let Err(error) = made {
            layout.remove(id);
            return Err(refused(range, error));
        }
        drop(layout);
        Ok(Slot { vm: vm.clone(), id, range, request, memory: memory.clone(), deleted: false })
    }

    pub(super) fn move_slot(&self, slot: &Slot, at: GuestPhys) -> Result<AddrRange<GuestPhys>, SlotError> {
        let range = checked(at, Bytes::ZERO, slot.range.len(), page())?;
        if slot.memory.guest_file().is_some() {
            let next = "delete the slot and make it anew";
            return Err(SlotError::NotPermitted { what: "move", next });
        }
        let mut layout = self.layout();
        layout.free(range, Some(slot.id))?;
        let request = SlotRequest { guest: at.as_u64(), ..slot.request };
        kvm::set_region(self.fd.as_fd(), request).map_err(|error| refused(range, error))?;
        layout.moved(slot.id, range);
        Ok(range)
    }

    pub(super) fn delete_slot(
        &self,
        id: SlotId,
        range: AddrRange<GuestPhys>,
        request: SlotRequest,
    ) -> Result<(), SlotError> {
        let mut layout = self.layout();
        let gone = kvm::set_region(self.fd.as_fd(), SlotRequest { len: 0, flags: 0, ..request });
        gone.map_err(|error| refused(range, error))?;
        layout.remove(id);
        Ok(())
    }

    pub(super) fn slot_at(&self, at: GuestPhys) -> Option<SlotId> {
        self.layout().slot_at(at)
    }

    pub(super) fn slot_for(&self, at: GuestPhys, prot: Prot) -> Option<SlotId> {
        self.layout().slot_for(at, prot)
    }

    pub(super) fn suspects(&self) -> Vec<SlotId> {
        self.layout().suspects()
    }
}

fn refused(asked: AddrRange<GuestPhys>, error: rustix::io::Errno) -> SlotError {
    match error {
        rustix::io::Errno::EXIST => SlotError::OverlapsForeign { asked },
        error => SlotError::Kernel { asked, errno: errno(error) },
    }
}
