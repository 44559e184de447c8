//! A GPU, as far as peers see one: memory behind a BAR, and a copy engine.
//!
//! BAR2 shows the memory (VRAM), as much of it as the BAR is set to; BAR0 has the registers of
//! the copy engine's [channels](crate::device::channel). The engine copies and fills VRAM and
//! addresses of the machine, writes and awaits values, and moves pieces of VRAM elsewhere and
//! back. What of VRAM is elsewhere is in the [`Residency`]: whoever goes through the BAR to a
//! piece that moved away finds the bytes that were left behind, as on hardware whose driver did
//! not tell its peers.
//!
//! What a BAR shows can be something else than what the engine works with
//! ([`Gpu::showing`]): an aperture that is a private copy accepts every write and delivers none.
//!
//! - `command`: what the engine can be asked. - `engine`: the device. - `transfer`: bytes, a
//!   piece at a time. - `residency`: what of VRAM is elsewhere. - `driver`: the CPU's side.

mod command;
mod driver;
mod engine;
mod residency;
#[cfg(test)]
mod tests;
mod transfer;

pub use command::{Operation, Options, Place, Status};
pub use driver::{Driver, Error};
pub use engine::Gpu;
pub use residency::{PIECE, Residency, Whereabouts};

/// The BAR of the registers.
pub const REGISTERS_BAR: u8 = 0;
/// The BAR that shows VRAM, where nothing else is said.
pub const VRAM_BAR: u8 = 2;
