//! What a kernel does on the machine: finds devices, gives out RAM, makes address spaces for devices.
//!
//! - [`Kernel`]: one for a machine. [`Seat`]: a driver's place at one function, from which it maps
//!   with the library's own engine and speaks to registers.
//! - [`Pager`]: brings pages that devices ask for.
//! - [`ProcessTable`]: what one context of a device has of a process outside of the machine.
//! - [`space`]: an address space behind the machine's IOMMU, with the interface of all address
//!   spaces, [`IoSpace`](peerdma::dma::IoSpace). It writes page tables and invalidates.

mod kernel;
mod pager;
mod process_table;
mod seat;
pub mod space;
mod written;

pub use kernel::{Buffer, Kernel, NoRoom};
pub use pager::{Paged, Pager};
pub use process_table::{ProcessTable, ProcessTableError};
pub use seat::{Seat, SeatError, Space, UnaskedError, wire_address};
pub use space::{DeviceCaches, DomainSpace, For, SpaceError, SpaceOptions};

#[cfg(test)]
mod tests;
