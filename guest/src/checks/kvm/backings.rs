//! Claims about what may lie behind a slot.

use super::super::answer::taken;
use super::super::bench::{PAGE, USED, used};
use super::super::claim::{Claim, Stop, equal};
use super::super::type1::open;
use super::inner::Inner;
use super::{MEMORY, Tried, at, page};
use peerdma::access::Prot;
use peerdma::addr::Bytes;
use peerdma::dma::Errno;
use peerdma_linux::kvm::{Exit, KvmError, SlotError, SlotMemory};
use peerdma_linux::memory::{Backing, Pages};
use peerdma_linux::raw;
use rustix::fs::{SealFlags, fcntl_add_seals};
use std::os::fd::{AsFd, OwnedFd};

pub(super) fn claims() -> Vec<Claim<Tried>> {
    vec![
        Claim::new("a virtual machine reads and writes a BAR through a slot, before and after a reset", bar),
        Claim::new("a slot of the middle of a BAR shows the middle", middle),
        Claim::new("a store through a slot for reading leaves the guest and changes nothing", read_only),
        Claim::new("a memfd is a slot, and one that can be cut off is refused", memfd),
        Claim::new("the memfd behind a udmabuf sees what a virtual machine writes to the udmabuf's mapping", udmabuf),
        Claim::new("memory of a heap is a slot", heap),
        Claim::new("an exported BAR is no slot, since the CPU cannot map it", exported),
        Claim::new("memory that belongs to the virtual machine is a slot, and mapped here too", guest_memory),
    ]
}

fn bar(tried: &mut Tried) -> Result<(), Stop> {
    let vm = tried.kvm.create_vm()?;
    let (_slot, mut inner) = (tried.slot(&vm)?, Inner::new(&tried.kvm, &vm)?);
    inner.stored(at(8), 0x1234_5678)?;
    equal("the BAR after a store", &0x1234_5678, &tried.word(8)?)?;
    tried.bar.store_u32(Bytes::new(0x2004), 77)?;
    equal("what was loaded", &77, &inner.loaded(at(0x2004))?)?;
    tried.device.reset()?;
    inner.stored(at(0x3ffc), 0x8765_4321)?;
    equal("the BAR after a reset and a store", &0x8765_4321, &tried.word(0x3ffc)?)?;
    tried.bar.store_u32(Bytes::new(16), 78)?;
    equal("what was loaded after the reset", &78, &inner.loaded(at(16))?)
}

fn middle(tried: &mut Tried) -> Result<(), Stop> {
    let vm = tried.kvm.create_vm()?;
    let part = peerdma::buffer::shared::Part::new(PAGE, PAGE);
    let _slot = vm.add(MEMORY, &tried.memory()?, part, Prot::ReadWrite)?;
    Inner::new(&tried.kvm, &vm)?.stored(at(4), 5)?;
    equal("the BAR's second page", &5, &tried.word(PAGE.as_u64() + 4)?)
}

fn read_only(tried: &mut Tried) -> Result<(), Stop> {
    let vm = tried.kvm.create_vm()?;
    let whole = peerdma::buffer::shared::Part::new(Bytes::ZERO, USED);
    let _slot = vm.add(MEMORY, &tried.memory()?, whole, Prot::Read)?;
    let mut inner = Inner::new(&tried.kvm, &vm)?;
    tried.bar.store_u32(Bytes::new(4), 6)?;
    equal("what was loaded", &6, &inner.loaded(at(4))?)?;
    let left = inner.store(at(4), 7)?;
    equal("a store", &Exit::Store { at: at(4), bytes: vec![7, 0, 0, 0] }, &left)?;
    equal("the BAR", &6, &tried.word(4)?)
}

/// A memfd that keeps its length.
fn sealed() -> Result<Pages, Stop> {
    let pages = unsealed()?;
    if let Some(file) = pages.file() {
        fcntl_add_seals(file, SealFlags::SHRINK)?;
    }
    Ok(pages)
}

fn unsealed() -> Result<Pages, Stop> {
    // Without a way to seal it a memfd has F_SEAL_SEAL only.
    Ok(Pages::backed(Backing::Memfd, Bytes::new(4 * PAGE.as_u64()))?)
}

/// Has a virtual machine write to and read from memory of which `pages` are another view.
fn both_ways(tried: &Tried, memory: &SlotMemory, pages: &dyn Fn(Option<u32>) -> Result<u32, Stop>) -> Result<(), Stop> {
    let vm = tried.kvm.create_vm()?;
    let _slot = vm.add(MEMORY, memory, page(), Prot::ReadWrite)?;
    let mut inner = Inner::new(&tried.kvm, &vm)?;
    inner.stored(at(0), 0xabcd_1234)?;
    equal("what the store left", &0xabcd_1234, &pages(None)?)?;
    pages(Some(99))?;
    equal("what was loaded", &99, &inner.loaded(at(0))?)
}

