//! What the commands share that run a described machine instead of looking at one.
//!
//! A platform is [booted](boot): its devices are found by their registers, and whatever is judged
//! is judged on what was found. Names become [places](place): bytes of RAM, of a drive's medium,
//! of memory behind a BAR. A [session] is a driver's place at one function: an address space, an
//! [engine] that moves bytes, and RAM that it reaches. Addresses come from the library's mapping
//! engine alone. Whether bytes came is asked of their [owner], never of the route, and judged by
//! the [same rules](verify) as on hardware. How fast they came is held against a copy by the
//! processor ([pace]).

mod boot;
mod engine;
pub(crate) mod hops;
mod nic;
mod owner;
mod pace;
mod place;
mod session;
mod verify;

pub(crate) use boot::Booted;
pub(crate) use engine::{Way, word as engine_word};
pub(crate) use owner::{Owner, with_owner};
pub(crate) use pace::{Pace, memcpy};
pub(crate) use place::{At, Kind, Place};
pub(crate) use session::{Session, with_idle, with_session};
pub(crate) use verify::{Checked, Transfer};
