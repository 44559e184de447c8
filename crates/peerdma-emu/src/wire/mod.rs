//! What stands on a wire: requests, completions, and why one brought nothing.
//!
//! The words are those of the PCI Express specification. An address on the wire is a bare
//! number to every port that compares it with its windows, whether it was meant as a bus
//! address or as an IOVA, so here it is a [`BusAddr`] in either case; what it was meant to be is
//! in [`AddressType`] and in what the root complex makes of it.
//!
//! - [`head`]: who asks for what, and where.
//! - [`atomic`]: operations that read and write in one.
//! - [`failure`]: what a requester is told instead of data.

pub mod atomic;
pub mod failure;
pub mod head;

pub use atomic::{Atomic, Operand};
pub use failure::Failure;
pub use head::{AddressType, Attributes, Head, Kind, Pasid, Requester};

use peerdma::addr::{BusAddr, Bytes};

/// A request never crosses a boundary of this size (PCIe 6.0 §2.2.7).
pub const BOUNDARY: Bytes = Bytes::new(4096);

/// Where messages of interrupts are written to on x86, first and last address.
pub const INTERRUPTS: (BusAddr, BusAddr) = (BusAddr::new(0xfee0_0000), BusAddr::new(0xfeef_ffff));
