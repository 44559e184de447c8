//! Arguments of `copy`.

use super::{Need, OutputArguments};
use clap::{Args, ValueEnum};
use peerdma::addr::Bytes;
use peerdma_emu::faults::Fault;

#[derive(Args, Debug)]
#[command(after_help = "\
On this machine (without --platform) both functions must be bound to vfio-pci; the error says how. FROM is
the engine that moves the bytes, TO is memory of the other device. The whole range is overwritten: name
memory, never registers.

On a described machine (with --platform) bytes go from FROM to TO, each the name or address of a device, or
ram, or memory behind a BAR (gpu0/bar2+1MiB). A GPU's name means its VRAM, a drive's its medium, that of a
DMA engine, NIC or accelerator RAM that it works on. FROM writes where its engine can and TO has
addresses; else TO reads.

Three separate statements come out: permitted (what Linux's rules say), granted (a driver mapped it) and
verified (the destination's owner sees every byte, and nothing beside them changed; on this machine in both
directions).

Examples:
  peerdma copy 0000:05:00.0 0000:06:00.0/bar2 --verify        the first 4 KiB of the BAR, put back afterwards
  peerdma copy 05:00.0 06:00.0/bar2+0x1000,64KiB --verify     a range, in runs of 4 KiB
  peerdma copy 05:00.0 09:00.0/bar2 --verify --force          although Linux's rules refuse the pair
  peerdma copy 05:00.0 06:00.0/bar2 --verify --via type1 --json
  peerdma copy nvme0 gpu0 --size 64MiB --platform two-socket  blocks of a drive straight into VRAM
  peerdma copy gpu0 nic1 --platform machine.toml --json       a NIC reads VRAM, in a machine of one's own
  peerdma copy nvme4 gpu1 --platform two-socket --force       although the pair is refused: what is lost
  peerdma copy nvme0 gpu0 --platform two-socket --fault mirror-bar

Exit codes: 0 done (with --verify: every byte arrived, and the target holds again what it held),
1 refused and nothing touched, 3 unknown and nothing touched, 4 the bytes did not arrive, or the target
could not be put back, or something else failed (standard error says which, and --json still prints
its document). --force goes on after 1 and 3.")]
pub(crate) struct CopyArguments {
    /// The engine: address or name of a function that copies on command. With --platform where bytes come from.
    #[arg(value_name = "FROM", required_unless_present_any = ["schema", "platform"])]
    pub(crate) from_function: Option<String>,
    /// The target: address or name, a BAR and a range in it [default range: the first 4 KiB]. With --platform
    /// where bytes go to: NAME, NAME/barN, NAME/barN+OFFSET or ram.
    #[arg(value_name = "TO/barN[+OFFSET,LEN]", required_unless_present_any = ["schema", "platform"])]
    pub(crate) to_range: Option<String>,
    /// What kind of engine FROM is.
    #[arg(long, value_name = "KIND", default_value = "edu", conflicts_with = "platform")]
    pub(crate) engine: EngineArgument,
    /// Check that every byte arrives, writing and reading, and put back what the target held.
    /// Without it the bytes stay where they went, and nothing is said about them. With --platform
    /// it need not be said.
    #[arg(long)]
    pub(crate) verify: bool,
    /// Say nothing about the bytes.
    #[arg(long, requires = "platform", conflicts_with = "verify")]
    pub(crate) no_verify: bool,
    /// Copy in a described machine that runs in this process: a built-in one, which `--platform help`
    /// lists, or a platform file.
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) platform: Option<String>,
    /// How many bytes, such as 64MiB [default: 64MiB].
    #[arg(long, value_name = "SIZE", requires = "platform", value_parser = parse_size)]
    pub(crate) size: Option<Bytes>,
    /// What has to be permitted [default: what the copy does].
    #[arg(long, value_name = "DIRECTION", requires = "platform")]
    pub(crate) need: Option<Need>,
    /// What goes wrong while the bytes move; docs/faults.md says what each does.
    #[arg(long, value_name = "NAME", requires = "platform", value_parser = parse_fault)]
    pub(crate) fault: Option<Fault>,
    /// Which interface of the kernel maps the target for the engine.
    #[arg(long, value_name = "INTERFACE", default_value = "auto", conflicts_with = "platform")]
    pub(crate) via: ViaArgument,
    /// Go on although the rules refuse the pair, or cannot be told.
    #[arg(long)]
    pub(crate) force: bool,
    /// Choose other bytes, and in a described machine another order of what is free to choose.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}

/// A kind of engine.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EngineArgument {
    /// QEMU's edu device, 1234:11e8.
    Edu,
}

impl From<EngineArgument> for peerdma_linux::engine::Kind {
    fn from(argument: EngineArgument) -> Self {
        match argument {
            EngineArgument::Edu => Self::Edu,
        }
    }
}

/// An interface for mapping.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ViaArgument {
    /// iommufd where the machine has it for both functions and exports the target's BAR, else type1.
    Auto,
    /// VFIO containers and groups.
    Type1,
    /// /dev/iommu and VFIO device nodes; needs Linux 6.19 for other devices' BARs.
    Iommufd,
}

/// Reads the name of a fault.
fn parse_fault(text: &str) -> Result<Fault, String> {
    text.parse().map_err(|error: peerdma_emu::faults::UnknownFault| error.to_string())
}

/// Reads a length that is not zero.
pub(super) fn parse_size(text: &str) -> Result<Bytes, String> {
    let size = crate::select::size(text).filter(|size| *size != Bytes::ZERO);
    size.ok_or_else(|| "give a length such as 4096, 64KiB or 64MiB".to_string())
}
