//! Exit codes and the errors that lead to them.

use peerdma::route::Permission;
use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// How the program ends when it could do what was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Exit {
    /// Done, or permitted.
    Done,
    /// Refused.
    Refused,
    /// The input or the privilege is too poor to tell.
    Unknown,
}

impl Exit {
    /// Refused weighs more than unknown, unknown more than permitted.
    pub(crate) fn judge(permissions: impl IntoIterator<Item = Permission>) -> Self {
        match permissions.into_iter().fold(Permission::Permitted, Permission::and) {
            Permission::Permitted => Self::Done,
            Permission::Refused => Self::Refused,
            Permission::Unknown => Self::Unknown,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Refused => 1,
            Exit::Unknown => 3,
        })
    }
}

/// An error and everything below it, in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut below = error.source();
    while let Some(error) = below {
        words.push_str(&format!(": {error}"));
        below = error.source();
    }
    words
}

/// Why the program could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line asks for something that cannot be.
    #[error("{0}")]
    Usage(String),
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// A file is not what it should be.
    #[error("{what}")]
    Input { what: String, source: Option<Box<dyn Error + Send + Sync>> },
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    /// A device did not do what was asked, or could not be asked.
    #[error("{what}")]
    Device { what: String, source: Option<Box<dyn Error + Send + Sync>> },
    /// Standard output cannot be written.
    #[error("cannot write to standard output")]
    Output(#[from] io::Error),
}

impl Failure {
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::Usage(text.into())
    }

    pub(crate) fn input(what: impl Into<String>, source: impl Error + Send + Sync + 'static) -> Self {
        Self::Input { what: what.into(), source: Some(Box::new(source)) }
    }

    /// An input that is readable and cannot be.
    pub(crate) fn impossible(what: impl Into<String>) -> Self {
        Self::Input { what: what.into(), source: None }
    }

    pub(crate) fn device(what: impl Into<String>, source: impl Error + Send + Sync + 'static) -> Self {
        Self::Device { what: what.into(), source: Some(Box::new(source)) }
    }

    /// The error, everything below it, and what to do where the error alone tells that.
    pub(crate) fn words(&self) -> String {
        let next = match self {
            Self::Read { source, .. } => to_be_read(source.kind()),
            Self::Write { source, .. } => to_be_written(source.kind()),
            _ => None,
        };
        let words = chain(self);
        match next {
            Some(next) => format!("{words}; {next}"),
            None => words,
        }
    }

    /// Prints the error and everything below it.
    pub(crate) fn print(&self) {
        let mut out = anstream::stderr().lock();
        let bold = anstyle::AnsiColor::Red.on_default().bold();
        // Nothing can be done where even this cannot be written.
        let _ = writeln!(out, "{bold}error:{bold:#} {}", self.words());
    }

    pub(crate) fn exit(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Usage(_) => 2,
            Self::Read { .. } | Self::Input { .. } | Self::Write { .. } | Self::Device { .. } | Self::Output(_) => 4,
        })
    }
}

/// What to do about a file that is not read.
const fn to_be_read(kind: io::ErrorKind) -> Option<&'static str> {
    Some(match kind {
        io::ErrorKind::NotFound => "name a file that is there",
        io::ErrorKind::PermissionDenied => "run this as somebody who may read it",
        io::ErrorKind::IsADirectory => "name a file in it",
        _ => return None,
    })
}

/// What to do about a file that is not written.
const fn to_be_written(kind: io::ErrorKind) -> Option<&'static str> {
    Some(match kind {
        io::ErrorKind::NotFound => "make its folder first, or name another",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => "write to a place where you may",
        io::ErrorKind::IsADirectory => "name a file in it",
        io::ErrorKind::StorageFull => "make room there, or name another place",
        _ => return None,
    })
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        // The documents themselves always serialise; only their writer fails.
        Self::Output(error.into())
    }
}
