//! Short stories on a machine: what peers do for each other, and how it goes wrong in the field.
//!
//! Each function builds a machine, boots a kernel on it, lets drivers and devices do one thing, looks
//! where the bytes are, and answers with plain data; nothing is printed. Addresses come from the
//! library's own mapping engine, so a story that goes well shows the engine at work, and one that goes
//! wrong was made to: by a number that the engine did not give.
//!
//! - [`pipeline()`]: a drive fills a GPU, two NICs carry it to another GPU, and all of it comes back.
//! - [`doorbell()`]: a peer rings, beside an interrupt and a processor that rings.
//! - [`overtaken()`]: a doorbell that arrives before its payload.
//! - [`wrong_kind()`]: an address of the wrong kind, under an IOMMU that translates.
//! - [`forced_route()`]: a route that was refused and is taken nevertheless.
//! - [`two_processes()`]: one accelerator, two address spaces.
//! - [`buffer_life()`]: a buffer that is moved and reset while devices are at it.
//!
//! Every answer says what was *seen*: bytes are compared where they ended, by another way than the
//! one they came by. Runs are repeatable: the same platform and seed give the same answer, times apart.

mod buffer_life;
mod cast;
mod doorbell;
mod end;
mod error;
mod forced_route;
mod journey;
mod overtaken;
mod pipeline;
mod stage;
#[cfg(test)]
mod tests;
mod two_processes;
mod wrong_kind;

pub use buffer_life::{BufferLife, Deed, buffer_life};
pub use cast::Cast;
pub use doorbell::{Doorbell, doorbell};
pub use error::ScenarioError;
pub use forced_route::{Forced, ForcedRoute, forced_route};
pub use journey::Journey;
pub use overtaken::{Overtaken, overtaken};
pub use pipeline::{Leg, Moves, Pipeline, pipeline};
pub use two_processes::{Process, TwoProcesses, two_processes};
pub use wrong_kind::{Landed, Mistake, WrongKind, wrong_kind};
