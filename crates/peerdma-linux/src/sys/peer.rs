//! A descriptor of the process at the other end of a socket.
//!
//! UNSAFETY: `getsockopt` with `SO_PEERPIDFD`, which rustix does not offer.

#![expect(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// The process that connected; it stays that process, whoever gets its number later.
///
/// # Errors
/// `ENOPROTOOPT` before Linux 6.5; what the kernel answers for a socket without a peer.
pub(crate) fn process(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut fd: RawFd = -1;
    let mut len = size_of::<RawFd>() as libc::socklen_t;
    // SAFETY: 1. `socket` is open (it is borrowed). 2. `fd` and `len` live across the call, and `len` tells the
    // kernel how much room `fd` has; it writes no more.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERPIDFD,
            (&raw mut fd).cast::<libc::c_void>(),
            &raw mut len,
        )
    };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    if fd < 0 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // SAFETY: the kernel has just opened it for this call, so that nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
