//! Arguments of `peerdma whose`.

use super::{InputArguments, OutputArguments};
use clap::{Args, ValueEnum};

#[derive(Args, Debug)]
#[command(after_help = "\
One number can be three things: what the CPU uses, what travels below a host bridge, and what an IOMMU \
translates. All three are looked at unless --as names one.

Examples:
  peerdma whose 0x380000000000               a BAR, and where in it
  sudo peerdma whose 0x90004010+0x1000       a range; as root the memory map is readable
  peerdma whose 0xfee00000 --as iova         a region that the IOMMU keeps
  peerdma whose 0x4000000000 --platform two-socket --json

That nothing is there is said of the CPU's side only where the memory map was read (/proc/iomem, as root; \
[[ram]] of a platform file), of a bus only with its host bridge's windows, of the IOMMU's side only with \
its groups. Without --as the CPU's side decides.

Exit codes: 0 something is there, 1 nothing is, 2 usage, 3 the input has too little to say so, 4 failed.")]
pub(crate) struct WhoseArguments {
    /// Address in hexadecimal with 0x or in decimal, and optionally a length.
    #[arg(value_name = "ADDRESS[+LEN]", required_unless_present_any = ["schema", "platform"])]
    pub(crate) address: Option<String>,
    /// What kind of address it is.
    #[arg(long = "as", value_name = "KIND")]
    pub(crate) kind: Option<AddressArgument>,
    #[command(flatten)]
    pub(crate) input: InputArguments,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}

/// A kind of address.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AddressArgument {
    /// As the CPU uses it.
    Cpu,
    /// As it travels below a host bridge.
    Bus,
    /// As a device uses it where an IOMMU translates.
    Iova,
}
