//! On whose behalf memory is pinned within a process.

use crate::addr::Bytes;
use core::fmt;

/// Number of an owner: a device, a pool, a tenant; whoever has a limit of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct OwnerId(u32);

impl OwnerId {
    /// The owner of this number.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for OwnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "owner {}", self.0)
    }
}

/// What an owner may hold, whatever the kernel permits. Repeated pins of the same memory count each.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OwnerLimits {
    /// How many pins; `None` for any number.
    pub pins: Option<u32>,
    /// How many bytes, in whole pages; `None` for as many as the kernel permits.
    pub size: Option<Bytes>,
}

impl OwnerLimits {
    /// No limits.
    pub const NONE: Self = Self { pins: None, size: None };
}
