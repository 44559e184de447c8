//! The life of a device's memory that becomes a confidential guest's, and comes back.
//!
//! A device is prepared, gets the guest's IOMMU in front of it, is locked, and is started by the guest:
//! separate steps, each with its moment, because a guest is measured with what it had when it started. Binding
//! early (locked before the guest starts) and late (when the guest asks) are the same steps in another order.
//!
//! The lock is where memory changes hands. To everybody outside the guest it is a revocation like a
//! reset: they are told, their fences retire, they unmap, and only then is the interface locked. From
//! then on no process maps the memory and no device without the T bit attaches, which Linux 7.2 leaves to the
//! hardware's refusal: a request that nobody answers. Closing unbinds, resets and gives the memory back.
//!
//! [`TABLE`] has each event in each state, once.
//!
//! ```
//! use peerdma::buffer::confidential::{Action, Barred, Event, Stage, State};
//! use peerdma::buffer::life::Disturbance;
//!
//! # fn main() -> Result<(), peerdma::buffer::confidential::Refusal> {
//! let mut gpu = State::new();
//! for event in [Event::AttachViommu, Event::Prepare, Event::StartGuest] {
//!     gpu.step(event)?;
//! }
//! assert_eq!(gpu.step(Event::Lock)?, [Action::Revoke(Disturbance::Lock)]);
//! assert_eq!(gpu.step(Event::Released)?, [Action::LockInterface]);
//! assert_eq!(gpu.step(Event::MapCpu).unwrap_err().why, Barred::Private);
//! gpu.step(Event::Run)?;
//! assert_eq!(gpu.stage(), Stage::Running);
//! assert_eq!(gpu.step(Event::Close)?.last(), Some(&Action::Return(Disturbance::Lock)));
//! # Ok(())
//! # }
//! ```
//!
//! [`shared::PrivateBar`](super::shared::PrivateBar) does with a register what this asks for.
//!
//! Not here: who reaches which memory by which way, which is a table of its own
//! ([`dma::confidential`](crate::dma::confidential)), and any talk with a device.

mod event;
mod state;
mod table;
#[cfg(test)]
mod tests;

pub use event::{Action, Barred, Event, Stage};
pub use state::{Refusal, State};
pub use table::{Answer, Row, TABLE};
