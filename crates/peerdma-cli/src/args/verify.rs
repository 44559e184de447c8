//! Arguments of `peerdma verify`.

use super::{InputArguments, OutputArguments};
use clap::Args;
use std::path::PathBuf;

#[derive(Args, Debug)]
#[command(after_help = "\
One line a port: OK, FAIL or UNKNOWN, a tab, and what was read. Then IOMMU groups that the machine formed
before its ACS words became what they are now: they stay until the next boot.

Examples:
  sudo peerdma verify wanted.json                 after the boot with what peerdma fix printed
  peerdma fix gpu0 nic0 --json | sudo peerdma verify -
  peerdma verify wanted.toml --from host.peerdma  a capture

  # wanted.toml
  [[ports]]
  bdf = \"0000:02:00.0\"      # or path = \"0000:00:01.0/00.0/00.0\", which comes first
  clear = [\"rr\", \"cr\"]
  set = []

Exit codes: 0 as wanted, 1 a bit is not or a group is stale, 3 not read.")]
pub(crate) struct VerifyArguments {
    /// The output of peerdma fix --json, or TOML with the same ports; `-` is standard input.
    #[arg(value_name = "WANTED", required_unless_present_any = ["schema", "platform"])]
    pub(crate) wanted: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) input: InputArguments,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}
