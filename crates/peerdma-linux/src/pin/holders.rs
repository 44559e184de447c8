//! Who has what of a limit that was hit.

use crate::held::Held;
use peerdma::addr::Bytes;
use peerdma::pin::Holder;
use rustix::process::getuid;
use std::fmt;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Named in a text; the rest is counted.
const NAMED: usize = 3;

/// Processes of this user that have memory pinned, this one among them, largest first, as `/proc` showed them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Holders(Vec<Holder>);

/// What was last seen, and when: who pins until it is refused is refused often, and a look costs 50 µs a process.
static SEEN: Mutex<Option<(Instant, Holders)>> = Mutex::new(None);
const FRESH: Duration = Duration::from_millis(100);

impl Holders {
    /// Those of now, or of a moment ago; none where `/proc` cannot be read.
    pub(super) fn now() -> Self {
        // Not waited for: in a forked child its holder may not be there.
        let Ok(mut seen) = SEEN.try_lock() else { return Self::look() };
        match &*seen {
            Some((when, holders)) if when.elapsed() < FRESH => holders.clone(),
            _ => {
                let holders = Self::look();
                *seen = Some((Instant::now(), holders.clone()));
                holders
            }
        }
    }

    fn look() -> Self {
        let Ok(held) = Held::read(Path::new("/proc")) else { return Self::default() };
        let uid = getuid().as_raw();
        let of = held.processes.into_iter().filter(|process| process.uid == uid && process.bypass != Some(true));
        let holder = of.map(|process| Holder { pid: process.pid, command: process.command, held: process.pinned });
        let mut holders: Vec<Holder> = holder.filter(|holder| holder.held > Bytes::ZERO).collect();
        holders.sort_by(|a, b| b.held.cmp(&a.held).then(a.pid.cmp(&b.pid)));
        Self(holders)
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Holder> {
        self.0.iter()
    }
}

impl fmt::Display for Holders {
    /// Writes ` (48 KiB by process 4711 (qemu), 4 KiB by process 12 (copy))`, or nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, holder) in self.0.iter().take(NAMED).enumerate() {
            write!(f, "{}{holder}", if index == 0 { " (" } else { ", " })?;
        }
        match self.0.len() {
            0 => Ok(()),
            count if count > NAMED => write!(f, " and {} others)", count - NAMED),
            _ => f.write_str(")"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_are_named_and_the_rest_counted() {
        let holder = |pid, kib| Holder { pid, command: "copy".to_string(), held: Bytes::new(kib << 10) };
        assert_eq!(Holders(Vec::new()).to_string(), "");
        assert_eq!(Holders(vec![holder(7, 48)]).to_string(), " (48 KiB by process 7 (copy))");
        let many = Holders((1..=5).map(|pid| holder(pid, u64::from(9 - pid))).collect());
        assert!(many.to_string().ends_with(", 6 KiB by process 3 (copy) and 2 others)"), "{many}");
    }
}
