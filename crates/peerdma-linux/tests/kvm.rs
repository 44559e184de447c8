//! A virtual machine on the machine that tests run on, where that has virtualisation. Guests have it always
//! (`cargo xtask vm test kvm`), and most is claimed there.

use peerdma::access::Prot;
use peerdma::addr::{Bytes, GuestPhys};
use peerdma::buffer::shared::Part;
use peerdma_linux::kvm::{Exit, Kvm, KvmError, Registers, SlotError, SlotMemory, Vm};
use peerdma_linux::memory::Pages;
use std::io::Write;
use std::os::fd::AsFd;
use std::sync::Arc;

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
