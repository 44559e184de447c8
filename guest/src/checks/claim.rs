//! A claim: a sentence that is true of a kernel or is not, and what tries it.

use std::error::Error;
use std::fmt;

/// Why a claim ended early.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Stop {
    /// It does not hold: what was expected and what was seen.
    Broken(String),
    /// There is nothing to try it on.
    DoesNotApply(String),
}

impl Stop {
    /// It does not hold.
    pub(crate) fn broken(why: impl Into<String>) -> Self {
        Self::Broken(why.into())
    }
}

// An error on the way to what a claim is about breaks it too, with all causes in the line:
// a claim that could not be tried has not held.
impl<E: Error> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Broken(chain(&error))
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

type Tries<B> = Box<dyn Fn(&mut B) -> Result<(), Stop>>;

/// A sentence and what tries it on a `B`.
pub(crate) struct Claim<B> {
    pub(crate) sentence: String,
    pub(crate) tries: Tries<B>,
}

impl<B> Claim<B> {
    pub(crate) fn new(sentence: impl Into<String>, tries: impl Fn(&mut B) -> Result<(), Stop> + 'static) -> Self {
        Self { sentence: sentence.into(), tries: Box::new(tries) }
    }
}

/// Breaks the claim unless two values are equal.
pub(crate) fn equal<T: PartialEq + fmt::Debug>(what: &str, expected: &T, seen: &T) -> Result<(), Stop> {
    if expected == seen {
        return Ok(());
    }
    Err(Stop::Broken(format!("{what}: expected {expected:?}, seen {seen:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_claim_names_what_was_expected_and_what_was_seen() {
        let stop = equal("length", &4096, &0).unwrap_err();
        assert_eq!(stop, Stop::Broken("length: expected 4096, seen 0".into()));
        assert_eq!(equal("length", &1, &1), Ok(()));
    }

    #[test]
    fn an_error_on_the_way_breaks_the_claim_with_its_causes() {
        let number = "x".parse::<u8>().unwrap_err();
        let stop = Stop::from(std::io::Error::other(number));
        assert_eq!(stop, Stop::Broken("invalid digit found in string".into()));
    }
}
