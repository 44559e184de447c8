//! A virtual machine's memory: slots over BARs, files and guest memory, and buffers that its slots follow.
//!
//! ```text
//! /dev/kvm ── Kvm ── Vm ──┬─ add(GuestPhys, SlotMemory, Part) ── Slot          gone when dropped
//!                         ├─ follow(GuestPhys, Buffer) ── BufferSlot           taken away and given back with the buffer
//!                         └─ vcpu(0) ── Vcpu ── run() ── Exit | RunError
//! ```
//!
//! A slot is checked before the kernel is asked, since KVM answers EINVAL to everything but an overlap: pages, lengths,
//! the number of slots, and ranges of the guest that are taken are errors with names here.
//!
//! **What a slot of a buffer does while the buffer is out of reach.** It stays, and its memory goes: the slot lies over a
//! window of this process in which the buffer's pages show or nothing does. An access of the guest then leaves it with
//! EFAULT ([`Exit::Revoked`]), and the same instruction is tried again at the next [`Vcpu::run`], so that no store is lost and
//! no load makes up a value. Rejected: to delete the slot. A guest's access to a hole leaves as one to a device's register,
//! which KVM finishes with whatever is answered and never tries again; and an instruction that KVM cannot take apart
//! ends the guest. The group `kvm` of the guests shows both. What KVM emulates is never tried again either; such an access to a
//! slot of ours is [`Exit::Missed`], and [`BufferSlot::finish`] makes it when the memory is back.
//!
//! **Who enforces it.** The kernel: pages that are unmapped here are out of the guest's tables before the call
//! returns (Linux 7.2 `kvm_mmu_notifier_invalidate_range_start`), whatever the guest and its monitor do.
//!
//! A monitor with a KVM of its own hands in descriptors: [`Kvm::from_fd`], [`Vm::from_fd`] with the numbers of
//! slots that it leaves to us, [`Vcpu::from_fd`]; or runs its processors itself and asks [`Vm::suspects`] after EFAULT.
//!
//! ```no_run
//! use peerdma::access::Prot;
//! use peerdma::addr::{Bytes, GuestPhys};
//! use peerdma::buffer::shared::Part;
//! use peerdma_linux::kvm::{Exit, Kvm, SlotMemory};
//! use peerdma_linux::memory::Pages;
//! use std::sync::Arc;
//!
//! let kvm = Kvm::open()?;
//! let vm = kvm.create_vm()?;
//! let pages = Arc::new(Pages::zeroed(Bytes::new(0x1000))?);
//! pages.write(Bytes::ZERO, &[0xf4])?; // hlt
//! let part = Part::new(Bytes::ZERO, Bytes::new(0x1000));
//! let code = vm.add(GuestPhys::new(0x1000), &SlotMemory::of_pages(&pages), part, Prot::ReadWrite)?;
//! let mut vcpu = kvm.create_vcpu(&vm, 0)?;
//! vcpu.start_flat(code.range().start())?;
//! assert_eq!(vcpu.run()?, Exit::Halted);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Not here: devices of a machine, its interrupts, a guest of more than a page of code; and which DMA reaches the same
//! memory, which is the address spaces' part.

mod error;
mod exit;
mod follow;
mod follow_error;
mod guest_memfd;
mod layout;
mod memory;
mod missed;
mod placed;
mod slot;
mod system;
mod vcpu;
mod vm;

pub use error::{FdKind, KvmError, SlotError, Unaligned};
pub use exit::{AnswerError, Exit, RunError};
pub use follow::BufferSlot;
pub use follow_error::{FollowError, NotRestored};
pub use guest_memfd::GuestMemfd;
pub use memory::{CpuFile, SlotMemory};
pub use missed::{MissedAccess, NotFinished};
pub use slot::{Slot, SlotId};
pub use system::{Capabilities, Kvm};
pub use vcpu::{Registers, Vcpu};
pub use vm::Vm;
