//! Moves within memory: into huge pages, towards one end, and into pages of the same contents.

use super::Said;
use super::force::{Force, Missing, Samples, Tries, alike, anywhere, lowest_of, need, set, set_if_there};
use crate::failure::Failure;
use peerdma::addr::Bytes;
use std::thread::sleep;
use std::time::Duration;

pub(super) const COLLAPSE: Force = Force {
    name: "collapse",
    how: "madvise(MADV_COLLAPSE)",
    make: anywhere,
    ready: || need("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size", "CONFIG_TRANSPARENT_HUGEPAGE"),
    apply: collapse,
    tries: Tries::Anew(2),
};

fn collapse(samples: &Samples) -> Result<Said, Missing> {
    let told = samples.kinds.iter().map(|sample| {
        let collapse = sample.collapse();
        let answers: Vec<String> =
            collapse.refused.iter().map(|(errno, times)| format!("{times} times errno {errno}")).collect();
        let answers = if answers.is_empty() { String::new() } else { format!(", {}", answers.join(", ")) };
        (sample.keep(), format!("{} of {} huge pages made{answers}", collapse.done, collapse.asked))
    });
    Ok(told.collect())
}

pub(super) const COMPACTION: Force = Force {
    name: "compaction",
    how: "/proc/sys/vm/compact_memory, unevictable pages allowed",
    make: low,
    ready: || need("/proc/sys/vm/compact_memory", "CONFIG_COMPACTION"),
    apply: compact,
    // How far the two scanners come is the kernel's affair each time.
    tries: Tries::Anew(6),
};

/// So many samples of each kind fill most of the movable memory of a node.
const MANY: usize = 18;

fn low(size: Bytes) -> Result<Samples, Failure> {
    lowest_of(MANY, size)
}

/// Pages move from the low end to free pages at the high end, as far as the two scanners come.
fn compact(_: &Samples) -> Result<Said, Missing> {
    set("/proc/sys/vm/compact_unevictable_allowed", "1")?;
    set("/proc/sys/vm/compact_memory", "1")?;
    Ok(Said::new())
}

pub(super) const KSM: Force = Force {
    name: "ksm",
    how: "madvise(MADV_MERGEABLE), /sys/kernel/mm/ksm/run",
    make: alike,
    ready: || need("/sys/kernel/mm/ksm/run", "CONFIG_KSM"),
    apply: merge,
    tries: Tries::Again(Duration::from_secs(40), 20),
};

fn merge(samples: &Samples) -> Result<Said, Missing> {
    for sample in &samples.kinds {
        sample.allow_merging().map_err(|errno| Missing(format!("MADV_MERGEABLE: {errno}")))?;
    }
    set("/sys/kernel/mm/ksm/pages_to_scan", "10000")?;
    set("/sys/kernel/mm/ksm/sleep_millisecs", "20")?;
    set_if_there("/sys/kernel/mm/ksm/advisor_mode", "none");
    set_if_there("/sys/kernel/mm/ksm/smart_scan", "0");
    set("/sys/kernel/mm/ksm/run", "1")?;
    // The thread of the kernel's needs two or three passes; whoever looks in between sees less.
    sleep(Duration::from_secs(1));
    Ok(Said::new())
}
