//! The ioctls of `/dev/kvm`, of virtual machines and of their processors.
//!
//! UNSAFETY: `ioctl` with structures of `linux/kvm.h`, which are written out here: the crates `kvm-bindings` and
//! `kvm-ioctls` bring all of KVM for a dozen calls, and no errno of a slot's. Sizes stand in the numbers, so that the
//! kernel accesses no more than them.
//!
//! What a guest does to memory of this process is what a device does to it: see the folder's head. Whoever gives a
//! range to [`set_region`] keeps it from being unmapped and used for something else until the slot is gone.

#![expect(unsafe_code)]

use super::ioctl::{exchange, number, with_number};
use rustix::io::Errno;
use rustix::ioctl::{Opcode, opcode};
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};

const KVM: u8 = 0xae;

const GET_API_VERSION: Opcode = number(KVM, 0x00);
const CREATE_VM: Opcode = number(KVM, 0x01);
const CHECK_EXTENSION: Opcode = number(KVM, 0x03);
const VCPU_MMAP_SIZE: Opcode = number(KVM, 0x04);
const CREATE_VCPU: Opcode = number(KVM, 0x41);
const SET_REGION: Opcode = opcode::write::<Region>(KVM, 0x46);
const SET_TSS: Opcode = number(KVM, 0x47);
const SET_REGION2: Opcode = opcode::write::<Region2>(KVM, 0x49);
const RUN: Opcode = number(KVM, 0x80);
const GET_REGS: Opcode = opcode::read::<Regs>(KVM, 0x81);
const SET_REGS: Opcode = opcode::write::<Regs>(KVM, 0x82);
const GET_SREGS: Opcode = opcode::read::<Sregs>(KVM, 0x83);
const SET_SREGS: Opcode = opcode::write::<Sregs>(KVM, 0x84);
const CREATE_GUEST_MEMFD: Opcode = opcode::read_write::<GuestMemfd>(KVM, 0xd4);

// Linux 7.2, computed by compiling the header on x86-64.
const _: () = assert!(GET_API_VERSION == 0xae00 && CHECK_EXTENSION == 0xae03 && RUN == 0xae80);
const _: () = assert!(SET_REGION == 0x4020_ae46 && SET_REGION2 == 0x40a0_ae49 && CREATE_GUEST_MEMFD == 0xc040_aed4);
const _: () = assert!(GET_REGS == 0x8090_ae81 && SET_REGS == 0x4090_ae82);
const _: () = assert!(GET_SREGS == 0x8138_ae83 && SET_SREGS == 0x4138_ae84);

/// `struct kvm_userspace_memory_region`.
#[repr(C)]
struct Region {
    slot: u32,
    flags: u32,
    guest_phys_addr: u64,
    memory_size: u64,
    userspace_addr: u64,
}

/// `struct kvm_userspace_memory_region2`.
#[repr(C)]
struct Region2 {
    region: Region,
    guest_memfd_offset: u64,
    guest_memfd: u32,
    pad1: u32,
    pad2: [u64; 14],
}

/// `struct kvm_create_guest_memfd`.
#[repr(C)]
struct GuestMemfd {
    size: u64,
    flags: u64,
    reserved: [u64; 6],
}

/// `struct kvm_regs` of x86-64.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Regs {
    pub(crate) rax: u64,
    pub(crate) rbx: u64,
    pub(crate) rcx: u64,
    pub(crate) rdx: u64,
    pub(crate) rsi: u64,
    pub(crate) rdi: u64,
    pub(crate) rsp: u64,
    pub(crate) rbp: u64,
    pub(crate) upper: [u64; 8],
    pub(crate) rip: u64,
    pub(crate) rflags: u64,
}

/// `struct kvm_segment`.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Segment {
    pub(crate) base: u64,
    pub(crate) limit: u32,
    pub(crate) selector: u16,
    pub(crate) kind: u8,
    pub(crate) present: u8,
    pub(crate) dpl: u8,
    pub(crate) db: u8,
    pub(crate) s: u8,
    pub(crate) l: u8,
    pub(crate) g: u8,
    pub(crate) avl: u8,
    pub(crate) unusable: u8,
    pub(crate) padding: u8,
}

