//! What code outside of Rust's rules does to memory under a pin, for the tests that show what comes of it.
//!
//! UNSAFETY: `munmap`, `mremap`, `madvise` and `mprotect` of mappings that this module made and nobody borrows; `fork`,
//! whose child only sleeps; a system call filter; calls that rustix does not have.

#![expect(unsafe_code)]

use peerdma::addr::{AddrRange, Bytes, ProcVa};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, MprotectFlags, MremapFlags, ProtFlags};
use std::ffi::c_void;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// A mapping that is disturbed while others know its address. It is unmapped when dropped, by where it is then.
///
/// # Invariants
/// `range` was mapped by this module, which alone unmaps, moves or replaces it; nobody has a reference to its bytes.
#[derive(Debug)]
pub(crate) struct Disturbed {
    range: AddrRange<ProcVa>,
}

fn pointer(address: ProcVa) -> *mut c_void {
    std::ptr::with_exposed_provenance_mut(address.as_u64() as usize)
}

fn size(range: AddrRange<ProcVa>) -> usize {
    range.len().as_u64() as usize
}

impl Disturbed {
    fn at(start: *mut c_void, len: usize) -> Self {
        Self { range: Self::range_at(start, len) }
    }

    fn range_at(start: *mut c_void, len: usize) -> AddrRange<ProcVa> {
        AddrRange::new(ProcVa::new(start.expose_provenance() as u64), Bytes::new(len as u64)).unwrap()
    }

    /// Maps anonymous memory, private or shared.
    pub(crate) fn anonymous(len: Bytes, private: bool) -> Self {
        let flags = if private { MapFlags::PRIVATE } else { MapFlags::SHARED };
        let len = len.as_u64() as usize;
        // SAFETY: without MAP_FIXED the kernel chooses an address that nothing uses.
        let start =
            unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, flags) };
        Self::at(start.unwrap(), len)
    }

    /// Maps a file.
    pub(crate) fn of_file(fd: BorrowedFd<'_>, len: Bytes, private: bool, prot: ProtFlags) -> Result<Self, Errno> {
        let flags = if private { MapFlags::PRIVATE } else { MapFlags::SHARED };
        let len = len.as_u64() as usize;
        // SAFETY: as above.
        let start = unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, prot, flags, fd, 0) }?;
        Ok(Self::at(start, len))
    }

    pub(crate) fn range(&self) -> AddrRange<ProcVa> {
        self.range
    }

    /// The byte at an offset, as the CPU sees it.
    pub(crate) fn load(&self, offset: u64) -> u8 {
        assert!(offset < self.range.len().as_u64(), "inside");
        // SAFETY: the byte is mapped readable (the tests that make it otherwise do not look).
        unsafe { pointer(self.range.start()).cast::<u8>().add(offset as usize).read_volatile() }
    }

    /// Changes the byte at an offset.
    pub(crate) fn store(&self, offset: u64, value: u8) {
        assert!(offset < self.range.len().as_u64(), "inside");
        // SAFETY: as for the load, writable; nobody borrows it.
        unsafe { pointer(self.range.start()).cast::<u8>().add(offset as usize).write_volatile(value) };
    }

    /// Makes the mapping read-only, or readable and writable again.
    pub(crate) fn protect(&self, flags: MprotectFlags) {
        // SAFETY: the range is this value's own.
        unsafe { rustix::mm::mprotect(pointer(self.range.start()), size(self.range), flags) }.unwrap();
    }

    /// Gives the pages of a part back (`MADV_DONTNEED`).
    pub(crate) fn discard(&self, part: AddrRange<ProcVa>) {
        assert!(self.range.contains_range(&part));
        // SAFETY: the range is this value's own, and nobody borrows its bytes.
        unsafe { rustix::mm::madvise(pointer(part.start()), size(part), Advice::LinuxDontNeed) }.unwrap();
    }

    /// Makes guard pages of a part (Linux 6.13).
    pub(crate) fn guard(&self, part: AddrRange<ProcVa>) -> Result<(), std::io::Error> {
        const MADV_GUARD_INSTALL: i32 = 102;
        assert!(self.range.contains_range(&part));
        // SAFETY: as above.
        match unsafe { libc::madvise(pointer(part.start()), size(part), MADV_GUARD_INSTALL) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    }

    /// Unmaps a part, and maps new pages there, shared or private.
    pub(crate) fn replace(&self, part: AddrRange<ProcVa>, private: bool) {
        let flags = if private { MapFlags::PRIVATE } else { MapFlags::SHARED } | MapFlags::FIXED;
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        assert!(self.range.contains_range(&part));
        // SAFETY: what MAP_FIXED replaces is this value's own mapping.
        unsafe { rustix::mm::mmap_anonymous(pointer(part.start()), size(part), prot, flags) }.unwrap();
    }

    /// Moves the mapping elsewhere; nothing is mapped where it was.
    pub(crate) fn move_away(&mut self) {
        let len = size(self.range);
        // Room is found first and then moved over, so that the kernel cannot grow it where it is.
        // SAFETY: 1. Room is mapped where nothing was, and replaced by MREMAP_FIXED. 2. What moves is this value's own.
        let moved = unsafe {
            let room =
                rustix::mm::mmap_anonymous(std::ptr::null_mut(), len, ProtFlags::empty(), MapFlags::PRIVATE).unwrap();
            rustix::mm::mremap_fixed(pointer(self.range.start()), len, len, MremapFlags::MAYMOVE, room).unwrap()
        };
        self.range = Self::range_at(moved, len);
    }
}

