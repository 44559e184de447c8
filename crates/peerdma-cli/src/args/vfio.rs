//! Arguments of `peerdma vfio`.

use super::OutputArguments;
use clap::{Args, Subcommand};
use peerdma::pcie::PciAddr;
use std::path::PathBuf;

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  peerdma vfio list                          every function, and what stands in the way of taking it
  peerdma vfio list --json --from host.tar   the same of a copied sysfs
  peerdma vfio bind 05:00.0                  what would be written; nothing is
  sudo peerdma vfio bind 05:00.0 --yes       writes it
  sudo peerdma vfio unbind 05:00.0 --yes     gives it back to the driver that takes it
  sudo peerdma vfio reset 05:00.0 --yes      resets it

Exit codes: 0 done, or could be; 1 refused: somebody uses it, or it cannot be; 2 usage; 4 failed.")]
pub(crate) struct VfioArguments {
    #[command(subcommand)]
    pub(crate) command: VfioCommand,
}

#[derive(Subcommand, Debug)]
pub(crate) enum VfioCommand {
    /// Show every function with its driver, group and neighbours, who uses it, and how it is reset.
    List(VfioListArguments),
    /// Hand a function to vfio-pci. Says what it would write, unless told --yes.
    Bind(VfioChangeArguments),
    /// Take a function from vfio-pci and let its own driver have it. Says what it would write, unless told --yes.
    Unbind(VfioChangeArguments),
    /// Reset a function. Says how it would, unless told --yes.
    Reset(VfioChangeArguments),
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  peerdma vfio list                     functions that are no bridges
  peerdma vfio list --all               bridges too
  peerdma vfio list --json | jq '.functions[] | select(.ready).address'

Without root it does not show which programs of others have a function open.")]
pub(crate) struct VfioListArguments {
    /// Bridges too.
    #[arg(long)]
    pub(crate) all: bool,
    /// Read a copied sysfs, as a folder or as a .tar, .tar.gz or .tar.bz2, instead of this machine's.
    #[arg(long, value_name = "PATH", conflicts_with = "sysfs_root")]
    pub(crate) from: Option<PathBuf>,
    /// Read a copied sysfs, a folder or an archive, instead of this machine's.
    #[arg(long, value_name = "DIR")]
    pub(crate) sysfs_root: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  peerdma vfio bind 05:00.0               says what would be written
  sudo peerdma vfio bind 05:00.0 --yes    writes it
  sudo peerdma vfio bind 03:00.0 --yes --force   although its driver would lose it

A function with another driver, a mounted file system on it or an interface that is up is left alone without --force; \
one that a program has open is left alone whatever is said.")]
pub(crate) struct VfioChangeArguments {
    /// Address of the function, such as 0000:05:00.0 or 05:00.0.
    #[arg(value_name = "BDF", required_unless_present = "schema", value_parser = parse_address)]
    pub(crate) device: Option<PciAddr>,
    /// Do it. Without this nothing is changed.
    #[arg(long)]
    pub(crate) yes: bool,
    /// Although a driver, a file system or an interface would lose it.
    #[arg(long)]
    pub(crate) force: bool,
    /// Look at a copied sysfs, a folder or an archive, where nothing can be done.
    #[arg(long, value_name = "DIR", conflicts_with = "yes")]
    pub(crate) sysfs_root: Option<PathBuf>,
    /// Look at a copied sysfs, where nothing can be done.
    #[arg(long, value_name = "PATH", conflicts_with_all = ["yes", "sysfs_root"])]
    pub(crate) from: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}

/// An address, whose domain may be left out.
fn parse_address(text: &str) -> Result<PciAddr, String> {
    let whole = if text.matches(':').count() == 1 { format!("0000:{text}") } else { text.into() };
    whole.parse().map_err(|_| "give an address such as 0000:05:00.0 or 05:00.0; peerdma vfio list has them".into())
}
