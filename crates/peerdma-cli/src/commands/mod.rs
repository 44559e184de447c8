//! One file a command.

pub(crate) mod attach;
pub(crate) mod buffers;
pub(crate) mod capture;
pub(crate) mod compat;
pub(crate) mod copy;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod emulated;
pub(crate) mod explain;
pub(crate) mod fix;
mod hardware;
mod isolation;
pub(crate) mod lint_cmdline;
pub(crate) mod map;
pub(crate) mod matrix;
pub(crate) mod memlock;
pub(crate) mod pin;
pub(crate) mod pins;
pub(crate) mod probe;
pub(crate) mod route;
pub(crate) mod share;
pub(crate) mod topo;
pub(crate) mod trace;
pub(crate) mod verify;
pub(crate) mod vfio;
pub(crate) mod whatif;
pub(crate) mod whose;
