//! Answers of a kernel, expected and seen.

use super::claim::Stop;
use peerdma::dma::Errno;
use std::fmt;

/// What a kernel is expected to answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    /// It does as told.
    Taken,
    /// It refuses with this error.
    Refused(Errno),
}

pub(super) use Answer::{Refused, Taken};

impl Answer {
    /// Breaks the claim unless the kernel answered so; what it gave is returned.
    pub(super) fn expect<T>(self, what: impl fmt::Display, seen: Result<T, Errno>) -> Result<Option<T>, Stop> {
        match (self, seen) {
            (Taken, Ok(given)) => Ok(Some(given)),
            (Refused(expected), Err(seen)) if seen == expected => Ok(None),
            (expected, seen) => {
                let seen = seen.err().map_or(Taken, Refused);
                Err(Stop::Broken(format!("{what}: expected {expected}, seen {seen}")))
            }
        }
    }
}

impl Answer {
    /// The end of a claim's sentence, so that the sentence cannot say other than the data.
    pub(super) fn words(self) -> String {
        match self {
            Taken => "is taken".into(),
            Refused(errno) => match errno.name() {
                Some(name) => format!("is refused with {name}"),
                None => format!("is refused with {errno}"),
            },
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Taken => f.write_str("success"),
            Refused(errno) => errno.fmt(f),
        }
    }
}

/// Breaks the claim unless the kernel did as told, and gives what it gave.
pub(super) fn taken<T>(what: impl fmt::Display, seen: Result<T, Errno>) -> Result<T, Stop> {
    seen.map_err(|errno| Stop::Broken(format!("{what}: expected {Taken}, seen {errno}")))
}

/// Breaks the claim unless the kernel refused with `errno`.
pub(super) fn refused<T>(what: impl fmt::Display, errno: Errno, seen: Result<T, Errno>) -> Result<(), Stop> {
    Refused(errno).expect(what, seen).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_answer_that_is_expected_passes() {
        assert_eq!(Taken.expect("x", Ok(7)), Ok(Some(7)));
        assert_eq!(Refused(Errno::EINVAL).expect("x", Err::<u8, _>(Errno::EINVAL)), Ok(None));
        let stop = Refused(Errno::EINVAL).expect("an offset of 1", Err::<u8, _>(Errno::EFAULT)).unwrap_err();
        assert_eq!(stop, Stop::Broken("an offset of 1: expected EINVAL (22), seen EFAULT (14)".into()));
        let stop = Refused(Errno::EINVAL).expect("x", Ok(1)).unwrap_err();
        assert_eq!(stop, Stop::Broken("x: expected EINVAL (22), seen success".into()));
        assert_eq!(
            (Taken.words().as_str(), Refused(Errno::EINVAL).words().as_str()),
            ("is taken", "is refused with EINVAL")
        );
        assert!(taken("x", Err::<u8, _>(Errno::ENODEV)).is_err());
        assert!(refused("x", Errno::ENODEV, Ok(())).is_err());
    }
}
