//! What a machine would be like after a change.
//!
//! [`apply`] builds a topology anew with other facts in it; every question can then be
//! asked of both. Whatever order the changes come in, what a boot decides (kernel, CPU,
//! command line) is applied first, then the IOMMU mode, then ACS bits that somebody
//! writes, then functions that somebody plugs in elsewhere.

mod acs;
mod boot;
mod iommu;
mod place;

pub(crate) use acs::words;
pub use boot::{AfterBoot, left_by_boot};

use crate::pcie::PciAddr;
use crate::pcie::acs::AcsBits;
use crate::route::Reason;
use crate::topology::{Cpu, FunctionId, IommuMode, KernelVersion, Topology};
use alloc::string::String;
use alloc::vec::Vec;

/// One change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// Write an ACS control register.
    ///
    /// Only bits that the function's capability offers can be set. Of a function whose
    /// registers were not read nothing becomes known, unless RR, CR and EC are all
    /// cleared and nothing is set. The register written is the one that the hardware
    /// obeys; on root ports where Linux reads another word, that word stays.
    Acs {
        /// Whose.
        function: FunctionId,
        /// Bits to clear.
        clear: AcsBits,
        /// Bits to set.
        set: AcsBits,
    },
    /// Another IOMMU mode for the whole machine, groups' types included. What VFIO owns
    /// stays in VFIO's hands.
    Iommu(IommuMode),
    /// Another kernel.
    Kernel(KernelVersion),
    /// Another CPU.
    Cpu(Cpu),
    /// Plug a function in below another bridge. A bridge takes along what is below it, a
    /// physical function its virtual ones, and a function of a multifunction device
    /// leaves the others behind.
    ///
    /// Addresses, of functions and of BARs, stay as they are, although a boot would give
    /// others; windows of the ports above the old and the new place are no longer taken
    /// as read.
    Move {
        /// What moves.
        function: FunctionId,
        /// The bridge it then sits right below.
        below: FunctionId,
    },
    /// Boot with this kernel command line instead of the present one.
    CommandLine(String),
}

/// A machine after changes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Changed {
    /// The machine.
    pub topology: Topology,
    /// What is not known about the changes' effect, and what was taken instead.
    pub assumed: Vec<Reason>,
}

/// A change that cannot be made.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// There is no register to write.
    #[error("{function} has no ACS capability, so there are no bits to change; peerdma topo shows which ports do")]
    NoAcs {
        /// Whose.
        function: PciAddr,
    },
    /// The capability does not offer the bits.
    #[error("{function} cannot set {bits}: its capability word is {capability:#06x}", bits = acs::words(*.bits), capability = capability.bits())]
    NotOffered {
        /// Whose.
        function: PciAddr,
        /// The bits.
        bits: AcsBits,
        /// Its capability word.
        capability: AcsBits,
    },
    /// The bits read as set, but the capability does not offer to change them.
    #[error("{function} cannot clear {bits}: they read as set, and its capability word is {capability:#06x}, so they are wired", bits = acs::words(*.bits), capability = capability.bits())]
    HardWired {
        /// Whose.
        function: PciAddr,
        /// The bits.
        bits: AcsBits,
        /// Its capability word.
        capability: AcsBits,
    },
    /// The same bits are to be cleared and set.
    #[error("{function}: {bits} to be both cleared and set; give each bit once", bits = acs::words(*.bits))]
    BothWays {
        /// Whose.
        function: PciAddr,
        /// The bits.
        bits: AcsBits,
    },
    /// Functions cannot be plugged in below this one.
    #[error(
        "{below} is not a bridge, so {function} cannot be plugged in below it; name a root port or a switch's downstream port"
    )]
    NotABridge {
        /// What was to move.
        function: PciAddr,
        /// Where to.
        below: PciAddr,
    },
    /// The new place is part of what moves.
    #[error("{below} is {function} itself or below it; name a port outside")]
    BelowItself {
        /// What was to move.
        function: PciAddr,
        /// Where to.
        below: PciAddr,
    },
    /// A virtual function is not plugged in anywhere.
    #[error("{function} is a virtual function of {physical}; move that one, and its virtual functions follow")]
    Virtual {
        /// What was to move.
        function: PciAddr,
        /// Its physical function.
        physical: PciAddr,
    },
    /// The place is taken.
    #[error(
        "{below} already has {occupant} below it, at the device and function number of {function}; name a free port"
    )]
    Occupied {
        /// What was to move.
        function: PciAddr,
        /// Where to.
        below: PciAddr,
        /// Who is there.
        occupant: PciAddr,
    },
}

/// The machine that `topology` would be after the changes.
///
/// # Errors
/// The first change that cannot be made: see [`ChangeError`].
pub fn apply(topology: &Topology, changes: &[Change]) -> Result<Changed, ChangeError> {
    let mut builder = topology.to_builder();
    let mut assumed = Vec::new();
    for change in changes {
        match change {
            Change::Kernel(version) => builder.machine().kernel = Some(*version),
            Change::Cpu(cpu) => builder.machine().cpu = Some(cpu.clone()),
            _ => {}
        }
    }
    for change in changes {
        if let Change::CommandLine(line) = change {
            boot::boot(topology, &mut builder, line, &mut assumed);
        }
    }
    for change in changes {
        if let Change::Iommu(mode) = change {
            iommu::set_mode(&mut builder, Some(*mode));
        }
    }
    for change in changes {
        if let Change::Acs { function, clear, set } = *change
            && let Some(info) = builder.function_mut(topology.function(function).address())
        {
            acs::write(info, clear, set, &mut assumed)?;
        }
    }
    let moves = changes.iter().filter_map(|change| match *change {
        Change::Move { function, below } => Some((function, below)),
        _ => None,
    });
    let mut moved = topology.clone();
    for (function, below) in moves.clone() {
        place::check(&moved, function, below)?;
        place::forget_windows(&moved, &mut builder, function);
        place::forget_windows(&moved, &mut builder, below);
        place::forget_own_windows(&moved, &mut builder, below);
        place::tell(&moved, function, below, &mut assumed);
        moved = moved.moved(function, below);
    }
    let built = builder.build();
    let topology = moves.fold(built, |topology, (function, below)| topology.moved(function, below));
    Ok(Changed { topology, assumed })
}
