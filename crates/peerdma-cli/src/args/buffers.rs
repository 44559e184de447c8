//! Arguments of `peerdma buffers`, and where those are found who answer it.

use super::OutputArguments;
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Args, Debug)]
#[command(after_help = "\
Asks a process that runs an emulated machine, such as peerdma demo --serve, what its buffers are at: who has \
attached with which lifetime, which fences have not retired, and who keeps a disturbance waiting.

With --machine it lists this machine's dma-bufs instead: exporter, name, length, who imports and who holds each, and \
limits on device memory where the kernel has them. Root sees all of it; anybody else what his own processes hold.

Examples:
  peerdma demo --serve &
  peerdma buffers
  peerdma buffers --json | jq '.buffers[].waits_for'
  peerdma buffers --socket /tmp/machine     one that was started with demo --serve /tmp/machine
  sudo peerdma buffers --machine            dma-bufs of this machine

Exit codes: 0 answered, 2 usage, 3 not all could be looked at, 4 nobody answers.")]
pub(crate) struct BuffersArguments {
    /// Where the process answers [default: the same as of demo --serve].
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// List this machine's dma-bufs, and limits on device memory.
    #[arg(long, conflicts_with_all = ["socket", "patience"])]
    pub(crate) machine: bool,
    /// How many seconds to wait for the answer.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = super::share::seconds)]
    pub(crate) patience: Duration,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}

/// Where a process answers that was not told where.
pub(crate) fn default_socket() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty()) {
        Some(folder) => PathBuf::from(folder).join("peerdma.sock"),
        None => std::env::temp_dir().join(format!("peerdma-{}.sock", peerdma_linux::control::user())),
    }
}
