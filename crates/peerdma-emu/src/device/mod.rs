//! Devices: what answers behind BARs, and what asks.
//!
//! A device is two things. Its *face* is data: [`Registers`] and memory behind BARs
//! ([`Layout`]), which the fabric reads and writes without asking the device, as often as
//! anybody likes. Its *engine* is code: [`Device::step`] does a piece of work with the writes
//! that came in ([`Bus::next_write`]) and with requests of its own. So no device ever waits for
//! another, whoever rings whose doorbell, and two threads never wait for each other in a circle.
//!
//! A device is tried without a machine on a [`Flat`] bus.
//!
//! Rejected: callbacks for register accesses, which run inside another device's request and
//! need it to be somewhere safe to stop.

pub mod accel;
pub(crate) mod awake;
mod bus;
pub mod channel;
pub mod dma;
pub mod driver;
mod flat;
pub mod gpu;
mod layout;
pub mod nic;
pub mod nvme;
pub mod plain;
mod reach;
mod registers;

pub(crate) use bus::Around;
pub use bus::{Agent, Bus, How, PageResponse, RegisterWrite, RelayError, Translation};
pub use driver::{Mmio, Shared};
pub use flat::{Flat, FlatDevice};
pub use layout::{Behind, Layout, Region};
pub use registers::{Access, Registers};

/// What there is left to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// Nothing until somebody writes to a register, or a page response or message comes.
    Idle,
    /// Something; step again.
    Working,
}

/// A device's engine.
///
/// # Concurrency
/// A machine steps a device in one thread at a time.
pub trait Device: Send {
    /// What stands behind its BARs; asked once, when the device is put into a machine.
    fn layout(&self) -> Layout;

    /// Does one piece of work: looks at the writes to its registers, sends a few requests.
    ///
    /// Short pieces let devices take turns. Nothing a device does here may panic or wait.
    fn step(&mut self, bus: &mut dyn Bus) -> Progress;

    /// Forgets all work, as after a function-level reset. Memory keeps its bytes; registers are
    /// set back by the device itself.
    fn reset(&mut self);
}
