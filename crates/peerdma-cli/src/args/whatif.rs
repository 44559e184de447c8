//! Arguments of `peerdma whatif`.

use super::{InputArguments, OutputArguments, PairArguments};
use clap::Args;
use peerdma::pcie::PciAddr;
use peerdma::pcie::acs::AcsBits;
use std::str::FromStr;

#[derive(Args, Debug)]
#[command(
    mut_arg("iommu", |arg| arg.help("Let the IOMMU treat all devices like this").help_heading("Changes")),
    mut_arg("kernel", |arg| arg.help("Run another kernel, such as 6.12 or 7.2.13").help_heading("Changes")),
    mut_arg("cpu", |arg| arg.help("Put in another CPU, such as amd:0x19").help_heading("Changes")),
    after_help = "\
Nothing is written; the changes are made to what was read. Several add up, whatever their order: first
what a boot decides (--kernel, --cpu, --cmdline), then --iommu, then ACS bits, then functions that move.

Examples:
  peerdma whatif nvme0 mlx5_0 --clear acs:02:00.0/rr,cr --clear acs:02:01.0/rr,cr
  peerdma whatif gpu0 nic0 --set acs:00:01.0/uf            upstream forwarding at a root port
  peerdma whatif mlx5_0 card1/bar2 --iommu identity        as with iommu=pt
  peerdma whatif mlx5_0 card1 --move mlx5_0=00:02.0        in the slot below another port
  peerdma whatif 12:00.0 0e:00.0 --from dump.txt --cpu amd:0x19 --kernel 6.1
  peerdma whatif gpu0 gpu1 --cmdline 'intel_iommu=on iommu=pt pci=disable_acs_redir=0000:00:01.0/00.0/00.0'

The exit code is that of the verdict then: 0 permitted, 1 refused, 3 unknown."
)]
pub(crate) struct WhatifArguments {
    #[command(flatten)]
    pub(crate) pair: PairArguments,
    /// Clear bits of a port's ACS control word: sv, tb, rr, cr, uf, ec, dt.
    #[arg(long, value_name = "acs:BDF/BITS", help_heading = "Changes")]
    pub(crate) clear: Vec<AcsArgument>,
    /// Set bits of a port's ACS control word, as far as its capability offers them.
    #[arg(long, value_name = "acs:BDF/BITS", help_heading = "Changes")]
    pub(crate) set: Vec<AcsArgument>,
    /// Plug a function in below another port: bridges take along what is below them.
    #[arg(long = "move", value_name = "FUNCTION=PORT", help_heading = "Changes")]
    pub(crate) moves: Vec<String>,
    /// Boot with another kernel command line.
    #[arg(long, value_name = "LINE", help_heading = "Changes")]
    pub(crate) cmdline: Option<String>,
    #[command(flatten)]
    pub(crate) input: InputArguments,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}

impl WhatifArguments {
    /// The input as it is: of these three, what is given is a change.
    pub(crate) fn unchanged_input(&self) -> InputArguments {
        InputArguments { cpu: None, kernel: None, iommu: None, ..self.input.clone() }
    }
}

/// `acs:BDF/rr,cr`: bits of one control word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AcsArgument {
    pub(crate) address: PciAddr,
    pub(crate) bits: AcsBits,
}

/// The text is not that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected acs:BDF/BITS, such as acs:0000:02:00.0/rr,cr, with bits of sv, tb, rr, cr, uf, ec, dt")]
pub(crate) struct NotAcsBits;

impl FromStr for AcsArgument {
    type Err = NotAcsBits;

    fn from_str(text: &str) -> Result<Self, NotAcsBits> {
        let (address, words) = text.strip_prefix("acs:").and_then(|rest| rest.split_once('/')).ok_or(NotAcsBits)?;
        let bits = words.split(',').try_fold(AcsBits::empty(), |bits, word| Ok(bits | bit(word).ok_or(NotAcsBits)?))?;
        Ok(Self { address: address.parse().map_err(|_| NotAcsBits)?, bits })
    }
}

/// The bit that a word such as `rr` names.
pub(crate) fn bit(word: &str) -> Option<AcsBits> {
    AcsBits::from_name(&word.to_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_named_as_lspci_abbreviates_them() {
        let read: AcsArgument = "acs:02:00.0/rr,CR,ec".parse().unwrap();
        assert_eq!(read.address.to_string(), "0000:02:00.0");
        assert_eq!(read.bits, AcsBits::REDIRECT);
        for wrong in ["", "02:00.0/rr", "acs:02:00.0", "acs:02:00.0/", "acs:02:00.0/rr,", "acs:x/rr", "acs:02:00.0/_"] {
            assert!(wrong.parse::<AcsArgument>().is_err(), "{wrong}");
        }
    }
}
