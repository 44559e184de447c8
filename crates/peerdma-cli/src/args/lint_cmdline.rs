//! Arguments of `peerdma lint-cmdline`.

use super::{InputArguments, OutputArguments};
use clap::Args;

#[derive(Args, Debug)]
#[command(after_help = "\
A LINE without an input is checked as text alone. With --sysfs-root /, --from or --platform it is held \
against that machine: which ports its lists name, and what their registers can do.

Examples:
  peerdma lint-cmdline                                      the line this machine booted with
  peerdma lint-cmdline 'iommu=pt pci=disable_acs_redir=0000:00:01.0,0000:00:02.0'
  peerdma lint-cmdline --sysfs-root / 'pci=config_acs=x0x00xx@0000:00:01.0'   against this machine
  peerdma lint-cmdline --from host.peerdma                  the line of a capture
  ssh host cat /proc/cmdline | peerdma lint-cmdline -       a line from standard input

Exit codes: 0 nothing found, or advice alone; 1 a finding; 2 usage; 3 the input tells no line; 4 \
failed.")]
pub(crate) struct LintCmdlineArguments {
    /// The line, as /proc/cmdline shows it (not as a boot loader's configuration quotes it);
    /// `-` is standard input [default: the line of the input].
    #[arg(value_name = "LINE")]
    pub(crate) line: Option<String>,
    #[command(flatten)]
    pub(crate) input: InputArguments,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}