impl Drop for Disturbed {
    fn drop(&mut self) {
        // SAFETY: the range is this value's own, and is not used after this.
        let _ = unsafe { rustix::mm::munmap(pointer(self.range.start()), size(self.range)) };
    }
}

/// Forks a child that does nothing for a minute at most, and ends.
pub(crate) fn fork_sleeper() -> rustix::process::Pid {
    // SAFETY: the child makes three calls that are safe after a fork of a process with threads (signal-safety(7)), and
    // comes back from none of the last.
    let pid = unsafe {
        let pid = libc::fork();
        if pid == 0 {
            libc::alarm(60);
            loop {
                libc::pause();
            }
        }
        pid
    };
    rustix::process::Pid::from_raw(pid).unwrap()
}

/// Forks children that end at once, `count` of them one after another, and waits for each.
pub(crate) fn fork_storm(count: usize) {
    for _ in 0..count {
        // SAFETY: the child makes one call, which does not return.
        let pid = unsafe {
            let pid = libc::fork();
            if pid == 0 {
                libc::_exit(0);
            }
            pid
        };
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()).unwrap();
    }
}

/// Runs `job` in a forked child of one thread, and says what it answers; that it answers within `longest` is checked.
pub(crate) fn in_a_forked_child(longest: Duration, job: impl FnOnce() -> u8) -> Option<i32> {
    // SAFETY: the C library makes its allocator usable in the child, and `job` takes no lock that another thread of the
    // parent may hold at the moment of the fork but locks of values that only this test has. `_exit` runs nothing else.
    let pid = unsafe {
        let pid = libc::fork();
        if pid == 0 {
            libc::alarm(u32::try_from(longest.as_secs()).unwrap_or(60).max(1));
            libc::_exit(i32::from(job()));
        }
        pid
    };
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()).unwrap()?.1.exit_status()
}

/// Has every further io_uring call of this thread, and of those it starts, answered with an error.
pub(crate) fn refuse_io_uring(errno: Errno) {
    const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const JUMP_IF_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    let first = libc::SYS_io_uring_setup as u32;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    // io_uring_setup, io_uring_enter and io_uring_register have three numbers in a row on all processors.
    let mut steps = [
        step(LOAD, 0, 0, 0),
        step(JUMP_IF_AT_LEAST, 0, 2, first),
        step(JUMP_IF_AT_LEAST, 1, 0, first + 3),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | errno.raw_os_error().unsigned_abs()),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: 1. The first call takes numbers. 2. The second reads `program` and its steps, which live across it.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program)
    };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

/// A file of secret memory, where the kernel has it.
pub(crate) fn secret_file() -> std::io::Result<OwnedFd> {
    // SAFETY: the call takes a number, and what it answers is a descriptor that nobody else has.
    unsafe { owned(libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC)) }
}

/// A file whose mapping is of addresses without pages: a performance counter's.
pub(crate) fn file_without_pages() -> std::io::Result<OwnedFd> {
    const PERF_FLAG_FD_CLOEXEC: i32 = 8;
    // struct perf_event_attr: type 1 is software, config 0 its clock, then as little as can be said.
    let mut attributes = [0_u32; 32];
    attributes[0] = 1;
    attributes[1] = 128;
    // SAFETY: the kernel reads as many bytes as the structure says, which it has; the answer is as above.
    unsafe { owned(libc::syscall(libc::SYS_perf_event_open, attributes.as_mut_ptr(), 0, -1, -1, PERF_FLAG_FD_CLOEXEC)) }
}

/// Has the missing pages of a range served by a userfaultfd that is not told of the kernel's accesses; nobody reads it.
pub(crate) fn leave_to_a_userfaultfd(range: AddrRange<ProcVa>) -> std::io::Result<OwnedFd> {
    const USER_MODE_ONLY: i32 = 1;
    const API: libc::Ioctl = 0xc018_aa3f;
    const REGISTER: libc::Ioctl = 0xc020_aa00;
    const MISSING: u64 = 1;
    // struct uffdio_api: version, features, ioctls; struct uffdio_register: start, length, mode, ioctls.
    let mut api = [0xaa_u64, 0, 0];
    let mut register = [range.start().as_u64(), range.len().as_u64(), MISSING, 0];
    // SAFETY: 1. The first call takes a number, and what it answers is as above. 2. The kernel reads and writes as many
    // bytes as the numbers of the others say, 24 and 32, which the arrays have.
    unsafe {
        let uffd = owned(libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | USER_MODE_ONLY))?;
        for (number, argument) in [(API, api.as_mut_ptr()), (REGISTER, register.as_mut_ptr())] {
            if libc::ioctl(uffd.as_raw_fd(), number, argument) != 0 {
                return Err(std::io::Error::last_os_error());
            }
        }
        Ok(uffd)
    }
}

/// # Safety
/// `answer` is what a call answered that makes a descriptor.
unsafe fn owned(answer: i64) -> std::io::Result<OwnedFd> {
    match i32::try_from(answer) {
        // SAFETY: the caller vouches that the descriptor is new.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(std::io::Error::last_os_error()),
    }
}
