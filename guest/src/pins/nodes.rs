//! Moves between NUMA nodes. The guest has two, with a processor each.

use super::Said;
use super::force::{Force, Missing, Samples, Tries, anywhere, need, run_on, set, set_if_there};
use peerdma_linux::proof::migrate;
use std::time::{Duration, Instant};

pub(super) const MIGRATE: Force = Force {
    name: "migrate",
    how: "migrate_pages(node 0 to node 1)",
    make: anywhere,
    ready: on_node_0,
    apply: migrate_all,
    tries: Tries::Anew(2),
};

/// What is allocated from now on is allocated on node 0.
fn on_node_0() -> Result<(), Missing> {
    need("/sys/devices/system/node/node1", "a second NUMA node")?;
    // What balancing would do on its own is another force.
    set_if_there("/proc/sys/kernel/numa_balancing", "0");
    run_on(0)
}

fn migrate_all(samples: &Samples) -> Result<Said, Missing> {
    let stayed = migrate(0, 1).map_err(|errno| Missing(format!("migrate_pages: {errno}")))?;
    Ok(samples.kinds.iter().map(|sample| (sample.keep(), format!("{stayed} pages of the process stayed"))).collect())
}

pub(super) const BALANCING: Force = Force {
    name: "balancing",
    how: "kernel.numa_balancing, used from node 1",
    make: anywhere,
    ready: balance,
    apply: use_from_node_1,
    tries: Tries::Again(Duration::from_secs(45), 15),
};

fn balance() -> Result<(), Missing> {
    need("/proc/sys/kernel/numa_balancing", "CONFIG_NUMA_BALANCING")?;
    on_node_0()?;
    set("/proc/sys/kernel/numa_balancing", "1")?;
    for (knob, value) in
        [("scan_delay_ms", "1"), ("scan_period_min_ms", "50"), ("scan_period_max_ms", "200"), ("scan_size_mb", "256")]
    {
        set_if_there(&format!("/sys/kernel/debug/sched/numa_balancing/{knob}"), value);
    }
    // Not held back by how much was moved of late (`migrate_balanced_pgdat`, hot threshold).
    set_if_there("/sys/kernel/debug/sched/numa_balancing/hot_threshold_ms", "10000");
    Ok(())
}

/// Pages that a thread uses from another node are brought to it, after the second time.
fn use_from_node_1(samples: &Samples) -> Result<Said, Missing> {
    run_on(1)?;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        samples.kinds.iter().for_each(|sample| _ = sample.is_intact());
    }
    Ok(Said::new())
}
