//! What a requester is told instead of data.

/// How a non-posted request failed, as its requester sees it (PCIe 6.0 §2.2.9.1, §2.8).
///
/// All ones are no failure: where a root complex makes them up, they come as data.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, thiserror::Error)]
pub enum Failure {
    /// Completion with status UR: nobody claimed it, or who did does not support it.
    #[error("unsupported request")]
    UnsupportedRequest,
    /// Completion with status CA: the completer understood and refused, or an ACS violation ended it.
    #[error("completer abort")]
    CompleterAbort,
    /// No completion in time.
    #[error("completion timeout")]
    Timeout,
    /// The data came marked as poisoned, and must not be used.
    #[error("poisoned data")]
    Poisoned,
    /// Nothing was sent: bus mastering is off, the address is above the function's mask, or its
    /// trusted interface is in a state that sends nothing.
    #[error("not sent")]
    NotSent,
}

impl Failure {
    /// The word that stands in JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::UnsupportedRequest => "unsupported-request",
            Self::CompleterAbort => "completer-abort",
            Self::Timeout => "timeout",
            Self::Poisoned => "poisoned",
            Self::NotSent => "not-sent",
        }
    }
}
