//! The command line.

mod attach;
mod buffers;
mod compat;
mod copy;
mod demo;
mod doctor;
mod explain;
mod fix;
mod guest;
mod lint_cmdline;
mod map;
mod memlock;
mod pin;

mod pins;
mod probe;
mod share;
mod trace;
mod verify;
mod vfio;
mod whatif;
mod whose;

pub(crate) use attach::AttachArguments;
pub(crate) use buffers::{BuffersArguments, default_socket};
pub(crate) use compat::CompatArguments;
pub(crate) use copy::{CopyArguments, ViaArgument};
pub(crate) use demo::DemoArguments;
pub(crate) use doctor::DoctorArguments;
pub(crate) use explain::{ExplainArguments, Topic};
pub(crate) use fix::FixArguments;
pub(crate) use guest::GuestArguments;
pub(crate) use lint_cmdline::LintCmdlineArguments;
pub(crate) use map::{DeviceArguments, FormatArgument, MapArguments};
pub(crate) use memlock::{LimitArgument, MemlockArguments};

pub(crate) use pin::PinArguments;
pub(crate) use pins::PinsArguments;
pub(crate) use probe::ProbeArguments;
pub(crate) use share::{EnforcementArgument, ShareArguments};
pub(crate) use trace::TraceArguments;
pub(crate) use verify::VerifyArguments;
pub(crate) use vfio::{VfioArguments, VfioChangeArguments, VfioCommand, VfioListArguments};
pub(crate) use whatif::{WhatifArguments, bit};
pub(crate) use whose::{AddressArgument, WhoseArguments};

use clap::{Args, Parser, Subcommand, ValueEnum};
use peerdma::topology::{Cpu, IommuMode, KernelVersion};
use std::path::PathBuf;

/// Will the bytes arrive? Which devices of a Linux machine reach each other's
/// memory, by which route, and why not.
#[derive(Parser, Debug)]
#[command(name = "peerdma", version, about, long_about = None, after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  peerdma demo                             a described machine at work, in this process
  peerdma matrix                           GPUs, NICs and disks of this machine, each with each
  peerdma route mlx5_0 0000:41:00.0/bar1   one pair, explained, both ways
  peerdma topo --from dump.txt             the tree of somebody's lspci -vvv
  sudo peerdma capture -o host.peerdma     one file to take along, read back with --from
  peerdma matrix --platform two-socket     a machine that is only described
  sudo peerdma doctor mlx5_0 card1         every gate between two devices, OK, FAIL or UNKNOWN
  peerdma fix card0 card1                  which ports to change, and the kernel parameters for it
  peerdma map --initiator mlx5_0 ram:0x100000000+2M card1/bar0   at which addresses, and in which pages
  sudo peerdma copy 05:00.0 06:00.0/bar2 --verify   real bytes, compared
  sudo peerdma probe nvme0 nvme1 --need write        what the rules say, the kernel grants and the bytes show
  peerdma copy gpu0 nvme0/bar2 --platform two-socket   bytes in an emulated machine, compared
  peerdma trace nic0 gpu1 --read           the hops of one request there
  peerdma guest --device mlx5_0 --device card1   where a virtual machine has to see their BARs
  peerdma pins                             who holds how much pinned and locked memory here
  peerdma memlock plan.toml                what RLIMIT_MEMLOCK a plan needs, and where to set it
  peerdma pin --prove                      pinned memory keeps its place, plain and locked memory moves
  peerdma vfio list                        drivers, groups and users of each function; bind, unbind, reset
  peerdma share memfd --socket /tmp/frames   memory for other processes; peerdma attach /tmp/frames maps it

