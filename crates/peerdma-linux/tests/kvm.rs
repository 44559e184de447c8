//! A virtual machine on the machine that tests run on, where that has virtualisation. Guests have it always
//! (`cargo xtask vm test kvm`), and most is claimed there.

use peerdma::access::{MemAttrs, Prot};
use peerdma::addr::{Bytes, GuestPhys};
use peerdma::buffer::Enforcement;
use peerdma::buffer::life::{Answers, Disturbance};
use peerdma::buffer::shared::{Buffer, Part};
use peerdma::buffer::terms::{Methods, Moves, Offer, Place, Stays};
use peerdma::chunk::{Chunk, Chunks};
use peerdma::dma::{Owner, OwnerId, Owners, Peers, Source};
use peerdma_linux::kvm::{
    BufferSlot, CpuFile, Exit, Kvm, KvmError, MissedAccess, NotFinished, NotRestored, Registers, SlotError, SlotMemory,
    Vcpu, Vm,
};
use peerdma_linux::memory::{Backing, Pages};
use std::io::Write;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

/// KVM, or a word why it is not there.
fn kvm() -> Option<Kvm> {
    match Kvm::open() {
        Ok(kvm) => Some(kvm),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "SKIPPED kvm: {error}");
            None
        }
    }
}

#[test]
fn a_page_of_code_stores_and_says_what_it_stored() -> Result<(), Box<dyn std::error::Error>> {
    let Some(kvm) = kvm() else { return Ok(()) };
    let vm = kvm.create_vm()?;
    let page = Part::new(Bytes::ZERO, Bytes::new(0x1000));
    let (code, data) = (Arc::new(Pages::zeroed(page.len)?), Arc::new(Pages::zeroed(page.len)?));
    // mov [ebx], eax; out 0x10, eax; hlt
    code.write(Bytes::ZERO, &[0x89, 0x03, 0xe7, 0x10, 0xf4])?;
    let code = vm.add(GuestPhys::new(0x1000), &SlotMemory::of_pages(&code), page, Prot::ReadWrite)?;
    let memory = SlotMemory::of_pages(&data);
    let there = vm.add(GuestPhys::new(0x1000_0000), &memory, page, Prot::ReadWrite)?;
    let mut vcpu = kvm.create_vcpu(&vm, 0)?;
    vcpu.start_flat(code.range().start())?;
    let at = there.range().start().as_u64() + 8;
    vcpu.set_registers(Registers { rax: 0x1234_5678, rbx: at, rip: 0x1000, ..Registers::default() })?;
    assert_eq!(vcpu.run()?, Exit::Out { port: 0x10, bytes: 0x1234_5678_u32.to_le_bytes().to_vec() });
    assert_eq!(vcpu.run()?, Exit::Halted);
    let mut word = [0; 4];
    data.read(Bytes::new(8), &mut word)?;
    assert_eq!(u32::from_le_bytes(word), 0x1234_5678);
    let overlap = vm.add(GuestPhys::new(0x1000_0000), &memory, page, Prot::ReadWrite);
    assert!(matches!(overlap, Err(SlotError::Overlaps { slot: Some(_), .. })), "{overlap:?}");
    Ok(())
}

