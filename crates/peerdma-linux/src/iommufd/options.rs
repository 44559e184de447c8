//! How an iommufd counts pinned pages, and whether it puts pages together (`IOMMU_OPTION`).
//!
//! Two options, and neither can be changed once it matters (Linux 7.2 `iommufd_option_rlimit_mode`, `iopt_disable_large_pages`):
//!
//! - **Who is charged** for pinned memory: the user, over all of its processes, or the process, as type1 does. It holds for
//!   the whole iommufd and is chosen before the first object is made in it. Who has CAP_IPC_LOCK is bounded by neither
//!   (`iopt_alloc_pages`).
//! - **Huge pages**: whether contiguous pages become large entries of an IOMMU's table. It holds for one address space and is
//!   switched off while nothing is mapped there for a device. The entries that measurements compare, and nothing else, hang on it.

use super::{IommufdSpace, abilities};
use crate::sys::iommufd;
use crate::vfio::{Nodes, OpenError, errno};
use iommufd_bindings as uapi;
use peerdma::dma::Errno;
use peerdma::pin::{ScopeId, Via};
use rustix::io::Errno as Answer;
use std::fmt;
use std::os::fd::AsFd;

/// Who is charged for the pages that an iommufd pins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default)]
pub enum Charging {
    /// The user, over all of its processes (`user->locked_vm`), which is where the kernel begins.
    #[default]
    User,
    /// The process that maps (`mm->locked_vm`), as type1 does.
    Process,
}

impl Charging {
    /// What a ledger of pins calls memory that this iommufd pins.
    pub const fn via(self, file: ScopeId) -> Via {
        match self {
            Self::User => Via::Iommufd { file },
            Self::Process => Via::IommufdProcess { file },
        }
    }
}

impl fmt::Display for Charging {
    /// Writes `the user` or `the process`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User => "the user",
            Self::Process => "the process",
        })
    }
}

/// Why an option was not read or set; it is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OptionError {
    /// There is no iommufd to set it in.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Whom to charge is for a process with CAP_SYS_RESOURCE to say.
    #[error(
        "not permitted to have an iommufd charge {charging} for what it pins ({errno}): that takes CAP_SYS_RESOURCE; run as root, or leave it with the user"
    )]
    NotPermitted {
        /// Who was to be charged.
        charging: Charging,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The iommufd has objects already; choose for a new one.
    #[error(
        "this iommufd has objects already, for which it charges as it does ({errno}); choose {charging} for a new one"
    )]
    HasObjects {
        /// Who was to be charged.
        charging: Charging,
        /// The kernel's answer.
        errno: Errno,
    },
    /// Something is mapped for a device; unmap it first.
    #[error("huge pages stay as they are while something is mapped for a device ({errno}); unmap it first")]
    Mapped {
        /// The kernel's answer.
        errno: Errno,
    },
    /// The kernel answered with a value that means nothing.
    #[error("the kernel says {value} of IOMMU_OPTION {option}, which means nothing to peerdma")]
    Unclear {
        /// Which option.
        option: &'static str,
        /// The value.
        value: u64,
    },
    /// The kernel refused for a reason of its own.
    #[error("IOMMU_OPTION {option} refused with {errno}")]
    Kernel {
        /// Which option.
        option: &'static str,
        /// Its answer.
        errno: Errno,
    },
}

const RLIMIT_MODE: u32 = uapi::iommufd_option_IOMMU_OPTION_RLIMIT_MODE;
const HUGE_PAGES: u32 = uapi::iommufd_option_IOMMU_OPTION_HUGE_PAGES;

