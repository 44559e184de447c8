//! Arguments of `peerdma guest`.

use super::{InputArguments, OutputArguments};
use clap::Args;

#[derive(Args, Debug)]
#[command(after_help = "\
A guest gives its devices guest-physical addresses, and their requests leave with these numbers. Ports below the \
root complex compare the bare number with their windows, and what they claim no IOMMU ever sees. So a BAR may have \
to be where its own bus address is (an identity BAR), and RAM at the number of another function's BAR goes astray.

Without --bar every BAR of the devices is shown with the address that it needs, for each device that reaches for it. \
With --bar and --ram the layout is checked: every device, at every address. A BAR's function that is no \
--device is only reached for. Addresses are hexadecimal with 0x, sizes as in 4096, 0x1000, 4KiB, 2M, 1G.

A device with ATS may send translations or guest addresses. What it sends no register tells: \
--translated and --untranslated say it; without, both have to arrive.

Examples:
  peerdma guest --device mlx5_0 --device card1                     where the BARs of each have to be
  peerdma guest --device mlx5_0 --device card1 --ram 0+2G --ram 4G+62G
  peerdma guest --device 03:00.0 --bar 04:00.0/bar0@0x91000000 --ram 0+2G --from host.peerdma
  peerdma guest --device nic0 --device gpu0 --translated nic0 --platform two-socket --json

Exit codes: 0 requests arrive, or an address is known at which they do, 1 refused: some are lost or go astray, \
2 usage, 3 the input has too little to say, 4 failed.")]
pub(crate) struct GuestArguments {
    /// A function that the guest lets move bytes: address or name; may be given several times.
    #[arg(long = "device", value_name = "FUNCTION", required_unless_present_any = ["schema", "platform"])]
    pub(crate) devices: Vec<String>,
    /// A --device that asks for translations by ATS and sends nothing else.
    #[arg(long, value_name = "FUNCTION")]
    pub(crate) translated: Vec<String>,
    /// A --device that sends guest addresses, whether it has ATS or not.
    #[arg(long, value_name = "FUNCTION")]
    pub(crate) untranslated: Vec<String>,
    /// RAM of the guest; may be given several times.
    #[arg(long, value_name = "START+LEN")]
    pub(crate) ram: Vec<String>,
    /// Where the guest sees a BAR; may be given several times.
    #[arg(long = "bar", value_name = "FUNCTION/barN@ADDRESS")]
    pub(crate) bars: Vec<String>,
    #[command(flatten)]
    pub(crate) input: InputArguments,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}
