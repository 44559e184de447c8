//! What goes wrong in the field, by name, on a machine that runs.
//!
//! A [`Fault`] is one of a closed set of words, each tied to a report of somebody whom it
//! happened to, or to the rule that makes it possible ([`Origin`]). A [`Plan`] says where it
//! strikes and when: at once, from a step or a number of requests on, or by a seed's choice.
//! [`Machine::arm`](crate::machine::Machine::arm) puts a plan into effect; every strike is an
//! event in the machine's log and is counted ([`Armed`]).
//!
//! There are two sorts. Most faults change what becomes of *requests* that pass a place, for as
//! long as they are armed. The others change the *machine* once: registers are written, a card
//! is pulled. Disarming ends the first; registers stay as they were written and a card stays
//! pulled until somebody writes them and puts it back, as on hardware.
//!
//! While anything is armed long transfers go packet by packet, so that no packet escapes. While
//! nothing is, all of this costs one relaxed load a request.
//!
//! ```
//! use peerdma_emu::faults::{Fault, Plan, Spot};
//! use peerdma_emu::machine::Builder;
//! use peerdma_emu::platform::Platform;
//!
//! let platform = Platform::built_in("two-socket").unwrap();
//! let machine = Builder::new(&platform).build()?;
//! let fault: Fault = "mirror-bar".parse()?;
//! let gpu = machine.named("gpu0").unwrap();
//! let armed = machine.arm(Plan::new(fault).at(Spot::Node(gpu)))?;
//! assert_eq!(machine.disarm(armed).unwrap().strikes, 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! - `fault`: the words, with what each does and where it comes from. `plan`: where and when.
//! - `error`: why a plan was refused. `place`: which places a fault can strike, and what passes them.
//! - `state`: what is armed on a machine. `lender`: who does wrong to buffers, where a fault is about them.
//!
//! What a strike does to a request or to a machine is beside the machine, in `machine::strike`.

mod error;
mod fault;
mod lender;
mod place;
mod plan;
mod state;

pub use error::ArmError;
pub use fault::{Fault, Origin, UnknownFault};
pub use lender::{Lender, Wrong};
pub use plan::{Damage, Place, Plan, Spot, When};
pub use state::{Armed, FaultId};

pub(crate) use place::{Has, Passing, Stop};
pub(crate) use state::{Due, Faults, Moment};