/// `struct kvm_sregs` of x86-64.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Sregs {
    pub(crate) cs: Segment,
    pub(crate) ds: Segment,
    pub(crate) es: Segment,
    pub(crate) fs: Segment,
    pub(crate) gs: Segment,
    pub(crate) ss: Segment,
    pub(crate) tr: Segment,
    pub(crate) ldt: Segment,
    pub(crate) tables: [u64; 4],
    pub(crate) cr0: u64,
    pub(crate) cr2: u64,
    pub(crate) cr3: u64,
    pub(crate) cr4: u64,
    pub(crate) cr8: u64,
    pub(crate) efer: u64,
    pub(crate) apic_base: u64,
    pub(crate) interrupts: [u64; 4],
}

const _: () = assert!(size_of::<Region>() == 32 && std::mem::offset_of!(Region, userspace_addr) == 24);
const _: () = assert!(size_of::<Region2>() == 160 && std::mem::offset_of!(Region2, guest_memfd) == 40);
const _: () = assert!(size_of::<GuestMemfd>() == 64);
const _: () = assert!(size_of::<Regs>() == 0x90 && std::mem::offset_of!(Regs, rip) == 0x80);
const _: () = assert!(size_of::<Segment>() == 0x18 && std::mem::offset_of!(Segment, kind) == 0xe);
const _: () = assert!(std::mem::offset_of!(Segment, g) == 0x14);
const _: () = assert!(size_of::<Sregs>() == 0x138 && std::mem::offset_of!(Sregs, cr0) == 0xe0);
const _: () = assert!(std::mem::offset_of!(Sregs, efer) == 0x108);

/// `KVM_MEM_READONLY`.
pub(crate) const READ_ONLY: u32 = 1 << 1;
/// `KVM_MEM_GUEST_MEMFD`.
const OF_GUEST_MEMFD: u32 = 1 << 2;

/// Which version of the interface the kernel speaks.
pub(crate) fn api_version(kvm: BorrowedFd<'_>) -> Result<i32, Errno> {
    // SAFETY: the argument is a number, and has to be 0.
    unsafe { with_number(kvm, GET_API_VERSION, 0) }
}

/// What the kernel says of a capability: 0 for none.
pub(crate) fn check_extension(fd: BorrowedFd<'_>, capability: u32) -> Result<u32, Errno> {
    // SAFETY: the argument is a number.
    let said = unsafe { with_number(fd, CHECK_EXTENSION, capability as usize) }?;
    Ok(u32::try_from(said).unwrap_or(0))
}

/// Makes a virtual machine of the usual type.
pub(crate) fn create_vm(kvm: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    // SAFETY: the argument is a number, the machine's type.
    owned(unsafe { with_number(kvm, CREATE_VM, 0) }?)
}

/// How many bytes of a processor are to be mapped.
pub(crate) fn vcpu_mmap_size(kvm: BorrowedFd<'_>) -> Result<usize, Errno> {
    // SAFETY: the argument is a number, and has to be 0.
    let size = unsafe { with_number(kvm, VCPU_MMAP_SIZE, 0) }?;
    usize::try_from(size).map_err(|_| Errno::INVAL)
}

/// Makes a processor of a machine.
pub(crate) fn create_vcpu(vm: BorrowedFd<'_>, index: u32) -> Result<OwnedFd, Errno> {
    // SAFETY: the argument is a number.
    owned(unsafe { with_number(vm, CREATE_VCPU, index as usize) }?)
}

/// Says where the kernel may keep three pages that some processors need in real mode.
pub(crate) fn set_tss(vm: BorrowedFd<'_>, at: u32) -> Result<(), Errno> {
    // SAFETY: the argument is a number, an address of the guest's.
    unsafe { with_number(vm, SET_TSS, at as usize) }.map(drop)
}

/// What a slot is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlotRequest {
    /// Its number.
    pub(crate) slot: u32,
    /// [`READ_ONLY`] or nothing.
    pub(crate) flags: u32,
    /// Where the guest sees it.
    pub(crate) guest: u64,
    /// Its length; 0 deletes it.
    pub(crate) len: u64,
    /// Where it is in this process.
    pub(crate) process: u64,
}

