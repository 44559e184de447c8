//! PCI topologies of guest machines: what QEMU can express, and how a guest is held against it.
//!
//! A [`Draft`](model::Draft) is a tree of host bridges, ports, switches and devices. Checking it
//! yields a [`Model`], which QEMU takes: that is the point where a slot used twice or bus
//! numbers that run out are refused by name, before a guest is started. A model renders itself
//! as arguments and knows the place of each of its functions, by which the guest's own
//! account of its topology is compared with it ([`compare`]), and with the machine that the
//! emulator makes of the same file ([`emulated`]).
//!
//! Drafts come from three sources: [`named()`] ones, which are the suite's fixed points;
//! [`random()`] ones, made from a seed; and platform files ([`from_platform`]).
//!
//! Not here: the rest of the machine. Memory, IOMMU, the serial port and the kernel are the
//! caller's, which gets device numbers of bus 0 for them ([`model::OWN_DEVICES`]).

pub(crate) mod compare;
pub(crate) mod emulated;
mod legal;
pub(crate) mod model;
mod named;
mod needs;
mod place;
mod platform;
mod random;
mod render;
#[cfg(test)]
mod synthetic;
mod words;

pub(crate) use model::Model;
pub(crate) use named::{IMPORTERS, NAMES, named};
pub(crate) use platform::{Exported, from_platform};
pub(crate) use random::random;
