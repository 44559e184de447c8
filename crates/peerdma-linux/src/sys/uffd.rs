//! userfaultfd: the calls, and the structures of `linux/userfaultfd.h`.
//!
//! UNSAFETY: `ioctl` with structures made here, the system call itself, and taking over the descriptor that a message about
//! a fork names. What a descriptor can do to memory of this process (put bytes where no page is) is what
//! any mapping for a device can do, see the folder's head.

#![expect(unsafe_code)]

use super::ioctl::exchange;
use peerdma::addr::{AddrRange, ProcVa};
use rustix::io::Errno;
use rustix::ioctl::Opcode;
use rustix::mm::{UserfaultfdFlags, userfaultfd};
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// `UFFD_USER_MODE_ONLY`: faults in the kernel are not served, and nobody needs a privilege (Linux 5.11).
const USER_MODE_ONLY: u32 = 1;
/// `UFFD_API`, the only one there is.
const VERSION: u64 = 0xaa;

/// `UFFDIO_REGISTER_MODE_MISSING`.
pub(crate) const MISSING: u64 = 1;
/// `UFFDIO_REGISTER_MODE_WP`.
pub(crate) const WRITE_PROTECT: u64 = 2;

// Numbers computed by compiling `linux/userfaultfd.h` on x86-64.
const API: Opcode = 0xc018_aa3f;
const REGISTER: Opcode = 0xc020_aa00;
const UNREGISTER: Opcode = 0x8010_aa01;
const WAKE: Opcode = 0x8010_aa02;
const COPY: Opcode = 0xc028_aa03;
const ZEROPAGE: Opcode = 0xc020_aa04;

#[repr(C)]
struct ApiArgument {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct Range {
    start: u64,
    len: u64,
}

#[repr(C)]
struct RegisterArgument {
    range: Range,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct CopyArgument {
    to: u64,
    from: u64,
    len: u64,
    mode: u64,
    copied: i64,
}

#[repr(C)]
struct ZeroArgument {
    range: Range,
    mode: u64,
    zeroed: i64,
}

// The numbers hold these sizes, so that the kernel accesses no more than them.
const _: () = assert!(size_of::<ApiArgument>() == 0x18);
const _: () = assert!(size_of::<Range>() == 0x10);
const _: () = assert!(size_of::<RegisterArgument>() == 0x20);
const _: () = assert!(size_of::<CopyArgument>() == 0x28);
const _: () = assert!(size_of::<ZeroArgument>() == 0x20);

fn range(at: AddrRange<ProcVa>) -> Range {
    Range { start: at.start().as_u64(), len: at.len().as_u64() }
}

/// Opens a descriptor that nothing is registered with; its reads do not block.
pub(crate) fn open() -> Result<OwnedFd, Errno> {
    let flags = UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK;
    let flags = flags | UserfaultfdFlags::from_bits_retain(USER_MODE_ONLY);
    // SAFETY: the call itself does nothing to memory; what the descriptor does is asked for below.
    unsafe { userfaultfd(flags) }
}

/// Agrees on the interface and asks for features; those that the kernel has.
pub(crate) fn handshake(fd: BorrowedFd<'_>, features: u64) -> Result<u64, Errno> {
    let mut argument = ApiArgument { api: VERSION, features, ioctls: 0 };
    // SAFETY: 1. The number is of this structure (asserted above), of which the kernel reads and writes all.
    // 2. Any bits are valid numbers.
    unsafe { exchange(fd, API, &mut argument) }?;
    Ok(argument.features)
}

/// Registers a range in a mode; which ioctls work on it.
pub(crate) fn register(fd: BorrowedFd<'_>, at: AddrRange<ProcVa>, mode: u64) -> Result<u64, Errno> {
    let mut argument = RegisterArgument { range: range(at), mode, ioctls: 0 };
    // SAFETY: as for `handshake`. Registering changes no byte; in mode `MISSING` whoever touches a page that is not there waits.
    unsafe { exchange(fd, REGISTER, &mut argument) }?;
    Ok(argument.ioctls)
}

pub(crate) fn unregister(fd: BorrowedFd<'_>, at: AddrRange<ProcVa>) -> Result<(), Errno> {
    // SAFETY: as for `handshake`; the kernel writes nothing.
    unsafe { exchange(fd, UNREGISTER, &mut range(at)) }.map(|_| ())
}

pub(crate) fn wake(fd: BorrowedFd<'_>, at: AddrRange<ProcVa>) -> Result<(), Errno> {
    // SAFETY: as for `handshake`; the kernel writes nothing.
    unsafe { exchange(fd, WAKE, &mut range(at)) }.map(|_| ())
}

/// Puts a copy of `from` where no pages are, and wakes whoever waits for them.
pub(crate) fn copy(fd: BorrowedFd<'_>, to: ProcVa, from: &[u8]) -> Result<(), Errno> {
    let (source, len) = (from.as_ptr().addr() as u64, from.len() as u64);
    let mut argument = CopyArgument { to: to.as_u64(), from: source, len, mode: 0, copied: 0 };
    // SAFETY:
    // 1. As for `handshake`.
    // 2. The kernel reads `len` bytes at `from`, which is borrowed for the call.
    // 3. It writes only where this descriptor was registered for missing pages, and where there is no page (else EEXIST).
    //    What was never touched, or was thrown away, reads as zeros, and a reference may have seen those. So it is as with a
    //    device, see the folder's head: whoever registers a range vouches that nobody borrows it who does not expect that.
    unsafe { exchange(fd, COPY, &mut argument) }.map(|_| ())
}

/// Puts zeros where no pages are, and wakes whoever waits for them.
pub(crate) fn zero(fd: BorrowedFd<'_>, at: AddrRange<ProcVa>) -> Result<(), Errno> {
    let mut argument = ZeroArgument { range: range(at), mode: 0, zeroed: 0 };
    // SAFETY: as for `copy`, without a source.
    unsafe { exchange(fd, ZEROPAGE, &mut argument) }.map(|_| ())
}

/// Takes over the descriptor that a message about a fork names. To be called once for each such message read.
pub(super) fn adopt(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: the kernel opened it for whoever read the message (Linux 7.2 `resolve_userfault_fork`), and the caller has
    // just read it, so that nobody else owns it.
    (number >= 0).then(|| unsafe { OwnedFd::from_raw_fd(number) })
}

/// A message, with the descriptor that it brought.
pub(crate) type Packet = ([u8; 32], Option<OwnedFd>);

/// Reads one message with the descriptor that it may bring; `None` if there is none. Never blocks.
///
/// The bytes are handed to `fork` to find out whether one came along, and under which number.
pub(crate) fn read_message(
    fd: BorrowedFd<'_>,
    fork: impl FnOnce(&[u8; 32]) -> Option<RawFd>,
) -> Result<Option<Packet>, Errno> {
    let mut bytes = [0; 32];
    loop {
        match rustix::io::read(fd, &mut bytes) {
            Ok(32) => break,
            Ok(_) | Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    let came = fork(&bytes).and_then(adopt);
    Ok(Some((bytes, came)))
}
