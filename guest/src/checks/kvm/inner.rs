//! The machine inside the guest: one processor and a page of code.

use super::super::claim::{Stop, equal};
use super::{MEMORY, page};
use peerdma::access::Prot;
use peerdma::addr::{Bytes, GuestPhys};
use peerdma_linux::kvm::{Exit, Kvm, Registers, Slot, SlotMemory, Vcpu, Vm};
use peerdma_linux::memory::Pages;
use std::sync::Arc;

/// Where its code is.
const CODE: u64 = 0x1000;

/// Where it says what it did.
pub(crate) const PORT: u16 = 0x10;

/// `mov [ebx], eax; out 0x10, eax; hlt`
const STORES: [u8; 5] = [0x89, 0x03, 0xe7, 0x10, 0xf4];
/// `mov eax, [ebx]; out 0x10, eax; hlt`
const LOADS: [u8; 5] = [0x8b, 0x03, 0xe7, 0x10, 0xf4];
/// `again: mov [ebx], eax; inc eax; out 0x10, eax; jmp again`
const COUNTS: [u8; 7] = [0x89, 0x03, 0x40, 0xe7, 0x10, 0xeb, 0xf9];

/// `again: mov [ebx], eax; inc eax; test al, al; jnz again; out 0x10, eax; jmp again`
const RACES: [u8; 11] = [0x89, 0x03, 0x40, 0x84, 0xc0, 0x75, 0xf9, 0xe7, 0x10, 0xeb, 0xf5];

/// Offsets of the four in the page of code.
const PROGRAMS: [(u64, &[u8]); 4] = [(0, &STORES), (0x100, &LOADS), (0x200, &COUNTS), (0x300, &RACES)];

/// Instructions at `ebx`, `esi`, `edi` or `esp`, which all point at the same place; `ecx` is 16.
pub(super) const HOSTILE: [(&str, &[u8]); 14] = [
    ("mov [ebx], al", &[0x88, 0x03]),
    ("mov [ebx], eax", &[0x89, 0x03]),
    ("mov eax, [ebx]", &[0x8b, 0x03]),
    ("xchg [ebx], eax", &[0x87, 0x03]),
    ("lock inc dword [ebx]", &[0xf0, 0xff, 0x03]),
    ("lock xadd [ebx], eax", &[0xf0, 0x0f, 0xc1, 0x03]),
    ("lock cmpxchg8b [ebx]", &[0xf0, 0x0f, 0xc7, 0x0b]),
    ("rep movsb onto itself", &[0xf3, 0xa4]),
    ("rep stosd", &[0xf3, 0xab]),
    ("std; rep stosd", &[0xfd, 0xf3, 0xab]),
    ("rep lodsd", &[0xf3, 0xad]),
    ("push eax", &[0x50]),
    ("pusha", &[0x60]),
    ("jmp ebx", &[0xff, 0xe3]),
];

/// Where they are in the page of code, and how far from each other.
const WORST: u64 = 0x400;
const APART: u64 = 0x20;

/// `out 0x10, eax; hlt`
const SAYS: [u8; 3] = [0xe7, 0x10, 0xf4];

/// A machine with nothing but code.
pub(crate) struct Inner {
    pub(crate) vcpu: Vcpu,
    _code: Slot,
}

impl Inner {
    pub(crate) fn new(kvm: &Kvm, vm: &Vm) -> Result<Self, Stop> {
        let pages = Arc::new(Pages::zeroed(page().len)?);
        for (offset, code) in PROGRAMS {
            pages.write(Bytes::new(offset), code)?;
        }
        for (at, (_, code)) in (WORST..).step_by(APART as usize).zip(HOSTILE) {
            pages.write(Bytes::new(at), &[code, &SAYS].concat())?;
        }
        let code = vm.add(GuestPhys::new(CODE), &SlotMemory::of_pages(&pages), page(), Prot::ReadWrite)?;
        let mut vcpu = kvm.create_vcpu(vm, 0)?;
        vcpu.start_flat(code.range().start())?;
        Ok(Self { vcpu, _code: code })
    }

    fn begin(&mut self, program: u64, at: GuestPhys, value: u32) -> Result<(), Stop> {
        let registers = Registers { rax: value.into(), rbx: at.as_u64(), rip: CODE + program, ..Registers::default() };
        Ok(self.vcpu.set_registers(registers)?)
    }

    /// Begins one of [`HOSTILE`], aimed at a place, whatever it was at before.
    pub(super) fn does(&mut self, nth: usize, at: GuestPhys) -> Result<(), Stop> {
        let rip = CODE + WORST + nth as u64 * APART;
        self.vcpu.start_flat(GuestPhys::new(rip))?;
        let at = at.as_u64();
        let registers = Registers {
            rax: MEMORY.as_u64() + 8,
            rbx: at,
            rcx: 16,
            rsi: at,
            rdi: at,
            rsp: at,
            rip,
            ..Registers::default()
        };
        Ok(self.vcpu.set_registers(registers)?)
    }

    /// Begins to store, and runs until it leaves.
    pub(crate) fn store(&mut self, at: GuestPhys, value: u32) -> Result<Exit, Stop> {
        self.begin(0, at, value)?;
        Ok(self.vcpu.run()?)
    }

    /// Begins to load, and runs until it leaves.
    pub(crate) fn load(&mut self, at: GuestPhys) -> Result<Exit, Stop> {
        self.begin(0x100, at, 0)?;
        Ok(self.vcpu.run()?)
    }

    /// Begins to count from `value` on, in memory and at the port.
    pub(crate) fn count(&mut self, at: GuestPhys, value: u32) -> Result<(), Stop> {
        self.begin(0x200, at, value)
    }

    /// Begins to count from `value` on, in memory, and to say at the port how far it is after every 256 stores.
    pub(crate) fn race(&mut self, at: GuestPhys, value: u32) -> Result<(), Stop> {
        self.begin(0x300, at, value)
    }

    /// Stores, and expects that it comes to an end.
    pub(crate) fn stored(&mut self, at: GuestPhys, value: u32) -> Result<(), Stop> {
        let exit = self.store(at, value)?;
        equal("the inner guest after a store", &said(value), &exit)
    }

    /// Loads, and gives what it got.
    pub(crate) fn loaded(&mut self, at: GuestPhys) -> Result<u32, Stop> {
        let exit = self.load(at)?;
        told(&exit).ok_or_else(|| Stop::broken(format!("the inner guest after a load: {exit:?}")))
    }

    /// Goes on, and expects that what it was at comes to an end with this value.
    pub(crate) fn goes_on(&mut self, value: u32) -> Result<(), Stop> {
        let exit = self.vcpu.run()?;
        equal("the inner guest that goes on", &said(value), &exit)
    }
}

/// What it says of a value.
fn said(value: u32) -> Exit {
    Exit::Out { port: PORT, bytes: value.to_le_bytes().to_vec() }
}

/// The value that it says.
pub(crate) fn told(exit: &Exit) -> Option<u32> {
    match exit {
        Exit::Out { port: PORT, bytes } => bytes.as_slice().try_into().ok().map(u32::from_le_bytes),
        _ => None,
    }
}