impl IommufdSpace {
    /// Opens `/dev/iommu` to charge somebody in particular for what is pinned, and makes an address space.
    ///
    /// The user needs no permission. [`another`](Self::another) charges whom this does.
    ///
    /// # Errors
    /// [`OptionError::Open`] as [`open`](Self::open); [`OptionError::NotPermitted`]: run as root, or take the user.
    ///
    /// # Examples
    /// ```no_run
    /// use peerdma_linux::iommufd::{IommufdSpace, options::{Charging, OptionError}};
    /// use peerdma_linux::vfio::Nodes;
    ///
    /// let space = IommufdSpace::open_charging(&Nodes::live(), Charging::Process)?;
    /// assert_eq!(space.read_charging()?, Charging::Process);
    /// # Ok::<(), OptionError>(())
    /// ```
    pub fn open_charging(nodes: &Nodes, charging: Charging) -> Result<Self, OptionError> {
        let iommufd = nodes.iommufd()?;
        if charging != Charging::default() {
            let mode = u64::from(charging == Charging::Process);
            iommufd::set_option(iommufd.as_fd(), RLIMIT_MODE, 0, mode).map_err(|error| uncharged(charging, error))?;
        }
        Ok(Self::from_fd(iommufd)?)
    }

    /// Asks the kernel who is charged.
    ///
    /// # Errors
    /// [`OptionError::Unclear`], [`OptionError::Kernel`].
    pub fn read_charging(&self) -> Result<Charging, OptionError> {
        let option = "RLIMIT_MODE";
        match iommufd::option(self.iommufd.as_fd(), RLIMIT_MODE, 0) {
            Ok(0) => Ok(Charging::User),
            Ok(1) => Ok(Charging::Process),
            Ok(value) => Err(OptionError::Unclear { option, value }),
            Err(error) => Err(OptionError::Kernel { option, errno: errno(error) }),
        }
    }

    /// Asks the kernel whether contiguous pages of this space become large entries.
    ///
    /// # Errors
    /// [`OptionError::Unclear`], [`OptionError::Kernel`].
    pub fn read_huge_pages(&self) -> Result<bool, OptionError> {
        let option = "HUGE_PAGES";
        match iommufd::option(self.iommufd.as_fd(), HUGE_PAGES, self.ioas) {
            Ok(value @ 0..=1) => Ok(value == 1),
            Ok(value) => Err(OptionError::Unclear { option, value }),
            Err(error) => Err(OptionError::Kernel { option, errno: errno(error) }),
        }
    }

    /// Lets contiguous pages of this space become large entries, or keeps each page an entry of its own.
    ///
    /// A space without devices takes IOVAs of any alignment while they are on, and whole pages alone while they are off.
    ///
    /// # Errors
    /// [`OptionError::Mapped`]: switch them off before anything is mapped.
    pub fn set_huge_pages(&mut self, on: bool) -> Result<(), OptionError> {
        let set = iommufd::set_option(self.iommufd.as_fd(), HUGE_PAGES, self.ioas, u64::from(on));
        set.map_err(|error| match error {
            Answer::INVAL if !on => OptionError::Mapped { errno: errno(error) },
            error => OptionError::Kernel { option: "HUGE_PAGES", errno: errno(error) },
        })?;
        // The granule follows (`iopt_calculate_iova_alignment`).
        self.abilities = abilities(&self.iommufd, self.ioas)?;
        Ok(())
    }
}

fn uncharged(charging: Charging, error: Answer) -> OptionError {
    match error {
        Answer::PERM => OptionError::NotPermitted { charging, errno: errno(error) },
        Answer::BUSY => OptionError::HasObjects { charging, errno: errno(error) },
        error => OptionError::Kernel { option: "RLIMIT_MODE", errno: errno(error) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_not_choose_whom_to_charge_is_told_what_it_takes() {
        let refused = |error| uncharged(Charging::Process, error).to_string();
        assert!(refused(Answer::PERM).contains("CAP_SYS_RESOURCE; run as root, or leave it with the user"));
        assert!(refused(Answer::BUSY).contains("choose the process for a new one"));
        assert_eq!(refused(Answer::NOTTY), "IOMMU_OPTION RLIMIT_MODE refused with ENOTTY (25)");
    }

    #[test]
    fn a_ledger_counts_what_an_iommufd_charges() {
        let file = ScopeId::new(7);
        assert_eq!(Charging::User.via(file), Via::Iommufd { file });
        assert_eq!(Charging::Process.via(file), Via::IommufdProcess { file });
    }
}
