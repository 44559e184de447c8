//! Arguments of `peerdma map`.

use super::{InputArguments, Need, OutputArguments};
use crate::chunk::{ChunkArgument, InboundArgument, MemoryArgument, StateArgument};
use crate::select;
use clap::{Args, ValueEnum};
use peerdma::addr::Bytes;
use peerdma::dma::Interface;

#[derive(Args, Debug)]
#[command(after_help = "\
A CHUNK is one of

  FUNCTION[/barN[+OFFSET,LEN]]   a BAR, whole or in part, as peerdma route takes it
  ram:ADDRESS+LENGTH             memory, by its CPU-physical address
  private:ADDRESS+LENGTH         memory that belongs to a confidential guest
  device:NAME@ADDRESS+LENGTH     memory of a device that is no PCI function; state its route with --state

each with :ro (the device reads), :wo (it writes) or :rw behind it. Addresses are hexadecimal with 0x, sizes \
as in 4096, 0x1000, 4KiB, 2M, 1G.

All chunks become one mapping, in their order: one reservation of IOVAs where the IOMMU translates, and a list \
of segments for the device. It is really made, in tables in this program's memory and in the format of the \
machine's IOMMU, and read back from there. Nothing is asked of a kernel and no device is touched.

One chunk that is refused refuses the plan; the others are shown as they would be without it.

Examples:
  peerdma map --initiator mlx5_0 ram:0x100000000+2M card1/bar0+0,64M      a mixture, for one NIC
  peerdma map --initiator gpu0 nvme0/bar0+0x1000,4KiB:wo --platform two-socket
  peerdma map --initiator nvme0 --mask-bits 32 ram:0x200000000+1M --iommu none
  peerdma map --initiator nvme0 --untrusted --bounce-pool 0x10000000+1M ram:0x1000200+8K
  peerdma map --initiator mlx5_0 --no-bounce --max-segments 16 --spans ram:0x1000+4K ram:0x9000+4K
  peerdma map --initiator nvme0 device:accel@0x90000000+1M --state accel=iova --from host.peerdma

Exit codes: 0 the plan is made, 1 refused, with the limit or the rule named, 2 usage, 3 the input has too \
little to say, 4 failed.")]
pub(crate) struct MapArguments {
    /// The device that will use the mapping: address or name.
    #[arg(long, value_name = "FUNCTION", required_unless_present_any = ["schema", "platform"])]
    pub(crate) initiator: Option<String>,
    /// What to map, in this order.
    #[arg(value_name = "CHUNK", required_unless_present_any = ["schema", "platform"])]
    pub(crate) chunks: Vec<ChunkArgument>,
    /// What the device does with chunks that do not say.
    #[arg(long, value_name = "DIRECTION", default_value = "both")]
    pub(crate) need: Need,
    /// A chunk that the device writes after the others are there; says what has to happen before. Maps it too, last.
    #[arg(long, value_name = "CHUNK")]
    pub(crate) doorbell: Option<ChunkArgument>,
    /// Show every segment as the device gets it.
    #[arg(long)]
    pub(crate) spans: bool,
    #[command(flatten)]
    pub(crate) device: DeviceArguments,
    #[command(flatten)]
    pub(crate) way: WayArguments,
    #[command(flatten)]
    pub(crate) input: InputArguments,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}

