//! dma-bufs of every maker: `peerdma-guest checks dma-bufs`, and what `peerdma buffers --machine` says of them.

use super::checks::count;
use super::setup::{Laboratory, Setup, Which};
use super::{Done, Test};
use crate::failure::Failure;
use crate::vm::guest::Job;

/// A drive that its own driver has, which offers its memory to others.
const SHARED: &str = "0000:03:00.0";

/// An `ivshmem-plain` below the switch of the topology `default`.
const TARGET: &str = "0000:06:00.0";

pub(super) fn tests() -> Vec<Test> {
    [
        // Two more claims are about vgem, and five about pins of such memory.
        ("udmabuf, heap and exported BARs, stock kernel", Which::Stock, &["vgem"][..], &["dma-bufs", "pinned"][..], 28),
        ("udmabuf, heap and exported BARs, small kernel", Which::Small, &[], &["dma-bufs"], 21),
    ]
    .map(|(name, kernel, modules, groups, fewest)| {
        Test::new("dma-bufs", name, move |laboratory| tried(laboratory, kernel, modules, (groups, fewest)))
    })
    .into()
}

fn tried(
    laboratory: &Laboratory,
    kernel: Which,
    modules: &[&str],
    (groups, fewest): (&[&str], usize),
) -> Result<Done, Failure> {
    let setup = Setup::named(kernel, "default").vfio(&[TARGET]);
    // Nobody mounts the groups of processes in these guests.
    let checks = |group: &&str| format!(" && peerdma-guest checks {group} --target {TARGET} --shared {SHARED}");
    let script = format!(
        "mkdir -p /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup; \
         ls /sys/fs/cgroup > /out/groups; peerdma buffers --machine > /out/said 2>&1{}",
        groups.iter().map(checks).collect::<String>()
    );
    let mut job = Job::new(vec!["sh".into(), "-c".into(), script]);
    job.modules = modules.iter().map(|&name| name.into()).collect();
    let outcome = laboratory.boot_job(&setup, &mut job)?;
    let said = String::from_utf8_lossy(&outcome.stdout);
    let done = count(&said, outcome.exit, fewest).map_err(|failure| {
        let file = |name: &str| outcome.files.get(name).map_or(&[][..], Vec::as_slice);
        let listed = [file("said"), file("groups")].map(String::from_utf8_lossy).concat();
        Failure::Found(format!("{failure}\n{listed}{}", String::from_utf8_lossy(&outcome.stderr)))
    })?;
    Ok(Done { claims: done.claims + 1, ..done })
}
