//! Regions of device memory, and who uses them.

use core::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $word:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
        #[repr(transparent)]
        pub struct $name(u32);

        impl $name {
            /// The one of this number.
            pub const fn new(number: u32) -> Self {
                Self(number)
            }

            /// The number.
            pub const fn number(self) -> u32 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($word, " {}"), self.0)
            }
        }
    };
}

number! {
    /// Names a region of device memory that the program described; numbers are the program's own.
    ///
    /// A device may have several: memory behind a window that the CPU reaches, and memory behind none.
    RegionId, "region"
}
number! {
    /// Names one who uses device memory, for whom limits may be set; numbers are the program's own.
    ///
    /// A process, a container, a virtual machine: what a control group is to the kernel.
    TenantId, "tenant"
}