#[test]
fn the_slot_of_a_guest_lets_go_of_a_buffer_and_gets_it_back() -> Result<(), Box<dyn std::error::Error>> {
    let Some(kvm) = kvm() else { return Ok(()) };
    let vm = kvm.create_vm()?;
    let page = Part::new(Bytes::ZERO, Bytes::new(0x1000));
    let ram = Pages::backed(Backing::Memfd, page.len)?;
    let file = ram.file().ok_or("pages of a memfd have a file")?.try_clone_to_owned()?;
    let owner = Owner::Memfd(OwnerId::new(1));
    let ranges = [Chunk::new(owner, Bytes::ZERO, page.len, MemAttrs::empty()).ok_or("a page is a range")?];
    let stays = Stays { moves: Moves::AtWill, revoked: true };
    let offer = Offer::new(Chunks::collect_from(ranges)?, stays, Place::Ram)?.permitting(Methods::CPU);
    let buffer = Buffer::new("frames", offer, Answers::YES);
    let mut files = Owners::new();
    let file = CpuFile::of_file(Arc::new(file));
    files.add(owner, Bytes::ZERO, page.len, Source::File { file, offset: Bytes::ZERO });
    let (at, soon) = (GuestPhys::new(0x1000_0000), Duration::from_secs(60));
    let slot = vm.follow(at, &buffer, ("guest", Prot::ReadWrite, Enforcement::Kernel), &Peers::none(), files)?;
    slot.restore(soon)?;

    // again: mov [ebx], eax; inc eax; out 0x10, eax; jmp again
    let code_pages = Arc::new(Pages::zeroed(page.len)?);
    code_pages.write(Bytes::ZERO, &[0x89, 0x03, 0x40, 0xe7, 0x10, 0xeb, 0xf9])?;
    let code = vm.add(GuestPhys::new(0x1000), &SlotMemory::of_pages(&code_pages), page, Prot::ReadWrite)?;
    let mut vcpu = kvm.create_vcpu(&vm, 0)?;
    vcpu.start_flat(code.range().start())?;
    vcpu.set_registers(Registers { rax: 1, rbx: at.as_u64(), rip: 0x1000, ..Registers::default() })?;
    let stored = || {
        let mut word = [0; 4];
        ram.read(Bytes::ZERO, &mut word).map(|()| u32::from_le_bytes(word))
    };
    let said = |value: u32| Exit::Out { port: 0x10, bytes: value.to_le_bytes().to_vec() };
    assert_eq!((vcpu.run()?, stored()?), (said(2), 1));

    let reset = buffer.begin(Disturbance::Reset)?.wait(soon)?;
    let stopped = vcpu.run()?;
    assert!(is_stopped(&stopped), "the guest was not asked, and stopped at its store: {stopped:?}");
    assert!(matches!(slot.restore(Duration::ZERO), Err(NotRestored::OutOfReach { .. })));
    if let Exit::Missed { access, .. } = &stopped {
        let early = slot.finish(&mut vcpu, access, Duration::ZERO);
        assert!(matches!(early, Err(NotFinished::NotRestored(NotRestored::OutOfReach { .. }))), "{early:?}");
    }
    assert_eq!(stored()?, 1, "nothing landed");
    reset.done();
    goes_on(&slot, &mut vcpu, &stopped)?;
    assert_eq!((vcpu.run()?, stored()?), (said(3), 2), "the store that was stopped is done once");

    // mov eax, [ebx]; out 0x10, eax
    code_pages.write(Bytes::new(0x100), &[0x8b, 0x03, 0xe7, 0x10])?;
    vcpu.set_registers(Registers { rbx: at.as_u64(), rip: 0x1100, ..Registers::default() })?;
    let moved = buffer.begin(Disturbance::FunctionReset)?.wait(soon)?;
    let stopped = vcpu.run()?;
    assert!(is_stopped(&stopped), "{stopped:?}");
    moved.done();
    goes_on(&slot, &mut vcpu, &stopped)?;
    assert_eq!(vcpu.run()?, said(2), "a load that was stopped gets what is there");

    buffer.begin(Disturbance::Close)?.wait(soon)?.done();
    vcpu.set_registers(Registers { rax: 7, rbx: at.as_u64(), rip: 0x1000, ..Registers::default() })?;
    assert!(is_stopped(&vcpu.run()?));
    assert_eq!((slot.restore(soon), stored()?), (Err(NotRestored::Gone), 2));
    let elsewhere = MissedAccess::Load { at: GuestPhys::new(0x1000_0ffe), len: 4 };
    assert!(matches!(slot.finish(&mut vcpu, &elsewhere, soon), Err(NotFinished::Elsewhere { .. })));
    Ok(())
}

/// Whether the guest met memory that is away. Which of the two is for the machine's processor: what it cannot run is emulated.
fn is_stopped(exit: &Exit) -> bool {
    matches!(exit, Exit::Revoked { .. } | Exit::Missed { .. })
}

/// What a monitor does then.
fn goes_on(slot: &BufferSlot, vcpu: &mut Vcpu, stopped: &Exit) -> Result<(), Box<dyn std::error::Error>> {
    let soon = Duration::from_secs(60);
    match stopped {
        Exit::Missed { slot: which, access } => {
            assert_eq!(*which, slot.id());
            Ok(slot.finish(vcpu, access, soon)?)
        }
        _ => Ok(slot.restore(soon)?),
    }
}

#[test]
fn a_descriptor_of_something_else_is_no_machine() -> Result<(), Box<dyn std::error::Error>> {
    let null = std::fs::File::open("/dev/null")?;
    for refused in [
        Kvm::from_fd(null.as_fd().try_clone_to_owned()?).err(),
        Vm::from_fd(null.as_fd().try_clone_to_owned()?, 0..=1).err(),
    ] {
        let Some(error @ KvmError::NotA { .. }) = refused else { return Err(format!("{refused:?}").into()) };
        assert!(error.to_string().contains("/dev/null"), "{error}");
    }
    Ok(())
}
