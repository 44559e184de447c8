//! Arguments of `peerdma demo`.

use super::OutputArguments;
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Args, Debug)]
#[command(after_help = "\
A described machine is built in this process, with the drivers and devices that its file names, and runs. Requests \
travel port by port by the registers of those ports; addresses come from page tables that are walked byte by byte. \
No device of this machine is touched, and no privilege is needed.

Examples:
  peerdma demo                       everything that can be shown, and nothing that does harm
  peerdma demo --show-unsafe         also what happens with addresses that the library refuses to give
  peerdma demo --platform mine.toml  on a machine of one's own
  peerdma demo --json | jq '.transfers[] | {initiator, target, verified}'
  peerdma demo --serve &             a buffer's life over and over; peerdma buffers shows what it is at

Exit codes: 0 everything arrived and was verified, 2 usage, 4 something did not arrive.")]
pub(crate) struct DemoArguments {
    /// Built-in platform or platform file, with an NVMe drive, two GPUs and two NICs.
    #[arg(long, value_name = "NAME|FILE", default_value = "two-socket")]
    pub(crate) platform: String,
    /// Seed of the data, and of every order that hardware leaves open.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Show the corruptions that are prevented also as they happen.
    #[arg(long)]
    pub(crate) show_unsafe: bool,
    /// Let a buffer live on, moved and reset under traffic, until Ctrl-C, and answer peerdma buffers at this
    /// path [default: peerdma.sock in XDG_RUNTIME_DIR].
    #[arg(long, value_name = "PATH", num_args = 0..=1, conflicts_with = "show_unsafe")]
    pub(crate) serve: Option<Option<PathBuf>>,
    /// With --serve: end after so many seconds.
    #[arg(long = "for", value_name = "SECONDS", requires = "serve", value_parser = super::share::seconds)]
    pub(crate) lasts: Option<Duration>,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}
