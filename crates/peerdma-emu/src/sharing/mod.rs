//! Buffers that the devices of a machine share, and a witness that is not asked by anybody.
//!
//! Exporters own parts of device memory and of RAM, devices import them by the library's
//! [`buffer`](peerdma::buffer), and all sorts of things happen to the memory meanwhile. Whether
//! the rules held is not for the rules to say: [`Witness`] stands between the machine and the bytes,
//! is told by the exporter when memory is closed and when it is open again, and judges each access.
//!
//! - [`witness`]: memory that judges.
//! - [`field`]: a part of it, as an exporter and as the machine see it.
//! - [`device`]: what happens to a device, as deeds on its registers.
//! - [`exporter`]: who disturbs buffers, step by step.
//! - [`importer`]: what a driver hears, and what its device has to be able to do.
//! - [`party`]: what all importers have in common; [`membership`]: how one stands with its buffer.
//! - [`driver`]: one with a device that is given jobs; [`workers`]: devices for it.
//! - [`guest`], [`process`], [`tables`]: a second stage, a CPU mapping and an I/O address space, whose users are not
//!   asked before memory is taken away.
//! - [`set`]: a machine with all of them; [`soak`]: a run from a seed.

pub mod device;
pub mod driver;
pub mod exporter;
pub mod field;
mod frames;
pub mod guest;
pub mod importer;
pub mod membership;
pub mod party;
pub mod process;
pub mod set;
pub mod soak;
mod stores;
pub mod tables;
pub mod witness;
pub mod workers;

pub use witness::{Stamp, Violation, Witness};
