//! `RLIMIT_MEMLOCK` of a process, from `/proc/PID/limits`.

use peerdma::addr::Bytes;
use std::fmt;

/// How much a process may lock and pin, in each counter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemLimit {
    /// What it is held to; `None` is unlimited.
    pub soft: Option<Bytes>,
    /// How far it may raise that itself; `None` is unlimited.
    pub hard: Option<Bytes>,
}

impl MemLimit {
    /// Reads the line of `/proc/PID/limits`; `None` where there is none, or it is damaged.
    pub(super) fn parse(limits: &str) -> Option<Self> {
        let rest = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"))?;
        let mut words = rest.split_whitespace();
        let mut limit = || match words.next()? {
            "unlimited" => Some(None),
            number => number.parse().ok().map(|bytes| Some(Bytes::new(bytes))),
        };
        Some(Self { soft: limit()?, hard: limit()? })
    }

    /// The soft limit as a number, by which the lowest is found.
    pub(super) fn soft_or_most(self) -> Bytes {
        self.soft.unwrap_or(Bytes::new(u64::MAX))
    }

    /// Which part of the soft limit so much is; `None` where it has none, or has one of zero.
    pub fn share(self, used: Bytes) -> Option<f64> {
        let soft = self.soft.filter(|soft| *soft > Bytes::ZERO)?;
        Some(used.as_u64() as f64 / soft.as_u64() as f64)
    }
}

impl fmt::Display for MemLimit {
    /// Writes the soft limit.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.soft {
            Some(soft) => soft.fmt(f),
            None => f.write_str("unlimited"),
        }
    }
}
