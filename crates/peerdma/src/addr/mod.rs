//! Addresses and lengths that cannot be confused with each other.
//!
//! A device that is handed the wrong kind of address writes to the wrong place
//! without any error, so the kind is part of the type: [`PhysAddr`] is what the
//! CPU and the host bridge's upstream side use, [`BusAddr`] is what is compared
//! with windows and BARs on the wires below a host bridge, [`Iova`] is what an
//! IOMMU translates, [`ProcVa`] means nothing outside one process, and [`GuestPhys`]
//! nothing outside one virtual machine. On most
//! x86 machines the first two are equal in number, which is exactly why they must
//! differ in type.

mod granule;
mod outside;

use core::fmt;
use core::marker::PhantomData;
pub use granule::Granule;

/// Number of bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Bytes(u64);

impl Bytes {
    /// No bytes.
    pub const ZERO: Self = Self(0);

    /// Counts `n` bytes.
    pub const fn new(n: u64) -> Self {
        Self(n)
    }

    /// The number of bytes.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// Adds; `None` on overflow.
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(n) => Some(Self(n)),
            None => None,
        }
    }
}

impl fmt::Display for Bytes {
    /// Writes the largest binary unit that divides the number, `4 KiB` for 4096.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u32, &str); 5] = [(50, "PiB"), (40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        for (shift, unit) in UNITS {
            if self.0 != 0 && self.0.is_multiple_of(1 << shift) {
                return write!(f, "{} {unit}", self.0 >> shift);
            }
        }
        write!(f, "{} {}", self.0, if self.0 == 1 { "byte" } else { "bytes" })
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x} bytes", self.0)
    }
}

mod sealed {
    pub trait Sealed {}
}

/// One of the address kinds of this module.
pub trait Address: sealed::Sealed + Copy + Ord + fmt::Display + fmt::Debug {
    /// Takes a number as an address of this kind; the caller vouches for the kind.
    fn from_raw(raw: u64) -> Self;
    /// The number, for registers and files.
    fn as_u64(self) -> u64;
}

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name(u64);

        impl $name {
            /// Takes a number as an address of this kind; the caller vouches for the kind.
            pub const fn new(raw: u64) -> Self {
                Self(raw)
            }

            /// The number, for registers and files.
            pub const fn as_u64(self) -> u64 {
                self.0
            }

            /// The address `len` bytes further; `None` past the end of the space.
            pub const fn checked_add(self, len: Bytes) -> Option<Self> {
                match self.0.checked_add(len.as_u64()) {
                    Some(raw) => Some(Self(raw)),
                    None => None,
                }
            }
        }

        impl sealed::Sealed for $name {}
        impl Address for $name {
            fn from_raw(raw: u64) -> Self {
                Self(raw)
            }
            fn as_u64(self) -> u64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }
    };
}

address! {
    /// Address as the CPU sees it (`/proc/iomem`, the `resource` files of sysfs).
    PhysAddr
}
address! {
    /// Address as it stands in a BAR and travels below a host bridge.
    BusAddr
}
address! {
    /// Address that an IOMMU translates for a device.
    Iova
}
address! {
    /// Address in a process, as the CPU uses it while that process runs.
    ProcVa
}
address! {
    /// Address as a virtual machine's CPU sees its memory and its devices; means nothing outside one guest.
    GuestPhys
}

/// A non-empty range of addresses of one kind, `start..start + len`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddrRange<A> {
    start: A,
    len: Bytes,
    kind: PhantomData<A>,
}

impl<A: Address> AddrRange<A> {
    /// The range of `len` bytes from `start`; `None` if it is empty or its last
    /// byte lies past the end of the address space.
    pub fn new(start: A, len: Bytes) -> Option<Self> {
        let last = len.as_u64().checked_sub(1)?;
        start.as_u64().checked_add(last)?;
        Some(Self { start, len, kind: PhantomData })
    }

    /// The range from `first` to `last`, both inclusive; `None` if reversed or all 2^64 bytes.
    pub fn from_inclusive(first: A, last: A) -> Option<Self> {
        let len = last.as_u64().checked_sub(first.as_u64())?.checked_add(1)?;
        Self::new(first, Bytes::new(len))
    }

    /// First address.
    pub fn start(&self) -> A {
        self.start
    }

    /// Last address, inclusive.
    pub fn last(&self) -> A {
        A::from_raw(self.start.as_u64() + (self.len.as_u64() - 1))
    }

    /// Length, at least one byte.
    pub fn len(&self) -> Bytes {
        self.len
    }

    /// Always false; ranges of this type hold at least one byte.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Whether all of `inner` lies in this range.
    pub fn contains_range(&self, inner: &Self) -> bool {
        self.start <= inner.start && inner.last() <= self.last()
    }

    /// The sub-range of `len` bytes from `offset`; `None` if any of it lies outside.
    pub fn slice(&self, offset: Bytes, len: Bytes) -> Option<Self> {
        let start = self.start.as_u64().checked_add(offset.as_u64())?;
        let inner = Self::new(A::from_raw(start), len)?;
        self.contains_range(&inner).then_some(inner)
    }
}

impl<A: Address> fmt::Display for AddrRange<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.start, self.last())
    }
}

impl<A: Address> fmt::Debug for AddrRange<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}+{:?}", self.start, self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_range_that_wraps_or_is_empty_cannot_be_made() {
        assert!(AddrRange::new(PhysAddr::new(u64::MAX), Bytes::new(2)).is_none());
        assert!(AddrRange::new(PhysAddr::new(0), Bytes::ZERO).is_none());
        let last_byte = AddrRange::new(PhysAddr::new(u64::MAX), Bytes::new(1)).unwrap();
        assert_eq!(last_byte.last(), PhysAddr::new(u64::MAX));
    }

    #[test]
    fn a_slice_stays_inside_its_range() {
        let bar = AddrRange::new(BusAddr::new(0x1000), Bytes::new(0x1000)).unwrap();
        assert!(bar.slice(Bytes::new(0xfff), Bytes::new(1)).is_some());
        assert!(bar.slice(Bytes::new(0xfff), Bytes::new(2)).is_none());
        assert!(bar.slice(Bytes::new(u64::MAX), Bytes::new(1)).is_none());
    }

    #[test]
    fn lengths_are_written_in_the_largest_unit_that_divides_them() {
        assert_eq!(Bytes::new(4096).to_string(), "4 KiB");
        assert_eq!(Bytes::new(4097).to_string(), "4097 bytes");
        assert_eq!(Bytes::new(64 << 30).to_string(), "64 GiB");
        assert_eq!(Bytes::ZERO.to_string(), "0 bytes");
        assert_eq!(Bytes::new(1).to_string(), "1 byte");
    }
}
