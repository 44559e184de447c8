//! Accesses to bytes that are not there.

use peerdma::addr::Bytes;

/// An access that is not inside the memory as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{len} at offset {at:#x} are not inside memory of {size}", at = at.as_u64())]
pub struct Outside {
    /// Where the access starts.
    pub at: Bytes,
    /// How long it is.
    pub len: Bytes,
    /// How much memory there is.
    pub size: Bytes,
}

impl Outside {
    /// Checks an access of `len` bytes at `at` against memory of `size` bytes.
    ///
    /// # Errors
    /// The access, where it is not inside.
    pub fn check(at: Bytes, len: usize, size: Bytes) -> Result<(), Self> {
        let len = Bytes::new(len as u64);
        match at.checked_add(len) {
            Some(end) if end <= size => Ok(()),
            _ => Err(Self { at, len, size }),
        }
    }
}
