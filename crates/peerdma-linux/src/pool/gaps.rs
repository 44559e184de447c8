//! Addresses of this process that nothing uses, and where a pool may lie.
//!
//! A pool is made rarely, so all mappings are looked at. What is free when it is read
//! may be taken when it is mapped, which the mapping finds out (`MAP_FIXED_NOREPLACE`).

use crate::own::maps::Maps;
use crate::sys::procmap::Found;
use peerdma::addr::{AddrRange, Bytes, ProcVa};
use std::io;

/// No mapping lies below (`vm.mmap_min_addr` is 64 KiB at most where anybody sets it).
const LOWEST: u64 = 1 << 20;

/// Room left above the heap, and below the stack, which grow; 1 GiB, as the kernel leaves beside the stack at least
/// 128 MiB (`mmap_base`).
const ROOM_TO_GROW: u64 = 1 << 30;

/// The gaps between the mappings of this process, lowest first.
pub(super) fn of_this_process() -> io::Result<Vec<AddrRange<ProcVa>>> {
    Ok(between(&Maps::of_this_process()?.all()?))
}

/// What lies between the mappings, and below the highest of them that is the user's.
fn between(mapped: &[Found]) -> Vec<AddrRange<ProcVa>> {
    let mut gaps = Vec::new();
    let mut from = LOWEST;
    // The page of old system calls lies in the kernel's half.
    for found in mapped.iter().take_while(|found| found.start < 1 << 63) {
        let to = if found.name == b"[stack]" { found.start.saturating_sub(ROOM_TO_GROW) } else { found.start };
        if from < to {
            gaps.extend(AddrRange::new(ProcVa::new(from), Bytes::new(to - from)));
        }
        let grows = found.name == b"[heap]";
        from = from.max(if grows { found.end.saturating_add(ROOM_TO_GROW) } else { found.end });
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::own::maps::listed;

    const MAPS: &str = "\
00400000-00452000 r-xp 00000000 08:02 173521 /usr/bin/some program
55e0c8000000-55e0c8021000 rw-p 00000000 00:00 0 [heap]
7f2c4c000000-7f2c4c021000 rw-p 00000000 00:00 0
7f2c4c021000-7f2c50000000 ---p 00000000 00:00 0
7ffd5a000000-7ffd5a021000 rw-p 00000000 00:00 0 [stack]
7ffd5a1fe000-7ffd5a200000 r-xp 00000000 00:00 0 [vdso]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]
";

    #[test]
    fn gaps_keep_off_what_grows() {
        let gaps: Vec<(u64, u64)> =
            between(&listed(MAPS)).iter().map(|gap| (gap.start().as_u64(), gap.last().as_u64() + 1)).collect();
        assert_eq!(
            gaps,
            [
                (0x10_0000, 0x40_0000),
                (0x45_2000, 0x55e0_c800_0000),
                (0x55e0_c802_1000 + (1 << 30), 0x7f2c_4c00_0000),
                (0x7f2c_5000_0000, 0x7ffd_5a00_0000 - (1 << 30)),
                (0x7ffd_5a02_1000, 0x7ffd_5a1f_e000),
            ]
        );
        assert!(between(&listed("no maps\n12-zz\n")).is_empty());
    }

    #[test]
    fn this_process_has_gaps_and_none_of_them_is_where_its_code_is() {
        let gaps = of_this_process().unwrap();
        let code = gaps_keep_off_what_grows as *const () as usize as u64;
        let here = AddrRange::new(ProcVa::new(code), Bytes::new(1)).unwrap();
        assert!(!gaps.is_empty() && gaps.iter().all(|gap| !gap.contains_range(&here)));
    }
}
