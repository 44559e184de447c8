//! What is done to a device as a whole: hot reset, and low power.
//!
//! UNSAFETY: `ioctl` on a device of VFIO with structures that end in a list: `vfio_pci_hot_reset_info`,
//! `vfio_pci_hot_reset` and `vfio_device_feature`.

use super::super::ioctl::exchange_words;
use super::{DEVICE_FEATURE, MAX_ANSWER, pair, vfio};
use rustix::io::Errno;
use rustix::ioctl::Opcode;
use std::os::fd::{AsRawFd, BorrowedFd};
use vfio_bindings::bindings::vfio as uapi;

const GET_HOT_RESET_INFO: Opcode = vfio(12);
const HOT_RESET: Opcode = vfio(13);

/// Bytes of `vfio_pci_hot_reset_info` and of each device behind it.
pub(crate) const HOT_RESET_HEADER: usize = 12;
pub(crate) const HOT_RESET_DEVICE: usize = 8;

// Linux 7.2, computed by compiling the header on x86-64.
const _: () = assert!(GET_HOT_RESET_INFO == 0x3b70 && HOT_RESET == 0x3b71);
const _: () = assert!(size_of::<uapi::vfio_pci_hot_reset_info>() == HOT_RESET_HEADER);
const _: () = assert!(size_of::<uapi::vfio_pci_dependent_device>() == HOT_RESET_DEVICE);
const _: () = assert!(size_of::<uapi::vfio_pci_hot_reset>() == 12);
const _: () = assert!(size_of::<uapi::vfio_device_feature>() == 8);

/// Device: whom a reset of its bus or slot affects, as the kernel's bytes.
pub(crate) fn hot_reset_info(device: BorrowedFd<'_>) -> Result<Vec<u8>, Errno> {
    let mut devices = 16;
    loop {
        let room = HOT_RESET_HEADER + devices * HOT_RESET_DEVICE;
        if room > MAX_ANSWER {
            return Err(Errno::TOOBIG);
        }
        let mut words = vec![0; room.div_ceil(8)];
        words[0] = u64::from_ne_bytes(pair(room as u32, 0));
        // SAFETY: the kernel accesses at most `argsz` bytes, which `words` has.
        let answer = unsafe { exchange_words(device, GET_HOT_RESET_INFO, &mut words) };
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        match answer {
            Ok(_) => return Ok(bytes),
            // It says how many there are; one may have come since.
            Err(Errno::NOSPC) => {
                let count = u32::from_ne_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]) as usize;
                devices = count.max(devices * 2);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Device: resets its bus or slot, with the groups of all that are on it; with none, if all of them are bound to the
/// iommufd of this device.
pub(crate) fn hot_reset(device: BorrowedFd<'_>, groups: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let len = u32::try_from(12 + size_of_val(groups)).map_err(|_| Errno::INVAL)?;
    let mut halves = vec![len, 0, groups.len() as u32];
    halves.extend(groups.iter().map(|group| group.as_raw_fd().cast_unsigned()));
    let mut words: Vec<u64> =
        halves.chunks(2).map(|two| u64::from_ne_bytes(pair(two[0], two.get(1).copied().unwrap_or_default()))).collect();
    // SAFETY: the kernel reads 12 bytes and `count` descriptors (`vfio_pci_ioctl_pci_hot_reset`), which `words` has, and
    // writes nothing.
    unsafe { exchange_words(device, HOT_RESET, &mut words) }.map(drop)
}

/// Device: sets a feature that takes a word, or nothing; with `probe` asks whether it could.
pub(crate) fn set_feature(device: BorrowedFd<'_>, feature: u32, probe: bool, word: Option<u32>) -> Result<(), Errno> {
    let ask = if probe { uapi::VFIO_DEVICE_FEATURE_PROBE } else { 0 };
    let len = if word.is_some() { 16 } else { 8 };
    let mut words = vec![u64::from_ne_bytes(pair(len, ask | uapi::VFIO_DEVICE_FEATURE_SET | feature))];
    words.extend(word.map(|word| u64::from_ne_bytes(pair(word, 0))));
    // SAFETY: the kernel reads `argsz` bytes (`vfio_ioctl_device_feature`), which `words` has; what it sets by this it
    // does not write to.
    unsafe { exchange_words(device, DEVICE_FEATURE, &mut words) }.map(drop)
}
