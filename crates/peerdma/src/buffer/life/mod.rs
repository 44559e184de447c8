//! The life of a shared buffer, as a state machine without clock, thread or descriptor.
//!
//! Whoever is about to disturb a device's memory says so ([`Event::Begin`]), does what the actions
//! say, and may go on when the buffer is quiet ([`Phase::is_quiet`]): every importer has been told,
//! every fence has retired, every mapping is gone. Afterwards it says that it is done
//! ([`Event::End`]), and importers are told that they may map again.
//!
//! The two waits are two because they mean different things (Linux 7.2
//! `dma_buf_invalidate_mappings`): until its fences have retired an importer may still write; until it
//! has unmapped it may still read, and must throw away what it read.
//!
//! Disturbances overlap. A reset during D3 of a device whose memory decoding is off leaves three
//! causes, and memory is within reach when all three have ended. So the machine keeps the causes
//! and each importer's answers, and the phase follows from them.
//!
//! A deadline is no event here: it changes nothing. Who waited long enough asks what is
//! [`outstanding`](Life::outstanding), names it, and either waits on or ends the disturbance before
//! it has begun. Nothing is ever freed because time has passed.
//!
//! ```
//! use peerdma::buffer::life::{Action, AttachmentId, Disturbance, Event, Life, Phase};
//! use peerdma::buffer::{Enforcement, Lifetime};
//!
//! # fn main() -> Result<(), peerdma::buffer::life::Refused> {
//! let (mut life, nic) = (Life::new(), AttachmentId::new(1));
//! life.step(Event::Attach { who: nic, lifetime: Lifetime::Revocable, enforcement: Enforcement::Cooperative })?;
//! life.step(Event::Map(nic))?;
//!
//! let actions = life.step(Event::Begin(Disturbance::Reset))?;
//! let [Action::Tell { id, .. }] = actions[..] else { unreachable!() };
//! assert_eq!(life.step(Event::Noted(nic, id))?, [Action::AwaitFences(life.generation())]);
//! life.step(Event::FencesRetired(life.generation()))?;
//! assert_eq!(life.phase(), Phase::Draining); // Reset now, and the NIC would write into it.
//! assert_eq!(life.step(Event::Unmap(nic))?, [Action::Quiet]);
//! assert_eq!(life.phase(), Phase::Revoked);
//!
//! life.step(Event::End { disturbance: Disturbance::Reset, answers: None })?;
//! assert_eq!(life.phase(), Phase::Restored);
//! # Ok(())
//! # }
//! ```

mod causes;
mod disturbance;
#[cfg(test)]
mod document;
mod event;
#[cfg(test)]
mod explore;
mod phase;
mod seat;
mod step;
mod table;
#[cfg(test)]
mod tests;

pub use causes::{Answers, Causes};
pub use disturbance::{About, AgainstPins, Contents, DISTURBANCES, Disturbance, Duration};
pub use event::{Action, Actions, AttachmentId, Event, Generation, Notice, NoticeId, Refused};
pub use phase::Phase;
pub use seat::{Attached, Outstanding, Still};
pub use step::Life;
pub use table::{TRANSITIONS, Transition, Trigger};
