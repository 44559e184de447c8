//! Arguments of `trace`.

use super::OutputArguments;
use super::copy::parse_size;
use clap::Args;
use peerdma::addr::Bytes;

#[derive(Args, Debug)]
#[command(after_help = "\
One request is sent by FROM to memory or registers of TO, in a described machine that runs in this process,
and followed from port to port. Where the pair is permitted it carries the address that the mapping engine
gives; where it is refused, the one that a driver programs that does not ask. A write to a register takes
effect.

Examples:
  peerdma trace nic0 gpu0                                    a write of 64 bytes, on two-socket
  peerdma trace nic0 gpu1/bar2 --read --at 1MiB --len 256    across the sockets, and its completion back
  peerdma trace gpu0 nvme4/bar0 --read --json                where a refused pair's request ends
  peerdma trace gpu0 ram --atomic --platform machine.toml

Exit codes: 0 it arrived, 1 it did not, as the verdict said, 3 it did not, and nobody could know, 4 it did
not although the verdict permits it.")]
pub(crate) struct TraceArguments {
    /// Who sends: address or name of a device.
    #[arg(value_name = "FROM", required_unless_present_any = ["schema", "platform"])]
    pub(crate) from_function: Option<String>,
    /// To whom: address or name, optionally a BAR; or ram.
    #[arg(value_name = "TO[/barN]", required_unless_present_any = ["schema", "platform"])]
    pub(crate) to_place: Option<String>,
    /// A memory write, which is what is sent unless something else is asked for.
    #[arg(long, group = "kind")]
    pub(crate) write: bool,
    /// A memory read.
    #[arg(long, group = "kind")]
    pub(crate) read: bool,
    /// A fetch-and-add of 8 bytes.
    #[arg(long, group = "kind", conflicts_with = "len")]
    pub(crate) atomic: bool,
    /// Where in the BAR.
    #[arg(long, value_name = "OFFSET", default_value = "0", value_parser = parse_offset)]
    pub(crate) at: Bytes,
    /// How many bytes, at most 4096; what is longer than a packet is sent as several [default: 64].
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) len: Option<Bytes>,
    /// The machine: a built-in one, which `--platform help` lists, or a platform file [default: two-socket].
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) platform: Option<String>,
    /// Choose another order of what is free to choose.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}

fn parse_offset(text: &str) -> Result<Bytes, String> {
    crate::select::size(text).ok_or_else(|| "give an offset such as 0x1000 or 1MiB".to_string())
}
