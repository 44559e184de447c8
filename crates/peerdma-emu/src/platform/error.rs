//! Problems with their place in the file.

use super::problem::Problem;
use std::fmt;
use std::ops::Range;

/// A line of a platform file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Location {
    /// The file's name, as it was given to the reader.
    pub file: String,
    /// The line, counted from 1.
    pub line: usize,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// Why a platform file was refused, and where.
///
/// Written as `file:line: what is wrong; what to do`.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{at}: {problem}")]
pub struct PlatformError {
    at: Location,
    problem: Box<Problem>,
}

impl PlatformError {
    pub(super) fn new(at: Location, problem: impl Into<Problem>) -> Self {
        Self { at, problem: Box::new(problem.into()) }
    }

    /// The file's name, as it was given to the reader.
    pub fn file(&self) -> &str {
        &self.at.file
    }

    /// The line, counted from 1.
    pub fn line(&self) -> usize {
        self.at.line
    }

    /// What is wrong there.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }
}

/// A file's name and text, for turning positions into lines.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) file: &'a str,
    pub(super) text: &'a str,
}

impl Source<'_> {
    pub(super) fn line(&self, span: &Range<usize>) -> usize {
        // A problem at the end of the text is on its last line, not on the one after it.
        let text = self.text.trim_end().as_bytes();
        let before = &text[..span.start.min(text.len())];
        1 + before.iter().filter(|&&byte| byte == b'\n').count()
    }

    pub(super) fn error(&self, span: &Range<usize>, problem: impl Into<Problem>) -> PlatformError {
        PlatformError::new(Location { file: self.file.to_string(), line: self.line(span) }, problem)
    }

    pub(super) fn syntax(&self, error: &toml::de::Error) -> PlatformError {
        let message = error.message().trim().replace('\n', ", ");
        self.error(&error.span().unwrap_or(0..0), Problem::Syntax { message })
    }
}
