//! Whether a range of this process is a device's memory, as `/proc/self/maps` names what is mapped there.
//!
//! Type1 takes what has no page behind it for a BAR (Linux 7.2 `follow_fault_pfn`) and says nothing of it. Three files show device
//! memory to processes: a VFIO device, a BAR in sysfs, and `/dev/mem`. Their names are the kernel's and not the process's.

use crate::own::maps::{Area, Maps};
use peerdma::addr::{AddrRange, Bytes, ProcVa};

/// Whether some of the range is mapped from a device; false also where it cannot be looked at.
pub(super) fn is_mapped_at(maps: &Maps, address: ProcVa, len: Bytes) -> bool {
    let Some(range) = AddrRange::new(address, len) else { return false };
    let areas = maps.areas(range).unwrap_or_default();
    areas.iter().any(|area| matches!(area, Area::Mapped(found) if is_device(&found.name)))
}

fn is_device(name: &[u8]) -> bool {
    let Ok(name) = std::str::from_utf8(name) else { return false };
    let is_bar = || {
        let file = name.strip_prefix("/sys/devices/").and_then(|path| path.rsplit('/').next());
        file.and_then(|file| file.strip_prefix("resource"))
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    // A group's device, and a node below /dev/vfio/devices.
    name.starts_with("anon_inode:[vfio-device]") || name.starts_with("/dev/vfio/") || name == "/dev/mem" || is_bar()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Pages;

    #[test]
    fn memory_of_a_process_is_no_devices_and_a_bar_is_told_by_its_file() {
        let pages = Pages::zeroed(Bytes::new(4096)).unwrap();
        let maps = Maps::of_this_process().unwrap();
        assert!(!is_mapped_at(&maps, pages.address(), pages.len()));
        for name in [
            "anon_inode:[vfio-device]",
            "/dev/vfio/devices/vfio0",
            "/sys/devices/pci0000:00/0000:00:04.0/resource2",
            "/sys/devices/pci0000:00/0000:00:04.0/resource2_wc",
            "/dev/mem",
        ] {
            assert!(is_device(name.as_bytes()), "{name}");
        }
        for name in
            ["", "[heap]", "/memfd:frames (deleted)", "/sys/devices/pci0000:00/0000:00:04.0/resource", "/dev/zero"]
        {
            assert!(!is_device(name.as_bytes()), "{name}");
        }
    }
}
