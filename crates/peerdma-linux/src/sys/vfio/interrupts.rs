//! Which interrupts a device has, and where they go.
//!
//! UNSAFETY: `ioctl` on a device of VFIO with `vfio_irq_info` and with `vfio_irq_set`, behind whose five
//! words descriptors stand.

use super::super::ioctl::{exchange, exchange_words};
use super::{argsz, pair, vfio};
use rustix::io::Errno;
use rustix::ioctl::Opcode;
use std::os::fd::BorrowedFd;
use vfio_bindings::bindings::vfio as uapi;

const GET_INFO: Opcode = vfio(9);
const SET: Opcode = vfio(10);

// Linux 7.2, computed by compiling the header on x86-64.
const _: () = assert!(GET_INFO == 0x3b6d && SET == 0x3b6e);
const _: () = assert!(size_of::<uapi::vfio_irq_info>() == 16 && size_of::<uapi::vfio_irq_set>() == 20);

/// Device: flags and number of the interrupts of an index.
pub(crate) fn info(device: BorrowedFd<'_>, index: u32) -> Result<uapi::vfio_irq_info, Errno> {
    let mut info = uapi::vfio_irq_info { argsz: argsz::<uapi::vfio_irq_info>(), index, ..Default::default() };
    // SAFETY: the kernel reads and writes at most `argsz` bytes, one `vfio_irq_info`.
    unsafe { exchange(device, GET_INFO, &mut info) }?;
    Ok(info)
}

/// Device: does something to `count` interrupts of an index from `start` on; with `events` there are as many
/// descriptors, -1 for none. Returns what the kernel returns: more than 0 where it could have had so many.
pub(crate) fn set(
    device: BorrowedFd<'_>,
    flags: u32,
    index: u32,
    start: u32,
    count: u32,
    events: &[i32],
) -> Result<i32, Errno> {
    let len = size_of::<uapi::vfio_irq_set>() + size_of_val(events);
    let len = u32::try_from(len).map_err(|_| Errno::INVAL)?;
    let mut halves = vec![len, flags, index, start, count];
    halves.extend(events.iter().map(|event| event.cast_unsigned()));
    let mut words: Vec<u64> =
        halves.chunks(2).map(|two| u64::from_ne_bytes(pair(two[0], two.get(1).copied().unwrap_or_default()))).collect();
    // SAFETY: the kernel reads `argsz` bytes (`vfio_pci_ioctl_set_irqs`), which `words` has, and writes nothing. It
    // refuses a `count` whose data does not fit them (`vfio_set_irqs_validate_and_prepare`).
    unsafe { exchange_words(device, SET, &mut words) }
}
