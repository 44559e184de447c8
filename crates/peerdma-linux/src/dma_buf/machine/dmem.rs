//! Device memory that the kernel counts for each group of processes (`CONFIG_CGROUP_DMEM`, Linux 6.14).
//!
//! The kernel charges whoever allocates, and nobody who imports; see `peerdma::buffer::pins`.

use peerdma::addr::Bytes;
use std::fs;
use std::path::{Path, PathBuf};

/// How much at most, or at least.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limit {
    /// There is none (`max`).
    None,
    /// So much.
    At(Bytes),
}

/// One region of device memory, and what the group of this process may have of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DmemRegion {
    /// Its name, such as `drm/0000:03:00.0/vram0`.
    pub name: String,
    /// How much there is of it.
    pub capacity: Bytes,
    /// What the group has; `None` of the root group, which is not counted.
    pub current: Option<Bytes>,
    /// More is refused.
    pub max: Option<Limit>,
    /// Not taken away while others have more than theirs.
    pub low: Option<Limit>,
    /// Never taken away.
    pub min: Option<Limit>,
}

/// All regions; `None` without the controller.
pub(super) fn read(root: &Path) -> Option<Vec<DmemRegion>> {
    let top = mounted(root)?;
    let capacities = rows(&top.join("dmem.capacity"))?;
    let own = own_group(root).map_or(top.clone(), |group| top.join(group));
    let file = |name: &str| rows(&own.join(name)).unwrap_or_default();
    let (current, max, low, min) = (file("dmem.current"), file("dmem.max"), file("dmem.low"), file("dmem.min"));
    let of = |rows: &[(String, String)], name: &str| {
        let (_, value) = rows.iter().find(|(region, _)| region == name)?;
        match value.as_str() {
            "max" => Some(Limit::None),
            number => number.parse().ok().map(|number| Limit::At(Bytes::new(number))),
        }
    };
    let region = |(name, capacity): &(String, String)| {
        let now = match of(&current, name) {
            Some(Limit::At(bytes)) => Some(bytes),
            _ => None,
        };
        Some(DmemRegion {
            capacity: Bytes::new(capacity.parse().ok()?),
            current: now,
            max: of(&max, name),
            low: of(&low, name),
            min: of(&min, name),
            name: name.clone(),
        })
    };
    Some(capacities.iter().filter_map(region).collect())
}

/// Where the one hierarchy is mounted.
fn mounted(root: &Path) -> Option<PathBuf> {
    let mounts = fs::read_to_string(root.join("proc/self/mounts")).ok()?;
    let at = mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (_, at, kind) = (words.next()?, words.next()?, words.next()?);
        (kind == "cgroup2").then_some(at)
    })?;
    Some(root.join(at.trim_start_matches('/')))
}

fn own_group(root: &Path) -> Option<PathBuf> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    // A group outside of what is mounted here is shown with dots.
    (!own.split('/').any(|part| part == "..")).then(|| PathBuf::from(own))
}

/// `REGION VALUE` of each line.
fn rows(path: &Path) -> Option<Vec<(String, String)>> {
    let text = fs::read_to_string(path).ok()?;
    let row = |line: &str| line.rsplit_once(' ').map(|(name, value)| (name.to_string(), value.to_string()));
    Some(text.lines().filter_map(row).collect())
}
