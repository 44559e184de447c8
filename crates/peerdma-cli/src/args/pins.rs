//! Arguments of `peerdma pins`.

use super::OutputArguments;
use clap::Args;
use std::path::PathBuf;

#[derive(Args, Debug)]
#[command(after_help = "\
LOCKED is mm->locked_vm (mlock, VFIO type 1), PINNED is mm->pinned_vm (io_uring, iommufd, RDMA); each process may have \
as much as its RLIMIT_MEMLOCK of either. io_uring and iommufd are refused by a third counter, user->locked_vm, which all processes \
of a user share and which the kernel shows nowhere: COUNTED is about what it is, from what they have pinned. SHARE \
is of the limit. BUFFERS are those registered with rings whose descriptors can be seen; other users' take root.

Examples:
  peerdma pins                     processes that hold any, and their users
  peerdma pins --user 1000         one user's
  peerdma pins --all --json | jq '.processes[] | select(.share > 0.9)'

Exit codes: 0 told, 2 usage, 3 told of a part only (processes that may not be read, or that are hidden), 4 failed.")]
pub(crate) struct PinsArguments {
    /// Show every process, also those that hold nothing.
    #[arg(long)]
    pub(crate) all: bool,
    /// Show only processes of the user with this number.
    #[arg(long, value_name = "UID")]
    pub(crate) user: Option<u32>,
    /// Read this procfs, or a copy of one.
    #[arg(long, value_name = "DIR", default_value = "/proc")]
    pub(crate) proc: PathBuf,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}
