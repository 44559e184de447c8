//! Why a program inside the guest did not end well.

use peerdma::pcie::PciAddr;
use peerdma_linux::drive::DriveError;
use peerdma_linux::p2pmem::AllocateError;
use peerdma_linux::proof::SampleError;
use rustix::io::Errno;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

/// What went wrong, with what to look at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Failure {
    /// The command line makes no sense.
    #[error("usage: {0}")]
    Usage(String),
    /// A file could not be read, written or opened.
    #[error("cannot {doing} {}", path.display())]
    File {
        /// Verb.
        doing: &'static str,
        /// Which.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A program could not be started.
    #[error("cannot start {program}")]
    Start {
        /// Which.
        program: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A program ended badly.
    #[error("{program} ended with {status}: {said}")]
    Ended {
        /// With its arguments.
        program: String,
        /// How.
        status: ExitStatus,
        /// What it wrote to standard error.
        said: String,
    },
    /// The kernel does not have a function of this name.
    #[error("{symbol} is not in /proc/kallsyms with an address: {next}")]
    NoSymbol {
        /// Its name.
        symbol: &'static str,
        /// What to do.
        next: &'static str,
    },
    /// A function is not what it should be by now.
    #[error("{} has no {what} after {waited:?}: is its driver in this kernel, or loaded?", device.display())]
    NotReady {
        /// Its folder in sysfs.
        device: PathBuf,
        /// What it lacks.
        what: &'static str,
        /// How long it was given.
        waited: Duration,
    },
    /// Nothing in the machine to ask about.
    #[error("{what} in this guest: {next}")]
    Nothing {
        /// What is missing.
        what: &'static str,
        /// What to do.
        next: &'static str,
    },
    /// A line for setpci that says something else than what is printed for ACS.
    #[error("`{line}` is not `setpci -s ADDRESS ECAP_ACS+OFFSET.w=VALUE:MASK`; teach guest/src/setpci.rs its form")]
    Line {
        /// The line.
        line: String,
    },
    /// A function without the capability that was to be written.
    #[error("{address} has no ACS capability: the line for it should not have been printed")]
    NoAcs {
        /// Which.
        address: PciAddr,
    },
    /// A controller gave none of its memory.
    #[error(transparent)]
    Memory(#[from] AllocateError),
    /// A controller gave no disk.
    #[error(transparent)]
    Drive(#[from] DriveError),
    /// Memory to look at cannot be had.
    #[error(transparent)]
    Sample(SampleError),
    /// Pages of it are not taken back.
    #[error("the kernel does not take a page back (MADV_DONTNEED): {0}")]
    GiveBack(Errno),
    /// Claims that the kernel does not keep.
    #[error("{broken} of {of} claims are broken")]
    Broken {
        /// How many.
        broken: usize,
        /// Of how many, untried ones included.
        of: usize,
    },
    /// Standard output is gone.
    #[error("cannot write the answers")]
    Output(#[from] io::Error),
}

impl Failure {
    /// For `map_err` on what concerns one file.
    pub(crate) fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::File { doing, path, source }
    }

    /// 1 for a broken claim, 2 for wrong usage, 4 for the rest, as `peerdma` itself has it.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Broken { .. } => 1,
            Self::Usage(_) => 2,
            _ => 4,
        }
    }
}
