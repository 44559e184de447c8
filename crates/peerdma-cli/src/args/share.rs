//! Arguments of `peerdma share`.

use super::OutputArguments;
use clap::{Args, ValueEnum};
use peerdma::addr::Bytes;
use peerdma::buffer::Enforcement;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Args, Debug)]
#[command(after_help = "\
Other processes of the same user attach at the socket; docs/protocol.md says what the two say to each other. The memory \
is filled with a pattern that they check. Importers are told to let go before the memory is taken away, \
and who holds on is named. At its end, by a signal too, they are told first, and the socket is removed; a second signal of \
the same kind ends it at once, and what it leaves is replaced by the next.

Of a function that is bound to vfio-pci, pages of a BAR are shared: to importers the memory is the device's own descriptor, \
so whoever attaches may do anything to the device. revoke and restore switch its memory space off and on, reset resets it, and \
each waits for importers first. Its bytes are left alone without --fill.

Commands on standard input: revoke, restore, move (of a memfd), reset (of a device), status, quit.

Examples:
  peerdma share memfd --socket /tmp/frames                 then, elsewhere: peerdma attach /tmp/frames
  peerdma share memfd --socket /tmp/frames --size 16MiB --read-only --for 60
  peerdma share memfd --socket /tmp/frames --revoke-after 5 --restore-after 10
  peerdma share memfd --socket /tmp/frames --floor kernel  nobody: a memfd cannot be taken from who has mapped it
  peerdma share 0000:06:00.0/bar2+0,64KiB --socket /tmp/bar    then, elsewhere: peerdma attach /tmp/bar

Exit codes: 0 done, 1 refused, or importers held on to the end of the wait, 2 usage, 4 failed.")]
pub(crate) struct ShareArguments {
    /// `memfd`, or whole pages of a BAR: a function's address or name, its BAR, and which part of it.
    #[arg(value_name = "memfd|NAME/barN[+OFFSET,LEN]", required_unless_present = "schema")]
    pub(crate) what: Option<String>,
    /// Where others attach; made with mode 0600, and removed at the end.
    #[arg(long, value_name = "PATH", required_unless_present = "schema")]
    pub(crate) socket: Option<PathBuf>,
    /// How many bytes a memfd has, whole pages, such as 16MiB [default: 1MiB].
    #[arg(long, value_name = "BYTES", value_parser = size)]
    pub(crate) size: Option<Bytes>,
    /// The least enforcement that is accepted of who attaches.
    #[arg(long, value_name = "LEVEL", default_value = "cooperative")]
    pub(crate) floor: EnforcementArgument,
    /// Nobody else may write a memfd; the kernel sees to it.
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Fill a BAR with the pattern too, and anew whenever it is restored; of registers only its driver knows what that does.
    #[arg(long)]
    pub(crate) fill: bool,
    /// End after so many seconds [default: with `quit`, or a signal].
    #[arg(long = "for", value_name = "SECONDS", value_parser = seconds)]
    pub(crate) lasts: Option<Duration>,
    /// Take the memory away so many seconds after the first importer has mapped it.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) revoke_after: Option<Duration>,
    /// Give it back so many seconds after it was taken away.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) restore_after: Option<Duration>,
    /// How many seconds to wait for importers to let go.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub(crate) patience: Duration,
    /// Seed of the pattern.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EnforcementArgument {
    /// Nobody sees to it that an importer lets go.
    None,
    /// The importer says that it has let go, and is believed.
    Cooperative,
    /// The kernel takes the importer's access away.
    Kernel,
}

impl From<EnforcementArgument> for Enforcement {
    fn from(argument: EnforcementArgument) -> Self {
        match argument {
            EnforcementArgument::None => Self::None,
            EnforcementArgument::Cooperative => Self::Cooperative,
            EnforcementArgument::Kernel => Self::Kernel,
        }
    }
}

fn size(text: &str) -> Result<Bytes, String> {
    crate::select::size(text).ok_or_else(|| "give a length such as 4096, 64KiB or 1MiB".to_string())
}

/// Seconds, perhaps with a fraction; at most a year, so that no sum with a clock overflows.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let wrong = || "give seconds such as 5 or 0.5, a year at most".to_string();
    let seconds: f64 = text.parse().map_err(|_| wrong())?;
    let seconds = Some(seconds).filter(|seconds| (0.0..=31_536_000.0).contains(seconds)).ok_or_else(wrong)?;
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}
