//! Regions of device memory, and who uses them.

use core::fmt;

/// Names a region of device memory that the program described; numbers are the program's own.
///
/// A device may have several: memory behind a window that the CPU reaches, and memory behind none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[repr(transparent)]
pub struct RegionId(u32);

impl RegionId {
    /// The region of this number.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for RegionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "region {}", self.0)
    }
}
