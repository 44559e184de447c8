//! Why a subcommand did not end well.

use std::fmt;
use std::path::Path;

/// What went wrong, with what to do next in the same sentence.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The check was carried out and found something; the findings are printed already.
    Found(String),
    /// The check could not be carried out.
    Stopped(String),
    /// The command line makes no sense.
    Usage(String),
    /// A program that was run for the caller ended with this code, and said why itself.
    Exited(u8),
}

impl Failure {
    /// A file or folder could not be read or written.
    pub(crate) fn io(doing: &str, path: &Path, error: &std::io::Error) -> Self {
        Self::Stopped(format!("cannot {doing} {}: {error}", path.display()))
    }

    /// 1 for findings and checks that could not be carried out, 2 for wrong usage, a program's own code for its end.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Found(_) | Self::Stopped(_) => 1,
            Self::Usage(_) => 2,
            Self::Exited(code) => *code,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Found(what) | Self::Stopped(what) => f.write_str(what),
            Self::Exited(code) => write!(f, "the program ended with {code}"),
            Self::Usage(what) => write!(f, "{what}; `cargo xtask help` lists what there is"),
        }
    }
}

/// Refuses arguments where a subcommand takes none.
pub(crate) fn no_arguments(arguments: &[String]) -> Result<(), Failure> {
    match arguments.first() {
        None => Ok(()),
        Some(first) => Err(Failure::Usage(format!("this subcommand takes no argument, so `{first}` means nothing"))),
    }
}
