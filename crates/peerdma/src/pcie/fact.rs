//! A register's value, or the honest absence of one.

/// Something the input may or may not have told.
///
/// `Unknown` is not "off" and not "absent": it means that the input cannot tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Fact<T> {
    /// The input tells.
    Known(T),
    /// The input cannot tell.
    #[default]
    Unknown,
}

impl<T> Fact<T> {
    /// The value, if the input tells.
    pub fn known(self) -> Option<T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unknown => None,
        }
    }

    /// Applies `f` to a known value.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Fact<U> {
        match self {
            Self::Known(value) => Fact::Known(f(value)),
            Self::Unknown => Fact::Unknown,
        }
    }

    /// This fact, or `other` where this one is unknown.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        match self {
            Self::Known(_) => self,
            Self::Unknown => other,
        }
    }
}

impl<T> From<Option<T>> for Fact<T> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Unknown, Self::Known)
    }
}