/// The first word of pages, written first if one is given.
fn first_word(pages: &Pages) -> impl Fn(Option<u32>) -> Result<u32, Stop> + '_ {
    move |write| {
        if let Some(word) = write {
            pages.write(Bytes::ZERO, &word.to_le_bytes())?;
        }
        let mut word = [0; 4];
        pages.read(Bytes::ZERO, &mut word)?;
        Ok(u32::from_le_bytes(word))
    }
}

fn file_of(pages: &Pages) -> Result<std::os::fd::BorrowedFd<'_>, Stop> {
    pages.file().ok_or_else(|| Stop::broken("pages of a memfd have no file"))
}

fn memfd(tried: &mut Tried) -> Result<(), Stop> {
    let open_ended = unsealed()?;
    let refused = SlotMemory::of_file(file_of(&open_ended)?, Bytes::ZERO, PAGE, Prot::ReadWrite);
    if !matches!(refused, Err(SlotError::NotPermitted { .. })) {
        return Err(Stop::broken(format!("a memfd that can shrink: {refused:?}")));
    }
    let pages = sealed()?;
    let memory = SlotMemory::of_file(file_of(&pages)?, Bytes::ZERO, PAGE, Prot::ReadWrite)?;
    both_ways(tried, &memory, &first_word(&pages))
}

fn udmabuf(tried: &mut Tried) -> Result<(), Stop> {
    let pages = sealed()?;
    let maker = open("/dev/udmabuf")?;
    let dma_buf = taken("making a udmabuf", raw::udmabuf(&maker, file_of(&pages)?, Bytes::ZERO, PAGE))?;
    let memory = SlotMemory::of_file(&dma_buf, Bytes::ZERO, PAGE, Prot::ReadWrite)?;
    both_ways(tried, &memory, &first_word(&pages))
}

fn heap(tried: &mut Tried) -> Result<(), Stop> {
    let heap: OwnedFd = open("/dev/dma_heap/system")?;
    let dma_buf = taken("taking memory of the heap", raw::heap(heap.as_fd(), PAGE))?;
    let memory = SlotMemory::of_file(&dma_buf, Bytes::ZERO, PAGE, Prot::ReadWrite)?;
    let vm = tried.kvm.create_vm()?;
    let _slot = vm.add(MEMORY, &memory, page(), Prot::ReadWrite)?;
    // Another mapping of the same heap's memory is another slot.
    let again = SlotMemory::of_file(&dma_buf, Bytes::ZERO, PAGE, Prot::Read)?;
    let _other = vm.add(at(0x10_0000), &again, page(), Prot::Read)?;
    let mut inner = Inner::new(&tried.kvm, &vm)?;
    inner.stored(at(12), 31)?;
    equal("what was loaded through the other slot", &31, &inner.loaded(at(0x10_000c))?)
}

fn exported(tried: &mut Tried) -> Result<(), Stop> {
    let dma_buf = tried.device.export(used()?)?;
    match SlotMemory::of_file(&*dma_buf, Bytes::ZERO, PAGE, Prot::ReadWrite) {
        Err(SlotError::NotMapped { errno: Errno::EINVAL }) => Ok(()),
        other => Err(Stop::broken(format!("an exported BAR as a slot: {other:?}"))),
    }
}

fn guest_memory(tried: &mut Tried) -> Result<(), Stop> {
    let vm = tried.kvm.create_vm()?;
    let memory = match vm.guest_memory(Bytes::new(4 * PAGE.as_u64())) {
        Ok(memory) => memory,
        Err(error @ KvmError::Lacks { .. }) => return Err(Stop::DoesNotApply(error.to_string())),
        Err(error) => return Err(error.into()),
    };
    let slot = vm.add(MEMORY, &memory.memory(), peerdma::buffer::shared::Part::new(PAGE, PAGE), Prot::ReadWrite)?;
    let mut inner = Inner::new(&tried.kvm, &vm)?;
    inner.stored(at(4), 41)?;
    let mut word = [0; 4];
    memory.read(Bytes::new(PAGE.as_u64() + 4), &mut word)?;
    equal("what the store left", &41, &u32::from_le_bytes(word))?;
    memory.write(PAGE, &42u32.to_le_bytes())?;
    equal("what was loaded", &42, &inner.loaded(at(0))?)?;
    let mut slot = slot;
    match slot.move_to(at(0x10_0000)) {
        Err(SlotError::NotPermitted { what: "move", .. }) => Ok(()),
        other => Err(Stop::broken(format!("moving memory of a guest: {other:?}"))),
    }
}
