//! A processor of a virtual machine: enough of one to run a page of code.

use super::error::{FdKind, KvmError};
use super::exit::{AnswerError, Exit, RunError};
use super::missed::MissedAccess;
use super::system::{Kvm, expect_kind};
use super::vm::Vm;
use crate::sys::kvm::{self, Regs, Segment};
use crate::sys::map::{Mapping, Outside};
use crate::vfio::errno;
use peerdma::access::Prot;
use peerdma::addr::GuestPhys;
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Where things are in a processor's page (`struct kvm_run` of x86-64, Linux 7.2, by compiling the header).
mod at {
    pub(super) const IMMEDIATE_EXIT: usize = 0x1;
    pub(super) const REASON: usize = 0x8;
    /// The first field of what belongs to a reason.
    pub(super) const FIRST: usize = 0x20;
    pub(super) const IO_PORT: usize = 0x22;
    pub(super) const IO_COUNT: usize = 0x24;
    pub(super) const IO_DATA: usize = 0x28;
    pub(super) const MMIO_DATA: usize = 0x28;
    pub(super) const MMIO_LEN: usize = 0x30;
    pub(super) const MMIO_IS_WRITE: usize = 0x34;
    pub(super) const FAULT_GPA: usize = 0x28;
}

/// `KVM_EXIT_*`.
mod reason {
    pub(super) const IO: u32 = 2;
    pub(super) const HLT: u32 = 5;
    pub(super) const MMIO: u32 = 6;
    pub(super) const SHUTDOWN: u32 = 8;
    pub(super) const FAIL_ENTRY: u32 = 9;
    pub(super) const INTR: u32 = 10;
    pub(super) const INTERNAL_ERROR: u32 = 17;
    pub(super) const MEMORY_FAULT: u32 = 39;
}

/// A processor. One thread at a time runs it; machines with more of them have one of these each.
#[derive(Debug)]
pub struct Vcpu {
    fd: OwnedFd,
    vm: Vm,
    page: Mapping,
    /// Where the answer to the guest's read goes, and how long it is.
    due: Option<(usize, usize)>,
}

/// A processor's general registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[expect(missing_docs, reason = "their names are those of the architecture")]
pub struct Registers {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rsp: u64,
    pub rip: u64,
}

impl Vcpu {
    /// Takes a processor that the caller made of `vm`.
    ///
    /// # Errors
    /// [`KvmError::NotA`] for a descriptor of something else; [`KvmError::Kernel`] where its page cannot be mapped.
    pub fn from_fd(kvm: &Kvm, vm: &Vm, fd: OwnedFd) -> Result<Self, KvmError> {
        expect_kind(fd.as_fd(), FdKind::Processor)?;
        let page = Mapping::of_file(fd.as_fd(), 0, kvm.vcpu_mmap_size()?);
        let page = page.map_err(|error| KvmError::Kernel { call: "mmap of a processor", errno: errno(error) })?;
        Ok(Self { fd, vm: vm.clone(), page, due: None })
    }

