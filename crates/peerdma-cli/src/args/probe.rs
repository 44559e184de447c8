//! Arguments of `probe`.

use super::copy::parse_size;
use super::{OutputArguments, PairArguments, ViaArgument};
use clap::Args;
use peerdma::addr::Bytes;

#[derive(Args, Debug)]
#[command(after_help = "\
Three columns, which are three different things, for each direction and each engine that is here:
  permitted  what the verdict says of the route, as `peerdma route` does
  granted    what the kernel answers when it is asked: a mapping, a request, a registration
  verified   whether the bytes are at their destination, by whoever owns that

Engines, and what each needs (those that are not here are listed with what they lack):
  edu    FROM is QEMU's edu, TO/barN memory; both bound to vfio-pci (peerdma vfio bind). VFIO asks no rule
  nvme   FROM is a drive with its disk, TO a device whose driver offers memory (p2pmem). The kernel asks its rules.
         That FROM reads TO takes --write: a page of the disk is overwritten, compared and put back
  verbs  FROM is an RDMA adapter, connected to itself, TO/barN memory bound to vfio-pci

No device is taken from its driver, and no driver from its device. Memory behind TO/barN is overwritten and put back:
name memory, never registers. What VFIO would do to a pair that Linux's rules refuse takes --force.

Examples:
  peerdma probe 0000:05:00.0 0000:06:00.0/bar2             an edu and 4 KiB of another device's memory
  peerdma probe nvme0 nvme1 --need write                   reads a block of nvme0 into nvme1's buffer
  peerdma probe nvme0 nvme1 --write --json                 and writes a block of nvme0 from there
  peerdma probe nvme0 gpu0 --platform two-socket           in an emulated machine, by its own engines

Exit codes, the first that applies, for FROM -> TO and what --need asks: 4 bytes did not arrive, or something could
not be put back, or failed; 1 refused, by the rules or by the kernel; 3 not known, or no engine here can tell;
0 permitted, granted and verified.")]
pub(crate) struct ProbeArguments {
    #[command(flatten)]
    pub(crate) pair: PairArguments,
    /// Let FROM, a drive, write its own disk: a page 512 KiB from its start, which is put back.
    #[arg(long, conflicts_with = "platform")]
    pub(crate) write: bool,
    /// Go on although the rules refuse the pair, or cannot be told.
    #[arg(long)]
    pub(crate) force: bool,
    /// Which interface of the kernel maps the target for an engine in VFIO's hands.
    #[arg(long, value_name = "INTERFACE", default_value = "auto", conflicts_with = "platform")]
    pub(crate) via: ViaArgument,
    /// Choose other bytes, and in a described machine another order of what is free to choose.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Probe in a described machine that runs in this process: a built-in one, which `--platform help`
    /// lists, or a platform file.
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) platform: Option<String>,
    /// How many bytes in a described machine, such as 1MiB [default: 64KiB].
    #[arg(long, value_name = "SIZE", requires = "platform", value_parser = parse_size)]
    pub(crate) size: Option<Bytes>,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}
