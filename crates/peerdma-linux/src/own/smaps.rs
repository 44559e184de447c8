//! `/proc/self/smaps`: how much of this process's memory is huge pages, and what of it children do not inherit.

use peerdma::addr::{AddrRange, Bytes, ProcVa};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};

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
        if let Some((start, end)) = bounds(line) {
            inside = start <= range.last().as_u64() && end > range.start().as_u64();
        } else if let Some(kib) = line.strip_prefix("AnonHugePages:").filter(|_| inside) {
            let kib: u64 = kib.trim().trim_end_matches("kB").trim().parse().unwrap_or(0);
            sum = sum.saturating_add(kib.saturating_mul(1024));
        }
    }
    sum.min(range.len().as_u64())
}

/// The parts of a range that children do not inherit (`MADV_DONTFORK`), lowest first.
///
/// Reads no further than the range; the kernel walks the page tables of what lies before.
pub(crate) fn kept_from_children(range: AddrRange<ProcVa>) -> io::Result<Vec<AddrRange<ProcVa>>> {
    kept_in(BufReader::new(File::open("/proc/self/smaps")?), range)
}

fn kept_in(smaps: impl BufRead, range: AddrRange<ProcVa>) -> io::Result<Vec<AddrRange<ProcVa>>> {
    let mut part = None;
    let mut kept = Vec::new();
    for line in smaps.lines() {
        let line = line?;
        if let Some((start, end)) = bounds(&line) {
            if start > range.last().as_u64() {
                break;
            }
            // What ends before the range gives no range here.
            let (first, last) = (start.max(range.start().as_u64()), end.saturating_sub(1).min(range.last().as_u64()));
            part = AddrRange::from_inclusive(ProcVa::new(first), ProcVa::new(last));
        } else if let Some(flags) = line.strip_prefix("VmFlags:")
            && flags.split_whitespace().any(|flag| flag == "dc")
        {
            kept.extend(part);
        }
    }
    Ok(kept)
}

/// The addresses of a mapping, from the line that begins what is said of it.
fn bounds(line: &str) -> Option<(u64, u64)> {
    let (start, end) = line.split_once(' ').map_or(line, |(head, _)| head).split_once('-')?;
    Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?))
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

    #[test]
    fn what_children_do_not_inherit_is_cut_to_the_range() {
        let smaps = "1000-2000 rw-p 0 0:0 0\nVmFlags: rd dc \n2000-5000 rw-p 0 0:0 0\nVmFlags: rd wr mr mw me dc ac sd \n\
                     5000-6000 rw-p 0 0:0 0\nVmFlags: rd wr\n6000-9000 rw-p 0 0:0 0\nVmFlags: dc\n9000-a000 rw-p 0 0:0 0\n\
                     VmFlags: dc\n";
        let range = |start, len| AddrRange::new(ProcVa::new(start), Bytes::new(len)).unwrap();
        let kept = |start, len| kept_in(smaps.as_bytes(), range(start, len)).unwrap();
        assert_eq!(kept(0x3000, 0x4000), [range(0x3000, 0x2000), range(0x6000, 0x1000)]);
        assert_eq!(kept(0x5000, 0x1000), []);
        assert_eq!(kept(0xb000, 0x1000), []);
    }
}
