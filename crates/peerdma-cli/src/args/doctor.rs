//! Arguments of `peerdma doctor`.

use super::{InputArguments, OutputArguments};
use clap::Args;
use std::path::PathBuf;

#[derive(Args, Debug)]
#[command(after_help = "\
Six gates, in the order in which bytes meet them: kernel (configuration, modules, command line), \
bars (assigned, large enough, within reach), route (both views), iommu (kind of address), direction \
(what the hardware does with writes and reads), grant (what the bound drivers hand out).

Each line starts with OK, FAIL or UNKNOWN and a tab, then gate, object, evidence and next step, apart \
by tabs. Lines that start with NOTE come first: what to know before believing any of it. Lines that \
start with LOG come last: refusals, IOMMU faults with the owner of their address, errors of ports.

Examples:
  sudo peerdma doctor                              the machine as a whole
  sudo peerdma doctor mlx5_0 0000:41:00.0/bar1     one initiator and its target
  peerdma doctor --from host.peerdma --log dmesg.txt card1 nvme0
  peerdma doctor | grep -v ^OK

Exit codes: 0 every gate is open, 1 one is shut (FAIL), 2 usage, 3 none is shut and one cannot be told \
(UNKNOWN), 4 failed.")]
pub(crate) struct DoctorArguments {
    /// The initiator: address or name.
    #[arg(value_name = "FROM", requires = "to_function")]
    pub(crate) from_function: Option<String>,
    /// The target: address or name, then optionally a BAR and a range in it.
    #[arg(value_name = "TO[/barN[+OFFSET,LEN]]")]
    pub(crate) to_function: Option<String>,
    /// Read the kernel log from FILE, the output of dmesg or journalctl -k, perhaps compressed;
    /// `-` is standard input [default: this machine's log, where it is the input].
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) input: InputArguments,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}