    /// Puts it at the beginning of 32-bit code: protected mode without paging, every segment of all 4 GiB, so that
    /// addresses are those of the guest's memory. All registers but the instruction's address are 0.
    ///
    /// # Errors
    /// [`RunError::Kernel`].
    pub fn start_flat(&mut self, entry: GuestPhys) -> Result<(), RunError> {
        let mut sregs = kvm::sregs(self.fd.as_fd()).map_err(refused("KVM_GET_SREGS"))?;
        let flat = |kind, selector| Segment {
            limit: u32::MAX,
            selector,
            kind,
            present: 1,
            db: 1,
            s: 1,
            g: 1,
            ..Segment::default()
        };
        // 11: code that may be read and was accessed; 3: data that may be written and was.
        let (code, data) = (flat(11, 8), flat(3, 16));
        sregs.cs = code;
        (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
        sregs.cr0 |= 1;
        kvm::set_sregs(self.fd.as_fd(), sregs).map_err(refused("KVM_SET_SREGS"))?;
        self.due = None;
        self.set_registers(Registers { rip: entry.as_u64(), ..Registers::default() })
    }

    /// Its registers.
    ///
    /// # Errors
    /// [`RunError::Kernel`].
    pub fn registers(&self) -> Result<Registers, RunError> {
        let regs = kvm::regs(self.fd.as_fd()).map_err(refused("KVM_GET_REGS"))?;
        let Regs { rax, rbx, rcx, rdx, rsi, rdi, rsp, rip, .. } = regs;
        Ok(Registers { rax, rbx, rcx, rdx, rsi, rdi, rsp, rip })
    }

    /// Sets its registers; those that are not named, and the flags, are as at a beginning.
    ///
    /// # Errors
    /// [`RunError::Kernel`].
    pub fn set_registers(&mut self, to: Registers) -> Result<(), RunError> {
        let Registers { rax, rbx, rcx, rdx, rsi, rdi, rsp, rip } = to;
        // Bit 1 of the flags is always set.
        let regs = Regs { rax, rbx, rcx, rdx, rsi, rdi, rsp, rip, rflags: 2, ..Regs::default() };
        kvm::set_regs(self.fd.as_fd(), regs).map_err(refused("KVM_SET_REGS"))
    }

    /// Answers what the guest reads, little-endian.
    ///
    /// # Errors
    /// [`AnswerError`] unless it waits for as many bytes.
    pub fn answer(&mut self, bytes: &[u8]) -> Result<(), AnswerError> {
        let (at, len) = self.due.unwrap_or((0, 0));
        let wrong = AnswerError { due: len, given: bytes.len() };
        if len == 0 || len != bytes.len() {
            return Err(wrong);
        }
        self.page.write(at, bytes).map_err(|Outside| wrong)?;
        self.due = None;
        Ok(())
    }

    /// Has the next [`run`](Self::run) finish what the guest is at (an answer to a read) and come back at once, with [`Exit::Interrupted`].
    pub fn stop_next(&mut self) {
        // The page is longer than this, or it would not have been mapped.
        let _ = self.page.store_u8(at::IMMEDIATE_EXIT, 1);
    }

    /// Runs the guest until it leaves.
    ///
    /// Blocks as long as the guest runs, which is as long as the guest likes: it may loop, or have KVM loop for it (seen on Linux 6.18
    /// without hardware virtualisation: `sgdt` into a hole never comes back). A signal whose handler returns ends it with
    /// [`Exit::Interrupted`], also then; so whoever needs the thread back sends it one.
    ///
    /// # Errors
    /// [`RunError`]; only after [`RunError::Unanswered`] can the guest go on.
    pub fn run(&mut self) -> Result<Exit, RunError> {
        if let Some((_, len)) = self.due {
            return Err(RunError::Unanswered { len });
        }
        let ran = kvm::run(self.fd.as_fd());
        let _ = self.page.store_u8(at::IMMEDIATE_EXIT, 0);
        match ran {
            Ok(()) => self.exit(),
            Err(Errno::INTR | Errno::AGAIN) => Ok(Exit::Interrupted),
            Err(Errno::FAULT) => self.fault(),
            Err(error) => Err(RunError::Kernel { call: "KVM_RUN", errno: errno(error) }),
        }
    }

    /// Memory that was not there: whose?
    fn fault(&self) -> Result<Exit, RunError> {
        let gpa = match self.u32(at::REASON)? {
            reason::MEMORY_FAULT => Some(GuestPhys::new(self.u64(at::FAULT_GPA)?)),
            _ => None,
        };
        let slots = match gpa {
            Some(gpa) => self.vm.0.slot_at(gpa).into_iter().collect(),
            None => self.vm.0.suspects(),
        };
        if slots.is_empty() { Err(RunError::Fault { gpa }) } else { Ok(Exit::Revoked { gpa, slots }) }
    }

    fn exit(&mut self) -> Result<Exit, RunError> {
        match self.u32(at::REASON)? {
            reason::IO => self.port(),
            reason::MMIO => self.hole(),
            reason::HLT => Ok(Exit::Halted),
            reason::SHUTDOWN => Ok(Exit::ShutDown),
            reason::INTR => Ok(Exit::Interrupted),
            reason::FAIL_ENTRY => Err(RunError::NotEntered { hardware: self.u64(at::FIRST)? }),
            reason::INTERNAL_ERROR => Err(RunError::Internal { suberror: self.u32(at::FIRST)? }),
            reason => Ok(Exit::Other { reason }),
        }
    }

    fn port(&mut self) -> Result<Exit, RunError> {
        let [direction, size] = self.bytes(at::FIRST)?;
        let port = u16::from_le_bytes(self.bytes(at::IO_PORT)?);
        let count = self.u32(at::IO_COUNT)? as usize;
        let damaged = RunError::Damaged { what: "more bytes for a port than a page has" };
        let len = usize::from(size).checked_mul(count).filter(|len| (1..=4096).contains(len)).ok_or(damaged.clone())?;
        let data = usize::try_from(self.u64(at::IO_DATA)?).map_err(|_| damaged.clone())?;
        if direction == 0 {
            self.due = Some((data, len));
            return Ok(Exit::In { port, len });
        }
        let mut bytes = vec![0; len];
        self.page.read(data, &mut bytes).map_err(|Outside| damaged)?;
        Ok(Exit::Out { port, bytes })
    }

    fn hole(&mut self) -> Result<Exit, RunError> {
        let at = GuestPhys::new(self.u64(at::FIRST)?);
        let len = self.u32(at::MMIO_LEN)? as usize;
        let data: [u8; 8] = self.bytes(at::MMIO_DATA)?;
        let [is_write] = self.bytes(at::MMIO_IS_WRITE)?;
        let bytes = data.get(..len).filter(|bytes| !bytes.is_empty());
        let bytes = bytes.ok_or(RunError::Damaged { what: "an access to a hole of more than eight bytes" })?;
        let missed = |prot| self.vm.0.slot_for(at, prot);
        if is_write == 0 {
            let slot = missed(Prot::Read);
            self.due = Some((at::MMIO_DATA, len));
            return Ok(match slot {
                Some(slot) => Exit::Missed { slot, access: MissedAccess::Load { at, len } },
                None => Exit::Load { at, len },
            });
        }
        let bytes = bytes.to_vec();
        Ok(match missed(Prot::Write) {
            Some(slot) => Exit::Missed { slot, access: MissedAccess::Store { at, bytes } },
            None => Exit::Store { at, bytes },
        })
    }

    fn bytes<const N: usize>(&self, at: usize) -> Result<[u8; N], RunError> {
        let mut bytes = [0; N];
        self.page.read(at, &mut bytes).map_err(|Outside| RunError::Damaged { what: "a page that is too short" })?;
        Ok(bytes)
    }

    fn u32(&self, at: usize) -> Result<u32, RunError> {
        self.bytes(at).map(u32::from_le_bytes)
    }

    fn u64(&self, at: usize) -> Result<u64, RunError> {
        self.bytes(at).map(u64::from_le_bytes)
    }
}

fn refused(call: &'static str) -> impl Fn(Errno) -> RunError {
    move |error| RunError::Kernel { call, errno: errno(error) }
}

impl AsFd for Vcpu {
    /// The descriptor, for calls that this library does not make.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
