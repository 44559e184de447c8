//! Memory that several devices share, with the rules of its lifetime.
//!
//! An exporter owns ranges. Importers *attach*: they say what they can take and what they do when
//! memory is taken from them, and are told for how long a mapping will stay good. Then they map,
//! which the importer does and never the exporter on its behalf; use; and let go when told to.
//!
//! What a dma-buf leaves to convention is a rule here:
//!
//! - [`lifetime`]: the words that are settled at attach.
//! - [`terms`]: how they are settled: an offer, a declaration, and a table.
//! - [`physical`]: memory in physical ranges, from which an exporter has all ways of access.
//! - [`pins`]: how much of a device's memory may be held in its place, and by whom.
//! - [`life`]: what happens to a buffer from then on, as a state machine.
//! - [`config_write`]: which of that a guest's write to configuration space is about to do.
//! - [`confidential`]: the life of memory that becomes a confidential guest's.
//! - [`guard`]: accesses in flight, which whoever takes memory away waits for.
//! - [`fence`]: what devices were told to do, which is waited for before memory moves.
//! - [`wire`]: what exporter and importer say to each other when they are two processes.
//! - `shared`: buffers that threads share and wait for; with the feature `std`.
//!
//! Not here: sockets and processes (`peerdma-linux`), and devices that move bytes (`peerdma-emu`).

pub mod confidential;
pub mod config_write;
pub mod fence;
pub mod guard;
pub mod life;
pub mod lifetime;
pub mod physical;
pub mod pins;
#[cfg(any(feature = "std", peerdma_shuttle))]
pub mod shared;
pub mod terms;
pub mod wire;

pub use lifetime::{Control, Enforcement, Lifetime};
