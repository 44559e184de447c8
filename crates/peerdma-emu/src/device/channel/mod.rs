//! Channels: rings of commands in memory, doorbells, and what became of each command.
//!
//! The GPU-like device and the accelerator take their commands in the same way, which is also
//! the way of most hardware. A channel has two rings in memory that its device reaches: one of
//! *commands*, 64 bytes each, and one of *completions*, 32 bytes each, with as many slots. Whoever
//! submits writes commands into the next slots and then the count of all commands so far to the
//! channel's doorbell. The doorbell lies in a page of its own, so that a process, or a peer, can
//! be handed one channel and no other.
//!
//! Where things are in BAR0:
//!
//! | offset | register |
//! |---|---|
//! | `0x000` | how many channels there are; read only |
//! | `0x100 + 0x40 n` | channel *n*: address of its commands |
//! | `+ 0x08` | address of its completions |
//! | `+ 0x10` | slots of each, as a power of two, 0 to 12 |
//! | `+ 0x18` | PASID that it works in, with bit 31 set; without it the function's own |
//! | `+ 0x20` | vector of its interrupt, or `0xffff` for none |
//! | `+ 0x28` | written 1 starts it anew with what stands in the others, 0 stops it |
//! | `+ 0x30` | state: 0 off, 1 on, 2 stopped by an error; read only |
//! | `+ 0x38` | completions written so far; read only |
//! | `0x1000 (n + 1)` | doorbell of channel *n*: commands written so far, modulo 2^32 |
//!
//! A completion is a value (8 bytes), the command's tag (8), a status (4), a detail (4), and last
//! the count of completions so far (8), which makes it valid. The device writes it in two
//! requests, the count in the second, because nothing longer than 8 bytes is written in one.
//!
//! - `entry`: slots as bytes. - `engine`: the device's side. - `caller`: the driver's side.

mod caller;
mod engine;
mod entry;

pub use caller::{CallError, Queue, Ticket};
pub(super) use caller::{Caller, until};
pub(super) use engine::{Channels, Event};
pub(super) use entry::{COMMAND, COMPLETION, Command, Completion, Ring, failure, failure_code};

use peerdma::addr::Bytes;

/// How large the page of a doorbell is.
pub const DOORBELL_PAGE: Bytes = Bytes::new(0x1000);

/// Most channels that a device has; their registers fill the first page.
pub const MOST_CHANNELS: u16 = 32;

/// Registers of channel `n` begin here, relative to BAR0.
const fn block(n: u16) -> u64 {
    0x100 + 0x40 * n as u64
}

/// Where the doorbell of channel `n` is in BAR0.
pub const fn doorbell(n: u16) -> Bytes {
    Bytes::new(DOORBELL_PAGE.as_u64() * (n as u64 + 1))
}

/// Offsets in a channel's block.
mod register {
    pub(super) const COMMANDS: u64 = 0x00;
    pub(super) const COMPLETIONS: u64 = 0x08;
    pub(super) const SLOTS_LOG2: u64 = 0x10;
    pub(super) const PASID: u64 = 0x18;
    pub(super) const VECTOR: u64 = 0x20;
    pub(super) const CONTROL: u64 = 0x28;
    pub(super) const STATE: u64 = 0x30;
    pub(super) const COMPLETED: u64 = 0x38;
}

/// Values of a channel's state register.
mod state {
    pub(super) const OFF: u64 = 0;
    pub(super) const ON: u64 = 1;
    pub(super) const BROKEN: u64 = 2;
}

/// Bit of the PASID register that says that there is one.
const PASID_VALID: u64 = 1 << 31;
/// A vector that is none.
const NO_VECTOR: u64 = 0xffff;
