//! An accelerator that follows pointers: its addresses are those of a process.
//!
//! Each [channel](crate::device::channel) is a context that works in one address space, named by
//! a PASID. Commands, completions, lists and buffers all lie there, so that a process hands over
//! the pointers that it has, and no context reaches what its process does not. Before every
//! access the accelerator asks for the translation (ATS, PCIe 6.0 §10.2). Where there is none it
//! asks for the page (PRI, §10.4), does the work of other contexts meanwhile, and goes on where it
//! was when the answer comes. A function without ATS sends untranslated addresses instead.
//!
//! - `command`: what a context can be asked. - `access`: reads and writes that may find no
//!   page. - `context`: one context, and what it does for a command. - `engine`: the device.
//! - `driver`: the CPU's side.

mod access;
mod command;
mod context;
mod driver;
mod engine;
#[cfg(test)]
mod tests;

pub use command::{Operation, Status};
pub use driver::{Driver, Error};
pub use engine::Accel;