Exit codes: 0 done or permitted, 1 refused or found wanting, 2 usage, 3 unknown (too little input or \
privilege), 4 failed.";

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Run a described machine: bytes from drive to GPU to NIC and back, and what goes wrong in the field.
    Demo(DemoArguments),
    /// Show the tree: host bridges, ports, functions, ACS, links, payload sizes, IOMMU groups.
    Topo(TopoArguments),
    /// Show the verdict of every pair: rows are initiators, columns targets.
    Matrix(MatrixArguments),
    /// Explain one pair, in both directions.
    Route(RouteArguments),
    /// Write everything that verdicts depend on to one file, without serial numbers.
    Capture(CaptureArguments),
    /// Plan a mapping: for each range of memory its kind of address, page sizes and attributes, or the refusal.
    Map(MapArguments),
    /// Let one device move bytes into another's memory, and check that they arrive: on this machine, or on a described one.
    Copy(CopyArguments),
    /// Ask the rules, the kernel and the bytes whether one device reaches another's memory, by every engine that is here.
    Probe(ProbeArguments),
    /// Follow one request through a described machine, hop by hop, beside what the verdict says of it.
    Trace(TraceArguments),
    /// Show the verdict after a change, beside the verdict now, and what isolation it costs.
    Whatif(WhatifArguments),
    /// Find the smallest set of ports to change for chosen pairs, and print how.
    Fix(FixArguments),
    /// Check a kernel command line for options that do nothing, or not what was meant.
    LintCmdline(LintCmdlineArguments),
    /// Compare config space with what a fix wanted, and name IOMMU groups that are stale.
    Verify(VerifyArguments),
    /// Check every gate between two devices and their bytes, each OK, FAIL or UNKNOWN.
    Doctor(DoctorArguments),
    /// Tell what an address belongs to: a BAR, a window, a reserved region, RAM or nothing.
    Whose(WhoseArguments),
    /// Tell where a guest has to see BARs, and whether its addresses lead its devices where it means.
    Guest(GuestArguments),
    /// Show which kernel drivers export or import device memory, with which lifetime.
    Compat(CompatArguments),
    /// Explain the rules of a topic, which are data: what is settled at attach, and the life of a shared buffer.
    Explain(ExplainArguments),
    /// Share memory with other processes, take it away from them, and give it back.
    Share(ShareArguments),
    /// Attach to memory that another process shares, and follow what happens to it.
    Attach(AttachArguments),
    /// Show who holds how much pinned and locked memory on this machine, with limits and shares.
    Pins(PinsArguments),
    /// Tell which RLIMIT_MEMLOCK a plan of pins needs, whether it is there, and the lines that set it.
    Memlock(MemlockArguments),
    /// Prove on this kernel that pinned memory keeps its place where plain and locked memory moves.
    Pin(PinArguments),
    /// Show who has attached to the buffers of a running machine, and who keeps whom waiting.
    Buffers(BuffersArguments),
    /// Show which functions can be taken through VFIO, hand them to it and back, and reset them.
    Vfio(VfioArguments),
}

/// Where the machine comes from.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Input")]
pub(crate) struct InputArguments {
    /// Read PATH instead of this machine: a copied sysfs folder or its .tar, .tar.gz
    /// or .tar.bz2, a peerdma capture, lspci text or hex, or a platform file; told
    /// apart by content. `-` is standard input.
    #[arg(long, value_name = "PATH", conflicts_with_all = ["sysfs_root", "platform"])]
    pub(crate) from: Option<PathBuf>,
    /// Read a copied sysfs: the folder that holds `sys`, `sys` itself, or an archive of it.
    #[arg(long, value_name = "DIR", conflicts_with = "platform")]
    pub(crate) sysfs_root: Option<PathBuf>,
    /// Take a described machine: a built-in one, which `--platform help` lists, or a platform file.
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) platform: Option<String>,
    /// CPU, where the input does not tell it (lspci text never does): amd, intel, hygon,
    /// arm or cpuinfo's vendor word, then the family, such as amd:0x19 or GenuineIntel:6.
    #[arg(long, value_name = "VENDOR:FAMILY")]
    pub(crate) cpu: Option<Cpu>,
    /// Kernel version whose rules apply, such as 6.12 or 7.2.13 [default: the one the
    /// input tells, else the newest known].
    #[arg(long, value_name = "VERSION")]
    pub(crate) kernel: Option<KernelVersion>,
    /// How the IOMMU treats devices, where the input does not tell it.
    #[arg(long, value_name = "MODE")]
    pub(crate) iommu: Option<IommuArgument>,
    /// Names of vendors and devices, for lspci text without numbers [default: the
    /// system's pci.ids].
    #[arg(long, value_name = "FILE")]
    pub(crate) pci_ids: Option<PathBuf>,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
pub(crate) enum IommuArgument {
    /// Device addresses are translated.
    Translated,
    /// Device addresses pass through.
    Identity,
    /// There is no IOMMU.
    None,
}

impl From<IommuArgument> for IommuMode {
    fn from(argument: IommuArgument) -> Self {
        match argument {
            IommuArgument::Translated => Self::Translated,
            IommuArgument::Identity => Self::Identity,
            IommuArgument::None => Self::None,
        }
    }
}

/// How the answer is written.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArguments {
    /// Write JSON instead of text.
    #[arg(long, conflicts_with = "schema")]
    pub(crate) json: bool,
    /// Write the JSON schema of --json's document and exit.
    #[arg(long)]
    pub(crate) schema: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  peerdma topo                      this machine
  peerdma topo --from dump.txt      somebody's lspci -vvv
  peerdma topo --json | jq '.functions[] | select(.link.degraded)'")]