/// What the initiator can and wants.
#[derive(Args, Debug)]
#[command(next_help_heading = "The initiator")]
pub(crate) struct DeviceArguments {
    /// Bits of address it can form [default: what a platform file or a bound driver says, else 64].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) mask_bits: Option<u8>,
    /// Highest address that a bus above it passes on.
    #[arg(long, value_name = "ADDRESS", value_parser = number)]
    pub(crate) bus_limit: Option<u64>,
    /// It must not see bytes beside those it is given, as devices on external ports.
    #[arg(long)]
    pub(crate) untrusted: bool,
    /// Its accesses are not snooped.
    #[arg(long)]
    pub(crate) not_coherent: bool,
    /// Nothing may be copied for it: what would need that is refused, as for mappings that are kept for long.
    #[arg(long, conflicts_with_all = ["force_bounce", "bounce_pool"])]
    pub(crate) no_bounce: bool,
    /// All memory is copied for it, where nothing translates.
    #[arg(long)]
    pub(crate) force_bounce: bool,
    /// Memory to copy through [default: none; what needs a copy is refused].
    #[arg(long, value_name = "ADDRESS+LENGTH")]
    pub(crate) bounce_pool: Option<MemoryArgument>,
    /// Longest segment that it takes.
    #[arg(long, value_name = "SIZE", value_parser = some_bytes)]
    pub(crate) max_segment: Option<Bytes>,
    /// No segment may cross a multiple of SIZE, a power of two.
    #[arg(long, value_name = "SIZE", value_parser = boundary)]
    pub(crate) boundary: Option<Bytes>,
    /// How many segments it takes.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_segments: Option<u32>,
    /// It is opened through VFIO and asks for bus addresses where the route is direct; they escape the IOMMU.
    #[arg(long)]
    pub(crate) bus_addresses: bool,
    /// Its interface towards a confidential guest [default: what a platform file says, else plain].
    #[arg(long, value_name = "STATE")]
    pub(crate) interface: Option<InterfaceArgument>,
}

/// What stands between the initiator and memory.
#[derive(Args, Debug)]
#[command(next_help_heading = "The way")]
pub(crate) struct WayArguments {
    /// Format of the IOMMU's tables [default: that of the machine's IOMMU or CPU].
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<FormatArgument>,
    /// How memory appears below the initiator's host bridge; may be given several times [default: one to one].
    #[arg(long, value_name = "CPU=BUS+SIZE")]
    pub(crate) inbound: Vec<InboundArgument>,
    /// How the memory of a device: chunk is reached; bus:ADDRESS is that of the lowest byte named.
    #[arg(long, value_name = "NAME=bus:ADDRESS|iova|physical")]
    pub(crate) state: Vec<StateArgument>,
}

/// A format of I/O page tables.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FormatArgument {
    /// Intel VT-d, second stage.
    Vtd,
    /// AMD host tables, version 1.
    AmdV1,
    /// x86-64 first stage, which VT-d and AMD share.
    X86FirstStage,
    /// Arm SMMU, stage 1.
    ArmS1,
    /// Arm SMMU, stage 2.
    ArmS2,
}

/// State of a device interface (PCIe 6.0 §11.2, TDISP).
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InterfaceArgument {
    /// Not assigned to a confidential guest.
    Plain,
    /// Assigned, not yet locked.
    Unlocked,
    /// Locked, not yet started.
    Locked,
    /// Accepted by its guest.
    Run,
    /// Something changed under the lock.
    Error,
}

impl From<InterfaceArgument> for Interface {
    fn from(argument: InterfaceArgument) -> Self {
        match argument {
            InterfaceArgument::Plain => Self::Plain,
            InterfaceArgument::Unlocked => Self::Unlocked,
            InterfaceArgument::Locked => Self::Locked,
            InterfaceArgument::Run => Self::Run,
            InterfaceArgument::Error => Self::Error,
        }
    }
}

fn number(text: &str) -> Result<u64, String> {
    select::number(text).ok_or_else(|| "expected 0x… or a decimal number below 2^64".to_string())
}

fn some_bytes(text: &str) -> Result<Bytes, String> {
    let size = select::size(text).filter(|size| *size != Bytes::ZERO);
    size.ok_or_else(|| "expected a size such as 4096, 0x1000, 64K or 2MiB".to_string())
}

fn boundary(text: &str) -> Result<Bytes, String> {
    let size = some_bytes(text)?;
    let is_power = size.as_u64().is_power_of_two();
    is_power.then_some(size).ok_or_else(|| format!("{size} are no power of two; give 4K, 64K, 4G or the like"))
}
