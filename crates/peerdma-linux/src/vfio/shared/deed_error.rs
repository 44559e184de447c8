//! Why a deed was not done.

use super::super::config::ConfigError;
use super::super::device::ResetError;
use super::super::function_reset::FunctionResetError;
use super::super::hot_reset::HotResetError;
use super::super::power::PowerError;
use peerdma::buffer::guard::Outstanding;
use peerdma::buffer::life::Refused;
use peerdma::buffer::shared::Held;
use peerdma::pcie::PciAddr;
use std::fmt;

/// Why a deed was not done, or not done well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeedError {
    /// Another is under way; try again when it has ended.
    #[error("{device}: something else is being done to it; wait until that is done")]
    Busy {
        /// The function.
        device: PciAddr,
    },
    /// The device is closed or gone.
    #[error("{device} is closed; open it anew")]
    Closed {
        /// The function.
        device: PciAddr,
    },
    /// Somebody was promised that the memory stays. Nothing was done.
    #[error("{deed} of {device}: {refused}")]
    Refused {
        /// The function.
        device: PciAddr,
        /// What was to be done.
        deed: &'static str,
        /// Who holds it.
        refused: Refused,
    },
    /// The deadline has passed. Nothing was done, and importers may map again.
    #[error("{device} is still in use by {}; end that, or wait longer", Holders(.held, .inside))]
    Late {
        /// The function.
        device: PciAddr,
        /// Importers that hold on, and fences.
        held: Vec<Held>,
        /// Threads inside an access of a CPU window.
        inside: Vec<Outstanding>,
    },
    /// Config space does not answer.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The kernel does not reset it.
    #[error(transparent)]
    Reset(#[from] ResetError),
    /// It does not reset itself.
    #[error(transparent)]
    FunctionReset(#[from] FunctionResetError),
    /// It is not reset with its neighbours.
    #[error(transparent)]
    HotReset(#[from] HotResetError),
    /// It neither sleeps nor wakes.
    #[error(transparent)]
    Power(#[from] PowerError),
}

struct Holders<'a>(&'a [Held], &'a [Outstanding]);

impl fmt::Display for Holders<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for held in self.0 {
            write!(f, "{separator}{held}")?;
            separator = ", ";
        }
        for inside in self.1 {
            write!(f, "{separator}CPU accesses of {}", inside.name)?;
            separator = ", ";
        }
        Ok(())
    }
}
