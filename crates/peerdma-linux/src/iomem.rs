//! What `/proc/iomem` says lies where in the CPU's address space.
//!
//! Linux 7.2 `kernel/resource.c` `r_show`: one line a resource, `start-end : name`,
//! end inclusive, two spaces deeper for what lies inside the line above. Without
//! `CAP_SYS_ADMIN` every address is printed as zero, so a text of zeros tells nothing.
//!
//! Kept are the outermost lines, and of those right inside them the ones that answer
//! what an address belongs to. The kernel's own code and data, whose place is better
//! not told, lie inside `System RAM` and are left out.

use peerdma::addr::{AddrRange, PhysAddr};
use peerdma::topology::MemoryRegion;

/// Most lines kept; a server with hundreds of host bridges has some two thousand.
const MAX_LINES: usize = 8192;

/// Starts of the names that are kept right inside another line.
const INNER: [&str; 6] = ["PCI Bus ", "System RAM", "Reserved", "PCI ECAM", "PCI MMCONFIG", "Local APIC"];

/// The lines worth keeping, without their indentation; empty where the text tells nothing.
pub(crate) fn lines(text: &str) -> Vec<String> {
    // A last line without its end may be cut.
    let whole = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
    let kept: Vec<String> = whole
        .filter(|line| {
            let depth = line.len() - line.trim_start_matches(' ').len();
            let name = line.split_once(" : ").map_or("", |(_, name)| name);
            depth == 0 || depth == 2 && INNER.iter().any(|start| name.starts_with(start))
        })
        .filter(|line| region(line.trim_start()).is_some())
        .take(MAX_LINES)
        .map(|line| line.trim().to_string())
        .collect();
    let hidden = kept.iter().filter_map(|line| region(line)).all(|region| region.range.last() == PhysAddr::new(0));
    if hidden { Vec::new() } else { kept }
}

/// What one line says; `None` for a line of another form.
pub(crate) fn region(line: &str) -> Option<MemoryRegion> {
    let (range, name) = line.split_once(" : ")?;
    let (first, last) = range.split_once('-')?;
    let address = |digits: &str| {
        let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        plain.then(|| u64::from_str_radix(digits, 16).ok().map(PhysAddr::new)).flatten()
    };
    let range = AddrRange::from_inclusive(address(first)?, address(last)?)?;
    Some(MemoryRegion { range, name: name.trim().to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
00000000-00000fff : Reserved
00100000-7fffffff : System RAM
  01000000-01ffffff : Kernel code
80000000-bfffffff : PCI Bus 0000:00
  80000000-8fffffff : PCI Bus 0000:01
    80000000-8fffffff : 0000:01:00.0
  90000000-9000ffff : 0000:00:02.0
100000000-87fffffff : System RAM
";

    #[test]
    fn outer_lines_and_buses_stay_and_the_kernel_s_own_place_does_not() {
        let kept = lines(TEXT);
        assert_eq!(kept.len(), 5);
        assert!(kept.contains(&"80000000-8fffffff : PCI Bus 0000:01".to_string()));
        assert!(!kept.iter().any(|line| line.contains("Kernel") || line.contains("0000:01:00.0")));
        let last = region(&kept[4]).unwrap();
        assert_eq!((last.range.start(), last.name.as_str()), (PhysAddr::new(0x1_0000_0000), MemoryRegion::SYSTEM_RAM));
    }

    #[test]
    fn a_user_sees_zeros_which_tell_nothing() {
        assert!(lines("00000000-00000000 : System RAM\n00000000-00000000 : PCI Bus 0000:00\n").is_empty());
        assert!(lines("").is_empty());
    }

    #[test]
    fn half_a_line_is_not_believed() {
        assert_eq!(lines("00001000-00001fff : System RAM\n00002000-0000f").len(), 1);
        for line in ["", "1-2", "2-1 : reversed", "x-y : words", "+1-2 : sign", "0-ffffffffffffffff : all"] {
            assert!(region(line).is_none(), "{line}");
        }
    }
}
