//! Arguments of `peerdma memlock`.

use super::OutputArguments;
use super::copy::parse_size;
use clap::Args;
use peerdma::addr::Bytes;
use std::path::PathBuf;

#[derive(Args, Debug)]
#[command(after_help = "\
A plan names memory and what pins it; docs/memlock.md describes all of it:

  [[memory]]
  name = \"guest\"
  size = \"8GiB\"
  pages = \"2MiB\"          # size of its huge pages; leave it out for base pages

  [[pin]]
  memory = \"guest\"
  through = \"type1\"       # mlock, type1, iommufd, iommufd-process, io_uring, rdma, udmabuf, dma-heap
  in = \"container 0\"      # what shares charges: a container, an iommufd, a ring
  process = \"vmm\"

Examples:
  peerdma memlock plan.toml                    against this process's limit and what its user holds
  peerdma memlock plan.toml --limit 64GiB      against another limit
  sudo peerdma memlock plan.toml --user 1000   against what that user's processes hold
  peerdma memlock plan.toml --json | jq .required

Exit codes: 0 the limit suffices, 1 it does not, 2 usage, 3 it may suffice: what the user holds cannot be told, 4 no \
plan, or failed.")]
pub(crate) struct MemlockArguments {
    /// The plan; `-` is standard input.
    #[arg(value_name = "PLAN", required_unless_present = "schema")]
    pub(crate) plan: Option<PathBuf>,
    /// Compare with this limit, such as 8MiB or unlimited, and with no capability [default: this process's].
    #[arg(long, value_name = "SIZE", value_parser = parse_limit)]
    pub(crate) limit: Option<LimitArgument>,
    /// Ask for the user with this number: his processes' limit, what they hold, and no capability [default: this process's user].
    #[arg(long, value_name = "UID")]
    pub(crate) user: Option<u32>,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}

/// A limit as it is typed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LimitArgument(pub(crate) Option<Bytes>);

fn parse_limit(text: &str) -> Result<LimitArgument, String> {
    match text {
        "unlimited" => Ok(LimitArgument(None)),
        "0" => Ok(LimitArgument(Some(Bytes::ZERO))),
        size => {
            parse_size(size).map(|size| LimitArgument(Some(size))).map_err(|error| format!("{error}, or unlimited"))
        }
    }
}
