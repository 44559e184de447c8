//! Arguments of `peerdma fix`.

use super::{InputArguments, Need, OutputArguments};
use clap::Args;

#[derive(Args, Debug)]
#[command(after_help = "\
Prints; writes nothing. The set of ports is the smallest: RR, CR and EC cleared where they send a pair up,
or Upstream Forwarding set at a port where it turns round.

Examples:
  peerdma fix nvme0 mlx5_0                        both as Linux and the hardware need it
  peerdma fix gpu0 nic0 gpu1 nic1                 one set of ports for two pairs
  peerdma fix gpu0 nic0 nic0 gpu0                 both directions of one pair
  peerdma fix gpu0 nic0 --direct                  although the root complex would forward
  peerdma fix gpu0 nic0 --json >wanted.json       and after the boot: peerdma verify wanted.json
  peerdma fix 03:00.0 04:00.0 --from dump.txt --cpu intel:6 --kernel 6.12

Exit codes: 0 found or not needed, 1 none exists, 3 it depends on what was not read.")]
pub(crate) struct FixArguments {
    /// Initiator and target of each pair: addresses or names, the target with a BAR if it matters.
    #[arg(value_name = "FROM TO[/barN]", required_unless_present_any = ["schema", "platform"])]
    pub(crate) pairs: Vec<String>,
    /// What every pair needs.
    #[arg(long, value_name = "DIRECTION", default_value = "both")]
    pub(crate) need: Need,
    /// Accept only routes below the root.
    #[arg(long)]
    pub(crate) direct: bool,
    #[command(flatten)]
    pub(crate) input: InputArguments,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}
