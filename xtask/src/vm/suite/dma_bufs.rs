//! dma-bufs of every maker: `peerdma-guest checks dma-bufs`, and what `peerdma buffers --machine` says of them.
//!
//! On the stock kernel virtio-gpu imports too, in the topology `importers`: on a processor whose host bridge forwards to nobody here,
//! and on one where it does in the group `kvm`.

use super::claims::claims;
use super::setup::{Laboratory, Setup, Which};
use super::{Done, Test};
use crate::failure::Failure;
use crate::vm::guest::Job;
use crate::vm::topology;

/// A drive that its own driver has, which offers its memory to others.
const SHARED: &str = "0000:03:00.0";

/// An `ivshmem-plain` below the switch of the topologies `default` and `importers`.
pub(super) const TARGET: &str = "0000:06:00.0";

/// Another at a root port of its own, in the topology `importers`.
pub(super) const FAR: &str = "0000:07:00.0";

/// The graphics device of the topology `importers`, whose driver imports dma-bufs, and the drive beside it.
pub(super) const IMPORTER: &str = "--importer 0000:04:00.0 --shared 0000:03:00.0";

/// What that driver takes; its console, which nobody reads, is left out.
pub(super) const IMPORTING: [&str; 2] = ["drm_client_lib active=", "virtio-gpu"];

/// How many claims of [`importing`] hold; one more where the host bridge forwards.
pub(super) const IMPORTED: usize = 7;

/// Claims about that driver, in words for a shell.
pub(super) fn importing() -> String {
    format!("peerdma-guest checks importing {IMPORTER} --target {TARGET} --far {FAR}")
}

pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::new("dma-bufs", "udmabuf, heap and exported BARs, stock kernel", |laboratory| {
            let setup = Setup::named(Which::Stock, topology::IMPORTERS).vfio(&[TARGET, FAR]);
            // Its node is taken for the first.
            let modules = [&["vgem"][..], &IMPORTING].concat();
            let groups = [checks("dma-bufs"), checks("pinned"), importing()];
            // Three more claims are about vgem, and five about pins of such memory.
            tried(laboratory, &setup, &modules, (&groups, 29 + IMPORTED))
        }),
        Test::new("dma-bufs", "udmabuf, heap and exported BARs, small kernel", |laboratory| {
            let setup = Setup::named(Which::Small, "default").vfio(&[TARGET]);
            tried(laboratory, &setup, &[], (&[checks("dma-bufs")], 21))
        }),
    ]
}

fn checks(group: &str) -> String {
    format!("peerdma-guest checks {group} --target {TARGET} --shared {SHARED}")
}

fn tried(
    laboratory: &Laboratory,
    setup: &Setup,
    modules: &[&str],
    (groups, fewest): (&[String], usize),
) -> Result<Done, Failure> {
    // Nobody mounts the groups of processes in these guests.
    let script = format!(
        "mkdir -p /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup; ls /sys/fs/cgroup > /out/groups; \
         peerdma buffers --machine > /out/said 2>&1 && {}",
        groups.join(" && ")
    );
    let mut job = Job::new(vec!["sh".into(), "-c".into(), script]);
    job.modules = modules.iter().map(|&name| name.into()).collect();
    let (done, _) = claims(laboratory, setup, &job, fewest)?;
    Ok(Done { claims: done.claims + 1, ..done })
}