/// Makes, moves or deletes a slot.
pub(crate) fn set_region(vm: BorrowedFd<'_>, asked: SlotRequest) -> Result<(), Errno> {
    let mut region = region(asked);
    // SAFETY: 1. The kernel reads one `kvm_userspace_memory_region`. 2. What the guest does to the memory at
    // `userspace_addr` is the subject of the module's head.
    unsafe { exchange(vm, SET_REGION, &mut region) }.map(drop)
}

/// Makes a slot of memory that belongs to a guest; `offset` is where it begins in that.
pub(crate) fn set_guest_region(
    vm: BorrowedFd<'_>,
    asked: SlotRequest,
    memory: BorrowedFd<'_>,
    offset: u64,
) -> Result<(), Errno> {
    use std::os::fd::AsRawFd;
    let guest_memfd = u32::try_from(memory.as_raw_fd()).map_err(|_| Errno::BADF)?;
    let mut region = region(asked);
    region.flags |= OF_GUEST_MEMFD;
    let mut region = Region2 { region, guest_memfd_offset: offset, guest_memfd, pad1: 0, pad2: [0; 14] };
    // SAFETY: as for `set_region`, of one `kvm_userspace_memory_region2`.
    unsafe { exchange(vm, SET_REGION2, &mut region) }.map(drop)
}

fn region(asked: SlotRequest) -> Region {
    Region {
        slot: asked.slot,
        flags: asked.flags,
        guest_phys_addr: asked.guest,
        memory_size: asked.len,
        userspace_addr: asked.process,
    }
}

/// Makes memory that belongs to a guest.
pub(crate) fn create_guest_memfd(vm: BorrowedFd<'_>, size: u64, flags: u64) -> Result<OwnedFd, Errno> {
    let mut request = GuestMemfd { size, flags, reserved: [0; 6] };
    // SAFETY: the kernel reads one `kvm_create_guest_memfd`.
    owned(unsafe { exchange(vm, CREATE_GUEST_MEMFD, &mut request) }?)
}

/// Runs a processor until it leaves the guest.
pub(crate) fn run(vcpu: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: 1. The argument is a number, and has to be 0. 2. What the kernel writes goes to the processor's own pages,
    // of which nobody has a reference (`super::map::Mapping`), and to the guest's memory, as the head says.
    unsafe { with_number(vcpu, RUN, 0) }.map(drop)
}

/// A processor's registers.
pub(crate) fn regs(vcpu: BorrowedFd<'_>) -> Result<Regs, Errno> {
    let mut regs = Regs::default();
    // SAFETY: the kernel writes one `kvm_regs`, all plain numbers.
    unsafe { exchange(vcpu, GET_REGS, &mut regs) }?;
    Ok(regs)
}

/// Sets a processor's registers.
pub(crate) fn set_regs(vcpu: BorrowedFd<'_>, mut regs: Regs) -> Result<(), Errno> {
    // SAFETY: the kernel reads one `kvm_regs`.
    unsafe { exchange(vcpu, SET_REGS, &mut regs) }.map(drop)
}

/// A processor's segments and control registers.
pub(crate) fn sregs(vcpu: BorrowedFd<'_>) -> Result<Sregs, Errno> {
    let mut sregs = Sregs::default();
    // SAFETY: the kernel writes one `kvm_sregs`, all plain numbers.
    unsafe { exchange(vcpu, GET_SREGS, &mut sregs) }?;
    Ok(sregs)
}

/// Sets a processor's segments and control registers.
pub(crate) fn set_sregs(vcpu: BorrowedFd<'_>, mut sregs: Sregs) -> Result<(), Errno> {
    // SAFETY: the kernel reads one `kvm_sregs`.
    unsafe { exchange(vcpu, SET_SREGS, &mut sregs) }.map(drop)
}

fn owned(fd: i32) -> Result<OwnedFd, Errno> {
    if fd < 0 {
        return Err(Errno::BADF);
    }
    // SAFETY: the kernel has just opened this descriptor for the caller, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
