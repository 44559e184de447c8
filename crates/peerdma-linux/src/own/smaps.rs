//! `/proc/self/smaps`: how much of this process's memory is huge pages.

use peerdma::addr::{AddrRange, Bytes, ProcVa};
use std::fs;
use std::io;

/// How much of a range lies in huge pages.
pub(crate) fn in_huge_pages(range: AddrRange<ProcVa>) -> io::Result<Bytes> {
    Ok(Bytes::new(huge_in(&fs::read_to_string("/proc/self/smaps")?, range)))
}

/// Bytes of `AnonHugePages` within a range, by the mappings that lie in it. A mapping that is split is counted piece by
/// piece; the pieces of a sample begin and end with it or inside of it.
fn huge_in(smaps: &str, range: AddrRange<ProcVa>) -> u64 {
    let mut inside = false;
    let mut sum = 0_u64;
    for line in smaps.lines() {
        let head = line.split_once(' ').map_or(line, |(head, _)| head);
        let bounds = head
            .split_once('-')
            .and_then(|(start, end)| Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?)));
        if let Some((start, end)) = bounds {
            inside = start <= range.last().as_u64() && end > range.start().as_u64();
        } else if let Some(kib) = line.strip_prefix("AnonHugePages:").filter(|_| inside) {
            let kib: u64 = kib.trim().trim_end_matches("kB").trim().parse().unwrap_or(0);
            sum = sum.saturating_add(kib.saturating_mul(1024));
        }
    }
    sum.min(range.len().as_u64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huge_pages_are_counted_within_the_range_and_no_further() {
        let smaps = "7f0000000000-7f0000200000 rw-p 0 0:0 0\nSize: 2048 kB\nAnonHugePages:      2048 kB\nVmFlags: rd\n\
                     7f0000200000-7f0000600000 rw-p 0 0:0 0\nAnonHugePages:      2048 kB\n\
                     7f0000600000-7f0000800000 rw-p 0 0:0 0\nAnonHugePages:      broken kB\n7g-1 x\nAnonHugePages:  4 kB\n";
        let range = |start: u64, mib: u64| AddrRange::new(ProcVa::new(start), Bytes::new(mib << 20)).unwrap();
        assert_eq!(huge_in(smaps, range(0x7f00_0000_0000, 2)), 2 << 20);
        assert_eq!(huge_in(smaps, range(0x7f00_0000_0000, 6)), 4 << 20);
        assert_eq!(huge_in(smaps, range(0x7f00_0020_0000, 4)), 2 << 20);
        assert_eq!(huge_in(smaps, range(0x6f00_0000_0000, 4)), 0);
    }
}
