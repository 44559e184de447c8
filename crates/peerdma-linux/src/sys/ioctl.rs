//! The three shapes of ioctl that VFIO and iommufd use.
//!
//! UNSAFETY: `ioctl` itself: what the kernel reads and writes depends on the number,
//! and only the caller knows which structure belongs to which.
//!
//! Not here: numbers and structures; see [`super::vfio`] and [`super::iommufd`].

#![expect(unsafe_code)]

use rustix::io::Errno;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, ioctl};
use std::ffi::c_void;
use std::os::fd::BorrowedFd;

/// `_IO(type, number)`: both interfaces carry sizes in the structures, not in the number.
pub(super) const fn number(group: u8, number: u8) -> Opcode {
    rustix::ioctl::opcode::none(group, number)
}

/// The argument is a pointer, or a number in its place; the answer is the return value.
struct Call {
    opcode: Opcode,
    argument: *mut c_void,
}

// SAFETY:
// 1. `as_ptr` gives what the creator of the value vouched for (the functions below are
//    the only ones, and pass the duty on).
// 2. `output_from_ptr` does not look at the pointer at all.
// 3. `IS_MUTATING` is true, which promises nothing.
unsafe impl Ioctl for Call {
    type Output = IoctlOutput;
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        self.opcode
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.argument
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut c_void) -> Result<IoctlOutput, Errno> {
        Ok(out)
    }
}

/// Calls with a pointer to `argument`, which the kernel may read and write.
///
/// # Safety
/// For this file and number the kernel must access at most `size_of::<T>()` bytes at the
/// pointer, and every bit pattern that it may leave there must be a valid `T`.
pub(super) unsafe fn exchange<T>(fd: BorrowedFd<'_>, opcode: Opcode, argument: &mut T) -> Result<i32, Errno> {
    let call = Call { opcode, argument: std::ptr::from_mut(argument).cast() };
    // SAFETY: 1. The pointer is valid for reads and writes of a `T` during the call, as
    // it comes from an exclusive reference. 2. The caller vouches for the rest.
    unsafe { ioctl(fd, call) }
}

/// Calls with a pointer to the start of `words`, which the kernel may read and write.
///
/// # Safety
/// For this file and number the kernel must access at most the bytes of `words`.
pub(super) unsafe fn exchange_words(fd: BorrowedFd<'_>, opcode: Opcode, words: &mut [u64]) -> Result<i32, Errno> {
    let call = Call { opcode, argument: words.as_mut_ptr().cast() };
    // SAFETY: 1. The pointer is valid for all of the slice during the call. 2. Any bits
    // are a valid `u64`. 3. The caller vouches for the length.
    unsafe { ioctl(fd, call) }
}

/// Calls with a number instead of a pointer.
///
/// # Safety
/// For this file and number the kernel must not take the argument for a pointer.
pub(super) unsafe fn with_number(fd: BorrowedFd<'_>, opcode: Opcode, value: usize) -> Result<i32, Errno> {
    let call = Call { opcode, argument: std::ptr::without_provenance_mut(value) };
    // SAFETY: the caller vouches that the argument is a number to the kernel.
    unsafe { ioctl(fd, call) }
}
