//! What the library's functions return, as results.

use rustix::io::Errno;
use std::ffi::c_int;
use std::ptr::NonNull;

/// Of a function that returns 0, or an errno, or -1 with the thread's errno, as older providers do.
pub(super) fn of_status(returned: c_int) -> Result<(), Errno> {
    match returned {
        0 => Ok(()),
        -1 => Err(of_thread()),
        errno => Err(checked(errno)),
    }
}

/// Of a function that returns a pointer, or none and the thread's errno.
pub(super) fn of_pointer<T>(returned: *mut T) -> Result<NonNull<T>, Errno> {
    NonNull::new(returned).ok_or_else(of_thread)
}

/// The calling thread's errno.
pub(super) fn of_thread() -> Errno {
    checked(std::io::Error::last_os_error().raw_os_error().unwrap_or_default())
}

/// A number that some provider calls an errno; `EIO` for what none is.
fn checked(number: c_int) -> Errno {
    if (1..4096).contains(&number) { Errno::from_raw_os_error(number) } else { Errno::IO }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_no_errno_is_eio_and_no_panic() {
        assert_eq!(of_status(0), Ok(()));
        assert_eq!(of_status(12), Err(Errno::NOMEM));
        for odd in [-2, i32::MIN, i32::MAX, 4096] {
            assert_eq!(of_status(odd), Err(Errno::IO), "{odd}");
        }
        assert!(of_pointer::<u8>(std::ptr::null_mut()).is_err());
    }
}