pub(crate) struct TopoArguments {
    #[command(flatten)]
    pub(crate) input: InputArguments,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Filters (a function is shown if it satisfies any of them):
  class:WORD      display, network, storage, accelerator, bridge, serial, system; or hex digits such as class:0108
  driver:NAME     bound to this driver
  BDF or prefix   0000:41:00.0, 41:00.0, 0000:41:
  name            mlx5_0, nvme0, eth0, card1

Examples:
  peerdma matrix                              GPUs, NICs, disks and accelerators of this machine
  peerdma matrix class:network class:display  only those classes
  peerdma matrix --check driver:nvme          exit 1 if a shown pair is refused, 3 if one is unknown
  peerdma matrix --all --json --from host.peerdma")]
pub(crate) struct MatrixArguments {
    /// Which functions to show [default: display, network, storage and accelerator
    /// functions that are not virtual functions].
    #[arg(value_name = "FILTER", conflicts_with = "all")]
    pub(crate) filters: Vec<String>,
    /// Every function with a type 0 header, bridges to ISA and virtual functions included.
    #[arg(long)]
    pub(crate) all: bool,
    /// Judge what is shown, the diagonal left out: exit 1 if any pair is refused, else 3 if
    /// any is unknown.
    #[arg(long)]
    pub(crate) check: bool,
    /// What --check needs.
    #[arg(long, value_name = "DIRECTION", default_value = "both")]
    pub(crate) need: Need,
    /// One line a pair instead of a table.
    #[arg(long)]
    pub(crate) list: bool,
    /// Add the proximity words of GPU tools (PIX, PXB, PHB, NODE, SYS) to every pair.
    #[arg(long)]
    pub(crate) proximity: bool,
    #[command(flatten)]
    pub(crate) input: InputArguments,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// The initiator reads the target.
    Read,
    /// The initiator writes the target.
    Write,
    /// Both.
    Both,
}

impl From<Need> for peerdma::route::Need {
    fn from(need: Need) -> Self {
        match need {
            Need::Read => Self::Read,
            Need::Write => Self::Write,
            Need::Both => Self::Both,
        }
    }
}

/// One pair, and what is needed of it.
#[derive(Args, Debug)]
pub(crate) struct PairArguments {
    /// The initiator: address (0000:03:00.0) or name (mlx5_0, nvme0, card1, eth0).
    #[arg(value_name = "FROM", required_unless_present_any = ["schema", "platform"])]
    pub(crate) from_function: Option<String>,
    /// The target: address or name, then optionally a BAR and a range in it.
    #[arg(value_name = "TO[/barN[+OFFSET,LEN]]", required_unless_present_any = ["schema", "platform"])]
    pub(crate) to_function: Option<String>,
    /// What is needed of FROM -> TO.
    #[arg(long, value_name = "DIRECTION", default_value = "both")]
    pub(crate) need: Need,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  peerdma route mlx5_0 nvme0                      by name
  peerdma route 0000:03:00.0 0000:41:00.0/bar2    the whole BAR as the target
  peerdma route nvme0 mlx5_0/bar0+0x1000,4KiB     a doorbell page of it
  peerdma route 12:00.0 0e:00.0 --from dump.txt --cpu intel:6

The exit code is that of FROM -> TO: 0 permitted, 1 refused, 3 unknown.")]
pub(crate) struct RouteArguments {
    #[command(flatten)]
    pub(crate) pair: PairArguments,
    #[command(flatten)]
    pub(crate) input: InputArguments,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sudo peerdma capture -o host.peerdma       all of config space
  peerdma capture -o host.peerdma            the unprivileged 64 bytes; ACS stays unknown
  peerdma capture --sysfs-root copy/ -o -    from a copied tree, to standard output

What it holds: config space, resources, links, drivers, NUMA nodes, IOMMU groups with types and \
reserved regions, SR-IOV, CPU vendor, family and model, kernel version, relevant kernel configuration, \
loaded modules, memory map (as root), whether this is a virtual machine, and command line. Serial \
numbers and MAC addresses are taken out unless --keep-serials is given.")]
pub(crate) struct CaptureArguments {
    /// File to write; `-` is standard output.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Keep serial numbers and addresses derived from MACs.
    #[arg(long)]
    pub(crate) keep_serials: bool,
    /// Replace FILE if it exists.
    #[arg(long)]
    pub(crate) force: bool,
    /// Read a copied sysfs, a folder or an archive, instead of this machine's.
    #[arg(long, value_name = "DIR", conflicts_with = "from")]
    pub(crate) sysfs_root: Option<PathBuf>,
    /// Read a copied sysfs, as a folder or as a .tar, .tar.gz or .tar.bz2.
    #[arg(long, value_name = "PATH")]
    pub(crate) from: Option<PathBuf>,
    /// Describe what was written as JSON.
    #[arg(long, conflicts_with = "schema")]
    pub(crate) json: bool,
    /// Write the JSON schema of --json's document and exit.
    #[arg(long)]
    pub(crate) schema: bool,
}
