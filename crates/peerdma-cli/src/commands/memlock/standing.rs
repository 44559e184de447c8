//! What a need is held against: a limit, and what is charged to it already.

use crate::args::{LimitArgument, MemlockArguments};
use crate::exit::Failure;
use crate::progress::Progress;
use peerdma::addr::Bytes;
use peerdma::pin::{Counter, Need};
use peerdma_linux::held::{Held, MemLimit};
use std::path::Path;

/// Whether the plan fits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    /// Within the limit, with what is charged now.
    Suffices,
    /// This process has the capability, and is held to no limit.
    NotHeld,
    /// Within the limit, but what is charged now cannot be told.
    May,
    /// Not within it.
    Lacks,
}

impl Answer {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Suffices => "suffices",
            Self::NotHeld => "not_held",
            Self::May => "may_suffice",
            Self::Lacks => "lacks",
        }
    }
}

/// The limit, and what stands against it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    pub(crate) limit: MemLimit,
    /// Whether the limit was given and is nobody's.
    pub(crate) given: bool,
    /// Whose processes were counted.
    pub(crate) uid: u32,
    /// About what stands in his counter now.
    pub(crate) charged: Bytes,
    /// Whether all of his processes were seen.
    pub(crate) complete: bool,
    /// The limit that is needed together with what is charged now.
    pub(crate) with_charged: Bytes,
    pub(crate) answer: Answer,
}

impl Standing {
    pub(crate) fn new(arguments: &MemlockArguments, need: &Need) -> Result<Self, Failure> {
        let proc = Path::new("/proc");
        let progress = Progress::start("reading processes");
        let held = Held::read(proc);
        drop(progress);
        let held = held.map_err(|source| Failure::Read { path: proc.into(), source })?;
        let own = held.processes.iter().find(|process| process.pid == std::process::id());
        let uid = match (arguments.user, own) {
            (Some(uid), _) => uid,
            (None, own) => own.map_or(0, |own| own.uid),
        };
        let (user, given) = (held.user(uid), arguments.limit.is_some());
        let limit = match (arguments.limit, arguments.user) {
            (Some(LimitArgument(soft)), _) => MemLimit { soft, hard: soft },
            // Another user's processes are held to their own limit, not to that of whoever asks.
            (None, Some(uid)) => user.limit.ok_or_else(|| Failure::Input {
                what: format!("no process of user {uid} shows what limit it is held to; give one with --limit"),
                source: None,
            })?,
            (None, None) => own.and_then(|own| own.limit).ok_or_else(|| Failure::Input {
                what: "this process's limit is not in /proc/self/limits; give one with --limit".into(),
                source: None,
            })?,
        };
        let capable = !given && arguments.user.is_none() && own.is_some_and(|own| own.bypass == Some(true));
        let with_charged = with_charged(need, user.charged);
        let within = |bytes: Bytes| limit.soft.is_none_or(|soft| bytes <= soft);
        let asks_user = need.counters.iter().any(|it| it.counter == Counter::UserLocked && it.limited);
        let answer = if capable {
            Answer::NotHeld
        } else if !within(need.limit) || !within(with_charged) {
            Answer::Lacks
        } else if asks_user && !held.is_complete() && limit.soft.is_some() {
            Answer::May
        } else {
            Answer::Suffices
        };
        let (charged, complete) = (user.charged, held.is_complete());
        Ok(Self { limit, given, uid, charged, complete, with_charged, answer })
    }
}

/// The limit that is needed if the user has so much charged already. The processes of the plan are taken to be new ones, whose own
/// counters stand at nothing.
fn with_charged(need: &Need, charged: Bytes) -> Bytes {
    let of = need.counters.iter().filter(|it| it.limited).map(|it| match it.counter {
        Counter::UserLocked => it.need.checked_add(charged).unwrap_or(Bytes::new(u64::MAX)),
        _ => it.need,
    });
    of.max().unwrap_or_default()
}
