//! Arguments of `peerdma pin`.

use super::OutputArguments;
use super::copy::parse_size;
use clap::Args;
use peerdma::addr::Bytes;

#[derive(Args, Debug)]
#[command(after_help = "\
Three pieces of memory in small pages, one left alone, one locked (mlock), one pinned (a buffer registered with an \
io_uring): the kernel is asked to collapse each into huge pages, which moves every page that may move. With CAP_SYS_ADMIN page \
frames are compared page by page; without it the kernel's answers and AnonHugePages tell. No other process is touched.

Examples:
  peerdma pin --prove                  up to 64 MiB of each, as much as RLIMIT_MEMLOCK permits
  sudo peerdma pin --prove --size 1GiB
  peerdma pin --prove --json | jq '.trials[] | {memory, share}'

Exit codes: 0 plain and locked memory moved and pinned memory did not; 1 pinned memory moved, or the limit has no room for \
--size; 2 usage; 3 inconclusive: less than 90 % of plain or locked memory moved, or one of the three could not be had; 4 failed.")]
pub(crate) struct PinArguments {
    /// Prove that pinned memory keeps its place.
    #[arg(long, required_unless_present = "schema")]
    pub(crate) prove: bool,
    /// How much of each, a multiple of a huge page [default: 64MiB, or what the limit permits].
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) size: Option<Bytes>,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}
